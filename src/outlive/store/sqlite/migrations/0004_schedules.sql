-- Rules that start runs. Everything that changes in a row is written against the revision that was read, so a tick is
-- acted on once, whichever process is first.

CREATE TABLE ol_schedules (
    name       TEXT PRIMARY KEY,
    revision   INTEGER NOT NULL,          -- drawn anew by each change
    paused     INTEGER NOT NULL,
    next_at    REAL,                      -- the next tick; NULL: there is none
    last_at    REAL,                      -- the last tick that started a run
    created_at REAL NOT NULL,             -- what an interval counts from
    skipped    INTEGER NOT NULL,
    waiting    TEXT NOT NULL,             -- ticks that wait for the runs before them, a JSON list of instants
    running    TEXT NOT NULL,             -- rows of its runs that may be unfinished, a JSON list
    declared   TEXT,                      -- what code says, JSON; NULL: nothing
    changed    TEXT                       -- what was put in its place at run time, JSON; NULL: nothing
) STRICT;

CREATE INDEX ol_schedules_due ON ol_schedules (next_at) WHERE paused = 0 AND next_at IS NOT NULL;
CREATE INDEX ol_schedules_waiting ON ol_schedules (name) WHERE paused = 0 AND waiting <> '[]';

CREATE VIEW outlive_schedules AS
SELECT
    s.name, coalesce(s.changed, s.declared) ->> '$.workflow' AS workflow,
    coalesce(s.changed, s.declared) ->> '$.cron' AS cron,
    coalesce(s.changed, s.declared) ->> '$.every_s' AS every_s,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(s.changed, s.declared) ->> '$.at', 'unixepoch') AS at,
    coalesce(s.changed, s.declared) ->> '$.zone' AS zone,
    coalesce(s.changed, s.declared) ->> '$.overlap' AS overlap,
    coalesce(s.changed, s.declared) ->> '$.catch_up_s' AS catch_up_s,
    coalesce(s.changed, s.declared) ->> '$.jitter_s' AS jitter_s,
    s.paused, s.changed IS NOT NULL AS changed, s.declared IS NOT NULL AS declared,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.next_at, 'unixepoch') AS next_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.last_at, 'unixepoch') AS last_at,
    json_array_length(s.waiting) AS waiting, s.skipped,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.created_at, 'unixepoch') AS created_at,
    coalesce(s.changed, s.declared) ->> '$.input' AS input
FROM ol_schedules s;
