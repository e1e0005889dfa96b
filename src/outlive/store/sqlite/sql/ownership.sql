-- Workers, claims, takeover, requests and wake-ups. Writing blocks count on the caller's BEGIN IMMEDIATE.
-- INDEXED BY: with statistics of one long lane the planner would sort it for its first row, which the index gives at once.

-- name: insert_worker
-- A new incarnation; nothing if its id is taken.
INSERT INTO ol_workers (worker, epoch, host, pid, name, lock_path, registered_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (worker) DO NOTHING

-- name: find_worker
-- The incarnation that has this id.
SELECT epoch, host, pid, name, lock_path FROM ol_workers WHERE worker = ?

-- name: put_beat
-- Renews a lease; the caller has checked the fence.
INSERT INTO ol_worker_beats (worker, beat_at, expires_at) VALUES (:worker, :now, :expires_at)
ON CONFLICT (worker) DO UPDATE SET beat_at = :now, expires_at = :expires_at

-- name: delete_beat
-- The lease ends.
DELETE FROM ol_worker_beats WHERE worker = ?

-- name: delete_worker
-- The incarnation has left in good order.
DELETE FROM ol_workers WHERE worker = ?

-- name: release_owned
-- Runs of a worker that leaves in good order: nobody died.
UPDATE ol_live SET owner = NULL, in_user_code = 0, alone = 0, wake_at = ? WHERE owner = ?

-- name: has_suspects
-- Whether a run waits for a worker that executes nothing else. One snapshot.
SELECT 1 FROM ol_live WHERE owner IS NULL AND hold IS NULL AND crashes >= 2 AND wake_at <= ? LIMIT 1

-- name: release_strays
-- Runs of a living worker that does not know of them: the reply to its claim was lost.
UPDATE ol_live SET owner = NULL, in_user_code = 0, alone = 0, wake_at = ?
WHERE owner = ? AND row NOT IN (SELECT value FROM json_each(?))

-- name: list_dead
-- Workers whose lease has expired, or who are listed; without a beat row one has been taken over already.
SELECT b.worker FROM ol_worker_beats b
WHERE b.expires_at < ? OR b.worker IN (SELECT value FROM json_each(?))

-- name: bump_epoch
-- Fences a dead worker out for ever.
UPDATE ol_workers SET epoch = epoch + 1 WHERE worker = ?

-- name: quarantine_owned
-- A run that died, not for the first time, while it alone was in user code has killed its worker.
UPDATE ol_live
SET owner = NULL, alone = 0, in_user_code = 0, crashes = crashes + 1, wake_at = NULL, hold = 'quarantined',
    hold_reason = json_object('type', 'Quarantined', 'text',
        'its worker died ' || (crashes + 1) || ' times while this run was in user code, the last time with no other run')
WHERE owner = ? AND alone = 1 AND in_user_code = 1 AND crashes + 1 >= ?
RETURNING (SELECT r.id FROM ol_runs r WHERE r.row = ol_live.row)

-- name: take_owned
-- The other runs of a dead worker: due now, one crash more for those in user code.
UPDATE ol_live
SET owner = NULL, alone = 0, crashes = crashes + in_user_code, in_user_code = 0, wake_at = ?
WHERE owner = ?

-- name: forget_workers
-- Fence rows of workers taken over long ago: without the row their batches fail just as well.
DELETE FROM ol_workers
WHERE registered_at < ? AND NOT EXISTS (SELECT 1 FROM ol_worker_beats b WHERE b.worker = ol_workers.worker)

-- name: walk_lanes
-- The head of what follows: queues and priorities that have unowned runs with a wake time, by skipping through the index.
WITH RECURSIVE lane (queue, priority) AS (
    SELECT * FROM (
        SELECT queue, priority FROM ol_live INDEXED BY ol_live_lanes
        WHERE owner IS NULL AND hold IS NULL AND crashes < 2 AND wake_at IS NOT NULL
        ORDER BY queue, priority LIMIT 1)
    UNION ALL
    SELECT l.queue, l.priority FROM lane CROSS JOIN ol_live l ON l.row = coalesce(
        (SELECT n.row FROM ol_live n INDEXED BY ol_live_lanes
         WHERE n.owner IS NULL AND n.hold IS NULL AND n.crashes < 2 AND n.wake_at IS NOT NULL
            AND n.queue = lane.queue AND n.priority > lane.priority
         ORDER BY n.priority LIMIT 1),
        (SELECT n.row FROM ol_live n INDEXED BY ol_live_lanes
         WHERE n.owner IS NULL AND n.hold IS NULL AND n.crashes < 2 AND n.wake_at IS NOT NULL
            AND n.queue > lane.queue
         ORDER BY n.queue, n.priority LIMIT 1))
)

-- name: list_lanes
-- All lanes. One snapshot.
SELECT queue, priority FROM lane ORDER BY priority, queue

-- name: list_due
-- The due end of one lane.
SELECT wake_at, row, queue, line FROM ol_live INDEXED BY ol_live_lanes
WHERE owner IS NULL AND hold IS NULL AND crashes < 2 AND wake_at IS NOT NULL
    AND queue = :queue AND priority = :priority AND wake_at <= :now
    AND workflow IN (SELECT value FROM json_each(:workflows)) AND (:room OR line IS NOT 'admitted')
ORDER BY wake_at, row LIMIT :limit

-- name: list_suspects
-- Due suspects and how often they have crashed; without a list of queues, of any queue.
SELECT row, crashes, queue, line FROM ol_live INDEXED BY ol_live_suspects
WHERE owner IS NULL AND hold IS NULL AND crashes >= 2 AND wake_at IS NOT NULL
    AND wake_at <= :now AND workflow IN (SELECT value FROM json_each(:workflows))
    AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
ORDER BY priority, wake_at, row LIMIT :limit

-- name: list_held_cancels
-- Held runs that somebody has asked to cancel; the table of open requests is small, so it leads.
SELECT l.row, l.queue, l.line FROM ol_requests q CROSS JOIN ol_live l ON l.row = q.row
WHERE q.kind = 'cancel' AND l.owner IS NULL AND l.hold IS NOT NULL AND (l.crashes >= 2) = :suspect
    AND l.workflow IN (SELECT value FROM json_each(:workflows))
    AND (:queues IS NULL OR l.queue IN (SELECT value FROM json_each(:queues)))
ORDER BY l.priority, q.request LIMIT :limit

-- name: list_rooms
-- How many runs more of each queue that is limited per worker this one may own.
SELECT q.queue, q.per_worker - (
    SELECT count(*) FROM ol_live l WHERE l.owner = ? AND l.queue = q.queue AND l.line = 'admitted')
FROM ol_queues q WHERE q.per_worker IS NOT NULL

-- name: read_claimable
-- What a claimer needs of the rows it is about to take; under the write lock.
SELECT r.row, r.id, r.workflow, r.version,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.input), r.input),
    r.codec, l.claim + 1, l.crashes, l.started_at IS NULL,
    coalesce(l.started_at, ?), r.deadline_at, r.parent, r.parent_key, r.queue, r.priority, r.key, r.attributes,
    EXISTS (SELECT 1 FROM ol_requests q WHERE q.row = r.row), r.generation, r.salt,
    r.continued, r.continued_at,
    coalesce(l.line IN ('delayed', 'waiting'), 0), l.line IS NOT NULL
