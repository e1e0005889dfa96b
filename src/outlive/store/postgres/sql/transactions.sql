-- What ends a transaction of the user, and what bounds his sessions. Each counts on READ COMMITTED.

-- name: settle_entry
-- Writes a transaction's entry as its last statement; tells whether transaction and fence still stand.
with same as (select where current_setting('outlive.transaction', true) = :token),
fence as materialized (
  select from outlive.workers w, same where w.worker = :worker and w.epoch = :epoch for key share of w
),
written as (
  insert into outlive.entries as e (
    row, key, seq, kind, name, digest, outcome, value, error, attempts, noted_version, generation, started_at, finished_at)
  select cast(:row as bigint), cast(:key as text), cast(:seq as integer), cast(:kind as text), cast(:name as text),
    cast(:digest as text), cast(:outcome as text), cast(:value as text), cast(:error as text),
    cast(:attempts as integer), cast(:noted_version as text), cast(:generation as integer), to_timestamp(:started_at), to_timestamp(:finished_at)
  from fence
  where (
    select true from outlive.generations n where n.row = :row and n.generation = cast(:generation as integer)) is not true
  on conflict (row, key) do update set
    seq = excluded.seq, kind = excluded.kind, name = excluded.name, digest = excluded.digest,
    outcome = excluded.outcome, value = excluded.value, error = excluded.error, attempts = excluded.attempts,
    noted_version = excluded.noted_version, generation = excluded.generation, started_at = excluded.started_at, finished_at = excluded.finished_at
  where e.outcome = 'started'
  returning 1
)
select (select count(*) from same) as same, (select count(*) from fence) as fenced, (select count(*) from written) as written

-- name: mark_session
-- Limits the transaction of a user's session and marks it, so that its end shows; all of it ends with the transaction.
select set_config('statement_timeout', cast(:millis as text), true),
  set_config('lock_timeout', cast(:lock_millis as text), true),
  set_config('idle_in_transaction_session_timeout', cast(:millis as text), true),
  set_config('outlive.transaction', cast(:token as text), true),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
    else current_setting('synchronous_commit') end, true)

-- name: find_place
-- Tells this database of this server from all others, without a privilege; and whether the mark of a session stands.
select current_setting('outlive.transaction', true) as token,
  cast(extract(epoch from pg_postmaster_start_time()) * 1000000 as bigint) || ' ' || (
    select cast(d.oid as text) from pg_catalog.pg_database d where d.datname = current_database()) as place
