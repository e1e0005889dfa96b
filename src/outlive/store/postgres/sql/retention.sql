-- What may be pruned. A run that has ended changes no more unless it is reopened, which locks its row.

-- name: select_prunable
-- Reads of finished runs what decides whether they may go; a condition that names few of them follows.
select r.row, r.parent, (select count(*) from outlive.runs c where c.parent = r.row) as children,
  exists (select from outlive.live l where l.row = r.parent) and not exists (
    select from outlive.entries e
    where e.row = r.parent and e.key = r.parent_key and e.outcome <> 'started'
      and (e.kind = 'child' or r.parent_close = 'abandon')
  ) as awaited
from outlive.runs r

-- name: find_finished
-- Locks those of some runs that have ended before an instant, in the order of rows: two that prune never deadlock.
select r.row from outlive.runs r
where r.row = any (cast(:rows as bigint[])) and r.status is not null and r.finished_at < to_timestamp(:finished_before)
order by r.row for update

-- name: where_rows
-- Some runs.
where r.row = any (cast(:rows as bigint[]))
