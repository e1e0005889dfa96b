-- Accounts, balances and the ledger. Writing blocks count on the caller's BEGIN IMMEDIATE, reading ones on one snapshot.

-- name: find_reservation
-- Whether a reservation is in the ledger; of one that counts at once, whether that of its unit is.
SELECT 1 FROM ol_budget_ledger WHERE reservation = :reservation
UNION ALL
SELECT 1 FROM ol_budget_ledger WHERE row = :row AND key = :key AND generation = :generation AND :at_once
LIMIT 1

-- name: put_accounts
-- Opens an account, or takes over what code declares now.
INSERT INTO ol_budget_accounts (account, per, declared, row, generation, began_at)
VALUES (:account, :per, coalesce(:declared, '{}'), :row, :generation, :began_at)
ON CONFLICT (account) DO UPDATE SET declared = excluded.declared, per = excluded.per
WHERE excluded.declared <> '{}' AND (declared, per) IS NOT (excluded.declared, excluded.per)

-- name: read_limits
-- The limits of accounts.
SELECT a.account, a.per, a.declared, a.changed, a.stopped, a.began_at
FROM json_each(:accounts) want CROSS JOIN ol_budget_accounts a ON a.account = want.value ORDER BY a.account

-- name: list_pending
-- What is in the ledger of accounts and not in their balances yet.
SELECT r.row IS NULL OR r.status IS NOT NULL, r.row IS NULL,
    l.reservation, l.account, l.period, l.row, l.key, l.state, l.usd, l.tokens, l.requests, l.tools
FROM json_each(:accounts) want CROSS JOIN ol_budget_ledger l ON l.account = want.value AND l.folded = 0
LEFT JOIN ol_runs r ON r.row = l.row
ORDER BY l.reservation

-- name: list_balances
-- The balances of accounts in some periods.
SELECT b.account, b.period, b.spent_usd, b.spent_tokens, b.spent_requests, b.spent_tools,
    b.lost_usd, b.lost_tokens, b.lost_requests, b.lost_tools
FROM json_each(:places) want CROSS JOIN ol_budget_balances b ON b.account = want.value ->> 0 AND b.period = want.value ->> 1

-- name: fold_reservations
-- Notes that a row is in its balance now, and what became of it.
UPDATE ol_budget_ledger SET state = :state, usd = :usd, tokens = :tokens, requests = :requests, tools = :tools, folded = 1,
    settled_at = coalesce(settled_at, :now)
WHERE reservation = :reservation AND account = :account

-- name: delete_reservations
-- Deletes a row that is in its balance and whose run is gone.
DELETE FROM ol_budget_ledger WHERE reservation = :reservation AND account = :account

-- name: put_balances
-- Sets a balance.
INSERT INTO ol_budget_balances VALUES (:account, :period, :spent_usd, :spent_tokens, :spent_requests, :spent_tools,
    :lost_usd, :lost_tokens, :lost_requests, :lost_tools)
ON CONFLICT (account, period) DO UPDATE SET
    spent_usd = excluded.spent_usd, spent_tokens = excluded.spent_tokens, spent_requests = excluded.spent_requests,
    spent_tools = excluded.spent_tools, lost_usd = excluded.lost_usd, lost_tokens = excluded.lost_tokens,
    lost_requests = excluded.lost_requests, lost_tools = excluded.lost_tools

-- name: insert_reservations
-- Reserves on an account.
INSERT INTO ol_budget_ledger (reservation, account, period, row, run, scope, key, generation, model, state,
    usd, tokens, requests, tools, at, settled_at)
VALUES (:reservation, :account, :period, :row, :run, :scope, :key, :generation, :model, :state,
    :usd, :tokens, :requests, :tools, :now, CASE WHEN :state <> 'open' THEN :now END)

-- name: settle_reservations
-- Sets what a reservation came to, on all its accounts, unless that is known.
UPDATE ol_budget_ledger SET state = :state, usd = :usd, tokens = :tokens, requests = :requests, tools = :tools, settled_at = :now
WHERE reservation = :reservation AND state = 'open'

-- name: list_charged
-- Accounts that were charged for the agent's runs within which a run was started, by its parent, that one's parent and so on.
WITH RECURSIVE above (row, key) AS (
    SELECT r.parent, r.parent_key FROM ol_runs r WHERE r.row = ? AND r.parent IS NOT NULL
    UNION ALL
    SELECT r.parent, r.parent_key FROM above JOIN ol_runs r ON r.row = above.row WHERE r.parent IS NOT NULL
)
SELECT a.account, a.per, a.declared, a.row, a.generation, a.began_at FROM ol_budget_accounts a
WHERE a.account IN (
    SELECT l.account FROM above CROSS JOIN ol_budget_ledger l ON l.row = above.row
    WHERE substr(above.key, 1, length(l.scope)) = l.scope)
ORDER BY a.account

-- name: find_account
-- What operators have changed of an account, and whether it is stopped.
SELECT changed, stopped FROM ol_budget_accounts WHERE account = ?

-- name: put_account
-- Sets what operators may change of an account.
INSERT INTO ol_budget_accounts (account, changed, stopped) VALUES (?, ?, ?)
ON CONFLICT (account) DO UPDATE SET changed = excluded.changed, stopped = excluded.stopped

-- name: list_accounts
-- Accounts behind one, or the one.
SELECT a.account, a.per, (SELECT r.id FROM ol_runs r WHERE r.row = a.row), a.declared, a.changed, a.stopped
FROM ol_budget_accounts a WHERE a.account > :after AND (:account IS NULL OR a.account = :account)
ORDER BY a.account LIMIT :limit

-- name: list_sums
-- What accounts have come to in some periods, in parts: from their balances, and pending. One snapshot.
SELECT b.account, 'spent', b.spent_usd, b.spent_tokens, b.spent_requests, b.spent_tools
FROM json_each(:places) want CROSS JOIN ol_budget_balances b ON b.account = want.value ->> 0 AND b.period = want.value ->> 1
UNION ALL
SELECT b.account, 'lost', b.lost_usd, b.lost_tokens, b.lost_requests, b.lost_tools
FROM json_each(:places) want CROSS JOIN ol_budget_balances b ON b.account = want.value ->> 0 AND b.period = want.value ->> 1
UNION ALL
SELECT l.account, CASE WHEN l.state <> 'open' THEN l.state WHEN r.row IS NULL OR r.status IS NOT NULL THEN 'lost' ELSE 'open' END,
    l.usd, l.tokens, l.requests, l.tools
FROM json_each(:places) want
CROSS JOIN ol_budget_ledger l ON l.account = want.value ->> 0 AND l.period = want.value ->> 1 AND l.folded = 0
LEFT JOIN ol_runs r ON r.row = l.row

-- name: list_shares
-- What is in the ledger of an account, added up.
SELECT run, model, state, sum(usd), sum(tokens), sum(requests), sum(tools) FROM ol_budget_ledger WHERE account = ?
GROUP BY run, model, state ORDER BY run, model, state

-- name: list_ledger
-- The latest reservations on an account, before one.
SELECT reservation, account, period, run, key, model, state, usd, tokens, requests, tools, at, settled_at FROM ol_budget_ledger
WHERE account = :account AND reservation < :before ORDER BY reservation DESC LIMIT :limit
