-- Which runs a query means: parts that store/search.py puts together. A walk goes through an index in the order of rows and
-- ends at the limit; conditions stand behind it. `{…}` is filled in, `:value` gets a name of its own. One snapshot each.
-- CROSS JOIN keeps the order of the tables, and a `+` keeps a condition from choosing another index than the walk's.

-- name: walk_runs
-- Along the runs, or an index of theirs that the first condition names.
SELECT r.row FROM ol_runs r

-- name: walk_live
-- Along the unfinished runs alone.
SELECT l.row FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row

-- name: walk_attributes
-- Along the runs that have a value of an attribute.
SELECT a.row FROM ol_run_attributes a CROSS JOIN ol_runs r ON r.row = a.row

-- name: join_live
-- What the status of an unfinished run is derived from.
LEFT JOIN ol_live l ON l.row = r.row

-- name: ordered_row
-- What the indexes of search are ordered by: every index of SQLite ends with the row.
{row}

-- name: merge_walks
-- Several walks as one.
SELECT row FROM ({walks})

-- name: end_walk
-- The order and the end of a walk.
ORDER BY {row} {direction} LIMIT :limit

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
{column} = :value

-- name: has_queue
-- The same for a queue; the index leaves out the many runs that are in none.
r.queue = :value AND r.queue <> ''

-- name: has_ended
-- The same for an end that is rare; spelled out, and twice, so that it is seen to be in the index.
r.status = '{status}' AND r.status IN ('failed', 'cancelled')

-- name: has_parent
-- The same for the children of a run.
r.parent = (SELECT p.row FROM ol_runs p WHERE p.id = :value)

-- name: has_attribute
-- The same for the index of attributes.
a.name = :name AND a.value = :value

-- name: is_one_of
-- One of some values.
+{column} IN (SELECT value FROM json_each(:values))

-- name: begins_with
-- Text that begins so.
substr({column}, 1, length(:prefix)) = :prefix

-- name: is_present
-- Anything at all.
+{column} IS NOT NULL

-- name: is_child_of
-- Children of some runs.
+r.parent IN (SELECT p.row FROM ol_runs p WHERE p.id IN (SELECT value FROM json_each(:values)))

-- name: carries_value
-- Runs with one of some values of an attribute.
EXISTS (SELECT 1 FROM ol_run_attributes a
    WHERE a.row = r.row AND a.name = :name AND +a.value IN (SELECT value FROM json_each(:values)))

-- name: carries_name
-- Runs with an attribute, whatever its value.
EXISTS (SELECT 1 FROM ol_run_attributes a WHERE a.row = r.row AND a.name = :name)

-- name: has_final_status
-- Runs that have ended so.
+r.status IN (SELECT value FROM json_each(:statuses))

-- name: has_status
-- Runs of these statuses, ended or not.
{status} IN (SELECT value FROM json_each(:statuses))

-- name: is_asked_to_pause
-- Runs whose owner has not carried out a pause yet.
EXISTS (SELECT 1 FROM ol_requests q WHERE q.row = r.row AND q.kind = 'pause')

-- name: since_time
-- From an instant on.
+{column} >= :at

-- name: until_time
-- Before an instant.
+{column} < :at

-- name: read_found
-- The runs that were found: a condition of select_runs.
WHERE r.row IN ({walk})

-- name: list_ids
-- Rows and ids of the runs that were found.
SELECT r.row, r.id FROM ol_runs r WHERE r.row IN ({walk}) ORDER BY r.row {direction}

-- name: count_runs
-- How many were found.
SELECT count(*) FROM ({walk})
