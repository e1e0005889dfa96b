-- The statements of the PostgreSQL store; `:name` marks a parameter. Each counts on READ COMMITTED.
-- The first blocks are parts of one statement, WITH … SELECT, which commit.py puts together from what a batch holds;
-- all parts read one snapshot. A plan is made once and kept, so its cost may not depend on how full the tables were then:
-- a table that grows is reached by keys, `= any (array)` or a lateral lookup, and joined to nothing as a whole.

-- name: lock_fence
-- Locks the worker's fence row; waits for a takeover that is under way and is then empty, as all that derives from it.
fence as materialized (
  select from outlive.workers w where w.worker = cast(:worker as bigint) and w.epoch = cast(:epoch as bigint) for key share
)

-- name: pass_fence
-- Stands in for the fence of a batch that needs none.
fence as (select)

-- name: insert_entries
-- Inserts entries, settles started ones; one already stored exactly as given is this batch's own earlier send.
given_entries as materialized (
  select g.* from json_to_recordset(cast(:entry as json)) as g (
    row bigint, key text, seq integer, kind text, name text, digest text, outcome text, value text, error text,
    attempts integer, noted_version text, started_at float8, finished_at float8)
),
written as (
  insert into outlive.entries as e (
    row, key, seq, kind, name, digest, outcome, value, error, attempts, noted_version, started_at, finished_at)
  select g.row, g.key, g.seq, g.kind, g.name, g.digest, g.outcome, g.value, g.error, g.attempts, g.noted_version,
    to_timestamp(g.started_at), to_timestamp(g.finished_at)
  from given_entries g, fence
  on conflict (row, key) do update set
    seq = excluded.seq, kind = excluded.kind, name = excluded.name, digest = excluded.digest,
    outcome = excluded.outcome, value = excluded.value, error = excluded.error, attempts = excluded.attempts,
    noted_version = excluded.noted_version, started_at = excluded.started_at, finished_at = excluded.finished_at
  where e.outcome = 'started' or (
    (e.outcome, e.seq, e.attempts) = (excluded.outcome, excluded.seq, excluded.attempts)
    and (e.digest, e.value, e.error) is not distinct from (excluded.digest, excluded.value, excluded.error))
  returning e.row, e.key, e.xmax = 0 as is_new  -- an updated row has the updater there
),
refused as materialized (
  select distinct g.row from given_entries g
  where (select count(*) from written) <> (select count(*) from given_entries)
    and (g.row, g.key) not in (select w.row, w.key from written w)
)

-- name: skip_entries
-- Stands in for the entries of a batch without any.
written as (select cast(null as bigint) as row, cast(null as text) as key, false as is_new where false),
refused as (select cast(null as bigint) as row where false)

-- name: insert_runs
-- Inserts runs with their live rows where the id is free; a child only with its parent's entry. A taken row number
-- violates the primary key, and nothing of the batch is written.
given_runs as materialized (
  select g.* from json_to_recordset(cast(:run as json)) as g (
    row bigint, id text, workflow text, version text, codec text, queue text, priority integer, key text,
    attributes text, input text, parent bigint, parent_key text, parent_close text, deadline_at float8,
    delay_s float8, started_at float8)
),
started as (
  insert into outlive.runs (
    row, id, workflow, version, codec, queue, priority, key, attributes, input, parent, parent_key, parent_close,
    deadline_at, created_at)
  select g.row, g.id, g.workflow, g.version, g.codec, g.queue, g.priority, g.key, g.attributes, g.input, g.parent,
    g.parent_key, g.parent_close, to_timestamp(g.deadline_at), least(now(), to_timestamp(g.started_at))
  from given_runs g, fence
  where g.parent is null or (g.parent, g.parent_key) in (select w.row, w.key from written w where w.is_new)
  on conflict (id) do nothing
  returning row
),
placed as (
  insert into outlive.live (row, workflow, queue, priority, owner, claim, wake_at, in_user_code, started_at)
  select g.row, g.workflow, g.queue, g.priority, case when g.started_at is not null then cast(:worker as bigint) end,
    (g.started_at is not null)::integer,
    case when g.started_at is null then now() + make_interval(secs => g.delay_s) end,
    g.started_at is not null, to_timestamp(g.started_at)
  from given_runs g
  where (g.row in (select s.row from started s)) is true  -- as a test of a value it is hashed, whatever the estimate
)

