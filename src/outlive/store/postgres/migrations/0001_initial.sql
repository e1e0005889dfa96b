-- The first schema: runs and their journals, the workers that execute them, requests to them.
-- History (runs, entries) is insert-mostly; `live` is the one hot table, one narrow row per unfinished run.
-- Ids and keys compare bytewise (collation C): cheaper, and the order is the same on every server.

create table outlive.runs (
  row bigint primary key,
  id text collate "C" not null unique,
  workflow text not null,
  version text,
  codec text not null,
  queue text not null,
  priority integer not null,
  key text,
  attributes text,
  input text not null,
  output text,
  error text,
  status text,                        -- null while the run is unfinished
  parent bigint,
  parent_key text collate "C",
  parent_close text,
  generation integer not null default 0,
  created_at timestamptz not null,
  started_at timestamptz,
  finished_at timestamptz,
  deadline_at timestamptz
) with (fillfactor = 85);             -- room for the one update at the end of a run

create index runs_parent on outlive.runs (parent, parent_key) where parent is not null;
create index runs_unsuccessful on outlive.runs (row) where status in ('failed', 'cancelled');

create table outlive.live (
  row bigint primary key,
  workflow text not null,
  queue text not null,
  priority integer not null,
  owner bigint,
  claim integer not null default 0,
  wake_at timestamptz,                -- claimable from then on; null while owned, held or only to be woken
  hold text,
  hold_reason text,
  crashes integer not null default 0,
  in_user_code boolean not null default false,
  alone boolean not null default false,
  started_at timestamptz
) with (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0, -- claims walk over dead index entries until they are vacuumed
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold = 20000
);

create index live_claim on outlive.live (priority, wake_at) where owner is null and wake_at is not null;
create index live_suspects on outlive.live (wake_at) where owner is null and hold is null and crashes >= 2;
create index live_owner on outlive.live (owner) where owner is not null;

-- The priorities of runs that may be due, for the store alone: one index descent for each.
create view outlive.live_lines as
with recursive lines as (
  (select l.priority from outlive.live l where l.owner is null and l.wake_at is not null order by l.priority limit 1)
  union all
  select (
    select l.priority from outlive.live l
    where l.owner is null and l.wake_at is not null and l.priority > p.priority order by l.priority limit 1)
  from lines p where p.priority is not null
)
select p.priority from lines p where p.priority is not null;

create table outlive.entries (
  row bigint not null,
  key text collate "C" not null,
  seq integer,                        -- null while the entry is only started
  kind text not null,
  name text not null,
  digest text,
  outcome text not null,
  value text,
  error text,
  attempts integer not null,
  noted_version text,
  generation integer not null default 0,
  started_at timestamptz not null,
  finished_at timestamptz,
  primary key (row, key)
) with (autovacuum_vacuum_insert_scale_factor = 0.05);

-- What runs wait for: few at a time, so that the sweep reads neither history nor sleeping runs.
create index entries_started on outlive.entries (row) where outcome = 'started';

-- Payloads too large for their row, where '@blob:…' stands for them; every read resolves that. Such a reference has 38
-- bytes, and the length of a text is known without unpacking it.
create table outlive.blobs (
  row bigint not null references outlive.runs (row) on delete cascade,
  name text collate "C" not null,
  text text not null,
  primary key (row, name)
);

create function outlive.read_blob(of bigint, reference text) returns text stable language sql as $$
  select coalesce((select b.text from outlive.blobs b where b.row = $1 and b.name = $2), $2)
$$;

-- Gives a payload where a reference to it may stand. Planned as a part of the query that calls it.
create function outlive.read_payload(of bigint, stored text) returns text stable language sql as $$
  select case when octet_length($2) = 38 then outlive.read_blob($1, $2) else $2 end
$$;

