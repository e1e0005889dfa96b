-- Which code may go on with a run, and where it stands among the journals it has had.

-- Only code of its version may execute a pinned run: its live row has `name#version` as its workflow, and a claim names
-- what its worker serves in the same way.
ALTER TABLE ol_runs ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ol_runs ADD COLUMN continued INTEGER NOT NULL DEFAULT 0;  -- how many times it has been continued as new
ALTER TABLE ol_runs ADD COLUMN continued_at REAL;                     -- when its time began anew; NULL: when it started
