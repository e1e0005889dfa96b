-- What all processes may know for a while. Writing blocks count on the caller's BEGIN IMMEDIATE.

-- name: read_memo
-- A memo that has not passed. One snapshot.
SELECT value, until - :now FROM ol_memos WHERE name = :name AND until > :now

-- name: take_memo
-- Whoever makes its value from now on; nothing if it has one, or somebody who lives is making it.
INSERT INTO ol_memos (name, maker, worker, epoch, until) VALUES (:name, :maker, :worker, :epoch, :now + :for_s)
ON CONFLICT (name) DO UPDATE
SET maker = excluded.maker, worker = excluded.worker, epoch = excluded.epoch, until = excluded.until, value = NULL
WHERE until <= :now OR value IS NULL AND (maker = :maker OR NOT EXISTS (
    SELECT 1 FROM ol_workers w WHERE w.worker = ol_memos.worker AND w.epoch = ol_memos.epoch))
RETURNING 1

-- name: put_memo
-- Sets a value and its end; nothing if another maker has taken it meanwhile.
INSERT INTO ol_memos (name, maker, until, value) VALUES (:name, :maker, :now + :for_s, :value)
ON CONFLICT (name) DO UPDATE SET until = excluded.until, value = excluded.value
WHERE maker = :maker OR until <= :now

-- name: forget_memos
-- Some that have passed.
DELETE FROM ol_memos WHERE name IN (SELECT name FROM ol_memos WHERE until <= :now ORDER BY until LIMIT :limit)
