-- Runs and journals as anyone may read them; one snapshot each.

-- name: load_entries
-- Reads all entries of some runs, by row or public id, started ones last.
select e.row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome,
  outlive.read_payload(e.row, e.value) as value,
  e.error, e.attempts,
  extract(epoch from e.started_at)::float8 as started_at, extract(epoch from e.finished_at)::float8 as finished_at,
  e.noted_version, e.generation
from outlive.entries e
where e.row = any (cast(:rows as bigint[]) || array(select r.row from outlive.runs r where r.id = cast(:id as text)))
order by e.row, e.seq nulls last, e.started_at, e.key

-- name: select_runs
-- Reads runs as anyone may see them; the condition, which names few of them, follows.
select v.* from (
  select
    r.row, r.id, r.workflow, r.version,
    outlive.run_status(r.status, l.hold, l.owner,
      case when l.line in ('delayed', 'waiting') then null else l.started_at end, coalesce(l.line_at, l.wake_at)) as status,
    r.queue, r.priority, r.key, r.attributes,
    outlive.read_payload(r.row, r.input) as input,
    outlive.read_payload(r.row, r.output) as output,
    r.error, r.codec,
    (select p.id from outlive.runs p where p.row = r.parent) as parent_id, r.parent_close,
    extract(epoch from r.created_at)::float8 as created_at,
    extract(epoch from coalesce(r.started_at, l.started_at))::float8 as started_at,
    extract(epoch from r.finished_at)::float8 as finished_at, l.hold_reason, l.owner as worker,
    coalesce(l.crashes, 0) as crashes, extract(epoch from l.wake_at)::float8 as wake_at,
    r.generation, extract(epoch from r.deadline_at)::float8 as deadline_at, r.forked_from, r.pinned, r.salt, r.continued,
    extract(epoch from coalesce(r.continued_at, r.started_at, l.started_at))::float8 as began_at,
    r.parent_key, coalesce(l.claim, r.claim) as claim, l.line, extract(epoch from l.line_at)::float8 as line_at, l.once,
    extract(epoch from l.cap_at)::float8 as cap_at
  from outlive.runs r
  left join lateral (select * from outlive.live n where n.row = r.row offset 0) l on true

-- name: where_id
-- One run.
where r.id = :id

-- name: where_parent
-- The children of a run, in no order.
where r.parent = :parent and (not cast(:unfinished as boolean) or r.status is null)

-- name: list_ended
-- Reads those of some runs that have ended, are held or are not there.
select r.row, r.id, r.workflow, coalesce(r.status, l.hold) as status,
  outlive.read_payload(r.row, r.output) as output,
  coalesce(r.error, l.hold_reason) as error,
  r.codec
from outlive.runs r
left join outlive.live l on l.row = r.row and l.row = any (cast(:rows as bigint[]))
where r.row = any (cast(:rows as bigint[])) and (r.status is not null or l.hold is not null)
union all
select w.row, '', '', 'gone', null, null, ''
from unnest(cast(:rows as bigint[])) as w (row)
where (w.row in (select r.row from outlive.runs r where r.row = any (cast(:rows as bigint[])))) is not true