-- name: skip_runs
-- Stands in for the runs of a batch without any.
started as (select cast(null as bigint) as row where false)

-- name: insert_blobs
-- Inserts large payloads of runs that are there, or come with this batch: a start that is refused leaves none behind.
stored as (
  insert into outlive.blobs (row, name, text)
  select g.row, g.name, g.text
  from unnest(cast(:blob_row as bigint[]), cast(:blob_name as text[]), cast(:blob_text as text[])) as g (row, name, text),
    fence
  where g.row in (
    select r.row from outlive.runs r where r.row = any (cast(:blob_row as bigint[])) union all select s.row from started s)
  on conflict (row, name) do nothing
)

-- name: finish_run
-- Ends runs that the worker still owns under this claim: deletes their live rows and requests, sets status and value.
finishes as materialized (
  select g.* from json_to_recordset(cast(:finish as json)) as g (
    row bigint, claim integer, status text, output text, error text, started_at float8, close_reason text)
),
ended as (
  delete from outlive.live l
  where l.row = any (array(select g.row from finishes g)) and l.owner = cast(:worker as bigint)
    and exists (select from fence) and l.row <> all (array(select r.row from refused r))
    and ((l.row, l.claim) in (select g.row, g.claim from finishes g)) is true
  returning l.row
),
closed as (
  update outlive.runs r set status = g.status, output = g.output, error = g.error,
    started_at = to_timestamp(g.started_at), finished_at = greatest(now(), to_timestamp(g.started_at))
  from finishes g
  where r.row = any (array(select x.row from ended x)) and r.row = g.row
),
forgotten as (
  delete from outlive.requests q where q.row = any (array(select x.row from ended x))
)

-- name: close_children
-- Asks the children that were to end with these runs to cancel; a second send of the batch finds no such end.
asked as (
  insert into outlive.requests (row, kind, payload, created_at)
  select c.row, 'cancel', g.close_reason, now()
  from outlive.runs c join finishes g on g.row = c.parent and g.close_reason is not null
  where c.parent = any (array(select x.row from ended x))
    and c.parent_close = 'cancel' and c.status is null and c.row <> all (array(select x.row from ended x))
  on conflict (row, kind) do nothing
)

-- name: release_strays
-- Lets go of runs that a living worker does not know of, since the reply to its claim was lost; read committed.
with fence as materialized (
  select 1 from outlive.workers where worker = :worker and epoch = :epoch for key share
),
strayed as (
  update outlive.live l set owner = null, wake_at = now(), in_user_code = false, alone = false
  from fence
  where l.owner = :worker and l.row <> all (cast(:kept as bigint[]))
  returning l.row
)
select (select count(*) from fence) as stands, (select count(*) from strayed) as released

-- name: release_run
-- Lets go of runs that the worker still owns under this claim; a held one is not claimable.
releases as materialized (
  select g.* from json_to_recordset(cast(:release as json)) as g (
    row bigint, claim integer, wake_at float8, hold text, hold_reason text)
),
released as (
  update outlive.live l set owner = null, hold = g.hold, hold_reason = g.hold_reason,
    wake_at = case when g.hold is null then to_timestamp(g.wake_at) end, in_user_code = false, alone = false
  from releases g
  where l.row = any (array(select x.row from releases x)) and l.owner = cast(:worker as bigint)
    and l.row = g.row and l.claim = g.claim
    and exists (select from fence) and l.row <> all (array(select r.row from refused r))
)

-- name: mark_run
-- Notes whether runs are in user code, and progress that clears their crashes.
marks as materialized (
  select g.* from json_to_recordset(cast(:mark as json)) as g (
    row bigint, claim integer, in_user_code boolean, clear_crashes boolean)
),
marked as (
  update outlive.live l set in_user_code = g.in_user_code, alone = l.alone and not g.clear_crashes,
    crashes = case when g.clear_crashes then 0 else l.crashes end
  from marks g
  where l.row = any (array(select x.row from marks x)) and l.owner = cast(:worker as bigint)
    and l.row = g.row and l.claim = g.claim and exists (select from fence)
)

