-- Runs and journals as anyone may read them; one snapshot each.

-- name: load_entries
-- All entries of some runs in the order of delivery, started ones last. One snapshot.
SELECT e.row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = e.row AND b.name = e.value), e.value),
    e.error, e.attempts, e.started_at, e.finished_at, e.noted_version, e.generation
FROM json_each(?) want CROSS JOIN ol_entries e ON e.row = want.value
ORDER BY want.id, e.seq IS NULL, e.seq, e.started_at, e.key

-- name: list_workers
-- The incarnations that hold a lease, or held one that nobody has taken over yet. One snapshot.
SELECT w.worker, w.epoch, w.host, w.pid, w.name, w.lock_path, b.expires_at
FROM ol_workers w JOIN ol_worker_beats b ON b.worker = w.worker
ORDER BY w.registered_at, w.worker

-- name: list_requests
-- Open requests for the runs of one worker. One snapshot.
SELECT q.request, q.row, q.kind, q.payload
FROM ol_requests q CROSS JOIN ol_live l ON l.row = q.row
WHERE l.owner = ? ORDER BY q.request

-- name: derive_status
-- What a run is called by its final status and its live row, at :now.
CASE
    WHEN r.status IS NOT NULL THEN r.status
    WHEN l.hold IS NOT NULL THEN l.hold
    WHEN l.owner IS NOT NULL THEN 'running'
    WHEN l.started_at IS NOT NULL AND (l.line IS NULL OR l.line = 'admitted') THEN 'suspended'
    WHEN coalesce(l.line_at, l.wake_at) > :now THEN 'scheduled'
    ELSE 'queued'
END

-- name: select_runs
-- The head of every reading of runs; a condition that names few of them follows. One snapshot.
SELECT r.row, r.id, r.workflow, r.version,
    {status},
    r.queue, r.priority, r.key, r.attributes,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.input), r.input),
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.output), r.output),
    r.error, r.codec,
    (SELECT p.id FROM ol_runs p WHERE p.row = r.parent) AS parent_id,
    r.created_at, coalesce(r.started_at, l.started_at), r.finished_at,
    l.hold_reason, l.owner, coalesce(l.crashes, 0), l.wake_at, r.parent_close,
    r.generation, r.deadline_at, r.forked_from, r.pinned, r.salt, r.continued,
    coalesce(r.continued_at, r.started_at, l.started_at), r.parent_key, coalesce(l.claim, r.claim),
    l.line, l.line_at, l.once, l.cap_at
FROM ol_runs r LEFT JOIN ol_live l ON l.row = r.row

-- name: where_id
-- One run.
WHERE r.id = :id

-- name: where_parent
-- The children of a run, as they were started.
WHERE r.parent = :parent AND (NOT :unfinished OR r.status IS NULL)
ORDER BY r.row

-- name: list_entries
-- The journal of one run. One snapshot.
SELECT e.key, e.seq, e.kind, e.name, e.digest, e.outcome,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = e.row AND b.name = e.value), e.value),
    e.error, e.attempts, e.started_at, e.finished_at, e.noted_version, e.generation
FROM ol_runs r JOIN ol_entries e ON e.row = r.row
WHERE r.id = ?
ORDER BY e.seq IS NULL, e.seq, e.started_at, e.key

-- name: list_ended
-- Those of some runs that have ended, are held or are not there; a held run gives the reason as its error. One snapshot.
SELECT want.value, coalesce(r.id, ''), coalesce(r.workflow, ''), coalesce(r.status, l.hold, 'gone'),
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.output), r.output),
    coalesce(r.error, l.hold_reason), coalesce(r.codec, '')
FROM json_each(?) want LEFT JOIN ol_runs r ON r.row = want.value LEFT JOIN ol_live l ON l.row = r.row
WHERE r.row IS NULL OR r.status IS NOT NULL OR l.hold IS NOT NULL
ORDER BY want.id
