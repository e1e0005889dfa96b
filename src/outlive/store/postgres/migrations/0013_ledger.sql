-- Budgets: accounts with limits, what they have come to, and the ledger of what was reserved and spent. Settling touches the
-- ledger alone; whoever reserves next puts what is settled into the balance, with the account's row locked.

-- Limits are JSON objects; what an operator has changed wins over what code has declared. Money is in billionths of a dollar.
create table outlive.budget_accounts (
  account text collate "C" primary key,
  per text check (per in ('day')),        -- a balance for each; null: one for ever
  declared text not null default '{}',
  changed text not null default '{}',
  stopped boolean not null default false,
  row bigint,                             -- the run whose own account it is, and with which it goes
  generation integer,                     -- in which it was opened
  began_at timestamptz                    -- from when its limit of wall time counts
);

create index budget_accounts_run on outlive.budget_accounts (row) where row is not null;

create table outlive.budget_balances (
  account text collate "C" not null,
  period text collate "C" not null,       -- a day of UTC, '' of an account that has none
  spent_usd bigint not null,
  spent_tokens bigint not null,
  spent_requests bigint not null,
  spent_tools bigint not null,
  lost_usd bigint not null,               -- reserved by what was interrupted: it may have come to so much
  lost_tokens bigint not null,
  lost_requests bigint not null,
  lost_tools bigint not null,
  primary key (account, period)
);

create table outlive.budget_ledger (
  reservation bigint not null,
  account text collate "C" not null,
  period text collate "C" not null,
  row bigint not null,
  run text not null,
  scope text collate "C" not null,        -- of the agent's run, in which the key is
  key text collate "C" not null,
  generation integer not null,
  model text,
  state text not null check (state in ('open', 'spent', 'lost')),
  usd bigint not null,                    -- reserved while it is open, then what it came to
  tokens bigint not null,
  requests bigint not null,
  tools bigint not null,
  folded boolean not null default false,  -- it is in the balance
  at timestamptz not null,
  settled_at timestamptz,
  primary key (reservation, account)
) with (fillfactor = 70);                 -- room for the two updates of each row

create index budget_ledger_pending on outlive.budget_ledger (account) where not folded;
create index budget_ledger_account on outlive.budget_ledger (account, reservation);
create index budget_ledger_run on outlive.budget_ledger (row, key);

-- A run takes its own accounts with it. What it spent on others stays in their balances; what is not there yet stays until it is.
create function outlive.forget_budget_ledger() returns trigger language plpgsql as $$
begin
  delete from outlive.budget_ledger l using gone g where l.row = g.row and l.folded;
  delete from outlive.budget_accounts a using gone g where a.row = g.row;
  return null;
end $$;

create trigger budget_ledger_die after delete on outlive.runs referencing old table as gone
for each statement execute function outlive.forget_budget_ledger();

create function outlive.forget_budget_account() returns trigger language plpgsql as $$
begin
  delete from outlive.budget_ledger l using gone g where l.account = g.account;
  delete from outlive.budget_balances b using gone g where b.account = g.account;
  return null;
end $$;

create trigger budget_accounts_die after delete on outlive.budget_accounts referencing old table as gone
for each statement execute function outlive.forget_budget_account();
