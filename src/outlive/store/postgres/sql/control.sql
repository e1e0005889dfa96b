-- What operators do to runs, and the audit that says who did it and why. The blocks of one action are sent in one
-- transaction, READ COMMITTED, that locks first the live row and then the run, as the end of a run does.

-- name: insert_audit
-- Notes an action in the transaction that does it; a second send of the same one notes nothing.
insert into outlive.audit (audit, at, who, action, noun, target, reason, facts)
values (:audit, now(), :who, :action, :noun, :target, :reason, :facts) on conflict (audit) do nothing

-- name: list_audit
-- Reads the latest actions, all or those on one target.
select a.audit, extract(epoch from a.at)::float8 as at, a.who, a.action, a.noun, a.target, a.reason, a.facts
from outlive.audit a
where (cast(:target as text) is null or a.target = :target) and (cast(:after as bigint) is null or a.audit < :after)
order by a.audit desc limit :limit

-- name: list_past
-- Reads the journal of a generation that has ended: what it left to the next ones, and what they did not keep.
select e.row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome, outlive.read_payload(e.row, e.value) as value,
  e.error, e.attempts,
  extract(epoch from e.started_at)::float8 as started_at, extract(epoch from e.finished_at)::float8 as finished_at,
  e.noted_version, e.generation
from (
  select n.row, n.key, n.seq, n.kind, n.name, n.digest, n.outcome, n.value, n.error, n.attempts, n.started_at,
    n.finished_at, n.noted_version, n.generation
  from outlive.entries n where n.row = :row and n.generation <= :generation
  union all
  select p.row, p.key, p.seq, p.kind, p.name, p.digest, p.outcome, p.value, p.error, p.attempts, p.started_at,
    p.finished_at, p.noted_version, p.generation
  from outlive.past_entries p where p.row = :row and p.generation <= :generation and p.last_generation >= :generation
) e
order by e.seq nulls last, e.started_at, e.key

-- name: lock_live
-- Locks the live row of a run: nobody claims it, and its owner cannot end it; empty if it has ended.
select l.owner, l.claim from outlive.live l where l.row = :row for update

-- name: lock_run
-- Locks a run; reads its generation and the claim of its end.
select r.generation, r.claim from outlive.runs r where r.row = :row for update

-- name: insert_generation
-- Writes how a generation has ended.
insert into outlive.generations (row, generation, action, ended_at, status, output, error)
select r.row, r.generation, :action, now(), r.status, r.output, r.error from outlive.runs r where r.row = :row

-- name: keep_past
-- Copies entries that the next generation does not keep.
insert into outlive.past_entries (row, last_generation, key, seq, kind, name, digest, outcome, value, error, attempts,
  noted_version, generation, started_at, finished_at)
select e.row, r.generation, e.key, e.seq, e.kind, e.name, e.digest, e.outcome, e.value, e.error, e.attempts,
  e.noted_version, e.generation, e.started_at, e.finished_at
from outlive.entries e join outlive.runs r on r.row = e.row
where e.row = :row and e.key = any (cast(:keys as text[]))

-- name: delete_entries
-- Takes them out of the journal.
delete from outlive.entries e where e.row = :row and e.key = any (cast(:keys as text[]))

-- name: return_messages
-- Makes messages that were received there unread again.
update outlive.messages m set received_by = null where m.row = :row and m.received_by = any (cast(:keys as text[]))

-- name: delete_promises
-- Deletes promises that were made there: they are made again, with other tokens.
delete from outlive.promises p where p.row = :row and p.key = any (cast(:keys as text[]))

-- name: await_again
-- Makes the entry of an awaited child, or of a step that may have taken effect, what it was while that went on.
update outlive.entries e set outcome = 'started', seq = null, value = :value, error = null, finished_at = null, attempts = 0,
  generation = (select r.generation + 1 from outlive.runs r where r.row = :row)
where e.row = :row and e.key = :key

-- name: begin_generation
-- Makes a run unfinished in its next generation; a deadline that has passed is lifted, and so is its dedupe where another
-- run has it now.
update outlive.runs r set dedupe = case when not exists (
    select from outlive.runs o where o.queue = r.queue and o.dedupe = r.dedupe and o.status is null and o.row <> r.row) then r.dedupe end,
  generation = r.generation + 1, status = null, output = null, error = null, finished_at = null,
  deadline_at = case when r.deadline_at > now() then r.deadline_at end
where r.row = :row

-- name: place_again
-- Inserts the live row of a run that had ended, into the line of its queue if it has one; claims go on above those of its
-- end, so that whoever had one stays out.
insert into outlive.live (row, workflow, queue, priority, key, claim, wake_at, line, line_at, once, started_at)
select r.row, outlive.claim_name(r.workflow, r.version, r.pinned), r.queue, r.priority, coalesce(r.key, ''),
  coalesce(r.claim, 1048576), case when r.queue = '' then now() else r.deadline_at end,
  case when r.queue <> '' then 'waiting' end, case when r.queue <> '' then now() end,
  case when r.singleton then 'singleton' end, r.started_at
