-- What runs tell each other and the world: messages, values, streams, promises.
-- All of it belongs to a run and dies with it; nothing refers to it from elsewhere.

create table outlive.messages (
  message bigint generated always as identity primary key,  -- the order within a topic: one sender's numbers grow
  row bigint not null,                -- whose mailbox it is in
  topic text collate "C" not null,
  key text collate "C" not null,      -- what is sent again with the same key is here already
  value text not null,
  codec text not null,
  sender text,                        -- id of the run that sent it, null if a program did
  created_at timestamptz not null,
  received_by text collate "C",       -- the key of the entry that received it, empty if it was refused; null while unread
  unique (row, key)
) with (autovacuum_vacuum_insert_scale_factor = 0.05);

create index messages_unread on outlive.messages (row, topic, message) where received_by is null;
create index messages_new on outlive.messages (created_at) where received_by is null;

create table outlive.run_values (
  row bigint not null,
  name text collate "C" not null,
  value text not null,
  codec text not null,
  updated_at timestamptz not null,
  primary key (row, name)
) with (fillfactor = 85);

create table outlive.stream_items (
  row bigint not null,
  name text collate "C" not null,
  seq bigint not null,                -- from 1, without gaps: given by the one writer that owns the run
  value text not null,
  codec text not null,
  created_at timestamptz not null,
  primary key (row, name, seq)
);

create table outlive.promises (
  token text collate "C" primary key, -- whoever knows it may settle the promise
  row bigint not null,                -- the run that made it, or that is to answer a call
  key text collate "C" not null,      -- of the entry that made it; of a call, its token
  outcome text,                       -- null until it is settled, once
  value text,
  error text,
  codec text,
  created_at timestamptz not null,
  expires_at timestamptz,
  settled_at timestamptz,
  unique (row, key)
);

create index promises_settled on outlive.promises (settled_at) where settled_at is not null;

-- Deletes runs with all that belongs to them; tells how many. Blobs go by their foreign key. A migration that adds such a
-- table replaces this function.
create function outlive.delete_runs(doomed bigint[]) returns integer language plpgsql as $$
declare
  deleted integer;
begin
  delete from outlive.entries where row = any (doomed);
  delete from outlive.requests where row = any (doomed);
  delete from outlive.messages where row = any (doomed);
  delete from outlive.run_values where row = any (doomed);
  delete from outlive.stream_items where row = any (doomed);
  delete from outlive.promises where row = any (doomed);
  delete from outlive.live where row = any (doomed);
  delete from outlive.runs where row = any (doomed);
  get diagnostics deleted = row_count;
  return deleted;
end $$;

create view outlive.outlive_messages as
select m.message, r.id as run, m.topic, m.key, m.value, m.sender, m.created_at, m.received_by, m.row
from outlive.messages m join outlive.runs r on r.row = m.row;

create view outlive.outlive_values as
select r.id as run, v.name, v.value, v.updated_at, v.row
from outlive.run_values v join outlive.runs r on r.row = v.row;

create view outlive.outlive_stream_items as
select r.id as run, i.name, i.seq, i.value, i.created_at, i.row
from outlive.stream_items i join outlive.runs r on r.row = i.row;

create view outlive.outlive_promises as
select r.id as run, p.key, p.outcome, p.value, p.error, p.created_at, p.expires_at, p.settled_at, p.row
from outlive.promises p join outlive.runs r on r.row = p.row;
