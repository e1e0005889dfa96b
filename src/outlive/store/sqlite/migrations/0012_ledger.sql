-- Budgets: accounts with limits, what they have come to, and the ledger of what was reserved and spent. Settling touches the
-- ledger alone; whoever reserves next puts what is settled into the balance, with the account's row locked.

-- Limits are JSON objects; what an operator has changed wins over what code has declared. Money is in billionths of a dollar.
CREATE TABLE ol_budget_accounts (
    account  TEXT PRIMARY KEY,
    per      TEXT CHECK (per IN ('day')),         -- a balance for each; NULL: one for ever
    declared TEXT NOT NULL DEFAULT '{}',
    changed  TEXT NOT NULL DEFAULT '{}',
    stopped  INTEGER NOT NULL DEFAULT 0,
    row      INTEGER,                             -- the run whose own account it is, and with which it goes
    generation INTEGER,                           -- in which it was opened
    began_at REAL                                 -- from when its limit of wall time counts
) STRICT, WITHOUT ROWID;

CREATE INDEX ol_budget_accounts_run ON ol_budget_accounts (row) WHERE row IS NOT NULL;

CREATE TABLE ol_budget_balances (
    account       TEXT NOT NULL,
    period        TEXT NOT NULL,                  -- a day of UTC, '' of an account that has none
    spent_usd     INTEGER NOT NULL,
    spent_tokens  INTEGER NOT NULL,
    spent_requests INTEGER NOT NULL,
    spent_tools   INTEGER NOT NULL,
    lost_usd      INTEGER NOT NULL,               -- reserved by what was interrupted: it may have come to so much
    lost_tokens   INTEGER NOT NULL,
    lost_requests INTEGER NOT NULL,
    lost_tools    INTEGER NOT NULL,
    PRIMARY KEY (account, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE ol_budget_ledger (
    reservation INTEGER NOT NULL,
    account     TEXT NOT NULL,
    period      TEXT NOT NULL,
    row         INTEGER NOT NULL,
    run         TEXT NOT NULL,
    scope       TEXT NOT NULL,                    -- of the agent's run, in which the key is
    key         TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    model       TEXT,
    state       TEXT NOT NULL CHECK (state IN ('open', 'spent', 'lost')),
    usd         INTEGER NOT NULL,                 -- reserved while it is open, then what it came to
    tokens      INTEGER NOT NULL,
    requests    INTEGER NOT NULL,
    tools       INTEGER NOT NULL,
    folded      INTEGER NOT NULL DEFAULT 0,       -- it is in the balance
    at          REAL NOT NULL,
    settled_at  REAL,
    PRIMARY KEY (reservation, account)
) STRICT, WITHOUT ROWID;

CREATE INDEX ol_budget_ledger_pending ON ol_budget_ledger (account) WHERE folded = 0;
CREATE INDEX ol_budget_ledger_account ON ol_budget_ledger (account, reservation);
CREATE INDEX ol_budget_ledger_run ON ol_budget_ledger (row, key);

-- A run takes its own accounts with it. What it spent on others stays in their balances; what is not there yet stays until it is.
CREATE TRIGGER ol_budget_ledger_die AFTER DELETE ON ol_runs
BEGIN
    DELETE FROM ol_budget_ledger WHERE row = OLD.row AND folded;
    DELETE FROM ol_budget_accounts WHERE row = OLD.row;
END;

CREATE TRIGGER ol_budget_accounts_die AFTER DELETE ON ol_budget_accounts
BEGIN
    DELETE FROM ol_budget_ledger WHERE account = OLD.account;
    DELETE FROM ol_budget_balances WHERE account = OLD.account;
END;
