-- Queues and their lines. Writing blocks count on the caller's BEGIN IMMEDIATE: what is counted in it stays true.
-- INDEXED BY: statistics of one long line make the planner sort it for its first row, which the index gives at once.

-- name: list_lines
-- Queues that runs wait for, by skipping through the index; those behind :after come first. Not those that are paused.
WITH RECURSIVE line (queue) AS (
    SELECT * FROM (
        SELECT queue FROM ol_live INDEXED BY ol_live_line
        WHERE line = 'waiting' AND owner IS NULL AND hold IS NULL AND (wake_at > :now) IS NOT FALSE
        ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT n.queue FROM ol_live n INDEXED BY ol_live_line
            WHERE n.line = 'waiting' AND n.owner IS NULL AND n.hold IS NULL AND (n.wake_at > :now) IS NOT FALSE
                AND n.queue > line.queue
            ORDER BY n.queue LIMIT 1)
    FROM line WHERE line.queue IS NOT NULL
)
SELECT line.queue, coalesce(q.limits, '{}'), coalesce(q.served_key, ''), q.queue IS NULL
FROM line LEFT JOIN ol_queues q ON q.queue = line.queue
WHERE line.queue IS NOT NULL AND NOT coalesce(q.paused, 0)
    AND (:queues IS NULL OR line.queue IN (SELECT value FROM json_each(:queues)))
ORDER BY line.queue <= :after, line.queue

-- name: find_delays
-- Whether a delay has ended for a run that may join its line, and for any; when the next one will.
SELECT EXISTS (
        SELECT 1 FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
        WHERE l.line = 'delayed' AND l.line_at <= :now AND (l.once IS NOT 'singleton' OR NOT EXISTS (
            SELECT 1 FROM ol_live o CROSS JOIN ol_runs s ON s.row = o.row
            WHERE o.once = 'singleton' AND o.key = l.key AND o.row <> l.row AND s.workflow = r.workflow))),
    EXISTS (SELECT 1 FROM ol_live WHERE line = 'delayed' AND line_at <= :now),
    (SELECT min(line_at) FROM ol_live WHERE line = 'delayed' AND line_at > :now)

-- name: end_delays
-- Lets delayed runs join their lines. One that replaces another of its key waits until it is the only one.
UPDATE ol_live SET line = 'waiting'
WHERE line = 'delayed' AND line_at <= :now AND (once IS NOT 'singleton' OR NOT EXISTS (
    SELECT 1 FROM ol_live o CROSS JOIN ol_runs s ON s.row = o.row
    WHERE o.once = 'singleton' AND o.key = ol_live.key AND o.row <> ol_live.row
        AND s.workflow = (SELECT r.workflow FROM ol_runs r WHERE r.row = ol_live.row)))

-- name: count_admitted
-- What stands against the limits of a queue: runs that have not ended, those of one worker, admissions in the window;
-- and when the oldest of those that fill it leaves it.
SELECT
    CASE WHEN :concurrency THEN (
        SELECT count(*) FROM ol_live WHERE queue = :queue AND line = 'admitted') ELSE 0 END,
    CASE WHEN :per_worker THEN (
        SELECT count(*) FROM ol_live WHERE owner = :worker AND queue = :queue AND line = 'admitted') ELSE 0 END,
    CASE WHEN :rate_count THEN (
        SELECT count(*) FROM ol_admissions WHERE queue = :queue AND at > :now - :rate_s) ELSE 0 END,
    CASE WHEN :rate_count THEN :rate_s + (
        SELECT at FROM ol_admissions WHERE queue = :queue ORDER BY at DESC LIMIT 1 OFFSET :rate_count - 1) END

-- name: next_priority
-- The next priority that somebody waits with.
SELECT priority FROM ol_live INDEXED BY ol_live_line
WHERE line = 'waiting' AND owner IS NULL AND hold IS NULL AND (wake_at > :now) IS NOT FALSE
    AND queue = :queue AND priority > :priority
ORDER BY priority LIMIT 1

