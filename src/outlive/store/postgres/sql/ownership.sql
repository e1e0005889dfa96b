-- Workers, claims, takeover, requests and wake-ups. Each counts on READ COMMITTED; each plan is kept, as in batch.sql.

-- name: insert_worker
-- Inserts a worker's fence row and its first beat, or finds its own earlier send; empty if its number is taken.
with fence as (
  insert into outlive.workers as w (worker, epoch, host, pid, name, lock_path, registered_at)
  values (:worker, :epoch, :host, :pid, :name, :lock_path, now())
  on conflict (worker) do update set name = excluded.name
  where (w.epoch, w.host, w.pid, w.name) = (excluded.epoch, excluded.host, excluded.pid, excluded.name)
    and w.lock_path is not distinct from excluded.lock_path
  returning w.worker
)
insert into outlive.worker_beats (worker, beat_at, expires_at)
select f.worker, now(), now() + make_interval(secs => :lease_s) from fence f
on conflict (worker) do update set beat_at = excluded.beat_at, expires_at = excluded.expires_at
returning worker

-- name: put_beat
-- Renews the beat of a worker whose epoch stands; a takeover under way deletes the beat, and this one finds nothing.
update outlive.worker_beats b
set beat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => :lease_s)
from outlive.workers w
where b.worker = :worker and w.worker = b.worker and w.epoch = :epoch
returning extract(epoch from clock_timestamp())::float8

-- name: delete_worker
-- Deletes a worker's beat and fence row and releases what it owns; a function, since that takes two snapshots.
select outlive.delete_worker(:worker, :epoch)

-- name: list_workers
-- Reads the workers that hold a lease or held one until nobody took them over.
select w.worker, w.epoch, w.host, w.pid, w.name, w.lock_path, extract(epoch from b.expires_at)::float8 as expires_at
from outlive.workers w join outlive.worker_beats b on b.worker = w.worker
order by w.registered_at, w.worker

-- name: release_strays
-- Lets go of runs that a living worker does not know of, since the reply to its claim was lost; read committed.
with fence as materialized (
  select 1 from outlive.workers where worker = :worker and epoch = :epoch for key share
),
strayed as (
  update outlive.live l set owner = null, wake_at = now(), in_user_code = false, alone = false
  from fence
  where l.owner = :worker and l.row <> all (cast(:kept as bigint[]))
  returning l.row
)
select (select count(*) from fence) as stands, (select count(*) from strayed) as released

-- name: take_over
-- Takes over dead workers; the function of the schema does it in two statements, with a snapshot each.
select t.workers, t.released, t.quarantined from outlive.take_over(cast(:dead as bigint[])) t

-- name: claim_runs
-- Takes due runs by priority, then due time, past those that a peer is taking; before them held runs that somebody has
-- asked to cancel. One index descent per priority, so that sleeping runs cost nothing. The fence is locked only if there
-- is something to take: an idle poll writes nothing. Of a queue that is limited per worker it takes what there is room
-- for; a run that still waits in a line is taken to be ended or held, never to be executed.
with rooms as materialized (
  select q.queue, q.per_worker - (
    select count(*) from outlive.live l
    where l.owner = cast(:worker as bigint) and l.queue = q.queue and l.line = 'admitted') as room
  from outlive.queues q where q.per_worker is not null
),
held as materialized (
  select l.row, l.queue, l.line from outlive.live l
  where l.row = any (array(select q.row from outlive.requests q where q.kind = 'cancel'))
    and l.owner is null and l.hold is not null
    and l.workflow = any (cast(:workflows as text[]))
    and (cast(:queues as text[]) is null or l.queue = any (cast(:queues as text[])))
    and (l.line is distinct from 'admitted' or l.queue <> all (array(select m.queue from rooms m where m.room <= 0)))
    and (l.crashes >= cast(:suspect_crashes as integer)) = cast(:suspect as boolean)
  order by l.priority, l.row
  limit case when :suspect then 1 else cast(:limit as integer) end
  for update of l skip locked
),
found as materialized (
  select h.row, cast('-infinity' as timestamptz) as due_at, h.queue, h.line, cast(0 as bigint) as place from held h
  union all
  select g.row, g.due_at, g.queue, g.line, g.place from (
    select d.row, d.wake_at as due_at, d.queue, d.line, d.crashes,
      first_value(d.crashes) over w as first, row_number() over w as place
    from outlive.live_lines p cross join lateral (
      select l.row, l.wake_at, l.crashes, l.queue, l.line from outlive.live l
      where l.owner is null and l.wake_at is not null and l.priority = p.priority and l.wake_at <= now()
        and l.workflow = any (cast(:workflows as text[]))
        and (cast(:queues as text[]) is null or l.queue = any (cast(:queues as text[])))
        and (l.line is distinct from 'admitted' or l.queue <> all (array(select m.queue from rooms m where m.room <= 0)))
        and (l.crashes >= cast(:suspect_crashes as integer)) = cast(:suspect as boolean) and l.hold is null
      order by l.wake_at
      limit cast(:limit as integer)
      for update of l skip locked
    ) d
    window w as (order by p.priority, d.wake_at)
  ) g
  -- Of suspects those that have crashed as often as the first of them: the oftener, the fewer.
  where not :suspect
    or (not exists (select from held) and g.crashes = g.first
      and g.place <= coalesce((cast(:groups as integer[]))[g.crashes], 1))
),
due as materialized (
  select n.row, n.due_at from (
    select f.row, f.due_at, f.line, f.place, row_number() over (partition by f.queue, f.line order by f.place) as turn,
      (select m.room from rooms m where m.queue = f.queue) as room
    from found f
  ) n
  where n.line is distinct from 'admitted' or n.room is null or n.turn <= n.room
  order by n.place
  limit cast(:limit as integer)
),
fence as materialized (
  select from outlive.workers w
  where w.worker = cast(:worker as bigint) and w.epoch = :epoch and exists (select from due) for key share
),
taken as (
  update outlive.live l set owner = :worker, claim = l.claim + 1, wake_at = null, hold = null, hold_reason = null,
    alone = :suspect, in_user_code = (l.line in ('delayed', 'waiting')) is not true,
    started_at = case when l.line in ('delayed', 'waiting') then l.started_at else coalesce(l.started_at, now()) end
  from due d
  where l.row = any (array(select x.row from due x)) and l.row = d.row and exists (select from fence)
  returning l.row, l.claim, l.crashes, l.alone, coalesce(l.started_at, now()) as started_at, d.due_at,
    (l.line in ('delayed', 'waiting')) is true as ending, l.line is not null as lined
),
stands as (
  select case when exists (select from due) then exists (select from fence)
    else exists (select from outlive.workers w where w.worker = :worker and w.epoch = :epoch) end as stands
)
select s.stands, t.row, r.id, r.workflow, r.version,
  outlive.read_payload(r.row, r.input) as input,
  r.codec, t.claim, t.crashes, t.claim = 1 as fresh, t.alone,
  extract(epoch from t.started_at)::float8 as started_at, extract(epoch from r.deadline_at)::float8 as deadline_at,
  r.parent, r.parent_key, r.queue, r.priority, r.key, r.attributes,
  exists (select from outlive.requests q where q.row = t.row) as asked, r.generation, r.salt,
  r.continued, extract(epoch from r.continued_at)::float8 as began_at, t.ending, t.lined
