-- What may be pruned. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: select_prunable
-- What decides of finished runs whether they may go; a condition that names few of them follows. One snapshot.
SELECT r.row, r.parent, (SELECT count(*) FROM ol_runs c WHERE c.parent = r.row),
    EXISTS (SELECT 1 FROM ol_live l WHERE l.row = r.parent) AND NOT EXISTS (
        SELECT 1 FROM ol_entries e
        WHERE e.row = r.parent AND e.key = r.parent_key AND e.outcome <> 'started'
            AND (e.kind = 'child' OR r.parent_close = 'abandon'))
FROM ol_runs r

-- name: find_finished
-- Those of some runs that have ended before an instant; what read_found finds.
SELECT r.row FROM json_each(:rows) want CROSS JOIN ol_runs r ON r.row = want.value
WHERE r.status IS NOT NULL AND r.finished_at < :finished_before

-- name: where_rows
-- Some runs.
WHERE r.row IN (SELECT value FROM json_each(:rows)) ORDER BY r.row
