-- Whether a run is a singleton of its workflow and key: known after its end, for those who retry, rewind or fork it.
ALTER TABLE ol_runs ADD COLUMN singleton INTEGER NOT NULL DEFAULT 0;
