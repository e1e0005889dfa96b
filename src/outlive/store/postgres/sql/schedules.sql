-- Schedules and the runs that they start. Each counts on READ COMMITTED. The first three are parts of one statement, as in
-- batch.sql: the row of the schedule stands for the fence from which everything derives.

-- name: insert_schedule
-- Inserts a schedule whose name is free.
fence as (
  insert into outlive.schedules (
    name, revision, paused, next_at, last_at, created_at, skipped, waiting, running, declared, changed)
  values (
    cast(:name as text), cast(:revision as bigint), cast(:paused as boolean), to_timestamp(cast(:next_at as float8)),
    to_timestamp(cast(:last_at as float8)), to_timestamp(cast(:created_at as float8)), cast(:skipped as bigint),
    cast(:waiting as float8[]), cast(:running as bigint[]), cast(:declared as text), cast(:changed as text))
  on conflict (name) do nothing
  returning name as schedule
)

-- name: update_schedule
-- Compare and set: nothing if somebody else has changed the schedule since it was read.
fence as (
  update outlive.schedules s set
    revision = cast(:revision as bigint), paused = cast(:paused as boolean),
    next_at = to_timestamp(cast(:next_at as float8)), last_at = to_timestamp(cast(:last_at as float8)),
    created_at = to_timestamp(cast(:created_at as float8)), skipped = cast(:skipped as bigint),
    waiting = cast(:waiting as float8[]), running = cast(:running as bigint[]),
    declared = cast(:declared as text), changed = cast(:changed as text)
  where s.name = cast(:name as text) and s.revision = cast(:expected as bigint)
  returning s.name as schedule
)

-- name: cancel_runs
-- Asks unfinished runs to cancel, those that start with this statement included; their wake-up is another statement.
asked as (
  insert into outlive.requests (row, kind, payload, created_at)
  select g.row, 'cancel', cast(:reason as text), now()
  from unnest(cast(:cancels as bigint[])) as g (row), fence
  where g.row in (select s.row from new_runs s)
    or exists (select from outlive.live l where l.row = g.row)
  on conflict (row, kind) do nothing
)

-- name: delete_schedule
-- Deletes a schedule; its runs stay.
delete from outlive.schedules where name = :name returning name

-- name: select_schedules
-- Reads schedules; a where_… block follows. One snapshot.
select s.name, s.revision, s.declared, s.changed, s.paused, extract(epoch from s.next_at)::float8 as next_at,
  extract(epoch from s.last_at)::float8 as last_at, s.waiting, s.skipped,
  extract(epoch from s.created_at)::float8 as created_at,
  array(select l.row from outlive.live l where l.row = any (s.running)) as unfinished,
  extract(epoch from clock_timestamp())::float8 as now
from outlive.schedules s

-- name: where_schedule
-- One schedule by name, or all.
where cast(:name as text) is null or s.name = :name
order by s.name

-- name: where_schedule_due
-- Those with a tick to act on: it is due, or waits for runs of which none is unfinished any more.
where not s.paused and s.name <> all (cast(:but as text[]))
  and (s.next_at <= now()
    or s.waiting <> '{}' and not exists (select from outlive.live l where l.row = any (s.running)))
order by s.next_at limit :limit

-- name: next_tick
-- Reads in how many seconds there is something to act on, null if there is nothing in sight.
select extract(epoch from least(
  (select min(s.next_at) from outlive.schedules s
    where not s.paused and s.next_at is not null and s.name <> all (cast(:but as text[]))),
  (select now() from outlive.schedules s
    where not s.paused and s.waiting <> '{}' and s.name <> all (cast(:but as text[]))
      and not exists (select from outlive.live l where l.row = any (s.running))
    limit 1)
) - now())::float8