-- name: walk_keys
-- The keys of one priority of a line, how much room each has, and when it gets some by itself; as many as are asked for
-- that have room. {keys} says which part of the round: behind the key served last, or up to it.
WITH RECURSIVE turn (key, room, roomy) AS (
    SELECT k.key, {room}, 0
    FROM (
        SELECT key FROM ol_live INDEXED BY ol_live_line
        WHERE line = 'waiting' AND owner IS NULL AND hold IS NULL AND (wake_at > :now) IS NOT FALSE
            AND queue = :queue AND priority = :priority AND {keys}
            AND workflow IN (SELECT value FROM json_each(:workflows))
        ORDER BY key LIMIT 1) k
    UNION ALL
    SELECT k.key, {room}, turn.roomy + (turn.room > 0)
    FROM turn CROSS JOIN ol_live k ON k.row = (
        SELECT row FROM ol_live INDEXED BY ol_live_line
        WHERE line = 'waiting' AND owner IS NULL AND hold IS NULL AND (wake_at > :now) IS NOT FALSE
            AND queue = :queue AND priority = :priority AND key > turn.key AND {keys}
            AND workflow IN (SELECT value FROM json_each(:workflows))
        ORDER BY key LIMIT 1)
    WHERE turn.roomy + (turn.room > 0) < :limit
)
SELECT key, room,
    CASE WHEN room <= 0 AND :key_count THEN :key_s + (
        SELECT at FROM ol_admissions a WHERE a.queue = :queue AND a.key = turn.key
        ORDER BY at DESC LIMIT 1 OFFSET :key_count - 1) END
FROM turn

-- name: room_for_key
-- How many runs more of a key may be admitted, within walk_keys.
min(:most,
    CASE WHEN :per_key THEN :per_key - (
        SELECT count(*) FROM ol_live a WHERE a.queue = :queue AND a.key = k.key AND a.line = 'admitted') ELSE :most END,
    CASE WHEN :key_count THEN :key_count - (
        SELECT count(*) FROM ol_admissions a
        WHERE a.queue = :queue AND a.key = k.key AND a.at > :now - :key_s) ELSE :most END)

-- name: list_first
-- Who waits longest for each of some keys, within its room, one of each by turns.
WITH want (place, key, room) AS (SELECT id, value ->> 0, value ->> 1 FROM json_each(:keys)),
first AS (
    SELECT l.row, l.key, want.place, want.room,
        row_number() OVER (PARTITION BY want.place ORDER BY l.line_at, l.row) AS turn
    FROM want CROSS JOIN ol_live l ON l.row IN (
        SELECT n.row FROM ol_live n INDEXED BY ol_live_line
        WHERE n.line = 'waiting' AND n.owner IS NULL AND n.hold IS NULL AND (n.wake_at > :now) IS NOT FALSE
            AND n.queue = :queue AND n.priority = :priority AND n.key = want.key
            AND n.workflow IN (SELECT value FROM json_each(:workflows))
        ORDER BY n.line_at, n.row LIMIT :turns)
)
SELECT row, key FROM first WHERE turn <= room ORDER BY turn, place

-- name: admit_runs
-- Gives rows, chosen in this transaction, a slot and a worker.
UPDATE ol_live
SET owner = :worker, claim = claim + 1, line = 'admitted', wake_at = NULL, started_at = coalesce(started_at, :now),
    in_user_code = 1
WHERE row IN (SELECT value FROM json_each(:rows))

-- name: insert_admissions
-- Notes when rows were admitted, for a queue with a rate.
INSERT INTO ol_admissions (queue, at, row, key)
SELECT l.queue, :now, l.row, l.key FROM json_each(:rows) want CROSS JOIN ol_live l ON l.row = want.value

-- name: delete_admissions
-- Forgets those that no rate of the queue looks back at any more.
DELETE FROM ol_admissions WHERE queue = ? AND at <= ?

-- name: serve_key
-- Notes whose turn it was.
INSERT INTO ol_queues (queue, served_key) VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET served_key = excluded.served_key

-- name: find_queue
-- What is known of a queue.
SELECT declared, changed, paused FROM ol_queues WHERE queue = ?

-- name: put_queue
-- Sets what a queue is held to.
INSERT INTO ol_queues (queue, declared, changed, limits, paused)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (queue) DO UPDATE
SET declared = excluded.declared, changed = excluded.changed, limits = excluded.limits, paused = excluded.paused