FROM json_each(?) want CROSS JOIN ol_live l ON l.row = want.value CROSS JOIN ol_runs r ON r.row = l.row
ORDER BY want.id

-- name: claim_runs
-- Gives rows, chosen in this transaction, to a worker; one that still waits in a line is not to be executed.
UPDATE ol_live
SET owner = ?, claim = claim + 1, wake_at = NULL, hold = NULL, hold_reason = NULL, alone = ?,
    in_user_code = line IS NULL OR line = 'admitted',
    started_at = CASE WHEN line IS NULL OR line = 'admitted' THEN coalesce(started_at, ?) END
WHERE row IN (SELECT value FROM json_each(?))

-- name: next_due
-- The earliest wake time of all lanes and of the suspects. One snapshot.
SELECT min(due_at) FROM (
    SELECT (SELECT n.wake_at FROM ol_live n INDEXED BY ol_live_lanes
            WHERE n.owner IS NULL AND n.hold IS NULL AND n.crashes < 2 AND n.wake_at IS NOT NULL
                AND n.queue = lane.queue AND n.priority = lane.priority
            ORDER BY n.wake_at LIMIT 1) AS due_at
    FROM lane
    UNION ALL
    SELECT min(wake_at) FROM ol_live INDEXED BY ol_live_suspects
    WHERE owner IS NULL AND hold IS NULL AND crashes >= 2 AND wake_at IS NOT NULL
)

