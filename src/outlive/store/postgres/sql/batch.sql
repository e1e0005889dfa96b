-- What a batch writes. Each counts on READ COMMITTED. The blocks up to find_taken are parts of one statement, WITH … SELECT,
-- which commit.py puts together from what a batch holds; all parts read one snapshot. `:name` marks a parameter. A plan is
-- made once and kept, so its cost may not depend on how full the tables were then: a table that grows is reached by keys,
-- `= any (array)` or a lateral lookup, and joined to nothing as a whole.

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
    attempts integer, noted_version text, started_at float8, finished_at float8, generation integer)
),
written as (
  insert into outlive.entries as e (
    row, key, seq, kind, name, digest, outcome, value, error, attempts, noted_version, generation, started_at, finished_at)
  select g.row, g.key, g.seq, g.kind, g.name, g.digest, g.outcome, g.value, g.error, g.attempts, g.noted_version,
    coalesce(g.generation, 0), to_timestamp(g.started_at), to_timestamp(g.finished_at)
  from given_entries g, fence
  where (
    select true from outlive.generations n where n.row = g.row and n.generation = coalesce(g.generation, 0)) is not true
  on conflict (row, key) do update set
    seq = excluded.seq, kind = excluded.kind, name = excluded.name, digest = excluded.digest,
    outcome = excluded.outcome, value = excluded.value, error = excluded.error, attempts = excluded.attempts,
    noted_version = excluded.noted_version, generation = excluded.generation, started_at = excluded.started_at, finished_at = excluded.finished_at
  where e.outcome = 'started' or (
    (e.outcome, e.seq, e.attempts) = (excluded.outcome, excluded.seq, excluded.attempts)
    and (e.digest, e.value, e.error) is not distinct from (excluded.digest, excluded.value, excluded.error))
  returning e.row, e.key, e.xmax = 0 as is_new  -- an updated row has the updater there
),
refused as materialized (
  select distinct g.row from given_entries g
  where (select count(*) from written) <> (select count(*) from given_entries)
    and (g.row, g.key) not in (select w.row, w.key from written w)
    and (
      select true from outlive.generations n where n.row = g.row and n.generation = coalesce(g.generation, 0)) is not true
)

-- name: skip_entries
-- Stands in for the entries of a batch without any.
written as (select cast(null as bigint) as row, cast(null as text) as key, false as is_new where false),
refused as (select cast(null as bigint) as row where false)

-- name: list_bounded
-- Queues with a bounded backlog, whose runs are started alone.
bounded as materialized (
  select q.queue from outlive.queues q where q.backlog is not null
)

-- name: skip_bounded
-- Stands in for them where a start is not bounded.
bounded as (select cast(null as text) as queue where false)

-- name: insert_runs
-- Inserts runs where the id is free; a child only with its parent's entry. A taken row number violates the primary key,
-- and nothing of the batch is written.
given_runs as materialized (
  select g.* from json_to_recordset(cast(:run as json)) as g (
    row bigint, id text, workflow text, version text, codec text, queue text, priority integer, key text,
    attributes text, input text, parent bigint, parent_key text, parent_close text, deadline_at float8,
    deadline_s float8, delay_s float8, started_at float8, pinned boolean, dedupe text)
),
started as (
  insert into outlive.runs (
    row, id, workflow, version, codec, queue, priority, key, attributes, input, parent, parent_key, parent_close,
    deadline_at, pinned, created_at)
  select g.row, g.id, g.workflow, g.version, g.codec, g.queue, g.priority, g.key, g.attributes, g.input, g.parent,
    g.parent_key, g.parent_close,
    least(to_timestamp(g.deadline_at), least(now(), to_timestamp(g.started_at)) + make_interval(secs => g.deadline_s)),
    g.pinned, least(now(), to_timestamp(g.started_at))
  from given_runs g, fence
  where g.dedupe is null and (
    case when g.parent is null then g.queue <> all (array(select b.queue from bounded b))
      else (g.parent, g.parent_key) in (select w.row, w.key from written w where w.is_new) end)
  on conflict (id) do nothing
  returning row
)