-- name: read_line
-- What stands in front of a run that waits in a line. One snapshot.
SELECT
    (SELECT count(*) FROM ol_live n
     WHERE n.line = 'waiting' AND n.owner IS NULL AND n.hold IS NULL AND n.queue = l.queue AND n.priority <= l.priority
        AND (n.priority < l.priority OR (n.key = l.key AND (n.line_at, n.row) < (l.line_at, l.row)))),
    (SELECT count(*) FROM ol_live n
     WHERE n.line = 'waiting' AND n.owner IS NULL AND n.hold IS NULL AND n.queue = l.queue AND n.priority = l.priority
        AND n.key <> l.key),
    (SELECT r.id FROM ol_live a CROSS JOIN ol_runs r ON r.row = a.row
     WHERE a.queue = l.queue AND a.line = 'admitted' ORDER BY a.started_at, a.row LIMIT 1),
    (SELECT count(*) FROM ol_live a WHERE a.queue = l.queue AND a.key = l.key AND a.line = 'admitted'),
    (SELECT r.id FROM ol_live a CROSS JOIN ol_runs r ON r.row = a.row
     WHERE a.queue = l.queue AND a.key = l.key AND a.line = 'admitted' ORDER BY a.started_at, a.row LIMIT 1),
    CASE WHEN :rate_count THEN :rate_s + (
        SELECT a.at FROM ol_admissions a WHERE a.queue = l.queue ORDER BY a.at DESC LIMIT 1 OFFSET :rate_count - 1) END,
    CASE WHEN :key_count THEN :key_s + (
        SELECT a.at FROM ol_admissions a WHERE a.queue = l.queue AND a.key = l.key
        ORDER BY a.at DESC LIMIT 1 OFFSET :key_count - 1) END,
    (SELECT (SELECT count(*) FROM ol_live a WHERE a.owner = b.worker AND a.queue = l.queue AND a.line = 'admitted') AS owned
     FROM ol_worker_beats b WHERE b.expires_at >= :now ORDER BY owned LIMIT 1),
    CASE WHEN l.once = 'singleton' AND l.line = 'delayed' THEN (
        SELECT s.id FROM ol_live o CROSS JOIN ol_runs s ON s.row = o.row
        WHERE o.once = 'singleton' AND o.key = l.key AND o.row <> l.row
            AND s.workflow = (SELECT r.workflow FROM ol_runs r WHERE r.row = l.row)
        ORDER BY o.started_at IS NULL, o.started_at, o.row LIMIT 1) END
FROM ol_live l WHERE l.row = :row

-- name: reschedule_run
-- Moves the start of a run that waits for it, in a line or outside; at :due, without one only its priority. It never starts
-- after the cap of a debounced one, joins its line at once if that is due (but for one that replaces another of its key),
-- and keeps a place that it has there. Its deadline stays.
WITH moved (due) AS (
    SELECT min(:due, coalesce(l.cap_at, :due), CASE WHEN l.line IS NULL THEN coalesce(r.deadline_at, :due) ELSE :due END)
    FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row WHERE l.row = :row
)
UPDATE ol_live SET priority = coalesce(:priority, priority),
    line = CASE WHEN line IS NULL OR moved.due IS NULL THEN line
        WHEN moved.due <= :now AND (line = 'waiting' OR once IS NOT 'singleton') THEN 'waiting' ELSE 'delayed' END,
    line_at = CASE WHEN line IS NULL OR moved.due IS NULL THEN line_at
        WHEN moved.due <= :now THEN min(line_at, :now) ELSE moved.due END,
    wake_at = CASE WHEN line IS NOT NULL OR moved.due IS NULL THEN wake_at
        WHEN moved.due <= :now THEN min(wake_at, :now) ELSE moved.due END
FROM moved
WHERE row = :row AND owner IS NULL AND (line IN ('delayed', 'waiting') OR (line IS NULL AND started_at IS NULL))
    AND NOT EXISTS (SELECT 1 FROM ol_requests q WHERE q.row = ol_live.row AND q.kind = 'cancel')

-- name: set_priority
-- The same priority where anyone reads it.
UPDATE ol_runs SET priority = :priority WHERE row = :row

-- name: list_queues
-- All queues and what stands in them. One snapshot.
SELECT n.queue, coalesce(q.limits, '{}'), coalesce(q.changed, '{}'), coalesce(q.paused, 0),
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'delayed'),
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'waiting'),
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'admitted')
FROM (
    SELECT queue FROM ol_queues UNION SELECT queue FROM ol_live WHERE line IS NOT NULL
) n LEFT JOIN ol_queues q ON q.queue = n.queue
WHERE n.queue <> '' AND (:queue IS NULL OR n.queue = :queue)
ORDER BY n.queue
