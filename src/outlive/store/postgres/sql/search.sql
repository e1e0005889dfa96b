-- Which runs a query means: parts that store/search.py puts together. A walk goes through an index in the order of rows and
-- ends at the limit; conditions stand behind it. `{…}` is filled in, `:value` gets a name of its own. One snapshot each.

-- name: walk_runs
-- Along the runs, or an index of theirs that the first condition names.
select r.row from outlive.runs r

-- name: walk_live
-- Along the unfinished runs alone.
select l.row from outlive.live l cross join lateral (select * from outlive.runs n where n.row = l.row offset 0) r

-- name: walk_attributes
-- Along the runs that have a value of an attribute.
select a.row from outlive.run_attributes a cross join lateral (select * from outlive.runs n where n.row = a.row offset 0) r

-- name: join_live
-- What the status of an unfinished run is derived from.
left join lateral (select * from outlive.live n where n.row = r.row offset 0) l on true

-- name: ordered_row
-- What the indexes of search are ordered by; see the migration.
({row} + 0)

-- name: merge_walks
-- Several walks as one.
select u.row from ({walks}) u

-- name: end_walk
-- The order and the end of a walk.
order by {row} {direction} limit :limit

-- name: after_row
-- Behind the last run seen.
{row} {beyond} :after

-- name: from_row
-- Not before the first row number that a time can have.
{row} >= :first

-- name: before_row
-- Before the first row number that a time can have.
{row} < :last

-- name: has_value
-- The condition that a walk goes along.
{column} = cast(:value as text)

-- name: has_queue
-- The same for a queue; the index leaves out the many runs that are in none.
r.queue = cast(:value as text) and r.queue <> ''

-- name: has_ended
-- The same for an end that is rare; spelled out, since the index has no other.
r.status = '{status}'

-- name: has_parent
-- The same for the children of a run.
r.parent = (select p.row from outlive.runs p where p.id = cast(:value as text))

-- name: has_attribute
-- The same for the index of attributes.
a.name = cast(:name as text) and a.value = cast(:value as text)

-- name: is_one_of
-- One of some values.
{column} = any (cast(:values as text[]))

-- name: begins_with
-- Text that begins so.
starts_with({column}, cast(:prefix as text))

-- name: is_present
-- Anything at all.
{column} is not null

-- name: is_child_of
-- Children of some runs.
r.parent = any (array(select p.row from outlive.runs p where p.id = any (cast(:values as text[]))))

-- name: carries_value
-- Runs with one of some values of an attribute.
exists (select from outlive.run_attributes a
  where a.row = r.row and a.name = cast(:name as text) and a.value = any (cast(:values as text[])))

-- name: carries_name
-- Runs with an attribute, whatever its value.
exists (select from outlive.run_attributes a where a.row = r.row and a.name = cast(:name as text))

-- name: has_final_status
-- Runs that have ended so.
r.status = any (cast(:statuses as text[]))

-- name: has_status
-- Runs of these statuses, ended or not.
outlive.run_status(r.status, l.hold, l.owner,
  case when l.line in ('delayed', 'waiting') then null else l.started_at end, coalesce(l.line_at, l.wake_at)) = any (cast(:statuses as text[]))

-- name: is_asked_to_pause
-- Runs whose owner has not carried out a pause yet.
exists (select from outlive.requests q where q.row = r.row and q.kind = 'pause')

-- name: since_time
-- From an instant on.
{column} >= to_timestamp(:at)

-- name: until_time
-- Before an instant.
{column} < to_timestamp(:at)

-- name: read_found
-- The runs that were found: a condition of select_runs.
where r.row = any (array({walk}))

-- name: list_ids
-- Rows and ids of the runs that were found.
select r.row, r.id from outlive.runs r where r.row = any (array({walk})) order by r.row {direction}

-- name: count_runs
-- How many were found.
select count(*) from ({walk}) f
