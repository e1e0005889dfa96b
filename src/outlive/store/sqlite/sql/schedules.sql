-- Schedules and the runs that they start. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: insert_schedule
-- A schedule whose name is free.
INSERT INTO ol_schedules
    (name, revision, paused, next_at, last_at, created_at, skipped, waiting, running, declared, changed)
VALUES
    (:name, :revision, :paused, :next_at, :last_at, :created_at, :skipped, :waiting, :running, :declared, :changed)
ON CONFLICT (name) DO NOTHING

-- name: update_schedule
-- Compare and set: nothing if somebody else has changed the schedule since it was read.
UPDATE ol_schedules
SET revision = :revision, paused = :paused, next_at = :next_at, last_at = :last_at, created_at = :created_at,
    skipped = :skipped, waiting = :waiting, running = :running, declared = :declared, changed = :changed
WHERE name = :name AND revision = :expected

-- name: cancel_runs
-- Asks an unfinished run to cancel; its wake-up is another statement.
INSERT INTO ol_requests (row, kind, payload, created_at)
SELECT l.row, 'cancel', ?, ? FROM ol_live l WHERE l.row = ?
ON CONFLICT (row, kind) DO NOTHING

-- name: delete_schedule
-- A schedule goes, its runs stay.
DELETE FROM ol_schedules WHERE name = ?

-- name: select_schedules
-- The head of every reading of schedules, at :now; a where_… block follows. One snapshot.
SELECT s.name, s.revision, s.declared, s.changed, s.paused, s.next_at, s.last_at, s.waiting, s.skipped, s.created_at,
    (SELECT json_group_array(l.row) FROM json_each(s.running) want CROSS JOIN ol_live l ON l.row = want.value), :now
FROM ol_schedules s

-- name: where_schedule
-- One schedule by name, or all.
WHERE :name IS NULL OR s.name = :name
ORDER BY s.name

-- name: where_schedule_due
-- Those with a tick to act on: it is due, or waits for runs of which none is unfinished any more.
WHERE s.paused = 0 AND s.name NOT IN (SELECT value FROM json_each(:but))
    AND (s.next_at <= :now OR s.waiting <> '[]' AND NOT EXISTS (
        SELECT 1 FROM json_each(s.running) want CROSS JOIN ol_live l ON l.row = want.value))
ORDER BY s.next_at LIMIT :limit

-- name: next_tick
-- When there is something to act on next, NULL if there is nothing in sight. One snapshot.
SELECT min(due_at) FROM (
    SELECT min(s.next_at) AS due_at FROM ol_schedules s
    WHERE s.paused = 0 AND s.next_at IS NOT NULL AND s.name NOT IN (SELECT value FROM json_each(:but))
    UNION ALL
    SELECT :now FROM ol_schedules s
    WHERE s.paused = 0 AND s.waiting <> '[]' AND s.name NOT IN (SELECT value FROM json_each(:but))
        AND NOT EXISTS (SELECT 1 FROM json_each(s.running) want CROSS JOIN ol_live l ON l.row = want.value)
)
