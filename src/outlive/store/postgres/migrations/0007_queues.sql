-- Queues: lines of runs in front of the ordinary claim. A run of a queue waits in `live` until the queue admits it; its
-- wake time is that of its deadline, or of a request, and then it is claimed to be ended. Admitted it is given a slot and an owner in one unit, under the lock of the queue's row, and keeps the slot
-- until it ends. How many slots are taken is counted, so that ending a run touches nothing of its queue.

alter table outlive.runs add column dedupe text collate "C";

-- Of unfinished runs one for each; whoever starts another learns of it.
create unique index runs_dedupe on outlive.runs (queue, dedupe) where dedupe is not null and status is null;

alter table outlive.live
  alter column queue type text collate "C",
  add column key text collate "C" not null default '',  -- '': of a run without a key
  add column line text check (line in ('delayed', 'waiting', 'admitted')),  -- null: outside all queues
  add column line_at timestamptz,     -- since when it waits, or when it will
  add column once text check (once in ('debounce', 'singleton')),
  add column cap_at timestamptz;      -- a debounced run is not delayed beyond that

create index live_line on outlive.live (queue, priority, key, line_at, row)
  where line = 'waiting' and owner is null and hold is null;
create index live_delayed on outlive.live (line_at) where line = 'delayed';
create index live_admitted on outlive.live (queue, key) where line = 'admitted';
create index live_once on outlive.live (key) where once is not null;

