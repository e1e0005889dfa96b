-- The schema's versions.

-- name: create_meta
-- The table that holds the versions applied; made first, in the same transaction as what they create.
CREATE TABLE IF NOT EXISTS ol_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID

-- name: find_meta
-- Whether the schema has been begun at all.
SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'ol_meta'

-- name: list_versions
-- The migrations applied so far.
SELECT CAST(substr(name, 8) AS INTEGER) FROM ol_meta WHERE name LIKE 'schema.%'

-- name: insert_version
-- Records a migration, in its own transaction.
INSERT INTO ol_meta (name, value) VALUES ('schema.' || ?, ?)