from stands s left join (
  taken t join outlive.runs r on r.row = any (array(select x.row from taken x)) and r.row = t.row) on true
order by t.due_at = '-infinity' desc, r.priority, t.due_at, t.row

-- name: has_suspects
-- Whether a run waits for a worker that executes nothing else; read from a small partial index.
select exists (
  select 1 from outlive.live l where l.owner is null and l.hold is null and l.crashes >= 2 and l.wake_at <= now())

-- name: next_due
-- Reads when the next run that nobody owns is due; one index descent per priority.
select extract(epoch from min(d.wake_at))::float8
from outlive.live_lines p cross join lateral (
  select l.wake_at from outlive.live l
  where l.owner is null and l.wake_at is not null and l.priority = p.priority
  order by l.wake_at limit 1
) d

-- name: insert_request
-- Records a request for an unfinished run, once of a kind, of decisions the last; empty if there is no such run.
with run as (select r.row, r.status from outlive.runs r where r.id = :id),
added as (
  insert into outlive.requests as q (row, kind, payload, created_at)
  select run.row, cast(:kind as text), cast(:payload as text), now() from run where run.status is null
  on conflict (row, kind) do update set payload = excluded.payload where q.kind = 'resolve'
)
select run.row, run.status from run

-- name: wake_requested
-- Makes a run with a request due where nobody owns it; after the request's commit.
update outlive.live set wake_at = now()
where row = :row and owner is null and hold is null and (wake_at is null or wake_at > now())

-- name: list_requests
-- Reads the open requests for a worker's runs, through the few open ones; empty only if its fence is lost.
select q.request, q.row, q.kind, q.payload
from outlive.workers w left join (
  select q.* from outlive.requests q
  where (select l.owner from outlive.live l where l.row = q.row) = cast(:worker as bigint)) q on true
where w.worker = cast(:worker as bigint) and w.epoch = :epoch
order by q.request

-- name: withdraw_pause
-- Drops the request to pause a run; waits for the owner who is just writing that, and its hold, and then drops nothing.
delete from outlive.requests q
where q.row = (select r.row from outlive.runs r where r.id = :id) and q.kind = 'pause' returning q.row

-- name: resume_run
-- Makes a held run claimable, or puts it back in line, without crashes; with a claim, if nobody has owned it since. Empty
-- if unknown. Its snapshot is after withdraw_pause.
with run as (select r.row from outlive.runs r where r.id = :id),
resumed as (
  update outlive.live l set hold = null, hold_reason = null, crashes = 0,
    wake_at = case when l.line in ('delayed', 'waiting')
      then (select r.deadline_at from outlive.runs r where r.row = l.row) else now() end
  where l.row = (select run.row from run) and l.hold is not null and l.owner is null
    and (cast(:claim as integer) is null or l.claim = cast(:claim as integer))
  returning l.row
)
select exists (select from resumed) as resumed from run

-- name: wake_run
-- Makes waiting runs due, after the commit of what they wait for. Locks in the order of rows: two of these never deadlock.
with waiting as (
  select l.row from outlive.live l
  where l.row = any (cast(:rows as bigint[])) and l.owner is null and l.hold is null and l.started_at is not null
    and (l.wake_at is null or l.wake_at > now())
  order by l.row for update
)
update outlive.live l set wake_at = now() where l.row = any (array(select w.row from waiting w))

-- name: sweep_runs
-- Makes due what a process that died in between has not woken, of children those that ended lately; drops requests that
-- came as their run ended.
with awaited as (
  select c.parent as row from outlive.runs c
  where c.parent_key is not null and c.status is not null and c.finished_at >= now() - make_interval(secs => :since_s)
    and (select e.outcome from outlive.entries e where e.row = c.parent and e.key = c.parent_key) = 'started'
),
stalled as (
  select l.row from outlive.live l
  where l.row = any (array(select a.row from awaited a union select q.row from outlive.requests q))
    and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
  order by l.row for update of l skip locked
),
orphans as (
  delete from outlive.requests q where (select l.row from outlive.live l where l.row = q.row) is null
)
update outlive.live l set wake_at = now() where l.row = any (array(select s.row from stalled s)) returning l.row
