-- Messages, values, streams and promises. Each counts on READ COMMITTED. The first blocks are parts of a batch's
-- statement, in it only if the batch has side rows; they derive from the entries that the same statement writes.

-- name: insert_messages
-- Puts messages into the mailboxes of unfinished runs, those that start in this batch among them; once per key.
given_messages as materialized (
  select g.* from json_to_recordset(cast(:message as json)) as g (
    row bigint, entry text, run text, topic text, key text, value text, codec text, sender text, place integer)
),
addressed as materialized (
  select g.*, coalesce(r.row, s.row) as recipient, r.status is not null as is_over,
    exists (select from outlive.messages m where m.row = r.row and m.key = g.key) as is_there
  from given_messages g
  left join lateral (select r.row, r.status from outlive.runs r where r.id = g.run) r on true
  left join lateral (
    select n.row from given_runs n where n.id = g.run and n.row in (select s.row from new_runs s)) s on true
  where exists (select from fence) and (g.row is null or (g.row, g.entry) in (select w.row, w.key from written w))
),
posted as (
  insert into outlive.messages (row, topic, key, value, codec, sender, created_at)
  select a.recipient, a.topic, a.key, a.value, a.codec, a.sender, now() from addressed a
  where a.recipient is not null and not a.is_over and not a.is_there
  order by a.place
  on conflict (row, key) do nothing
)

-- name: receive_messages
-- Marks messages as received by entries of their run.
receipts as materialized (
  select g.* from json_to_recordset(cast(:receipt as json)) as g (row bigint, entry text, message bigint)
),
received as (
  update outlive.messages m set received_by = coalesce(g.entry, '') from receipts g
  where m.message = g.message and m.row = g.row and exists (select from fence)
    and (g.entry is null or (g.row, g.entry) in (select w.row, w.key from written w))
)

-- name: put_values
-- Shows values; of several of one name the last one.
shown_values as materialized (
  select g.* from json_to_recordset(cast(:shown as json)) as g (
    row bigint, entry text, name text, value text, codec text, place integer)
),
shown as (
  insert into outlive.run_values (row, name, value, codec, updated_at)
  select distinct on (g.row, g.name) g.row, g.name, g.value, g.codec, now() from shown_values g
  where (g.row, g.entry) in (select w.row, w.key from written w)
  order by g.row, g.name, g.place desc
  on conflict (row, name) do update set value = excluded.value, codec = excluded.codec, updated_at = excluded.updated_at
)

-- name: insert_items
-- Appends to streams, numbered on; only with a new entry or a new key, so once.
given_items as materialized (
  select g.* from json_to_recordset(cast(:item as json)) as g (
    row bigint, entry text, name text, value text, codec text, key text, place integer)
),
emitted as (
  insert into outlive.stream_items (row, name, seq, value, codec, created_at, key)
  select g.row, g.name,
    coalesce((select max(i.seq) from outlive.stream_items i where i.row = g.row and i.name = g.name), 0)
      + row_number() over (partition by g.row, g.name order by g.place),
    g.value, g.codec, now(), g.key
  from (
    select distinct on (g.row, g.name, coalesce(g.key, g.place::text), g.key is null) g.* from given_items g
    order by g.row, g.name, coalesce(g.key, g.place::text), g.key is null, g.place) g
  where exists (select from fence) and case when g.entry is null
    then not exists (
      select from outlive.stream_items i where i.row = g.row and i.name = g.name and i.key = g.key)
    else (g.row, g.entry) in (select w.row, w.key from written w where w.is_new) end
)

-- name: insert_promises
-- Makes promises: of an entry, or, of a call, of the run that is to answer it.
given_promises as materialized (
  select g.* from json_to_recordset(cast(:promise as json)) as g (
    row bigint, entry text, token text, expires_at float8, topic text, about text, about_codec text)
),
promised as (
  insert into outlive.promises (token, row, key, created_at, expires_at, topic, about, about_codec)
  select g.token, g.row, coalesce(g.entry, g.token), now(), to_timestamp(g.expires_at), g.topic, g.about, g.about_codec
  from given_promises g
  where exists (select from fence) and (g.entry is null or (g.row, g.entry) in (select w.row, w.key from written w))
  on conflict do nothing
)

-- name: settle_promises
-- Settles promises that are open.
settlements as materialized (
  select g.* from json_to_recordset(cast(:settlement as json)) as g (
    row bigint, entry text, token text, outcome text, value text, error text, codec text)
),
settled as (
  update outlive.promises p set outcome = g.outcome, value = g.value, error = g.error, codec = g.codec, settled_at = now()
  from settlements g
  where p.token = g.token and p.outcome is null and exists (select from fence)
    and (g.entry is null or (g.row, g.entry) in (select w.row, w.key from written w))
)