create table outlive.queues (
  queue text collate "C" primary key,
  declared jsonb not null default '{}',   -- by code
  changed jsonb not null default '{}',    -- by an operator: wins until it is reset
  limits jsonb generated always as (declared || changed) stored,
  per_worker integer generated always as (((declared || changed) ->> 'per_worker')::integer) stored,
  backlog integer generated always as (((declared || changed) ->> 'backlog')::integer) stored,
  paused boolean not null default false,
  served_key text collate "C" not null default ''  -- the turn goes round between the keys: the next one is behind this
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- When runs of queues with a rate were admitted; kept as long as the rate looks back.
create table outlive.admissions (
  queue text collate "C" not null,
  at timestamptz not null,
  row bigint not null,
  key text collate "C" not null,
  primary key (queue, at, row)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create index admissions_key on outlive.admissions (queue, key, at);

-- How many more runs a queue may admit at an instant, to this worker; and when that changes by itself. Counts in a
-- snapshot of its own: under the lock of the queue's row nobody else can take a slot, so the count is never too low.
create function outlive.room_in_queue(
  limits jsonb, queue_name text, worker_id bigint, most integer, at timestamptz,
  out room integer, out next_at timestamptz
) language plpgsql volatile as $$
declare
  most_of_rate integer := limits -> 'rate' ->> 0;
  window_s float8 := limits -> 'rate' ->> 1;
begin
  room := most;
  if limits ->> 'concurrency' is not null then
    room := least(room, (limits ->> 'concurrency')::integer - (
      select count(*) from outlive.live l where l.queue = queue_name and l.line = 'admitted'));
  end if;
  if room > 0 and limits ->> 'per_worker' is not null then
    room := least(room, (limits ->> 'per_worker')::integer - (
      select count(*) from outlive.live l where l.owner = worker_id and l.queue = queue_name and l.line = 'admitted'));
  end if;
  if room > 0 and most_of_rate is not null then
    room := least(room, most_of_rate - (
      select count(*) from outlive.admissions a
      where a.queue = queue_name and a.at > room_in_queue.at - make_interval(secs => window_s)));
    if room <= 0 then
      select a.at + make_interval(secs => window_s) into next_at from outlive.admissions a
      where a.queue = queue_name order by a.at desc offset most_of_rate - 1 limit 1;
    end if;
  end if;
end $$;

-- The same for one key; without limits per key, `most`.
create function outlive.room_for_key(
  limits jsonb, queue_name text, key_name text, most integer, at timestamptz, out room integer, out next_at timestamptz
) language plpgsql volatile as $$
declare
  most_of_rate integer := limits -> 'rate_per_key' ->> 0;
  window_s float8 := limits -> 'rate_per_key' ->> 1;
begin
  room := most;
  if limits ->> 'per_key' is not null then
    room := least(room, (limits ->> 'per_key')::integer - (
      select count(*) from outlive.live l
      where l.queue = queue_name and l.key = key_name and l.line = 'admitted'));
  end if;
  if room > 0 and most_of_rate is not null then
    room := least(room, most_of_rate - (
      select count(*) from outlive.admissions a
      where a.queue = queue_name and a.key = key_name and a.at > room_for_key.at - make_interval(secs => window_s)));
    if room <= 0 then
      select a.at + make_interval(secs => window_s) into next_at from outlive.admissions a
      where a.queue = queue_name and a.key = key_name order by a.at desc offset most_of_rate - 1 limit 1;
    end if;
  end if;
end $$;

-- Admits runs of the queues whose line is not empty and gives them to a worker: smaller priorities first, the keys of a
-- priority by turns, from behind the key that was served last, and within a key who waits longest. Reads as many rows as
-- it admits and as there are keys without room, however long the lines are.
-- Counts on READ COMMITTED: each statement has a snapshot of its own, those behind the lock one that sees all slots.
-- A bitmap, or a sort, of a long line would be a plan for its first row, which the index gives at once; and planning
-- anew for each call, to which a function is inclined, takes half the time of the call.
create function outlive.claim_line(
  worker_id bigint, worker_epoch bigint, served_workflows text[], served_queues text[], most integer, after_queue text
) returns table (
  stands boolean, waiting boolean, next_at float8, last_queue text,
  run_row bigint, id text, workflow text, version text, input text, codec text, claim integer, crashes integer,
  fresh boolean, alone boolean, started_at float8, deadline_at float8, parent bigint, parent_key text,
  queue text, priority integer, key text, attributes text, asked boolean, generation integer, salt bigint,
  continued integer, began_at float8, ending boolean, lined boolean
) language plpgsql set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  names text[];
  open_names text[] := '{}';
  instant timestamptz;
  due timestamptz;
  freed timestamptz;
  taken bigint[] := '{}';
  begun bigint[] := '{}';             -- of them, those with a journal
  got bigint[];
  this record;
  room integer;
  turns bigint;
  level bigint;
  served text;
  last_served text := after_queue;
  keys text[];
  rooms integer[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'outlive.claim_line needs the isolation level READ COMMITTED' using errcode = '25001';
  end if;
  if exists (select from outlive.live l where l.line = 'delayed' and l.line_at <= now()) then
    perform outlive.end_delays();
  end if;
  with recursive names as (
    (select l.queue from outlive.live l
      where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now()) order by l.queue limit 1)
    union all
    select (
      select l.queue from outlive.live l
      where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now()) and l.queue > n.queue
      order by l.queue limit 1)
    from names n where n.queue is not null
  )
  select coalesce(array_agg(n.queue order by n.queue), '{}') into names from names n
  where n.queue is not null and (served_queues is null or n.queue = any (served_queues))
    and not exists (select from outlive.queues q where q.queue = n.queue and q.paused);
  select min(l.line_at) into due from outlive.live l where l.line = 'delayed' and l.line_at > now();

  -- A look before the lock, so that a line which cannot move costs no write.
  for this in
    select n.queue, coalesce(q.limits, '{}') as limits, q.queue is null as is_new
    from unnest(names) n (queue) left join outlive.queues q on q.queue = n.queue
    order by n.queue <= after_queue, n.queue
  loop
    exit when cardinality(open_names) >= most;
    select r.room, r.next_at into room, freed
    from outlive.room_in_queue(this.limits, this.queue, worker_id, most, clock_timestamp()) r;
    due := least(due, freed);
    if room > 0 then
      open_names := open_names || this.queue;
      if this.is_new then
        insert into outlive.queues (queue) values (this.queue) on conflict do nothing;
      end if;
    end if;
  end loop;
  if open_names <> '{}' and most > 0 then
    perform from outlive.queues q where q.queue = any (open_names) order by q.queue for update;
    perform from outlive.workers w where w.worker = worker_id and w.epoch = worker_epoch for key share;
    stands := found;
  else
    stands := exists (select from outlive.workers w where w.worker = worker_id and w.epoch = worker_epoch);
    open_names := '{}';
  end if;
  if not stands then
    open_names := '{}';
  end if;

  for this in
    select q.queue, q.limits, q.served_key from outlive.queues q
    where q.queue = any (open_names) and not q.paused order by q.queue <= after_queue, q.queue
  loop
    exit when cardinality(taken) >= most;
    instant := clock_timestamp();
    select r.room, r.next_at into room, freed
    from outlive.room_in_queue(this.limits, this.queue, worker_id, most - cardinality(taken), instant) r;
    due := least(due, freed);
    served := this.served_key;
    level := -2147483649;
    while room > 0 loop
      select l.priority into level from outlive.live l
      where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
        and l.queue = this.queue and l.priority > level
      order by l.priority limit 1;
      exit when level is null;
      while room > 0 loop
        select w.keys, w.rooms, w.next_at into keys, rooms, freed
        from outlive.keys_with_room(this.limits, this.queue, level::integer, served, served_workflows, room, instant) w;
        due := least(due, freed);
        exit when keys is null;
        turns := greatest(1, room / cardinality(keys));
        with chosen as materialized (
          select c.row, c.is_fresh, c.turn, k.place from unnest(keys, rooms) with ordinality k (key, room, place)
          cross join lateral (
            select f.row, f.is_fresh, row_number() over (order by f.line_at, f.row) as turn from (
              select l.row, l.line_at, l.started_at is null as is_fresh from outlive.live l
              where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
                and l.queue = this.queue and l.priority = level::integer and l.key = k.key
                and l.workflow = any (served_workflows)
              order by l.line_at, l.row limit least(k.room, turns)
              for update skip locked
            ) f
          ) c
        ),
        given as (
          update outlive.live l set owner = worker_id, claim = l.claim + 1, line = 'admitted', wake_at = null,
            started_at = coalesce(l.started_at, instant), in_user_code = true
          from chosen c where l.row = any (array(select x.row from chosen x)) and l.row = c.row
          returning l.row, l.key, c.is_fresh, c.turn, c.place
        ),
        noted as (
          insert into outlive.admissions (queue, at, row, key)
          select this.queue, instant, g.row, g.key from given g
          where this.limits ->> 'rate' is not null or this.limits ->> 'rate_per_key' is not null
        )
        select array_agg(g.row order by g.turn, g.place), (array_agg(g.key order by g.turn desc, g.place desc))[1],
          begun || array_agg(g.row) filter (where not g.is_fresh)
        into got, served, begun from given g;
        if got is null then
          served := this.served_key;
          exit;
        end if;
        this.served_key := served;
        taken := taken || got;
        room := room - cardinality(got);
      end loop;
    end loop;
    update outlive.queues q set served_key = this.served_key
    where q.queue = this.queue and q.served_key <> this.served_key;
    if this.limits ->> 'rate' is not null or this.limits ->> 'rate_per_key' is not null then
      delete from outlive.admissions a where a.queue = this.queue and a.at <= instant - make_interval(
        secs => greatest((this.limits -> 'rate' ->> 1)::float8, (this.limits -> 'rate_per_key' ->> 1)::float8));
    end if;
    last_served := this.queue;
  end loop;

  return query
  select stands, exists (select from outlive.live l where l.line = 'delayed' and l.line_at <= now()) or exists (
      select from unnest(names) n (queue) cross join lateral (
        select from outlive.live l
        where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now()) and l.queue = n.queue
        limit 1) l),
    extract(epoch from due)::float8, last_served,
    t.row, r.id, r.workflow, r.version, outlive.read_payload(r.row, r.input), r.codec, l.claim, l.crashes,
    t.row <> all (begun), false, extract(epoch from l.started_at)::float8, extract(epoch from r.deadline_at)::float8,
    r.parent, r.parent_key, r.queue, r.priority, r.key, r.attributes,
    exists (select from outlive.requests q where q.row = t.row), r.generation, r.salt,
    r.continued, extract(epoch from r.continued_at)::float8, false, true
  from (select) one left join (
    unnest(taken) with ordinality t (row, place)
    join outlive.live l on l.row = any (taken) and l.row = t.row
    join outlive.runs r on r.row = any (taken) and r.row = t.row) on true
  order by t.place;