-- name: find_row
-- The row of a run, and whether it has ended.
SELECT row, status IS NOT NULL FROM ol_runs WHERE id = ?

-- name: insert_request
-- One open request of a kind for a run; asking twice is asking once, and of decisions the last one stands.
INSERT INTO ol_requests (row, kind, payload, created_at) VALUES (?, ?, ?, ?)
ON CONFLICT (row, kind) DO UPDATE SET payload = excluded.payload WHERE kind = 'resolve'

-- name: wake_run
-- Makes a waiting run due; one that is owned, held or due already stays as it is, and so does one whose start is delayed.
UPDATE ol_live SET wake_at = :now
WHERE row = :row AND owner IS NULL AND hold IS NULL AND started_at IS NOT NULL AND (wake_at IS NULL OR wake_at > :now)

-- name: wake_requested
-- The same for a run that has a request, which concerns a delayed start too.
UPDATE ol_live SET wake_at = :now WHERE row = :row AND owner IS NULL AND hold IS NULL AND (wake_at IS NULL OR wake_at > :now)

-- name: resume_run
-- A person lets a held run go on, or wait in line again, with a clean slate; with a claim, if nobody has owned it since.
UPDATE ol_live
SET hold = NULL, hold_reason = NULL, crashes = 0, alone = 0,
    wake_at = CASE WHEN line IS NULL OR line = 'admitted' THEN :now
        ELSE (SELECT r.deadline_at FROM ol_runs r WHERE r.row = ol_live.row) END
WHERE row = :row AND owner IS NULL AND hold IS NOT NULL AND (:claim IS NULL OR claim = :claim)

-- name: delete_pauses
-- A pause that was asked for before the run is resumed is over.
DELETE FROM ol_requests WHERE row = ? AND kind = 'pause'

-- name: list_requested
-- Waiting runs that have an open request. Only finds candidates: wake_requested decides again.
SELECT q.row FROM ol_requests q
WHERE EXISTS (
    SELECT 1 FROM ol_live l
    WHERE l.row = q.row AND l.owner IS NULL AND l.hold IS NULL AND (l.wake_at IS NULL OR l.wake_at > ?))

-- name: list_awaited
-- Waiting runs with a child that has ended unnoticed, through every waiting run. Only finds candidates.
SELECT DISTINCT l.row
FROM ol_live l CROSS JOIN ol_runs c ON c.parent = l.row
CROSS JOIN ol_entries e ON e.row = c.parent AND e.key = c.parent_key
WHERE l.owner IS NULL AND l.hold IS NULL AND (l.wake_at IS NULL OR l.wake_at > ?)
    AND c.parent IS NOT NULL AND c.status IS NOT NULL AND e.outcome = 'started'

-- name: list_newly_awaited
-- The same through the children that have ended since an instant. Only finds candidates.
SELECT DISTINCT l.row
FROM ol_runs c CROSS JOIN ol_live l ON l.row = c.parent
CROSS JOIN ol_entries e ON e.row = c.parent AND e.key = c.parent_key
WHERE c.parent IS NOT NULL AND c.finished_at IS NOT NULL AND c.finished_at >= ?
    AND l.owner IS NULL AND l.hold IS NULL AND (l.wake_at IS NULL OR l.wake_at > ?)
    AND e.outcome = 'started'

-- name: count_other_processes
-- How many incarnations of other processes than this worker's hold a lease on this file.
SELECT count(*) FROM ol_workers me, ol_workers w JOIN ol_worker_beats b ON b.worker = w.worker
WHERE me.worker = ? AND b.expires_at > ? AND NOT (w.host = me.host AND w.pid = me.pid)
