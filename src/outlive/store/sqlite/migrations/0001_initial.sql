-- Runs, their entries, the live state of unfinished runs, workers and requests.
-- Rows of ol_runs and ol_entries stay as history; all that changes while a run
-- is unfinished lives in the narrow ol_live. Payloads are JSON text and come
-- last, so that reading a status does not follow the overflow pages of a large
-- input. Instants are seconds since 1970, UTC.

CREATE TABLE ol_runs (
    row          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    workflow     TEXT NOT NULL,
    version      TEXT,
    codec        TEXT NOT NULL,
    queue        TEXT NOT NULL DEFAULT '',
    priority     INTEGER NOT NULL DEFAULT 0,
    key          TEXT,
    status       TEXT,                          -- final status; NULL while unfinished
    parent       INTEGER,
    parent_key   TEXT,
    parent_close TEXT,
    generation   INTEGER NOT NULL DEFAULT 0,
    created_at   REAL NOT NULL,
    started_at   REAL,
    finished_at  REAL,
    deadline_at  REAL,
    attributes   TEXT,
    input        TEXT NOT NULL,
    output       TEXT,
    error        TEXT
) STRICT;

CREATE INDEX ol_runs_parent ON ol_runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX ol_runs_child_end ON ol_runs (finished_at) WHERE parent IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX ol_runs_unsuccessful ON ol_runs (status, row) WHERE status IN ('failed', 'cancelled');

CREATE TABLE ol_live (
    row          INTEGER PRIMARY KEY,
    workflow     TEXT NOT NULL,
    queue        TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    owner        INTEGER,
    claim        INTEGER NOT NULL DEFAULT 0,
    wake_at      REAL,                          -- claimable from then on; NULL: only when woken
    hold         TEXT CHECK (hold IN ('paused', 'quarantined')),
    hold_reason  TEXT,
    crashes      INTEGER NOT NULL DEFAULT 0,
    in_user_code INTEGER NOT NULL DEFAULT 0,
    alone        INTEGER NOT NULL DEFAULT 0,
    started_at   REAL
) STRICT;

-- A lane is one queue and priority: a claim reads only the due end of each lane,
-- however many sleepers it has. The 2 is limits.SUSPECT_CRASHES.
CREATE INDEX ol_live_lanes ON ol_live (queue, priority, wake_at, row, workflow)
    WHERE owner IS NULL AND hold IS NULL AND crashes < 2 AND wake_at IS NOT NULL;
CREATE INDEX ol_live_suspects ON ol_live (priority, wake_at, row)
    WHERE owner IS NULL AND hold IS NULL AND crashes >= 2 AND wake_at IS NOT NULL;
CREATE INDEX ol_live_owner ON ol_live (owner) WHERE owner IS NOT NULL;

CREATE TABLE ol_entries (
    row           INTEGER NOT NULL,
    key           TEXT NOT NULL,
    seq           INTEGER,                      -- place in the order of delivery; NULL while only started
    kind          TEXT NOT NULL,
    name          TEXT NOT NULL,
    digest        TEXT,
    outcome       TEXT NOT NULL CHECK (outcome IN ('ok', 'error', 'started')),
    attempts      INTEGER NOT NULL,
    noted_version TEXT,
    generation    INTEGER NOT NULL DEFAULT 0,
    started_at    REAL NOT NULL,
    finished_at   REAL,
    value         TEXT,
    error         TEXT,
    PRIMARY KEY (row, key)
) STRICT, WITHOUT ROWID;

-- Payloads too large for their row, where '@blob:…' stands for them; every read resolves that.
CREATE TABLE ol_blobs (
    row  INTEGER NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (row, name)
) STRICT;

CREATE TRIGGER ol_blobs_die AFTER DELETE ON ol_runs
BEGIN
    DELETE FROM ol_blobs WHERE row = OLD.row;
END;

-- The fence: one row for each process incarnation, its epoch changed only by takeover.
CREATE TABLE ol_workers (
    worker        INTEGER PRIMARY KEY,
    epoch         INTEGER NOT NULL,
    host          TEXT NOT NULL,
    pid           INTEGER NOT NULL,
    name          TEXT NOT NULL,
    lock_path     TEXT,
    registered_at REAL NOT NULL
) STRICT;

CREATE TABLE ol_worker_beats (
    worker     INTEGER PRIMARY KEY,
    beat_at    REAL NOT NULL,
    expires_at REAL NOT NULL
) STRICT;

CREATE TABLE ol_requests (
    request    INTEGER PRIMARY KEY AUTOINCREMENT,
    row        INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    payload    TEXT,
    created_at REAL NOT NULL,
    UNIQUE (row, kind)
) STRICT;

-- Views for people and tools: documented, part of the public interface. Times are ISO 8601, UTC.

CREATE VIEW outlive_runs AS
SELECT
    r.row, r.id, r.workflow, r.version,
    CASE
        WHEN r.status IS NOT NULL THEN r.status
        WHEN l.hold IS NOT NULL THEN l.hold
        WHEN l.owner IS NOT NULL THEN 'running'
        WHEN l.started_at IS NOT NULL THEN 'suspended'
        WHEN l.wake_at > (julianday('now') - 2440587.5) * 86400.0 THEN 'scheduled'
        ELSE 'queued'
    END AS status,
    r.queue, r.priority, r.key, r.attributes,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.input), r.input) AS input,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = r.row AND b.name = r.output), r.output) AS output,
    r.error, r.codec,
    p.id AS parent, r.parent AS parent_row, r.parent_key, r.parent_close, r.generation,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.created_at, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(r.started_at, l.started_at), 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.finished_at, 'unixepoch') AS finished_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.deadline_at, 'unixepoch') AS deadline_at,
    l.hold_reason, l.owner AS worker, l.claim, coalesce(l.crashes, 0) AS crashes,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.wake_at, 'unixepoch') AS wake_at
FROM ol_runs r
LEFT JOIN ol_live l ON l.row = r.row
LEFT JOIN ol_runs p ON p.row = r.parent;

CREATE VIEW outlive_entries AS
SELECT
    r.id AS run, e.seq, e.key, e.kind, e.name, e.outcome,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = e.row AND b.name = e.value), e.value) AS value, e.error, e.attempts, e.digest, e.noted_version,
    e.generation,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.started_at, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.finished_at, 'unixepoch') AS finished_at,
    e.row
FROM ol_entries e
JOIN ol_runs r ON r.row = e.row;

CREATE VIEW outlive_workers AS
SELECT
    w.worker, w.epoch, w.name, w.host, w.pid, w.lock_path,
    strftime('%Y-%m-%dT%H:%M:%fZ', w.registered_at, 'unixepoch') AS registered_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.beat_at, 'unixepoch') AS beat_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.expires_at, 'unixepoch') AS expires_at,
    coalesce(b.expires_at >= (julianday('now') - 2440587.5) * 86400.0, 0) AS alive,
    (SELECT count(*) FROM ol_live l WHERE l.owner = w.worker) AS runs
FROM ol_workers w
LEFT JOIN ol_worker_beats b ON b.worker = w.worker;

CREATE VIEW outlive_requests AS
SELECT
    q.request, r.id AS run, q.kind, q.payload,
    strftime('%Y-%m-%dT%H:%M:%fZ', q.created_at, 'unixepoch') AS created_at,
    q.row
FROM ol_requests q
JOIN ol_runs r ON r.row = q.row;
