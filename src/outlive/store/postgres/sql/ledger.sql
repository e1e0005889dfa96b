-- Accounts, balances and the ledger. Each counts on READ COMMITTED; of a reservation, whatever is read comes after the
-- accounts are locked, in statements of their own.

-- name: settle_reservations
-- Sets what reservations came to, on all their accounts, unless that is known; a part of a batch's statement. Locks rows of
-- the ledger that nobody else writes while they are open, and no account.
settling as materialized (
  select g.* from json_to_recordset(cast(:spent as json)) as g (
    row bigint, entry text, reservation bigint, state text, usd bigint, tokens bigint, requests bigint, tools bigint)
),
spent as (
  update outlive.budget_ledger l set state = g.state, usd = g.usd, tokens = g.tokens, requests = g.requests, tools = g.tools,
    settled_at = now()
  from settling g
  where l.reservation = g.reservation and l.state = 'open' and exists (select from fence)
    and (g.row, g.entry) in (select w.row, w.key from written w)
)

-- name: hold_fence
-- Locks the worker's fence row until the transaction ends; empty if it has another epoch.
select w.worker from outlive.workers w
where w.worker = cast(:worker as bigint) and w.epoch = cast(:epoch as bigint) for key share

-- name: find_reservation
-- Reads whether a reservation is in the ledger; of one that counts at once, whether that of its unit is.
select from outlive.budget_ledger l
where l.reservation = :reservation
  or (cast(:at_once as boolean) and l.row = :row and l.key = :key and l.generation = :generation)
limit 1

-- name: put_accounts
-- Opens accounts, or takes over what code declares now; of which nothing is declared, only those that are open. Locks all
-- of them, in their order: two that reserve never deadlock.
insert into outlive.budget_accounts as a (account, per, declared, row, generation, began_at)
select g.account, g.per, coalesce(g.declared, '{}'), g.row, g.generation, to_timestamp(g.began_at)
from json_to_recordset(cast(:charges as json)) as g (
  account text, per text, declared text, row bigint, generation integer, began_at float8)
where g.declared is not null or exists (select from outlive.budget_accounts o where o.account = g.account)
order by g.account collate "C"
on conflict (account) do update set declared = excluded.declared, per = excluded.per
where excluded.declared <> '{}' and (a.declared, a.per) is distinct from (excluded.declared, excluded.per)

-- name: read_limits
-- Reads the limits of accounts that are locked, and the time.
select a.account, a.per, a.declared, a.changed, a.stopped, extract(epoch from a.began_at)::float8 as began_at,
  extract(epoch from clock_timestamp())::float8 as now
from outlive.budget_accounts a where a.account = any (cast(:accounts as text[])) order by a.account

-- name: list_pending
-- Reads what is in the ledger of accounts and not in their balances yet.
select l.reservation, l.account, l.period, l.row, l.key, l.state, l.usd, l.tokens, l.requests, l.tools,
  r.row is null or r.status is not null as is_over, r.row is null as is_gone
from outlive.budget_ledger l left join lateral (select r.row, r.status from outlive.runs r where r.row = l.row) r on true
where l.account = any (cast(:accounts as text[])) and not l.folded
order by l.reservation

-- name: list_balances
-- Reads the balances of accounts in some periods.
select b.* from unnest(cast(:account as text[]), cast(:period as text[])) as g (account, period)
join outlive.budget_balances b on b.account = g.account and b.period = g.period

-- name: fold_reservations
-- Notes that rows are in their balances now, and what became of them.
update outlive.budget_ledger l set state = g.state, usd = g.usd, tokens = g.tokens, requests = g.requests, tools = g.tools,
  folded = true, settled_at = coalesce(l.settled_at, clock_timestamp())
from json_to_recordset(cast(:folded as json)) as g (
  reservation bigint, account text, state text, usd bigint, tokens bigint, requests bigint, tools bigint)
where l.reservation = g.reservation and l.account = g.account

-- name: delete_reservations
-- Deletes rows that are in their balances and whose runs are gone.
delete from outlive.budget_ledger l using json_to_recordset(cast(:gone as json)) as g (reservation bigint, account text)
where l.reservation = g.reservation and l.account = g.account

-- name: put_balances
-- Sets balances.
insert into outlive.budget_balances
select g.* from json_to_recordset(cast(:balances as json)) as g (
  account text, period text, spent_usd bigint, spent_tokens bigint, spent_requests bigint, spent_tools bigint,
  lost_usd bigint, lost_tokens bigint, lost_requests bigint, lost_tools bigint)