-- name: delete_request
-- Deletes requests that have been executed.
handled as (
  delete from outlive.requests q where q.request = any (cast(:request as bigint[])) and exists (select from fence)
)

-- name: find_taken
-- Reads, after a batch, who has the ids and row numbers of its starts; needs a snapshot after that of the batch.
select r.row, r.id, r.workflow from outlive.runs r
where r.id = any (cast(:run_id as text[])) or r.row = any (cast(:run_row as bigint[]))

-- name: settle_entry
-- Writes a transaction's entry as its last statement; tells whether transaction and fence still stand.
with same as (select where current_setting('outlive.transaction', true) = :token),
fence as materialized (
  select from outlive.workers w, same where w.worker = :worker and w.epoch = :epoch for key share of w
),
written as (
  insert into outlive.entries as e (
    row, key, seq, kind, name, digest, outcome, value, error, attempts, noted_version, started_at, finished_at)
  select cast(:row as bigint), cast(:key as text), cast(:seq as integer), cast(:kind as text), cast(:name as text),
    cast(:digest as text), cast(:outcome as text), cast(:value as text), cast(:error as text),
    cast(:attempts as integer), cast(:noted_version as text), to_timestamp(:started_at), to_timestamp(:finished_at)
  from fence
  on conflict (row, key) do update set
    seq = excluded.seq, kind = excluded.kind, name = excluded.name, digest = excluded.digest,
    outcome = excluded.outcome, value = excluded.value, error = excluded.error, attempts = excluded.attempts,
    noted_version = excluded.noted_version, started_at = excluded.started_at, finished_at = excluded.finished_at
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

-- name: read_now
-- Reads the database's clock.
select extract(epoch from clock_timestamp())::float8

-- name: insert_worker
-- Inserts a worker's fence row and its first beat, or finds its own earlier send; empty if its number is taken.
with fence as (
  insert into outlive.workers as w (worker, epoch, host, pid, name, lock_path, registered_at)
  values (:worker, :epoch, :host, :pid, :name, :lock_path, now())
  on conflict (worker) do update set name = excluded.name
  where (w.epoch, w.host, w.pid, w.name) = (excluded.epoch, excluded.host, excluded.pid, excluded.name)
    and w.lock_path is not distinct from excluded.lock_path
  returning w.worker
)
insert into outlive.worker_beats (worker, beat_at, expires_at)
select f.worker, now(), now() + make_interval(secs => :lease_s) from fence f
on conflict (worker) do update set beat_at = excluded.beat_at, expires_at = excluded.expires_at
returning worker

-- name: put_beat
-- Renews the beat of a worker whose epoch stands; a takeover under way deletes the beat, and this one finds nothing.
update outlive.worker_beats b
set beat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => :lease_s)
from outlive.workers w
where b.worker = :worker and w.worker = b.worker and w.epoch = :epoch
returning extract(epoch from clock_timestamp())::float8

-- name: delete_worker
-- Deletes a worker's beat and fence row and releases what it owns; a function, since that takes two snapshots.
select outlive.delete_worker(:worker, :epoch)

-- name: list_workers
-- Reads the workers that hold a lease or held one until nobody took them over.
select w.worker, w.epoch, w.host, w.pid, w.name, w.lock_path, extract(epoch from b.expires_at)::float8 as expires_at
from outlive.workers w join outlive.worker_beats b on b.worker = w.worker
order by w.registered_at, w.worker

-- name: take_over
-- Takes over dead workers; the function of the schema does it in two statements, with a snapshot each.
select t.workers, t.released, t.quarantined from outlive.take_over(cast(:dead as bigint[])) t

