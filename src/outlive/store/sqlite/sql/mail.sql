-- Messages, values, streams and promises. Writing blocks count on the caller's BEGIN IMMEDIATE, reading ones on one snapshot.

-- name: find_recipient
-- The row of a run, whether it has ended, and whether it has a message of this key.
SELECT r.row, r.status IS NOT NULL, EXISTS (SELECT 1 FROM ol_messages m WHERE m.row = r.row AND m.key = ?)
FROM ol_runs r WHERE r.id = ?

-- name: insert_messages
-- A message into the mailbox of a run that was looked up in this transaction.
INSERT INTO ol_messages (row, topic, key, value, codec, sender, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: receive_messages
-- Marks a message as received by an entry of its run.
UPDATE ol_messages SET received_by = ? WHERE message = ? AND row = ?

-- name: put_values
-- Shows a value.
INSERT INTO ol_run_values (row, name, value, codec, updated_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (row, name) DO UPDATE SET value = excluded.value, codec = excluded.codec, updated_at = excluded.updated_at

-- name: insert_items
-- Appends to a stream, numbered on; once per key.
INSERT INTO ol_stream_items (row, name, seq, value, codec, created_at, key)
SELECT :row, :name,
    coalesce((SELECT max(i.seq) FROM ol_stream_items i WHERE i.row = :row AND i.name = :name), 0) + 1,
    :value, :codec, :now, :key
WHERE NOT EXISTS (SELECT 1 FROM ol_stream_items i WHERE i.row = :row AND i.name = :name AND i.key = :key)

-- name: insert_promises
-- Makes a promise: of an entry, or, of a call, of the run that is to answer it.
INSERT INTO ol_promises (token, row, key, created_at, expires_at, topic, about, about_codec)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: settle_promises
-- Settles a promise that is open.
UPDATE ol_promises SET outcome = :outcome, value = :value, error = :error, codec = :codec, settled_at = :now
WHERE token = :token AND outcome IS NULL

-- name: find_promise
-- Whose promise it is, whether it is settled, and when it expires.
SELECT row, outcome, expires_at, key, (SELECT r.id FROM ol_runs r WHERE r.row = p.row) FROM ol_promises p WHERE token = ?

-- name: select_open_promises
-- Reads promises that wait for somebody; where from, which names few of them, follows.
SELECT r.id, p.key, p.token, p.topic, p.about, p.about_codec, p.created_at, p.expires_at

-- name: from_topic
-- The oldest of a topic behind one. Along their index, so it reads as many as it gives.
FROM ol_promises p CROSS JOIN ol_runs r ON r.row = p.row
WHERE p.topic = :topic AND p.settled_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > :now) AND r.status IS NULL
    AND (p.created_at, p.token)
        > (coalesce((SELECT a.created_at FROM ol_promises a WHERE a.token = :after), 0.0), coalesce(:after, ''))
ORDER BY p.created_at, p.token LIMIT :limit

-- name: from_run_topic
-- The same of one run. The plus keeps to the promises of the run: those of the topic may be many more.
FROM ol_runs r CROSS JOIN ol_promises p ON p.row = r.row
WHERE r.id = :run AND r.status IS NULL
    AND +p.topic = :topic AND p.settled_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > :now)
    AND (p.created_at, p.token)
        > (coalesce((SELECT a.created_at FROM ol_promises a WHERE a.token = :after), 0.0), coalesce(:after, ''))
ORDER BY p.created_at, p.token LIMIT :limit

-- name: from_run_key
-- The one of a run's entry.
FROM ol_runs r CROSS JOIN ol_promises p ON p.row = r.row
WHERE r.id = :run AND r.status IS NULL AND p.key = :key
    AND p.topic IS NOT NULL AND p.settled_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > :now)

-- name: list_mail
-- The oldest unread messages of a topic of a run.
SELECT message, key, value, codec FROM ol_messages
WHERE row = ? AND topic = ? AND received_by IS NULL ORDER BY message LIMIT ?

-- name: list_settled
-- Those of some promises that are settled.
SELECT p.token, p.outcome, p.value, p.error, p.codec
FROM json_each(?) want CROSS JOIN ol_promises p ON p.token = want.value WHERE p.outcome IS NOT NULL

-- name: list_values
-- What a run shows under a name.
SELECT value, codec FROM ol_run_values WHERE row = ? AND name = ?

-- name: list_items
-- The next items of a stream.
SELECT seq, value, codec FROM ol_stream_items WHERE row = ? AND name = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: list_finished
-- Those of some runs that have ended.
SELECT r.row FROM json_each(?) want CROSS JOIN ol_runs r ON r.row = want.value WHERE r.status IS NOT NULL

-- name: list_mailed
-- Waiting runs with a message or a promise, come since an instant, that an entry waits for. Only finds candidates.
SELECT fact.row FROM (
    SELECT m.row, m.topic AS name, 'receive' AS kind FROM ol_messages m
    WHERE m.received_by IS NULL AND m.created_at >= :since
    UNION
    SELECT p.row, p.key, 'wait' FROM ol_promises p WHERE p.settled_at IS NOT NULL AND p.settled_at >= :since
) fact
WHERE EXISTS (
        SELECT 1 FROM ol_live l
        WHERE l.row = fact.row AND l.owner IS NULL AND l.hold IS NULL AND l.started_at IS NOT NULL
            AND (l.wake_at IS NULL OR l.wake_at > :now))
    AND EXISTS (
        SELECT 1 FROM ol_entries e
        WHERE e.row = fact.row AND e.outcome = 'started' AND e.kind = fact.kind AND e.name = fact.name)
