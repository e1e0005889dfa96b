-- Search: attributes by name and value, and indexes in the order of rows for what runs are listed by.

CREATE TABLE ol_run_attributes (
    row   INTEGER NOT NULL,
    name  TEXT NOT NULL,
    value TEXT NOT NULL,                        -- as model/attributes.py spells it
    PRIMARY KEY (row, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX ol_run_attributes_found ON ol_run_attributes (name, value, row);

CREATE INDEX ol_runs_workflow ON ol_runs (workflow);
CREATE INDEX ol_runs_queue ON ol_runs (queue) WHERE queue <> '';
CREATE INDEX ol_runs_key ON ol_runs (key) WHERE key IS NOT NULL;

CREATE TRIGGER ol_run_attributes_die AFTER DELETE ON ol_runs
BEGIN
    DELETE FROM ol_run_attributes WHERE row = OLD.row;
END;

CREATE VIEW outlive_attributes AS
SELECT r.id AS run, a.name, a.value, a.row
FROM ol_run_attributes a
JOIN ol_runs r ON r.row = a.row;