end $$;

-- The keys of one priority of a line that have room, in the order of their turns, at most as many as there is room in
-- the queue; null if there are none. A key without room costs one step, however many runs of it wait.
create function outlive.keys_with_room(
  limits jsonb, queue_name text, level integer, after_key text, served_workflows text[], most integer, at timestamptz,
  out keys text[], out rooms integer[], out next_at timestamptz
) language plpgsql volatile as $$
declare
  key_name text := after_key;
  found_name text;
  wrapped boolean := false;
  room integer;
  freed timestamptz;
  is_limited boolean := limits ->> 'per_key' is not null or limits ->> 'rate_per_key' is not null;
begin
  while coalesce(cardinality(keys), 0) < most loop
    select l.key into found_name from outlive.live l
    where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
      and l.queue = queue_name and l.priority = level and l.key > key_name and l.workflow = any (served_workflows)
    order by l.key limit 1;
    key_name := found_name;
    if key_name is null and not wrapped then  -- from the beginning: the key '' first
      wrapped := true;
      select l.key into key_name from outlive.live l
      where l.line = 'waiting' and l.owner is null and l.hold is null and (l.wake_at is null or l.wake_at > now())
        and l.queue = queue_name and l.priority = level and l.key >= '' and l.workflow = any (served_workflows)
      order by l.key limit 1;
    end if;
    exit when key_name is null or (wrapped and key_name > after_key);
    room := most;
    if is_limited then
      select r.room, r.next_at into room, freed
      from outlive.room_for_key(limits, queue_name, key_name, most, at) r;
      next_at := least(next_at, freed);
    end if;
    if room > 0 then
      keys := keys || key_name;
      rooms := rooms || room;
    end if;
  end loop;
