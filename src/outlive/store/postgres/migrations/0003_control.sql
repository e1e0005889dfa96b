-- Generations of a run, forks, and who has asked for what. A run that is retried, rewound or continued as new begins
-- another generation: entries that it does not keep move to past_entries, how the last one ended to generations.

alter table outlive.runs
  add column claim integer,            -- that of its end: claims after a retry go on above it
  add column salt bigint,              -- of the run whose journal it has inherited; null: its own row
  add column forked_from text collate "C";

-- The generations that have ended, and how; an entry of one of them is written no more. input and version only where
-- the next generation has others.
create table outlive.generations (
  row bigint not null references outlive.runs (row) on delete cascade,
  generation integer not null,
  action text not null,
  ended_at timestamptz not null,
  status text,                         -- null: it had not ended when it was left
  version text,
  input text,
  output text,
  error text,
  primary key (row, generation)
);

-- What later generations do not keep: recorded in `generation`, a part of the journal up to `last_generation`.
create table outlive.past_entries (
  row bigint not null references outlive.runs (row) on delete cascade,
  last_generation integer not null,
  key text collate "C" not null,
  seq integer,
  kind text not null,
  name text not null,
  digest text,
  outcome text not null,
  value text,
  error text,
  attempts integer not null,
  noted_version text,
  generation integer not null,
  started_at timestamptz not null,
  finished_at timestamptz,
  primary key (row, last_generation, key)
);

-- Every action of an operator, written in its own transaction. It outlives the run.
create table outlive.audit (
  audit bigint primary key,            -- drawn by the writer, ordered by time
  at timestamptz not null,
  who text not null,
  action text not null,
  noun text not null,                  -- what was acted on: run, queue, schedule
  target text collate "C" not null,    -- its id or name
  reason text,
  facts text                           -- JSON
);

create index audit_target on outlive.audit (target, audit);

-- Notes an action; for the statement that does it. A second send of the same one notes nothing.
create function outlive.write_audit(
  audit bigint, who text, action text, noun text, target text, reason text, facts text
) returns void language sql as $$
  insert into outlive.audit (audit, at, who, action, noun, target, reason, facts)
  values ($1, now(), $2, $3, $4, $5, $6, $7) on conflict (audit) do nothing
$$;

create or replace view outlive.outlive_runs as
select
  r.row, r.id, r.workflow, r.version,
  outlive.run_status(r.status, l.hold, l.owner, l.started_at, l.wake_at) as status,
  r.queue, r.priority, r.key, r.attributes,
  outlive.read_payload(r.row, r.input) as input,
  outlive.read_payload(r.row, r.output) as output,
  r.error, r.codec,
  p.id as parent, r.parent as parent_row, r.parent_key, r.parent_close, r.generation,
  r.created_at, coalesce(r.started_at, l.started_at) as started_at, r.finished_at, r.deadline_at,
  l.hold_reason, l.owner as worker, l.claim, coalesce(l.crashes, 0) as crashes, l.wake_at,
  r.forked_from
from outlive.runs r
left join outlive.live l on l.row = r.row
left join outlive.runs p on p.row = r.parent;

create view outlive.outlive_past_entries as
select
  r.id as run, e.last_generation, e.generation, e.seq, e.key, e.kind, e.name, e.outcome,
  outlive.read_payload(e.row, e.value) as value, e.error, e.attempts, e.digest, e.noted_version,
  e.started_at, e.finished_at, e.row
from outlive.past_entries e
join outlive.runs r on r.row = e.row;

create view outlive.outlive_generations as
select
  r.id as run, g.generation, g.action, g.status, g.version,
  outlive.read_payload(g.row, g.input) as input, outlive.read_payload(g.row, g.output) as output, g.error,
  g.ended_at, g.row
from outlive.generations g
join outlive.runs r on r.row = g.row;

create view outlive.outlive_audit as
select a.audit, a.at, a.who, a.action, a.noun, a.target, a.reason, a.facts from outlive.audit a;
