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
