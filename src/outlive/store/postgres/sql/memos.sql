-- What all processes may know for a while. Each block is a statement of its own.

-- name: read_memo
-- A memo that has not passed.
select value, extract(epoch from until - now())::float8 as left_s from outlive.memos where name = :name and until > now()

-- name: take_memo
-- Whoever makes its value from now on; nothing if it has one, or somebody who lives is making it. The row's lock decides
-- between two that come at once: the second sees what the first has written.
insert into outlive.memos as m (name, maker, worker, epoch, until)
values (:name, :maker, :worker, :epoch, now() + make_interval(secs => :for_s))
on conflict (name) do update
set maker = excluded.maker, worker = excluded.worker, epoch = excluded.epoch, until = excluded.until, value = null
where m.until <= now() or m.value is null and (m.maker = excluded.maker or not exists (
  select from outlive.workers w where w.worker = m.worker and w.epoch = m.epoch))
returning 1

-- name: put_memo
-- Sets a value and its end; nothing if another maker has taken it meanwhile.
insert into outlive.memos as m (name, maker, until, value)
values (:name, :maker, now() + make_interval(secs => :for_s), :value)
on conflict (name) do update set until = excluded.until, value = excluded.value
where m.maker = excluded.maker or m.until <= now()

-- name: forget_memos
-- Some that have passed; those that somebody else is writing are left to the next.
delete from outlive.memos where name in (
  select name from outlive.memos where until <= now() order by until limit :limit for update skip locked)
