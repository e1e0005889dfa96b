-- Which version of its code a run is tied to. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: pin_runs
-- Ties a run to the version that its new owner, who claimed it before any code had executed it, executes it with.
UPDATE ol_runs SET version = :version, pinned = 1
WHERE row = :row AND EXISTS (SELECT 1 FROM ol_live l WHERE l.row = ol_runs.row AND l.owner = :worker)

-- name: pin_live
-- The same for its live row.
UPDATE ol_live SET workflow = workflow || '#' || :version
WHERE row = :row AND owner = :worker AND instr(workflow, '#') = 0

-- name: count_versions
-- Counts the unfinished runs of each version of a workflow, or of all, by status. One snapshot.
SELECT r.workflow, r.version, r.pinned,
    CASE
        WHEN l.hold IS NOT NULL THEN l.hold
        WHEN l.owner IS NOT NULL THEN 'running'
        WHEN l.started_at IS NOT NULL THEN 'suspended'
        WHEN l.wake_at > :now THEN 'scheduled'
        ELSE 'queued'
    END AS status,
    count(*)
FROM ol_live l CROSS JOIN ol_runs r ON r.row = l.row
WHERE :workflow IS NULL OR r.workflow = :workflow
GROUP BY 1, 2, 3, 4
ORDER BY 1, min(r.row), 4