-- The fence. A batch locks its worker's row FOR KEY SHARE; the unique pair makes the takeover's bump conflict with that.
create table outlive.workers (
  worker bigint primary key,
  epoch bigint not null,
  host text not null,
  pid integer not null,
  name text not null,
  lock_path text,
  registered_at timestamptz not null,
  unique (worker, epoch)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Heartbeats, apart from the fence, so that a beat never waits for a transaction that holds it. No row: dead.
create table outlive.worker_beats (
  worker bigint primary key,
  beat_at timestamptz not null,
  expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

create table outlive.requests (
  request bigint generated always as identity primary key,
  row bigint not null,
  kind text not null,
  payload text,
  created_at timestamptz not null,
  unique (row, kind)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Takes over workers whose lease has expired and those in `dead`: bumps the epoch, then releases the runs.
-- Counts on READ COMMITTED: the release is another statement with another snapshot, so it sees what the
-- last batch before the bump has written. A worker whose fence is held longer than the lock timeout by an
-- open transaction is left for the next call, and holds up no other. A run that died alone is quarantined at its
-- seventh crash (limits.QUARANTINE_CRASHES).
create function outlive.take_over(
  dead bigint[], out workers bigint[], out released integer, out quarantined text[]
) language plpgsql set lock_timeout = '1s' as $$
declare
  candidate bigint;
  held bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'outlive.take_over needs the isolation level READ COMMITTED' using errcode = '25001';
  end if;
  workers := '{}';
  for candidate in
    select b.worker from outlive.worker_beats b
    where b.expires_at < clock_timestamp() or b.worker = any (dead) order by b.worker
  loop
    begin
      perform 1 from outlive.worker_beats b
      where b.worker = candidate and (b.expires_at < clock_timestamp() or b.worker = any (dead)) for update;
      if found then
        update outlive.workers w set epoch = w.epoch + 1 where w.worker = candidate;
        delete from outlive.worker_beats b where b.worker = candidate;
        workers := workers || candidate;
      end if;
    exception when lock_not_available then
      null;
    end;
  end loop;
  released := 0;
  quarantined := '{}';
  if workers = '{}' then
    return;
  end if;
  with freed as (
    update outlive.live l set
      owner = null,
      crashes = l.crashes + l.in_user_code::integer,
      hold = case when l.alone and l.in_user_code and l.crashes >= 6 then 'quarantined' end,
      hold_reason = case when l.alone and l.in_user_code and l.crashes >= 6 then json_build_object(
        'type', 'Quarantined', 'text',
        format('the worker died %s times while it executed this run, the last time with no other run', l.crashes + 1)
      )::text end,
      wake_at = case when l.alone and l.in_user_code and l.crashes >= 6 then null else now() end,
      alone = false,
      in_user_code = false
    where l.owner = any (workers)
    returning l.row, l.hold
  )
  select count(*) filter (where f.hold is null), coalesce(array_agg(f.row) filter (where f.hold is not null), '{}')
  into released, held from freed f;
  select coalesce(array_agg(r.id), '{}') into quarantined from outlive.runs r where r.row = any (held);
  -- a fence row may go when nothing names it any more: its worker's batches fail without it just as well
  delete from outlive.workers w where w.epoch > 1 and w.registered_at < now() - interval '7 days'
    and not exists (select from outlive.live l where l.owner = w.worker);
end $$;

-- A worker leaves in good order: without its fence row none of its batches can follow, so the second statement
-- sees all that it owns. The beat goes first, as in a takeover, so that the two never wait for each other.
create function outlive.delete_worker(leaving bigint, leaving_epoch bigint) returns boolean language plpgsql as $$
begin
  perform 1 from outlive.worker_beats b where b.worker = leaving for update;
  delete from outlive.workers w where w.worker = leaving and w.epoch = leaving_epoch;
  if not found then
    return false;
  end if;
  delete from outlive.worker_beats b where b.worker = leaving;
  update outlive.live l set owner = null, wake_at = now(), in_user_code = false, alone = false where l.owner = leaving;
  return true;
end $$;

create table outlive.meta (
  key text primary key,
  value text not null
);

-- What a run is called by its final status and its live row. Planned as a part of the query that calls it.
create function outlive.run_status(
  final text, hold text, owner bigint, started_at timestamptz, wake_at timestamptz
) returns text stable language sql as $$
  select case
    when $1 is not null then $1
    when $2 is not null then $2
    when $3 is not null then 'running'
    when $4 is not null then 'suspended'
    when $5 > now() then 'scheduled'
    else 'queued'
  end
$$;

-- Documented views: a part of the public interface, columns are only ever added.

create view outlive.outlive_runs as
select
  r.row, r.id, r.workflow, r.version,
  outlive.run_status(r.status, l.hold, l.owner, l.started_at, l.wake_at) as status,
  r.queue, r.priority, r.key, r.attributes,
  outlive.read_payload(r.row, r.input) as input,
  outlive.read_payload(r.row, r.output) as output,
  r.error, r.codec,
  p.id as parent, r.parent as parent_row, r.parent_key, r.parent_close, r.generation,
  r.created_at, coalesce(r.started_at, l.started_at) as started_at, r.finished_at, r.deadline_at,
  l.hold_reason, l.owner as worker, l.claim, coalesce(l.crashes, 0) as crashes, l.wake_at
from outlive.runs r
left join outlive.live l on l.row = r.row
left join outlive.runs p on p.row = r.parent;

create view outlive.outlive_entries as
select
  r.id as run, e.seq, e.key, e.kind, e.name, e.outcome,
  outlive.read_payload(e.row, e.value) as value,
  e.error, e.attempts, e.digest, e.noted_version,
  e.generation, e.started_at, e.finished_at, e.row
from outlive.entries e
join outlive.runs r on r.row = e.row;

create view outlive.outlive_workers as
select
  w.worker, w.epoch, w.name, w.host, w.pid, w.lock_path, w.registered_at, b.beat_at, b.expires_at,
  b.worker is not null and b.expires_at >= now() as alive,
  (select count(*) from outlive.live l where l.owner = w.worker) as runs
from outlive.workers w
left join outlive.worker_beats b on b.worker = w.worker;

create view outlive.outlive_requests as
select q.request, r.id as run, q.kind, q.payload, q.created_at, q.row
from outlive.requests q
join outlive.runs r on r.row = q.row;
