-- What operators do to runs, and the audit that says who did it and why. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: insert_audit
-- Notes an action in the transaction that does it; a second send of the same one notes nothing.
INSERT INTO ol_audit (audit, at, who, action, noun, target, reason, facts)
VALUES (:audit, :now, :who, :action, :noun, :target, :reason, :facts) ON CONFLICT (audit) DO NOTHING

-- name: list_audit
-- The latest actions, all or those on one target. One snapshot.
SELECT audit, at, who, action, noun, target, reason, facts FROM ol_audit
WHERE (:target IS NULL OR target = :target) AND (:after IS NULL OR audit < :after)
ORDER BY audit DESC LIMIT :limit

-- name: list_past
-- The journal of a generation that has ended: what it left to the next ones, and what they did not keep. One snapshot.
SELECT e.key, e.seq, e.kind, e.name, e.digest, e.outcome,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = e.row AND b.name = e.value), e.value),
    e.error, e.attempts, e.started_at, e.finished_at, e.noted_version, e.generation
FROM (
    SELECT row, key, seq, kind, name, digest, outcome, value, error, attempts, started_at, finished_at, noted_version,
        generation
    FROM ol_entries WHERE row = :row AND generation <= :generation
    UNION ALL
    SELECT row, key, seq, kind, name, digest, outcome, value, error, attempts, started_at, finished_at, noted_version,
        generation
    FROM ol_past_entries WHERE row = :row AND generation <= :generation AND last_generation >= :generation
) e
ORDER BY e.seq IS NULL, e.seq, e.started_at, e.key

-- name: lock_live
-- Who owns a run, and under which claim; no row if it has ended.
SELECT owner, claim FROM ol_live WHERE row = ?

-- name: lock_run
-- The generation of a run, and the claim of its end.
SELECT generation, claim FROM ol_runs WHERE row = ?

-- name: insert_generation
-- How a generation has ended.
INSERT INTO ol_generations (row, generation, action, ended_at, status, output, error)
SELECT row, generation, :action, :now, status, output, error FROM ol_runs WHERE row = :row

-- name: keep_past
-- Copies entries that the next generation does not keep.
INSERT INTO ol_past_entries (row, last_generation, key, seq, kind, name, digest, outcome, attempts, noted_version,
    generation, started_at, finished_at, value, error)
SELECT e.row, r.generation, e.key, e.seq, e.kind, e.name, e.digest, e.outcome, e.attempts, e.noted_version,
    e.generation, e.started_at, e.finished_at, e.value, e.error
FROM ol_entries e CROSS JOIN ol_runs r ON r.row = e.row
WHERE e.row = :row AND e.key IN (SELECT value FROM json_each(:keys))

-- name: delete_entries
-- Takes them out of the journal.
DELETE FROM ol_entries WHERE row = :row AND key IN (SELECT value FROM json_each(:keys))

-- name: return_messages
-- Messages that were received there are unread again.
UPDATE ol_messages SET received_by = NULL WHERE row = :row AND received_by IN (SELECT value FROM json_each(:keys))

-- name: delete_promises
-- Promises that were made there are made again, with other tokens.
DELETE FROM ol_promises WHERE row = :row AND key IN (SELECT value FROM json_each(:keys))

-- name: await_again
-- Makes the entry of an awaited child, or of a step that may have taken effect, what it was while that went on.
UPDATE ol_entries
SET outcome = 'started', seq = NULL, value = :value, error = NULL, finished_at = NULL, attempts = 0,
    generation = (SELECT r.generation + 1 FROM ol_runs r WHERE r.row = ol_entries.row)
WHERE row = :row AND key = :key

-- name: begin_generation
-- Makes a run unfinished in its next generation; a deadline that has passed is lifted, and so is its dedupe where another
-- run has it now.
UPDATE ol_runs
SET dedupe = CASE WHEN NOT EXISTS (
        SELECT 1 FROM ol_runs o
        WHERE o.queue = ol_runs.queue AND o.dedupe = ol_runs.dedupe AND o.status IS NULL AND o.row <> ol_runs.row)
        THEN dedupe END,
    generation = generation + 1, status = NULL, output = NULL, error = NULL, finished_at = NULL,
    deadline_at = CASE WHEN deadline_at > :now THEN deadline_at END
WHERE row = :row

-- name: place_again
-- The live row of a run that had ended, in the line of its queue if it has one; claims go on above those of its end, so that
-- whoever had one stays out.
INSERT INTO ol_live (row, workflow, queue, priority, key, claim, wake_at, line, line_at, once, started_at)
SELECT row, CASE WHEN pinned THEN workflow || '#' || version ELSE workflow END, queue, priority, coalesce(key, ''), coalesce(claim, 1048576),
    iif(queue = '', :now, deadline_at),
    iif(queue <> '', 'waiting', NULL), iif(queue <> '', :now, NULL), iif(singleton, 'singleton', NULL), started_at
