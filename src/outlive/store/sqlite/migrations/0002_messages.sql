-- What runs tell each other and the world: messages, values, streams, promises.
-- All of it belongs to a run and dies with it; nothing refers to it from elsewhere.

CREATE TABLE ol_messages (
    message     INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order within a topic: one sender's numbers grow
    row         INTEGER NOT NULL,                   -- whose mailbox it is in
    topic       TEXT NOT NULL,
    key         TEXT NOT NULL,                      -- what is sent again with the same key is here already
    codec       TEXT NOT NULL,
    sender      TEXT,                               -- id of the run that sent it, NULL if a program did
    created_at  REAL NOT NULL,
    received_by TEXT,                               -- the key of the entry that received it, empty if it was refused; NULL while unread
    value       TEXT NOT NULL,
    UNIQUE (row, key)
) STRICT;

CREATE INDEX ol_messages_unread ON ol_messages (row, topic, message) WHERE received_by IS NULL;
CREATE INDEX ol_messages_new ON ol_messages (created_at) WHERE received_by IS NULL;

CREATE TABLE ol_run_values (
    row        INTEGER NOT NULL,
    name       TEXT NOT NULL,
    codec      TEXT NOT NULL,
    updated_at REAL NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (row, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE ol_stream_items (
    row        INTEGER NOT NULL,
    name       TEXT NOT NULL,
    seq        INTEGER NOT NULL,                    -- from 1, without gaps: given by the one writer that owns the run
    codec      TEXT NOT NULL,
    created_at REAL NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (row, name, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE ol_promises (
    token      TEXT PRIMARY KEY,                    -- whoever knows it may settle the promise
    row        INTEGER NOT NULL,                    -- the run that made it, or that is to answer a call
    key        TEXT NOT NULL,                       -- of the entry that made it; of a call, its token
    outcome    TEXT CHECK (outcome IN ('ok', 'error')),  -- NULL until it is settled, once
    codec      TEXT,
    created_at REAL NOT NULL,
    expires_at REAL,
    settled_at REAL,
    value      TEXT,
    error      TEXT,
    UNIQUE (row, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX ol_promises_settled ON ol_promises (settled_at) WHERE settled_at IS NOT NULL;

-- A run takes with it all that belongs to it. A migration that adds such a table replaces this trigger.
DROP TRIGGER ol_blobs_die;
CREATE TRIGGER ol_runs_die AFTER DELETE ON ol_runs
BEGIN
    DELETE FROM ol_blobs WHERE row = OLD.row;
    DELETE FROM ol_entries WHERE row = OLD.row;
    DELETE FROM ol_requests WHERE row = OLD.row;
    DELETE FROM ol_messages WHERE row = OLD.row;
    DELETE FROM ol_run_values WHERE row = OLD.row;
    DELETE FROM ol_stream_items WHERE row = OLD.row;
    DELETE FROM ol_promises WHERE row = OLD.row;
    DELETE FROM ol_live WHERE row = OLD.row;
END;

CREATE VIEW outlive_messages AS
SELECT m.message, r.id AS run, m.topic, m.key, m.value, m.sender,
    strftime('%Y-%m-%dT%H:%M:%fZ', m.created_at, 'unixepoch') AS created_at, m.received_by, m.row
FROM ol_messages m JOIN ol_runs r ON r.row = m.row;

CREATE VIEW outlive_values AS
SELECT r.id AS run, v.name, v.value, strftime('%Y-%m-%dT%H:%M:%fZ', v.updated_at, 'unixepoch') AS updated_at, v.row
FROM ol_run_values v JOIN ol_runs r ON r.row = v.row;

CREATE VIEW outlive_stream_items AS
SELECT r.id AS run, i.name, i.seq, i.value,
    strftime('%Y-%m-%dT%H:%M:%fZ', i.created_at, 'unixepoch') AS created_at, i.row
FROM ol_stream_items i JOIN ol_runs r ON r.row = i.row;

CREATE VIEW outlive_promises AS
SELECT r.id AS run, p.key, p.outcome, p.value, p.error,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.created_at, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.expires_at, 'unixepoch') AS expires_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.settled_at, 'unixepoch') AS settled_at, p.row
FROM ol_promises p JOIN ol_runs r ON r.row = p.row;