end $$;

-- Lets delayed runs join their lines. One that replaces another of its key waits until it is the only one.
create function outlive.end_delays() returns void language sql as $$
  update outlive.live d set line = 'waiting'
  where d.row = any (array(
    select l.row from outlive.live l
    where l.line = 'delayed' and l.line_at <= now() and (l.once is distinct from 'singleton' or not exists (
      select from outlive.live o
      where o.once = 'singleton' and o.key = l.key and o.row <> l.row
        and split_part(o.workflow, '#', 1) = split_part(l.workflow, '#', 1)))
    order by l.line_at limit 1000
    for update of l skip locked))
$$;

-- Documented views: a part of the public interface.

create or replace view outlive.outlive_runs as
select
  r.row, r.id, r.workflow, r.version,
  outlive.run_status(r.status, l.hold, l.owner,
    case when l.line in ('delayed', 'waiting') then null else l.started_at end, coalesce(l.line_at, l.wake_at)) as status,
  r.queue, r.priority, r.key, r.attributes,
  outlive.read_payload(r.row, r.input) as input,
  outlive.read_payload(r.row, r.output) as output,
  r.error, r.codec,
  p.id as parent, r.parent as parent_row, r.parent_key, r.parent_close, r.generation,
  r.created_at, coalesce(r.started_at, l.started_at) as started_at, r.finished_at, r.deadline_at,
  l.hold_reason, l.owner as worker, l.claim, coalesce(l.crashes, 0) as crashes, l.wake_at,
  r.forked_from, l.line, l.line_at, r.dedupe
from outlive.runs r
left join outlive.live l on l.row = r.row
left join outlive.runs p on p.row = r.parent;

create view outlive.outlive_queues as
select
  n.queue, (q.limits ->> 'concurrency')::integer as concurrency, q.per_worker, (q.limits ->> 'per_key')::integer as per_key,
  q.limits -> 'rate' as rate, q.limits -> 'rate_per_key' as rate_per_key, q.backlog,
  coalesce(q.limits ->> 'on_full', 'reject') as on_full, coalesce(q.paused, false) as paused,
  coalesce(q.changed, '{}') <> '{}' as is_changed,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'delayed') as delayed,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'waiting') as waiting,
  (select count(*) from outlive.live l where l.queue = n.queue and l.line = 'admitted') as running
from (
  select q.queue from outlive.queues q union select l.queue from outlive.live l where l.line is not null
) n left join outlive.queues q on q.queue = n.queue
where n.queue <> '';
