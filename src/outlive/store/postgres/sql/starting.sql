-- Starts that look first for what stands in their way, each in a transaction of its own, READ COMMITTED: what it looks at is
-- locked, and each statement sees what was committed before.

-- name: insert_queue
-- Makes the row of a queue, so that it can be locked.
insert into outlive.queues (queue) values (:queue) on conflict do nothing

-- name: lock_queue
-- Locks a queue: nobody counts it at the same time.
select q.limits::text as limits from outlive.queues q where q.queue = :queue for update

-- name: lock_once
-- Lets one transaction at a time look for the run that there may be once of a workflow and key.
select pg_advisory_xact_lock(hashtextextended(cast(:workflow as text) || ' ' || cast(:key as text), 7957707418634216))

-- name: find_debounced
-- Locks the run of a key that is still waiting for its arguments to settle.
select l.row, r.id, r.workflow from outlive.live l join outlive.runs r on r.row = l.row
where r.workflow = :workflow and l.key = :key and l.once = 'debounce' and l.line in ('delayed', 'waiting')
  and not exists (select from outlive.requests q where q.row = l.row and q.kind = 'cancel')
order by l.row limit 1
for update of l

-- name: postpone_run
-- Delays it again, up to its cap.
update outlive.live l set workflow = :claim_name, line = 'delayed',
  line_at = least(now() + make_interval(secs => cast(:wait_s as float8)), l.cap_at)
where l.row = :row

-- name: forget_input
-- Deletes the arguments that are about to be replaced, where they are large.
delete from outlive.blobs b where b.row = :row and b.name = (select r.input from outlive.runs r where r.row = :row)

-- name: replace_input
-- Gives a run that has not begun other arguments.
update outlive.runs r set input = :input, codec = :codec, version = :version, pinned = :pinned,
  attributes = :attributes
where r.row = :row

-- name: insert_blob
-- Inserts them, where they are large.
insert into outlive.blobs (row, name, text) values (:row, :name, :text) on conflict (row, name) do nothing

-- name: delete_attributes
-- Forgets what the attributes of a run were searched by.
delete from outlive.run_attributes a where a.row = :row

-- name: insert_attribute
-- Notes what one of them is searched by.
insert into outlive.run_attributes (row, name, value) values (:row, :name, :value)

-- name: list_singletons
-- Reads the unfinished runs that shall be the only ones of their workflow and key, the one that runs first.
select l.row, r.id, r.workflow from outlive.live l join outlive.runs r on r.row = l.row
where r.workflow = :workflow and l.key = :key and l.once = 'singleton'
order by l.started_at nulls last, l.row

-- name: mark_singleton
-- Notes the same for when it has ended.
update outlive.runs r set singleton = true where r.row = :row

-- name: lock_singleton
-- Lets one transaction at a time look whether a singleton, or a fork of it, may be unfinished; the lock is that of lock_once.
select pg_advisory_xact_lock(hashtextextended(r.workflow || ' ' || r.key, 7957707418634216))
from outlive.runs r where r.row = :row and r.singleton

-- name: find_singleton
-- Reads who stands in the way of a singleton, or a fork of it, that is about to be unfinished.
select s.id from outlive.runs r
join outlive.live l on l.key = r.key and l.once = 'singleton'
join outlive.runs s on s.row = l.row and s.workflow = r.workflow
where r.row = :row and r.singleton
order by l.started_at nulls last, l.row limit 1

-- name: count_backlog
-- Counts who waits for a queue, no further than it matters.
select count(*) from (
  select from outlive.live l where l.queue = :queue and l.line in ('delayed', 'waiting') limit :backlog) c

-- name: find_oldest
-- Locks the run that has waited longest for a queue and that nobody looks at now.
select l.row, r.parent from outlive.live l join outlive.runs r on r.row = l.row
where l.queue = :queue and l.line in ('delayed', 'waiting') and l.owner is null
order by l.line_at, l.row limit 1
for update of l skip locked

-- name: drop_run
-- Ends a run that has not begun.
with dropped as (
  delete from outlive.live l where l.row = :row returning l.row
),
forgotten as (
  delete from outlive.requests q where q.row = :row
)
update outlive.runs r set status = 'cancelled', error = :error, finished_at = now()
where r.row = (select d.row from dropped d)

-- name: mark_once
-- Notes of a new run what there may be one of, and how long it is delayed for that.
update outlive.live l set once = :once,
  line = case when cast(:is_delayed as boolean) then 'delayed' else l.line end,
  line_at = case when cast(:is_delayed as boolean) then now() + make_interval(secs => least(cast(:wait_s as float8), cast(:cap_s as float8))) else l.line_at end,
  wake_at = case when cast(:is_delayed as boolean) then (select r.deadline_at from outlive.runs r where r.row = l.row) else l.wake_at end,
  cap_at = now() + make_interval(secs => cast(:cap_s as float8))
where l.row = :row

-- name: find_bounded
-- Tells whether the backlog of a queue is bounded.
select exists (select from outlive.queues q where q.queue = :queue and q.backlog is not null)