-- name: claim_runs
-- Takes due runs by priority, then due time, past those that a peer is taking; before them held runs that somebody has
-- asked to cancel. One index descent per priority, so that sleeping runs cost nothing. The fence is locked only if there
-- is something to take: an idle poll writes nothing.
with held as materialized (
  select l.row from outlive.live l
  where l.row = any (array(select q.row from outlive.requests q where q.kind = 'cancel'))
    and l.owner is null and l.hold is not null
    and l.workflow = any (cast(:workflows as text[]))
    and (cast(:queues as text[]) is null or l.queue = any (cast(:queues as text[])))
    and (l.crashes >= cast(:suspect_crashes as integer)) = cast(:suspect as boolean)
  order by l.priority, l.row
  limit case when :suspect then 1 else cast(:limit as integer) end
  for update of l skip locked
),
due as materialized (
  select h.row, cast('-infinity' as timestamptz) as due_at from held h
  union all
  select g.row, g.due_at from (
    select d.row, d.wake_at as due_at, d.crashes, first_value(d.crashes) over w as first, row_number() over w as place
    from outlive.live_lines p cross join lateral (
      select l.row, l.wake_at, l.crashes from outlive.live l
      where l.owner is null and l.wake_at is not null and l.priority = p.priority and l.wake_at <= now()
        and l.workflow = any (cast(:workflows as text[]))
        and (cast(:queues as text[]) is null or l.queue = any (cast(:queues as text[])))
        and (l.crashes >= cast(:suspect_crashes as integer)) = cast(:suspect as boolean) and l.hold is null
      order by l.wake_at
      limit cast(:limit as integer)
      for update of l skip locked
    ) d
    window w as (order by p.priority, d.wake_at)
  ) g
  -- Of suspects those that have crashed as often as the first of them: the oftener, the fewer.
  where not :suspect
    or (not exists (select from held) and g.crashes = g.first
      and g.place <= coalesce((cast(:groups as integer[]))[g.crashes], 1))
  limit cast(:limit as integer)
),
fence as materialized (
  select from outlive.workers w
  where w.worker = cast(:worker as bigint) and w.epoch = :epoch and exists (select from due) for key share
),
taken as (
  update outlive.live l set owner = :worker, claim = l.claim + 1, wake_at = null, hold = null, hold_reason = null,
    alone = :suspect, in_user_code = true, started_at = coalesce(l.started_at, now())
  from due d
  where l.row = any (array(select x.row from due x)) and l.row = d.row and exists (select from fence)
  returning l.row, l.claim, l.crashes, l.alone, l.started_at, d.due_at
),
stands as (
  select case when exists (select from due) then exists (select from fence)
    else exists (select from outlive.workers w where w.worker = :worker and w.epoch = :epoch) end as stands
)
select s.stands, t.row, r.id, r.workflow, r.version,
  outlive.read_payload(r.row, r.input) as input,
  r.codec, t.claim, t.crashes, t.claim = 1 as fresh, t.alone,
  extract(epoch from t.started_at)::float8 as started_at, extract(epoch from r.deadline_at)::float8 as deadline_at,
  r.parent, r.parent_key, r.queue, r.priority, r.key, r.attributes,
  exists (select from outlive.requests q where q.row = t.row) as asked
from stands s left join (
  taken t join outlive.runs r on r.row = any (array(select x.row from taken x)) and r.row = t.row) on true
order by t.due_at = '-infinity' desc, r.priority, t.due_at, t.row

-- name: has_suspects
-- Whether a run waits for a worker that executes nothing else; read from a small partial index.
select exists (
  select 1 from outlive.live l where l.owner is null and l.hold is null and l.crashes >= 2 and l.wake_at <= now())

-- name: next_due
-- Reads when the next run that nobody owns is due; one index descent per priority.
select extract(epoch from min(d.wake_at))::float8
from outlive.live_lines p cross join lateral (
  select l.wake_at from outlive.live l
  where l.owner is null and l.wake_at is not null and l.priority = p.priority
  order by l.wake_at limit 1
) d

-- name: load_entries
-- Reads all entries of some runs, by row or public id, started ones last.
select e.row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome,
  outlive.read_payload(e.row, e.value) as value,
  e.error, e.attempts,
  extract(epoch from e.started_at)::float8 as started_at, extract(epoch from e.finished_at)::float8 as finished_at,
  e.noted_version
from outlive.entries e
where e.row = any (cast(:rows as bigint[]) || array(select r.row from outlive.runs r where r.id = cast(:id as text)))
order by e.row, e.seq nulls last, e.started_at, e.key