from outlive.runs r where r.row = :row

-- name: delete_requests
-- Drops requests that came as a run ended.
delete from outlive.requests q where q.row = :row

-- name: release_again
-- Makes a run that nobody owns due, without crashes; one that is held stays so, unless it is to be resumed.
update outlive.live l set crashes = 0,
  wake_at = case when l.hold is null or :resume then now() else l.wake_at end,
  hold = case when not :resume then l.hold end, hold_reason = case when not :resume then l.hold_reason end
where l.row = :row

-- name: delete_pauses
-- Drops a pause that was asked for before the run is let go on.
delete from outlive.requests q where q.row = :row and q.kind = 'pause'

-- name: cancel_children
-- Asks children to cancel.
insert into outlive.requests (row, kind, payload, created_at)
select r.row, 'cancel', :payload, now() from outlive.runs r
where r.row = any (cast(:rows as bigint[])) and r.status is null
on conflict (row, kind) do nothing

-- name: insert_fork
-- Inserts a run with the arguments of another one; its deadline and its parent are its own, its order of sets is inherited.
insert into outlive.runs (row, id, workflow, version, codec, queue, priority, key, created_at, attributes, input, salt,
  pinned, continued, continued_at, singleton, forked_from, deadline_at)
select :row, :id, r.workflow, r.version, r.codec, r.queue, r.priority, r.key, now(), r.attributes, r.input,
  coalesce(r.salt, r.row), r.pinned, r.continued, r.continued_at, r.singleton, r.id, now() + make_interval(secs => :deadline_s)
from outlive.runs r where r.row = :origin
on conflict (id) do nothing
returning row

-- name: copy_entries
-- Copies the entries that a fork reuses.
insert into outlive.entries (row, key, seq, kind, name, digest, outcome, value, error, attempts, noted_version,
  started_at, finished_at)
select :row, e.key, e.seq, e.kind, e.name, e.digest, e.outcome, e.value, e.error, e.attempts, e.noted_version,
  e.started_at, e.finished_at
from outlive.entries e where e.row = :origin and e.key = any (cast(:keys as text[]))

-- name: copy_blobs
-- Copies the large payloads that its rows refer to.
insert into outlive.blobs (row, name, text)
select :row, b.name, b.text from outlive.blobs b where b.row = :origin

-- name: copy_attributes
-- Copies what people search for.
insert into outlive.run_attributes (row, name, value)
select :row, a.name, a.value from outlive.run_attributes a where a.row = :origin

-- name: patch_entry
-- Puts another value in the place of a recorded one.
update outlive.entries e set value = :value where e.row = :row and e.key = :key

-- name: place_fork
-- Inserts its live row; where it has entries its time begins when that of the other run began.
insert into outlive.live (row, workflow, queue, priority, key, claim, wake_at, line, line_at, once, started_at)
select f.row, outlive.claim_name(f.workflow, f.version, f.pinned), f.queue, f.priority, coalesce(f.key, ''), 1,
  case when f.queue = '' then now() else f.deadline_at end, case when f.queue <> '' then 'waiting' end,
  case when f.queue <> '' then now() end, case when f.singleton then 'singleton' end,
  case when exists (select from outlive.entries e where e.row = :row) then (
    select coalesce(r.started_at, l.started_at) from outlive.runs r left join outlive.live l on l.row = r.row
    where r.row = :origin) end
from outlive.runs f where f.row = :row

-- name: find_fork
-- Reads the run that has the id of a fork already.
select r.row, r.id, r.workflow, r.forked_from from outlive.runs r where r.id = :id

-- name: list_descendants
-- Reads a run's descendants, children before their children.
with recursive below (row) as (
  select r.row from outlive.runs r where r.parent = :row
  union
  select r.row from below b join outlive.runs r on r.parent = b.row
)
select b.row from below b

-- name: list_undeletable
-- Reads which of these runs may not be deleted: the unfinished, and those whose result a parent waits for. Locks them all.
with doomed as materialized (
  select r.row, r.id, r.status, r.parent, r.parent_key from outlive.runs r where r.row = any (cast(:rows as bigint[]))
  order by r.row for update
)
select d.id, d.status is null as unfinished from doomed d
where d.status is null or (
  d.parent <> all (cast(:rows as bigint[])) and exists (
    select from outlive.entries e join outlive.live l on l.row = e.row
    where e.row = d.parent and e.key = d.parent_key and e.outcome = 'started'))

-- name: delete_runs
-- Deletes runs with all that is their own.
select outlive.delete_runs(cast(:rows as bigint[]))
