-- Queues and their lines. Each counts on READ COMMITTED; what takes several snapshots is a function of the schema.

-- name: claim_line
-- Admits runs from the lines and gives them to the worker; a function, since slots are counted behind a lock.
select c.*, c.run_row as row from outlive.claim_line(
  cast(:worker as bigint), cast(:epoch as bigint), cast(:workflows as text[]), cast(:queues as text[]),
  cast(:limit as integer), cast(:after as text)) c

-- name: put_queue
-- Sets what a queue is held to; what is null stays as it is.
insert into outlive.queues as q (queue, declared, changed, paused)
values (
  :queue, coalesce(cast(cast(:declared as text) as jsonb), '{}'), coalesce(cast(cast(:changed as text) as jsonb), '{}'),
  coalesce(cast(:paused as boolean), false))
on conflict (queue) do update set
  declared = coalesce(cast(cast(:declared as text) as jsonb), q.declared),
  changed = case when cast(:reset as boolean) then '{}' else q.changed end
    || coalesce(cast(cast(:changed as text) as jsonb), '{}'),
  paused = coalesce(cast(:paused as boolean), q.paused)
where cast(:declared as text) is null or q.declared <> cast(cast(:declared as text) as jsonb)

-- name: read_line
-- Reads what stands in front of a run that waits in a line. One snapshot.
select
  (select count(*) from outlive.live n
    where n.line = 'waiting' and n.owner is null and n.hold is null and n.queue = l.queue and n.priority <= l.priority
      and (n.priority < l.priority or (n.key = l.key and (n.line_at, n.row) < (l.line_at, l.row)))) as ahead,
  (select count(*) from outlive.live n
    where n.line = 'waiting' and n.owner is null and n.hold is null and n.queue = l.queue and n.priority = l.priority
      and n.key <> l.key) as beside,
  (select r.id from outlive.live a join outlive.runs r on r.row = a.row
    where a.queue = l.queue and a.line = 'admitted' order by a.started_at, a.row limit 1) as oldest,
  (select count(*) from outlive.live a where a.queue = l.queue and a.key = l.key and a.line = 'admitted') as of_key,
  (select r.id from outlive.live a join outlive.runs r on r.row = a.row
    where a.queue = l.queue and a.key = l.key and a.line = 'admitted' order by a.started_at, a.row limit 1) as oldest_of_key,
  case when cast(:rate_count as integer) is not null then extract(epoch from (
    select a.at from outlive.admissions a where a.queue = l.queue
    order by a.at desc offset cast(:rate_count as integer) - 1 limit 1))::float8 + cast(:rate_s as float8) end as rate_at,
  case when cast(:key_count as integer) is not null then extract(epoch from (
    select a.at from outlive.admissions a where a.queue = l.queue and a.key = l.key
    order by a.at desc offset cast(:key_count as integer) - 1 limit 1))::float8 + cast(:key_s as float8) end as key_rate_at,
  (select min((select count(*) from outlive.live a where a.owner = b.worker and a.queue = l.queue and a.line = 'admitted'))
    from outlive.worker_beats b where b.expires_at >= now()) as least_owned,
  case when l.once = 'singleton' and l.line = 'delayed' then (
    select s.id from outlive.live o join outlive.runs s on s.row = o.row
    where o.once = 'singleton' and o.key = l.key and o.row <> l.row
      and s.workflow = (select r.workflow from outlive.runs r where r.row = l.row)
    order by o.started_at nulls last, o.row limit 1) end as replaced
from outlive.live l where l.row = :row

-- name: reschedule_run
-- Moves the start of a run that waits for it, in a line or outside; without a delay or an instant only its priority. It
-- never starts after the cap of a debounced one, joins its line at once if that is due (but for one that replaces another of
-- its key), and keeps a place that it has there. Its deadline stays. Empty if there is no such run.
with run as (
  select r.row, r.deadline_at, case when cast(:delay_s as float8) is null then to_timestamp(cast(:at as float8))
    else now() + make_interval(secs => cast(:delay_s as float8)) end as due
  from outlive.runs r where r.id = :id
),
moved as (
  update outlive.live l set priority = coalesce(cast(:priority as integer), l.priority),
    line = case when l.line is null or g.due is null then l.line
      when least(g.due, l.cap_at) <= now() and (l.line = 'waiting' or l.once is distinct from 'singleton') then 'waiting'
      else 'delayed' end,
    line_at = case when l.line is null or g.due is null then l.line_at
      when least(g.due, l.cap_at) <= now() then least(l.line_at, now()) else least(g.due, l.cap_at) end,
    wake_at = case when l.line is not null or g.due is null then l.wake_at
      when g.due <= now() then least(l.wake_at, now()) else least(g.due, g.deadline_at) end
  from run g
  where l.row = (select run.row from run) and l.owner is null
    and (l.line in ('delayed', 'waiting') or (l.line is null and l.started_at is null))
    and not exists (select from outlive.requests q where q.row = l.row and q.kind = 'cancel')
  returning l.row
)
select run.row, exists (select from moved) as moved from run

-- name: set_priority
-- Sets the same priority where anyone reads it.
update outlive.runs r set priority = :priority where r.row = :row

-- name: list_queues
-- All queues and what stands in them. One snapshot.
select n.queue, coalesce(q.limits, '{}')::text as limits, coalesce(q.changed, '{}')::text as changed,
  coalesce(q.paused, false) as paused,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'delayed') as delayed,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'waiting') as waiting,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'admitted') as running
from (
  select q.queue from outlive.queues q union select l.queue from outlive.live l where l.line is not null
) n left join outlive.queues q on q.queue = n.queue
where n.queue <> '' and (cast(:queue as text) is null or n.queue = cast(:queue as text))
order by n.queue
