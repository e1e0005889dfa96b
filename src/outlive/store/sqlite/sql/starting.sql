-- Starts that look first for what stands in their way. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: find_limits
-- What a queue is held to.
SELECT limits FROM ol_queues WHERE queue = ?

-- name: find_id
-- The run of an id.
SELECT row, id, workflow FROM ol_runs WHERE id = ?

-- name: find_duplicate
-- The unfinished run of a queue and dedupe.
SELECT row, id, workflow FROM ol_runs WHERE queue = ? AND dedupe = ? AND status IS NULL

-- name: find_debounced
-- The run of a key that is still waiting for its arguments to settle.
SELECT l.row, r.id, r.workflow FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE r.workflow = :workflow AND l.key = :key AND l.once = 'debounce' AND l.line IN ('delayed', 'waiting')
    AND NOT EXISTS (SELECT 1 FROM ol_requests q WHERE q.row = l.row AND q.kind = 'cancel')
ORDER BY l.row LIMIT 1

-- name: postpone_run
-- Delays it again, up to its cap.
UPDATE ol_live
SET workflow = :claim_name, line = 'delayed', line_at = min(:now + :wait_s, coalesce(cap_at, :now + :wait_s))
WHERE row = :row

-- name: forget_input
-- The arguments that are about to be replaced, where they are large.
DELETE FROM ol_blobs WHERE row = :row AND name = (SELECT r.input FROM ol_runs r WHERE r.row = :row)

-- name: replace_input
-- Gives a run that has not begun other arguments.
UPDATE ol_runs
SET input = :input, codec = :codec, version = :version, pinned = :pinned, attributes = :attributes
WHERE row = :row

-- name: delete_attributes
-- What the attributes of a run were searched by.
DELETE FROM ol_run_attributes WHERE row = ?

-- name: list_singletons
-- The unfinished runs that shall be the only ones of their workflow and key, the one that runs first.
SELECT l.row, r.id, r.workflow FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE r.workflow = :workflow AND l.key = :key AND l.once = 'singleton'
ORDER BY l.started_at IS NULL, l.started_at, l.row

-- name: mark_singleton
-- The same for when it has ended.
UPDATE ol_runs SET singleton = 1 WHERE row = ?

-- name: find_singleton
-- Who stands in the way of a singleton, or a fork of it, that is about to be unfinished.
SELECT s.id FROM ol_runs r CROSS JOIN ol_live l ON l.key = r.key AND l.once = 'singleton' CROSS JOIN ol_runs s ON s.row = l.row
WHERE r.row = ? AND r.singleton AND s.workflow = r.workflow
ORDER BY l.started_at IS NULL, l.started_at, l.row LIMIT 1

-- name: count_backlog
-- Who waits for a queue, no further than it matters.
SELECT count(*) FROM (SELECT 1 FROM ol_live WHERE queue = ? AND line IN ('delayed', 'waiting') LIMIT ?)

-- name: find_oldest
-- The run that has waited longest for a queue.
SELECT l.row, r.parent FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE l.queue = ? AND l.line IN ('delayed', 'waiting') AND l.owner IS NULL
ORDER BY l.line_at, l.row LIMIT 1

-- name: drop_run
-- Ends a run that has not begun, between the two halves of which its live row goes.
UPDATE ol_runs SET status = 'cancelled', error = :error, finished_at = :now WHERE row = :row

-- name: drop_live
-- The second half of it.
DELETE FROM ol_live WHERE row = ?

-- name: mark_once
-- Notes of a new run what there may be one of, and how long it is delayed for that.
UPDATE ol_live SET once = :once, cap_at = :now + :cap_s,
    line = iif(:is_delayed, 'delayed', line),
    line_at = iif(:is_delayed, :now + min(:wait_s, coalesce(:cap_s, :wait_s)), line_at),
    wake_at = iif(:is_delayed, (SELECT r.deadline_at FROM ol_runs r WHERE r.row = ol_live.row), wake_at)
WHERE row = :row