-- name: list_mail
-- Reads the oldest unread messages of topics of runs, some of each.
select w.row, w.topic, m.message, m.key, m.value, m.codec
from unnest(cast(:row as bigint[]), cast(:topic as text[])) as w (row, topic)
cross join lateral (
  select m.message, m.key, m.value, m.codec from outlive.messages m
  where m.row = w.row and m.topic = w.topic and m.received_by is null
  order by m.message limit cast(:limit as integer)) m
order by m.message

-- name: list_settled
-- Reads those of some promises that are settled.
select p.token, p.outcome, p.value, p.error, p.codec from outlive.promises p
where p.token = any (cast(:token as text[])) and p.outcome is not null

-- name: list_values
-- Reads what runs show under names.
select v.row, v.name, v.value, v.codec
from unnest(cast(:row as bigint[]), cast(:name as text[])) as w (row, name)
join outlive.run_values v on v.row = w.row and v.name = w.name

-- name: list_items
-- Reads the next items of streams, some of each, and whether their run has ended: an item of null says that.
select w.place, i.seq, i.value, i.codec
from unnest(cast(:row as bigint[]), cast(:name as text[]), cast(:after as bigint[]))
  with ordinality as w (row, name, after, place)
cross join lateral (
  (select i.seq, i.value, i.codec from outlive.stream_items i
   where i.row = w.row and i.name = w.name and i.seq > w.after order by i.seq limit cast(:limit as integer))
  union all
  select null, null, null where (select r.status from outlive.runs r where r.row = w.row) is not null) i
order by w.place, i.seq

-- name: settle_promise
-- Settles a promise that is open and has not expired; tells what it was before. An update waits for another one's end.
with given as (select p.token, p.row, p.key from outlive.promises p where p.token = :token),
settled as (
  update outlive.promises p
  set outcome = :outcome, value = cast(:value as text), error = cast(:error as text), codec = :codec, settled_at = clock_timestamp()
  where p.token = (select g.token from given g) and p.outcome is null
    and (p.expires_at is null or cast(:at_expiry as boolean) or p.expires_at > clock_timestamp())
  returning p.token
)
select g.row, exists (select from settled) as settled, g.key, (select r.id from outlive.runs r where r.row = g.row) as run
from given g

-- name: select_open_promises
-- Reads promises that wait for somebody; where from, which names few of them, follows.
select r.id as run, p.key, p.token, p.topic, p.about, p.about_codec, extract(epoch from p.created_at)::float8 as created_at,
  extract(epoch from p.expires_at)::float8 as expires_at

-- name: from_topic
-- The oldest of a topic behind one. Along their index, so it reads as many as it gives.
from outlive.promises p
cross join lateral (select r.id from outlive.runs r where r.row = p.row and r.status is null limit 1) r
where p.topic = cast(:topic as text) and p.settled_at is null and (p.expires_at is null or p.expires_at > now())
  and (p.created_at, p.token) > (
    coalesce((select a.created_at from outlive.promises a where a.token = cast(:after as text)), '-infinity'),
    coalesce(cast(:after as text), ''))
order by p.created_at, p.token limit cast(:limit as integer)

-- name: from_run_topic
-- The same of one run. Along the promises of the run: those of the topic may be many more.
from outlive.runs r
cross join lateral (select n.* from outlive.promises n where n.row = r.row offset 0) p
where r.id = :run and r.status is null
  and p.topic = cast(:topic as text) and p.settled_at is null and (p.expires_at is null or p.expires_at > now())
  and (p.created_at, p.token) > (
    coalesce((select a.created_at from outlive.promises a where a.token = cast(:after as text)), '-infinity'),
    coalesce(cast(:after as text), ''))
order by p.created_at, p.token limit cast(:limit as integer)

-- name: from_run_key
-- The one of a run's entry.
from outlive.runs r
cross join lateral (select n.* from outlive.promises n where n.row = r.row and n.key = :key offset 0) p
where r.id = :run and r.status is null
  and p.topic is not null and p.settled_at is null and (p.expires_at is null or p.expires_at > now())

-- name: find_promise
-- Reads why a promise could not be settled, in a snapshot after the attempt.
select p.row, p.outcome from outlive.promises p where p.token = :token

-- name: wake_mailed
-- Makes due what waits in the store for a message or a promise that came lately: its wake-up may have been lost.
with facts as (
  select m.row, m.topic as name, 'receive' as kind from outlive.messages m
  where m.received_by is null and m.created_at >= now() - make_interval(secs => :since_s)
  union
  select p.row, p.key, 'wait' from outlive.promises p
  where p.settled_at >= now() - make_interval(secs => :since_s)
),
stalled as (
  select l.row from outlive.live l
  where l.row = any (array(
      select f.row from facts f where exists (
        select from outlive.entries e
        where e.row = f.row and e.outcome = 'started' and e.kind = f.kind and e.name = f.name)))
    and l.owner is null and l.hold is null and l.started_at is not null and (l.wake_at is null or l.wake_at > now())
  order by l.row for update of l skip locked
)
update outlive.live l set wake_at = now() where l.row = any (array(select s.row from stalled s)) returning l.row