FROM ol_runs WHERE row = :row

-- name: delete_requests
-- Requests that came as a run ended are over.
DELETE FROM ol_requests WHERE row = :row

-- name: release_again
-- Makes a run that nobody owns due, without crashes; one that is held stays so, unless it is to be resumed.
UPDATE ol_live
SET crashes = 0, wake_at = CASE WHEN hold IS NULL OR :resume THEN :now ELSE wake_at END,
    hold = CASE WHEN :resume THEN NULL ELSE hold END,
    hold_reason = CASE WHEN :resume THEN NULL ELSE hold_reason END
WHERE row = :row

-- name: cancel_children
-- Asks children to cancel.
INSERT INTO ol_requests (row, kind, payload, created_at)
SELECT r.row, 'cancel', :payload, :now FROM ol_runs r
WHERE r.row IN (SELECT value FROM json_each(:rows)) AND r.status IS NULL
ON CONFLICT (row, kind) DO NOTHING

-- name: insert_fork
-- A run with the arguments of another one; its deadline and its parent are its own, its order of sets is inherited.
INSERT INTO ol_runs (row, id, workflow, version, codec, queue, priority, key, created_at, attributes, input, salt,
    pinned, continued, continued_at, singleton, forked_from, deadline_at)
SELECT :row, :id, workflow, version, codec, queue, priority, key, :now, attributes, input, coalesce(salt, row),
    pinned, continued, continued_at, singleton, id, :deadline_at
FROM ol_runs WHERE row = :origin
ON CONFLICT (id) DO NOTHING

-- name: copy_entries
-- The entries that a fork reuses.
INSERT INTO ol_entries (row, key, seq, kind, name, digest, outcome, attempts, noted_version, started_at, finished_at,
    value, error)
SELECT :row, key, seq, kind, name, digest, outcome, attempts, noted_version, started_at, finished_at, value, error
FROM ol_entries WHERE row = :origin AND key IN (SELECT value FROM json_each(:keys))

-- name: copy_blobs
-- The large payloads that its rows refer to.
INSERT INTO ol_blobs (row, name, text) SELECT :row, name, text FROM ol_blobs WHERE row = :origin

-- name: copy_attributes
-- What people search for.
INSERT INTO ol_run_attributes (row, name, value)
SELECT :row, name, value FROM ol_run_attributes WHERE row = :origin

-- name: patch_entry
-- Another value in the place of a recorded one.
UPDATE ol_entries SET value = :value WHERE row = :row AND key = :key

-- name: place_fork
-- Its live row; where it has entries its time begins when that of the other run began.
INSERT INTO ol_live (row, workflow, queue, priority, key, claim, wake_at, line, line_at, once, started_at)
SELECT f.row, CASE WHEN f.pinned THEN f.workflow || '#' || f.version ELSE f.workflow END, f.queue, f.priority, coalesce(f.key, ''), 1,
    iif(f.queue = '', :now, f.deadline_at), iif(f.queue <> '', 'waiting', NULL),
    iif(f.queue <> '', :now, NULL), iif(f.singleton, 'singleton', NULL),
    CASE WHEN EXISTS (SELECT 1 FROM ol_entries e WHERE e.row = f.row) THEN coalesce(r.started_at, l.started_at) END
FROM ol_runs f CROSS JOIN ol_runs r LEFT JOIN ol_live l ON l.row = r.row
WHERE f.row = :row AND r.row = :origin

-- name: find_fork
-- The run that has the id of a fork already.
SELECT row, id, workflow, forked_from FROM ol_runs WHERE id = ?

-- name: list_descendants
-- A run's descendants, children before their children. One snapshot.
WITH RECURSIVE below (row) AS (
    SELECT row FROM ol_runs WHERE parent = ?
    UNION
    SELECT r.row FROM below CROSS JOIN ol_runs r ON r.parent = below.row
)
SELECT row FROM below

-- name: list_undeletable
-- Which of these runs may not be deleted: the unfinished, and those whose result a parent waits for.
SELECT r.id, r.status IS NULL FROM json_each(:rows) want CROSS JOIN ol_runs r ON r.row = want.value
WHERE r.status IS NULL OR (
    r.parent IS NOT NULL AND r.parent NOT IN (SELECT value FROM json_each(:rows)) AND EXISTS (
        SELECT 1 FROM ol_entries e CROSS JOIN ol_live l ON l.row = e.row
        WHERE e.row = r.parent AND e.key = r.parent_key AND e.outcome = 'started'))

-- name: delete_runs
-- Runs with all that is their own: triggers take it along.
DELETE FROM ol_runs WHERE row IN (SELECT value FROM json_each(?))
