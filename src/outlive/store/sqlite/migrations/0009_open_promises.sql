-- What a promise that waits for somebody is about: listed by topic while it is open.
ALTER TABLE ol_promises ADD COLUMN topic TEXT;
ALTER TABLE ol_promises ADD COLUMN about TEXT;
ALTER TABLE ol_promises ADD COLUMN about_codec TEXT;

CREATE INDEX ol_promises_open ON ol_promises (topic, created_at, token) WHERE topic IS NOT NULL AND settled_at IS NULL;

DROP VIEW outlive_promises;
CREATE VIEW outlive_promises AS
SELECT r.id AS run, p.key, p.topic, p.about, p.outcome, p.value, p.error,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.created_at, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.expires_at, 'unixepoch') AS expires_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', p.settled_at, 'unixepoch') AS settled_at, p.row
FROM ol_promises p JOIN ol_runs r ON r.row = p.row;