-- name: insert_request
-- Records a request for an unfinished run, once of a kind; empty if there is no such run.
with run as (select r.row, r.status from outlive.runs r where r.id = :id),
added as (
  insert into outlive.requests (row, kind, payload, created_at)
  select run.row, cast(:kind as text), cast(:payload as text), now() from run where run.status is null
  on conflict (row, kind) do nothing
)
select run.row, run.status from run

-- name: wake_requested
-- Makes a run with a request due where nobody owns it; after the request's commit.
update outlive.live set wake_at = now()
where row = :row and owner is null and hold is null and (wake_at is null or wake_at > now())

-- name: list_requests
-- Reads the open requests for a worker's runs, through the few open ones; empty only if its fence is lost.
select q.request, q.row, q.kind, q.payload
from outlive.workers w left join (
  select q.* from outlive.requests q
  where (select l.owner from outlive.live l where l.row = q.row) = cast(:worker as bigint)) q on true
where w.worker = cast(:worker as bigint) and w.epoch = :epoch
order by q.request

-- name: resume_run
-- Makes a held run claimable, without crashes, and drops the request that may have paused it; empty if unknown.
with run as (select r.row from outlive.runs r where r.id = :id),
resumed as (
  update outlive.live l set hold = null, hold_reason = null, crashes = 0, wake_at = now()
  where l.row = (select run.row from run) and l.hold is not null and l.owner is null
  returning l.row
),
dropped as (
  delete from outlive.requests q where q.row = (select resumed.row from resumed) and q.kind = 'pause'
)
select exists (select from resumed) as resumed from run

-- name: wake_run
-- Makes waiting runs due, after the commit of what they wait for. Locks in the order of rows: two of these never deadlock.
with waiting as (
  select l.row from outlive.live l
  where l.row = any (cast(:rows as bigint[])) and l.owner is null and l.hold is null and l.started_at is not null
    and (l.wake_at is null or l.wake_at > now())
  order by l.row for update
)
update outlive.live l set wake_at = now() where l.row = any (array(select w.row from waiting w))

-- name: sweep_runs
-- Makes due what a process that died in between has not woken; drops requests that came as their run ended.
with awaited as (
  select e.row from outlive.entries e
  where e.outcome = 'started' and (
    select c.status from outlive.runs c where c.parent = e.row and c.parent_key = e.key limit 1) is not null
),
stalled as (
  select l.row from outlive.live l
  where l.row = any (array(select a.row from awaited a union select q.row from outlive.requests q))
    and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
  order by l.row for update of l skip locked
),
orphans as (
  delete from outlive.requests q where (select l.row from outlive.live l where l.row = q.row) is null
)
update outlive.live l set wake_at = now() where l.row = any (array(select s.row from stalled s)) returning l.row

-- name: select_runs
-- Reads runs as anyone may see them; the conditions, order and limit follow.
select v.* from (
  select
    r.row, r.id, r.workflow, r.version,
    outlive.run_status(r.status, l.hold, l.owner, l.started_at, l.wake_at) as status,
    r.queue, r.priority, r.key, r.attributes,
    outlive.read_payload(r.row, r.input) as input,
    outlive.read_payload(r.row, r.output) as output,
    r.error, r.codec,
    (select p.id from outlive.runs p where p.row = r.parent) as parent_id, r.parent_close,
    extract(epoch from r.created_at)::float8 as created_at,
    extract(epoch from coalesce(r.started_at, l.started_at))::float8 as started_at,
    extract(epoch from r.finished_at)::float8 as finished_at, l.hold_reason, l.owner as worker,
    coalesce(l.crashes, 0) as crashes, extract(epoch from l.wake_at)::float8 as wake_at
  from outlive.runs r
  left join lateral (select * from outlive.live n where n.row = r.row offset 0) l on true

-- name: list_ended
-- Reads those of some runs that have ended or are held.
select r.row, r.id, r.workflow, coalesce(r.status, l.hold) as status,
  outlive.read_payload(r.row, r.output) as output,
  coalesce(r.error, l.hold_reason) as error,
  r.codec
from outlive.runs r
left join outlive.live l on l.row = r.row and l.row = any (cast(:rows as bigint[]))
where r.row = any (cast(:rows as bigint[])) and (r.status is not null or l.hold is not null)

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