on conflict (account, period) do update set
  spent_usd = excluded.spent_usd, spent_tokens = excluded.spent_tokens, spent_requests = excluded.spent_requests,
  spent_tools = excluded.spent_tools, lost_usd = excluded.lost_usd, lost_tokens = excluded.lost_tokens,
  lost_requests = excluded.lost_requests, lost_tools = excluded.lost_tools

-- name: insert_reservations
-- Reserves on accounts.
insert into outlive.budget_ledger (reservation, account, period, row, run, scope, key, generation, model, state,
  usd, tokens, requests, tools, at, settled_at)
select :reservation, g.account, g.period, :row, :run, :scope, :key, :generation, :model, cast(:state as text),
  :usd, :tokens, :requests, :tools, clock_timestamp(), case when cast(:state as text) <> 'open' then clock_timestamp() end
from unnest(cast(:account as text[]), cast(:period as text[])) as g (account, period)

-- name: list_charged
-- Reads the accounts that were charged for the agent's runs within which a run was started, by its parent, that one's parent
-- and so on.
with recursive above as (
  select r.parent as row, r.parent_key as key from outlive.runs r where r.row = :row and r.parent is not null
  union all
  select r.parent, r.parent_key from above a join outlive.runs r on r.row = a.row where r.parent is not null
)
select a.account, a.per, a.declared, a.row, a.generation, extract(epoch from a.began_at)::float8 as began_at
from outlive.budget_accounts a
where a.account = any (array(
  select distinct l.account from above u
  cross join lateral (
    select l.account from outlive.budget_ledger l where l.row = u.row and starts_with(u.key, l.scope)) l))
order by a.account

-- name: put_account
-- Sets what operators may change of an account; what is null stays as it is.
insert into outlive.budget_accounts as a (account, changed, stopped)
values (:account, coalesce(cast(:changed as text), '{}'), coalesce(cast(:stopped as boolean), false))
on conflict (account) do update set
  changed = case when cast(:changed as text) is null then a.changed
    else (cast(a.changed as jsonb) || cast(cast(:changed as text) as jsonb))::text end,
  stopped = coalesce(cast(:stopped as boolean), a.stopped)

-- name: list_accounts
-- Reads accounts behind one, or the one.
select a.account, a.per, (select r.id from outlive.runs r where r.row = a.row) as run, a.declared, a.changed, a.stopped
from outlive.budget_accounts a
where a.account > :after and (cast(:account as text) is null or a.account = cast(:account as text))
order by a.account limit cast(:limit as integer)

-- name: list_sums
-- Reads what accounts have come to in some periods, in parts: from their balances, and pending. One snapshot.
with places as (select g.* from unnest(cast(:account as text[]), cast(:period as text[])) as g (account, period))
select b.account, 'spent' as part, b.spent_usd, b.spent_tokens, b.spent_requests, b.spent_tools
from places g join outlive.budget_balances b on b.account = g.account and b.period = g.period
union all
select b.account, 'lost', b.lost_usd, b.lost_tokens, b.lost_requests, b.lost_tools
from places g join outlive.budget_balances b on b.account = g.account and b.period = g.period
union all
select l.account, case when l.state <> 'open' then l.state when r.row is null or r.status is not null then 'lost' else 'open' end,
  l.usd, l.tokens, l.requests, l.tools
from places g
join outlive.budget_ledger l on l.account = g.account and l.period = g.period and not l.folded
left join lateral (select r.row, r.status from outlive.runs r where r.row = l.row) r on true

-- name: list_shares
-- Reads what is in the ledger of an account, added up.
select l.run, l.model, l.state, sum(l.usd)::bigint as usd, sum(l.tokens)::bigint as tokens,
  sum(l.requests)::bigint as requests, sum(l.tools)::bigint as tools
from outlive.budget_ledger l where l.account = :account
group by l.run, l.model, l.state order by l.run, l.model nulls first, l.state

-- name: list_ledger
-- Reads the latest reservations on an account, before one.
select l.reservation, l.account, l.period, l.run, l.key, l.model, l.state, l.usd, l.tokens, l.requests, l.tools,
  extract(epoch from l.at)::float8 as at, extract(epoch from l.settled_at)::float8 as settled_at
from outlive.budget_ledger l where l.account = :account and l.reservation < :before
order by l.reservation desc limit cast(:limit as integer)
