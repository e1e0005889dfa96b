-- The schema's versions, the clock, hints.

-- name: read_now
-- Reads the database's clock.
select extract(epoch from clock_timestamp())::float8

-- name: send_hint
-- Tells listeners that there may be work; they know the sender by its token. There is nothing that could be lost, so
-- the commit waits for no disk.
select set_config('synchronous_commit', 'off', true), pg_notify('outlive', :token)

-- name: list_versions
-- Reads the versions of the schema that were applied; fails if there is no schema yet.
select cast(substr(key, 11) as integer) from outlive.meta where key like 'migration/%'

-- name: find_meta
-- Tells whether the schema and its table of versions exist. Reads the catalogue itself: what to_regclass remembers of it
-- may be from before a wait for lock_schema.
select
  exists (select from pg_catalog.pg_namespace n where n.nspname = 'outlive') as has_schema,
  exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'outlive' and c.relname = 'meta') as has_meta

-- name: lock_schema
-- Makes the processes that start at once migrate one after the other; held until the end of the transaction.
select pg_advisory_xact_lock(7957707418634216)

-- name: insert_version
-- Records that a migration was applied, in its own transaction.
insert into outlive.meta (key, value) values ('migration/' || cast(:version as text), now()::text)
