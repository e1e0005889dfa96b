-- What a batch writes. The block names are those of PostgreSQL where a block does the same. All writing blocks count on the
-- caller's BEGIN IMMEDIATE: one writer at a time, so what a block has read stays true until COMMIT. `{rows}` becomes a
-- list of VALUES of the length at hand.

-- name: check_fence
-- One row if this worker still has this epoch; under the write lock, so nobody can bump it before COMMIT.
SELECT 1 FROM ol_workers WHERE worker = ? AND epoch = ?

-- name: find_taken
-- Which of the wanted ids and rows belong to a run already.
WITH want (id, row) AS (VALUES {rows})
SELECT r.row, r.id, r.workflow FROM want CROSS JOIN ol_runs r ON r.id = want.id
UNION
SELECT r.row, r.id, r.workflow FROM want CROSS JOIN ol_runs r ON r.row = want.row

-- name: find_duplicates
-- The unfinished runs that others of their kind are not started beside.
WITH want (queue, dedupe) AS (VALUES {rows})
SELECT r.row, r.id, r.workflow, r.queue, r.dedupe
FROM want CROSS JOIN ol_runs r ON r.queue = want.queue AND r.dedupe = want.dedupe AND r.status IS NULL

-- name: list_bounded
-- Queues whose starts have to be counted one by one.
SELECT queue FROM ol_queues WHERE backlog IS NOT NULL

-- name: insert_runs
-- Runs whose id and row were looked up in this transaction and are free.
INSERT INTO ol_runs
    (row, id, workflow, version, codec, queue, priority, key, parent, parent_key, parent_close,
     created_at, deadline_at, attributes, pinned, input, dedupe)
VALUES {rows}

-- name: insert_live
-- Their scheduling state.
INSERT INTO ol_live (row, workflow, queue, priority, key, owner, claim, wake_at, in_user_code, started_at, line, line_at)
VALUES {rows}

-- name: insert_attributes
-- Their attributes as people search for them.
INSERT INTO ol_run_attributes (row, name, value)
VALUES {rows}

-- name: find_entries
-- Which of the wanted entries exist, and with what outcome.
WITH want (row, key) AS (VALUES {rows})
SELECT e.row, e.key, e.outcome, e.seq, e.attempts, e.digest, e.value, e.error
FROM want CROSS JOIN ol_entries e ON e.row = want.row AND e.key = want.key

-- name: insert_entries
-- Entries that were looked up in this transaction and do not exist.
INSERT INTO ol_entries
    (row, key, seq, kind, name, digest, outcome, attempts, noted_version, generation, started_at, finished_at, value, error)
VALUES {rows}

-- name: any_generation
-- Whether any generation of any run has ended: there rarely is one, and it saves the look-up.
SELECT 1 FROM ol_generations LIMIT 1

-- name: find_generations
-- Which of these generations have ended.
WITH want (row, generation) AS (VALUES {rows})
SELECT g.row, g.generation FROM want CROSS JOIN ol_generations g ON g.row = want.row AND g.generation = want.generation

-- name: insert_blobs
-- A large payload, after the rows of its run: a start that was refused leaves none behind.
INSERT INTO ol_blobs (row, name, text)
SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM ol_runs r WHERE r.row = ?)
ON CONFLICT (row, name) DO NOTHING

-- name: settle_entry
-- Gives a started entry its outcome; a settled one is never changed.
UPDATE ol_entries
SET seq = ?, kind = ?, name = ?, digest = ?, outcome = ?, attempts = ?, noted_version = ?, generation = ?,
    started_at = ?, finished_at = ?, value = ?, error = ?
WHERE row = ? AND key = ? AND outcome = 'started'

-- name: finish_run
-- Ends a run that this worker owns under this claim.
UPDATE ol_runs
SET status = ?, output = ?, error = ?, started_at = ?, finished_at = ?, claim = ?
WHERE row = ? AND EXISTS (SELECT 1 FROM ol_live l WHERE l.row = ol_runs.row AND l.owner = ? AND l.claim = ?)

-- name: close_children
-- Asks the children that were to end with a run to cancel, between the two halves of finish_run.
INSERT INTO ol_requests (row, kind, payload, created_at)
SELECT c.row, 'cancel', ?, ?
FROM ol_live l CROSS JOIN ol_runs c ON c.parent = l.row
WHERE l.row = ? AND l.owner = ? AND l.claim = ? AND c.parent_close = 'cancel' AND c.status IS NULL
ON CONFLICT (row, kind) DO NOTHING

-- name: delete_live
-- The second half of finish_run.
DELETE FROM ol_live WHERE row = ? AND owner = ? AND claim = ?

-- name: delete_ended_requests
-- Requests for a run end with it.
DELETE FROM ol_requests WHERE row = ? AND NOT EXISTS (SELECT 1 FROM ol_live l WHERE l.row = ol_requests.row)

-- name: any_request
-- Whether there is any request at all: there rarely is, and it saves the deletes.
SELECT 1 FROM ol_requests LIMIT 1

-- name: release_run
-- The owner lets go.
UPDATE ol_live
SET owner = NULL, in_user_code = 0, alone = 0, wake_at = ?, hold = ?, hold_reason = ?
WHERE row = ? AND owner = ? AND claim = ?

-- name: mark_run
-- What a takeover will count; progress also ends the run's time as a suspect.
UPDATE ol_live
SET in_user_code = ?, crashes = CASE WHEN ? THEN 0 ELSE crashes END, alone = CASE WHEN ? THEN 0 ELSE alone END
WHERE row = ? AND owner = ? AND claim = ?

-- name: delete_request
-- A request that its owner has executed.
DELETE FROM ol_requests WHERE request = ?
