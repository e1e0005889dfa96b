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
-- Counts the unfinished runs of each version of a workflow, or of all, by status; a run that was started by name has
-- the version of the code that made its journal. One snapshot.
select r.workflow,
  coalesce(r.version, (select min(e.noted_version) from outlive.entries e where e.row = r.row)) as version, r.pinned,
  outlive.run_status(null, l.hold, l.owner,
    case when l.line in ('delayed', 'waiting') then null else l.started_at end, coalesce(l.line_at, l.wake_at)) as status, count(*) as runs
from outlive.live l join outlive.runs r on r.row = l.row
where cast(:workflow as text) is null or r.workflow = cast(:workflow as text)
group by 1, 2, 3, 4
order by 1, min(r.row), 4

-- name: continue_run
-- Begins the next generation of runs that the worker keeps, in the statement of a batch: their journals move to the past,
-- of which the last generations stay, with what belongs to their entries. None of their entries is in the same batch.
continues as materialized (
  select g.* from json_to_recordset(cast(:continue as json)) as g (
    row bigint, claim integer, generation integer, continued integer, version text, input text, at float8,
    close_reason text)
),
standing as materialized (
  select r.row, r.generation, r.version, r.input, g.generation - cast(:kept as integer) as last_gone
  from continues g join outlive.runs r on r.row = any (array(select x.row from continues x)) and r.row = g.row
  where r.generation = g.generation and exists (select from fence) and r.row <> all (array(select f.row from refused f))
    and (select (l.owner, l.claim) = (cast(:worker as bigint), g.claim) from outlive.live l where l.row = r.row)
),
left_behind as (
  insert into outlive.generations (row, generation, action, ended_at, version, input)
  select s.row, s.generation, 'continue', now(), s.version, s.input from standing s
),
begun as (
  update outlive.runs r set generation = g.generation + 1, continued = g.continued, continued_at = to_timestamp(g.at),
    version = g.version, input = g.input, salt = null
  from continues g
  where r.row = any (array(select s.row from standing s)) and r.row = g.row
),
refreshed as (
  update outlive.live l set crashes = 0, alone = false, in_user_code = true
  where l.row = any (array(select s.row from standing s))
),
moved as (
  delete from outlive.entries e where e.row = any (array(select s.row from standing s))
  returning e.row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome, e.value, e.error, e.attempts, e.noted_version,
    e.generation, e.started_at, e.finished_at
),
past as (
  insert into outlive.past_entries (row, last_generation, key, seq, kind, name, digest, outcome, value, error, attempts,
    noted_version, generation, started_at, finished_at)
  select m.row, s.generation, m.key, m.seq, m.kind, m.name, m.digest, m.outcome, m.value, m.error, m.attempts,
    m.noted_version, m.generation, m.started_at, m.finished_at
  from moved m join standing s on s.row = m.row
),
gone as (
  delete from outlive.past_entries p using standing s
  where p.row = any (array(select x.row from standing x)) and p.row = s.row and p.last_generation <= s.last_gone
  returning p.row, p.key, p.value
),
forgotten_generations as (
  delete from outlive.generations n using standing s
  where n.row = any (array(select x.row from standing x)) and n.row = s.row and n.generation <= s.last_gone
  returning n.row, n.input
),
unused as (
  delete from outlive.blobs b
  using (select g.row, g.value as name from gone g union select f.row, f.input from forgotten_generations f) x
  where b.row = any (array(select s.row from standing s)) and (b.row, b.name) = (x.row, x.name)
    and not exists (
      select from outlive.past_entries p join standing s on s.row = p.row
      where p.row = b.row and p.value = b.name and p.last_generation > s.last_gone)
    and not exists (
      select from outlive.generations n join standing s on s.row = n.row
      where n.row = b.row and n.input = b.name and n.generation > s.last_gone)
    and not exists (select from moved m where m.row = b.row and m.value = b.name)
    and not exists (select from standing s where s.row = b.row and s.input = b.name)
    and not exists (select from continues g where g.row = b.row and g.input = b.name)
),
gone_messages as (
  delete from outlive.messages m using gone g
  where m.row = any (array(select s.row from standing s)) and (m.row, m.received_by) = (g.row, g.key)
),
gone_expenses as (
  delete from outlive.budget_ledger l using standing s
  where l.row = any (array(select x.row from standing x)) and l.row = s.row and l.generation <= s.last_gone and l.folded
),
gone_accounts as (
  delete from outlive.budget_accounts a using standing s
  where a.row = any (array(select x.row from standing x)) and a.row = s.row and a.generation <= s.last_gone
),
gone_promises as (
  delete from outlive.promises p using gone g
  where p.row = any (array(select s.row from standing s)) and (p.row, p.key) = (g.row, g.key)
),
asked_again as (
  insert into outlive.requests (row, kind, payload, created_at)
  select c.row, 'cancel', g.close_reason, now()
  from outlive.runs c join continues g on g.row = c.parent and g.close_reason is not null
  where c.parent = any (array(select s.row from standing s)) and c.parent_close = 'cancel' and c.status is null
  on conflict (row, kind) do nothing
)
