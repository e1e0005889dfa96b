-- Rules that start runs. Everything that changes in a row is written against the revision that was read, so a tick is
-- acted on once, whichever process is first.

create table outlive.schedules (
  name text collate "C" primary key,
  revision bigint not null,           -- drawn anew by each change
  paused boolean not null,
  next_at timestamptz,                -- the next tick; null: there is none
  last_at timestamptz,                -- the last tick that started a run
  created_at timestamptz not null,    -- what an interval counts from
  skipped bigint not null,
  waiting float8[] not null,          -- ticks that wait for the runs before them, seconds since 1970
  running bigint[] not null,          -- rows of its runs that may be unfinished
  declared text,                      -- what code says, JSON; null: nothing
  changed text                        -- what was put in its place at run time, JSON; null: nothing
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

create index schedules_due on outlive.schedules (next_at) where not paused and next_at is not null;
create index schedules_waiting on outlive.schedules (name) where not paused and waiting <> '{}';

create view outlive.outlive_schedules as
select
  s.name, d.spec ->> 'workflow' as workflow, d.spec ->> 'cron' as cron,
  cast(d.spec ->> 'every_s' as float8) as every_s, to_timestamp(cast(d.spec ->> 'at' as float8)) as at,
  d.spec ->> 'zone' as zone, d.spec ->> 'overlap' as overlap, cast(d.spec ->> 'catch_up_s' as float8) as catch_up_s,
  cast(d.spec ->> 'jitter_s' as float8) as jitter_s,
  s.paused, s.changed is not null as changed, s.declared is not null as declared, s.next_at, s.last_at,
  cardinality(s.waiting) as waiting, s.skipped, s.created_at, d.spec ->> 'input' as input
from outlive.schedules s cross join lateral (select cast(coalesce(s.changed, s.declared) as json) as spec) d;
