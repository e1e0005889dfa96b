-- Which version of its code a run is tied to. Each counts on READ COMMITTED.

-- name: pin_runs
-- Ties runs that the worker has just claimed, and that no code has executed yet, to the version it executes them with.
with fence as materialized (
  select from outlive.workers w where w.worker = cast(:worker as bigint) and w.epoch = cast(:epoch as bigint) for key share
),
given as materialized (
  select g.* from unnest(cast(:rows as bigint[]), cast(:versions as text[])) as g (row, version)
),
renamed as (
  update outlive.live l set workflow = outlive.claim_name(l.workflow, g.version, true)
  from given g
  where l.row = any (cast(:rows as bigint[])) and l.row = g.row and l.owner = cast(:worker as bigint)
    and strpos(l.workflow, '#') = 0 and exists (select from fence)
  returning l.row
),
pinned as (
  update outlive.runs r set version = g.version, pinned = true
  from given g
  where r.row = any (array(select n.row from renamed n)) and r.row = g.row
)
select (select count(*) from fence) as fenced

-- name: count_versions
-- Counts the unfinished runs of each version of a workflow, or of all, by status. One snapshot.
select r.workflow, r.version, r.pinned,
  outlive.run_status(null, l.hold, l.owner, l.started_at, l.wake_at) as status, count(*) as runs
from outlive.live l join outlive.runs r on r.row = l.row
where cast(:workflow as text) is null or r.workflow = cast(:workflow as text)
group by 1, 2, 3, 4
order by 1, min(r.row), 4
