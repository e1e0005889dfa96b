-- Which version of its code a run is tied to. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: pin_runs
-- Ties a run to the version that its new owner, who claimed it before any code had executed it, executes it with.
UPDATE ol_runs SET version = :version, pinned = 1
WHERE row = :row AND EXISTS (SELECT 1 FROM ol_live l WHERE l.row = ol_runs.row AND l.owner = :worker)

-- name: pin_live
-- The same for its live row.
UPDATE ol_live SET workflow = workflow || '#' || :version
WHERE row = :row AND owner = :worker AND instr(workflow, '#') = 0

-- name: count_versions
-- Counts the unfinished runs of each version of a workflow, or of all, by status; a run that was started by name has
-- the version of the code that made its journal. One snapshot.
SELECT r.workflow, coalesce(r.version, (SELECT min(e.noted_version) FROM ol_entries e WHERE e.row = r.row)), r.pinned,
    CASE
        WHEN l.hold IS NOT NULL THEN l.hold
        WHEN l.owner IS NOT NULL THEN 'running'
        WHEN l.started_at IS NOT NULL THEN 'suspended'
        WHEN l.wake_at > :now THEN 'scheduled'
        ELSE 'queued'
    END AS status,
    count(*)
FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE :workflow IS NULL OR r.workflow = :workflow
GROUP BY 1, 2, 3, 4
ORDER BY 1, min(r.row), 4

-- name: find_standing
-- The run that this worker goes on with as new, if it still is in the generation that ends.
SELECT 1 FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE l.row = :row AND l.owner = :worker AND l.claim = :claim AND r.generation = :generation

-- name: end_generation
-- How a generation has ended that went on as new.
INSERT INTO ol_generations (row, generation, action, ended_at, version, input)
SELECT row, generation, 'continue', :now, version, input FROM ol_runs WHERE row = :row

-- name: continue_run
-- The run in its next generation.
UPDATE ol_runs
SET generation = :generation + 1, continued = :continued, continued_at = :at, version = :version, input = :input,
    salt = NULL
WHERE row = :row

-- name: refresh_live
-- It has made progress, and is in user code.
UPDATE ol_live SET crashes = 0, alone = 0, in_user_code = 1 WHERE row = :row

-- name: move_entries
-- Its journal is past; the second half follows.
INSERT INTO ol_past_entries (row, last_generation, key, seq, kind, name, digest, outcome, attempts, noted_version,
    generation, started_at, finished_at, value, error)
SELECT row, :generation, key, seq, kind, name, digest, outcome, attempts, noted_version, generation, started_at,
    finished_at, value, error
FROM ol_entries WHERE row = :row

-- name: clear_entries
-- The second half of move_entries.
DELETE FROM ol_entries WHERE row = :row

-- name: forget_messages
-- What entries of generations that are not kept have received.
DELETE FROM ol_messages WHERE row = :row AND received_by IN (
    SELECT key FROM ol_past_entries WHERE row = :row AND last_generation <= :last_gone)

-- name: forget_promises
-- Promises that they made.
DELETE FROM ol_promises WHERE row = :row AND key IN (
    SELECT key FROM ol_past_entries WHERE row = :row AND last_generation <= :last_gone)

-- name: forget_entries
-- Entries of generations that are not kept.
DELETE FROM ol_past_entries WHERE row = :row AND last_generation <= :last_gone

-- name: forget_generations
-- How those ended.
DELETE FROM ol_generations WHERE row = :row AND generation <= :last_gone

-- name: forget_blobs
-- Large payloads that nothing of the run refers to any more.
DELETE FROM ol_blobs WHERE row = :row
    AND name NOT IN (SELECT value FROM ol_past_entries WHERE row = :row AND value IS NOT NULL)
    AND name NOT IN (SELECT input FROM ol_generations WHERE row = :row AND input IS NOT NULL)
    AND name <> :input

-- name: forget_expenses
-- What was spent then, where it is in its balance.
DELETE FROM ol_budget_ledger WHERE row = :row AND generation <= :last_gone AND folded

-- name: forget_accounts
-- The accounts of agents that were run then.
DELETE FROM ol_budget_accounts WHERE row = :row AND generation <= :last_gone

-- name: release_children
-- Asks the children that were to end with the run to cancel.
INSERT INTO ol_requests (row, kind, payload, created_at)
SELECT c.row, 'cancel', :close_reason, :now FROM ol_runs c
WHERE c.parent = :row AND c.parent_close = 'cancel' AND c.status IS NULL
ON CONFLICT (row, kind) DO NOTHING
