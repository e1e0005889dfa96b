-- What all processes of a store may know for a while, by name: an answer of a model, a limit that it has told.
CREATE TABLE ol_memos (
    name   TEXT PRIMARY KEY,
    maker  TEXT NOT NULL,
    worker INTEGER,
    epoch  INTEGER,
    until  REAL NOT NULL,
    value  TEXT
) STRICT;

CREATE INDEX ol_memos_until ON ol_memos (until);
