-- Generations of a run, forks, and who has asked for what. A run that is retried, rewound or continued as new begins
-- another generation: entries that it does not keep move to ol_past_entries, how the last one ended to ol_generations.

ALTER TABLE ol_runs ADD COLUMN claim INTEGER;        -- that of its end: claims after a retry go on above it
ALTER TABLE ol_runs ADD COLUMN salt INTEGER;         -- of the run whose journal it has inherited; NULL: its own row
ALTER TABLE ol_runs ADD COLUMN forked_from TEXT;

-- The generations that have ended, and how; an entry of one of them is written no more. input and version only where
-- the next generation has others.
CREATE TABLE ol_generations (
    row         INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    action      TEXT NOT NULL,
    ended_at    REAL NOT NULL,
    status      TEXT,                           -- NULL: it had not ended when it was left
    version     TEXT,
    input       TEXT,
    output      TEXT,
    error       TEXT,
    PRIMARY KEY (row, generation)
) STRICT, WITHOUT ROWID;

-- What later generations do not keep: recorded in `generation`, a part of the journal up to `last_generation`.
CREATE TABLE ol_past_entries (
    row             INTEGER NOT NULL,
    last_generation INTEGER NOT NULL,
    key             TEXT NOT NULL,
    seq             INTEGER,
    kind            TEXT NOT NULL,
    name            TEXT NOT NULL,
    digest          TEXT,
    outcome         TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    noted_version   TEXT,
    generation      INTEGER NOT NULL,
    started_at      REAL NOT NULL,
    finished_at     REAL,
    value           TEXT,
    error           TEXT,
    PRIMARY KEY (row, last_generation, key)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ol_generations_die AFTER DELETE ON ol_runs
BEGIN
    DELETE FROM ol_past_entries WHERE row = OLD.row;
    DELETE FROM ol_generations WHERE row = OLD.row;
END;

-- Every action of an operator, written in its own transaction. It outlives the run.
CREATE TABLE ol_audit (
    audit  INTEGER PRIMARY KEY,                 -- drawn by the writer, ordered by time
    at     REAL NOT NULL,
    who    TEXT NOT NULL,
    action TEXT NOT NULL,
    noun   TEXT NOT NULL,                       -- what was acted on: run, queue, schedule
    target TEXT NOT NULL,                       -- its id or name
    reason TEXT,
    facts  TEXT                                 -- JSON
) STRICT;

CREATE INDEX ol_audit_target ON ol_audit (target, audit);

DROP VIEW outlive_runs;

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
    strftime('%Y-%m-%dT%H:%M:%fZ', l.wake_at, 'unixepoch') AS wake_at,
    r.forked_from
FROM ol_runs r
LEFT JOIN ol_live l ON l.row = r.row
LEFT JOIN ol_runs p ON p.row = r.parent;

CREATE VIEW outlive_past_entries AS
SELECT
    r.id AS run, e.last_generation, e.generation, e.seq, e.key, e.kind, e.name, e.outcome,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = e.row AND b.name = e.value), e.value) AS value, e.error,
    e.attempts, e.digest, e.noted_version,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.started_at, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.finished_at, 'unixepoch') AS finished_at,
    e.row
FROM ol_past_entries e
JOIN ol_runs r ON r.row = e.row;

CREATE VIEW outlive_generations AS
SELECT
    r.id AS run, g.generation, g.action, g.status, g.version,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = g.row AND b.name = g.input), g.input) AS input,
    coalesce((SELECT b.text FROM ol_blobs b WHERE b.row = g.row AND b.name = g.output), g.output) AS output,
    g.error,
    strftime('%Y-%m-%dT%H:%M:%fZ', g.ended_at, 'unixepoch') AS ended_at,
    g.row
FROM ol_generations g
JOIN ol_runs r ON r.row = g.row;

CREATE VIEW outlive_audit AS
SELECT
    a.audit, strftime('%Y-%m-%dT%H:%M:%fZ', a.at, 'unixepoch') AS at, a.who, a.action, a.noun, a.target, a.reason, a.facts
FROM ol_audit a;
