-- Queues: lines of runs in front of the ordinary claim. A run of a queue waits in ol_live without a wake time until the
-- queue admits it: it is given a slot and an owner in one write transaction, and keeps the slot until it ends. How many
-- slots are taken is counted, so that ending a run touches nothing of its queue.

ALTER TABLE ol_runs ADD COLUMN dedupe TEXT;

-- Of unfinished runs one for each; whoever starts another learns of it.
CREATE UNIQUE INDEX ol_runs_dedupe ON ol_runs (queue, dedupe) WHERE dedupe IS NOT NULL AND status IS NULL;

ALTER TABLE ol_live ADD COLUMN key TEXT NOT NULL DEFAULT '';  -- '': of a run without a key
ALTER TABLE ol_live ADD COLUMN line TEXT CHECK (line IN ('delayed', 'waiting', 'admitted'));  -- NULL: outside all queues
ALTER TABLE ol_live ADD COLUMN line_at REAL;                  -- since when it waits, or when it will
ALTER TABLE ol_live ADD COLUMN once TEXT CHECK (once IN ('debounce', 'singleton'));
ALTER TABLE ol_live ADD COLUMN cap_at REAL;                   -- a debounced run is not delayed beyond that

CREATE INDEX ol_live_line ON ol_live (queue, priority, key, line_at, row)
    WHERE line = 'waiting' AND owner IS NULL AND hold IS NULL;
CREATE INDEX ol_live_delayed ON ol_live (line_at) WHERE line = 'delayed';
CREATE INDEX ol_live_admitted ON ol_live (queue, key) WHERE line = 'admitted';
CREATE INDEX ol_live_once ON ol_live (key) WHERE once IS NOT NULL;

-- Limits are JSON objects; what an operator has changed wins over what code has declared until it is reset.
CREATE TABLE ol_queues (
    queue      TEXT PRIMARY KEY,
    declared   TEXT NOT NULL DEFAULT '{}',
    changed    TEXT NOT NULL DEFAULT '{}',
    limits     TEXT NOT NULL DEFAULT '{}',    -- what is in force: the two put together
    per_worker INTEGER GENERATED ALWAYS AS (limits ->> 'per_worker') VIRTUAL,
    backlog    INTEGER GENERATED ALWAYS AS (limits ->> 'backlog') VIRTUAL,
    paused     INTEGER NOT NULL DEFAULT 0,
    served_key TEXT NOT NULL DEFAULT ''       -- the turn goes round between the keys: the next one is behind this
) STRICT, WITHOUT ROWID;

-- When runs of queues with a rate were admitted; kept as long as the rate looks back.
CREATE TABLE ol_admissions (
    queue TEXT NOT NULL,
    at    REAL NOT NULL,
    row   INTEGER NOT NULL,
    key   TEXT NOT NULL,
    PRIMARY KEY (queue, at, row)
) STRICT, WITHOUT ROWID;

CREATE INDEX ol_admissions_key ON ol_admissions (queue, key, at);

-- Documented views: a part of the public interface.

DROP VIEW outlive_runs;

CREATE VIEW outlive_runs AS
SELECT
    r.row, r.id, r.workflow, r.version,
    CASE
        WHEN r.status IS NOT NULL THEN r.status
        WHEN l.hold IS NOT NULL THEN l.hold
        WHEN l.owner IS NOT NULL THEN 'running'
        WHEN l.started_at IS NOT NULL AND (l.line IS NULL OR l.line = 'admitted') THEN 'suspended'
        WHEN coalesce(l.line_at, l.wake_at) > (julianday('now') - 2440587.5) * 86400.0 THEN 'scheduled'
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
    strftime('%Y-%m-%dT%H:%M:%fZ', l.wake_at, 'unixepoch') AS wake_at,
    r.forked_from, l.line, strftime('%Y-%m-%dT%H:%M:%fZ', l.line_at, 'unixepoch') AS line_at, r.dedupe
FROM ol_runs r
LEFT JOIN ol_live l ON l.row = r.row
LEFT JOIN ol_runs p ON p.row = r.parent;

CREATE VIEW outlive_queues AS
SELECT
    n.queue, q.limits ->> 'concurrency' AS concurrency, q.per_worker, q.limits ->> 'per_key' AS per_key,
    q.limits -> 'rate' AS rate, q.limits -> 'rate_per_key' AS rate_per_key, q.backlog,
    coalesce(q.limits ->> 'on_full', 'reject') AS on_full, coalesce(q.paused, 0) AS paused,
    coalesce(q.changed, '{}') <> '{}' AS is_changed,
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'delayed') AS delayed,
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'waiting') AS waiting,
    (SELECT count(*) FROM ol_live l WHERE l.queue = n.queue AND l.line = 'admitted') AS running
FROM (
    SELECT queue FROM ol_queues UNION SELECT queue FROM ol_live WHERE line IS NOT NULL
) n LEFT JOIN ol_queues q ON q.queue = n.queue
WHERE n.queue <> '';