-- name: insert_unique_runs
-- Inserts those that shall be the only unfinished one of their kind; who is taken for what is found out afterwards.
unique_started as (
  insert into outlive.runs (
    row, id, workflow, version, codec, queue, priority, key, attributes, input, deadline_at, pinned, created_at, dedupe)
  select g.row, g.id, g.workflow, g.version, g.codec, g.queue, g.priority, g.key, g.attributes, g.input,
    least(to_timestamp(g.deadline_at), least(now(), to_timestamp(g.started_at)) + make_interval(secs => g.deadline_s)),
    g.pinned, least(now(), to_timestamp(g.started_at)), g.dedupe
  from given_runs g, fence
  where g.dedupe is not null and g.parent is null and g.queue <> all (array(select b.queue from bounded b))
  on conflict do nothing
  returning row
)

-- name: skip_unique_runs
-- Stands in for them in a batch without any.
unique_started as (select cast(null as bigint) as row where false)

-- name: place_runs
-- Gives the new runs their live rows: to the worker, to whoever claims them, or into the line of their queue.
new_runs as (
  select s.row from started s union all select u.row from unique_started u
),
placed as (
  insert into outlive.live (
    row, workflow, queue, priority, key, owner, claim, wake_at, in_user_code, started_at, line, line_at)
  select g.row, outlive.claim_name(g.workflow, g.version, g.pinned), g.queue, g.priority, coalesce(g.key, ''),
    case when g.started_at is not null then cast(:worker as bigint) end, (g.started_at is not null)::integer,
    case when g.started_at is null then least(case when g.queue = '' then now() + make_interval(secs => g.delay_s) end,
      to_timestamp(g.deadline_at), now() + make_interval(secs => g.deadline_s)) end,
    g.started_at is not null, to_timestamp(g.started_at),
    case when g.queue <> '' and g.started_at is not null then 'admitted'
      when g.queue <> '' and g.delay_s > 0 then 'delayed'
      when g.queue <> '' then 'waiting' end,
    case when g.queue <> '' then now() + make_interval(secs => g.delay_s) end
  from given_runs g
  where (g.row in (select s.row from new_runs s)) is true  -- as a test of a value it is hashed, whatever the estimate
)

-- name: skip_runs
-- Stands in for the runs of a batch without any.
given_runs as (select cast(null as bigint) as row, cast(null as text) as id where false),
new_runs as (select cast(null as bigint) as row where false)

-- name: insert_blobs
-- Inserts large payloads of runs that are there, or come with this batch: a start that is refused leaves none behind.
stored as (
  insert into outlive.blobs (row, name, text)
  select g.row, g.name, g.text
  from unnest(cast(:blob_row as bigint[]), cast(:blob_name as text[]), cast(:blob_text as text[])) as g (row, name, text),
    fence
  where g.row in (
    select r.row from outlive.runs r where r.row = any (cast(:blob_row as bigint[])) union all select s.row from new_runs s)
  on conflict (row, name) do nothing
)

-- name: insert_attributes
-- Inserts the attributes that people search for, of runs that this statement inserts.
described as (
  insert into outlive.run_attributes (row, name, value)
  select g.row, g.name, g.value
  from unnest(
    cast(:attribute_row as bigint[]), cast(:attribute_name as text[]), cast(:attribute_value as text[])
  ) as g (row, name, value)
  where (g.row in (select s.row from new_runs s)) is true
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
    started_at = to_timestamp(g.started_at), finished_at = greatest(now(), to_timestamp(g.started_at)), claim = g.claim
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

-- name: release_run
-- Lets go of runs that the worker still owns under this claim; a held one is not claimable. One that was to be held for a
-- request is if the request can be deleted: whoever withdraws that at the same time is waited for.
releases as materialized (
  select g.* from json_to_recordset(cast(:release as json)) as g (
    row bigint, claim integer, wake_at float8, hold text, hold_reason text, request bigint)
),
carried_out as (
  delete from outlive.requests q
  where q.request = any (array(select g.request from releases g)) and exists (select from fence)
  returning q.request
),
decided as materialized (
  select g.*, g.hold is not null and (g.request is null or g.request = any (array(select c.request from carried_out c))) as held
  from releases g
),
released as (
  update outlive.live l set owner = null,
    hold = case when g.held then g.hold end, hold_reason = case when g.held then g.hold_reason end,
    wake_at = case when not g.held then to_timestamp(g.wake_at) end, in_user_code = false, alone = false
  from decided g
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

-- name: find_duplicates
-- Reads the unfinished runs that others of their kind are not started beside; in a snapshot after that of the batch.
select r.row, r.id, r.workflow, r.queue, r.dedupe from outlive.runs r
where r.status is null and r.dedupe = any (cast(:dedupe as text[])) and r.queue = any (cast(:queues as text[]))
