"""Budgets as operators see them: what was spent on which account, and what they change of it at run time.

Knows the ledger, no agent: it works in any process that reaches the database.
Invariant: an action and its note in the audit are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from outlive.app import Outlive
from outlive.clock import Duration, to_datetime
from outlive.control import make_note
from outlive.errors import UsageError
from outlive.model.ledger import NANO, AccountSums, Amounts, LedgerRow, check_limits, limits_of
from outlive.model.line import KEPT, encode_limits
from outlive.model.options import check_limit
from outlive.paging import Page, make_page, one_more

_LATEST = 2**63 - 1


@dataclass(frozen=True)
class Used:
    """So much of each measure; `usd` are dollars."""

    usd: Decimal
    tokens: int
    requests: int
    tools: int


@dataclass(frozen=True)
class BudgetInfo:
    """What is known of a budget, of the day `period` if it is one per day.

    `limits`: those in force, by measure; `is_changed`: some are an operator's. `spent`: by what came to an end;
    `reserved`: for what is under way; `lost`: for what was interrupted, which may have come to so much, so it counts
    as spent. `run`: the run whose own budget it is.
    """

    account: str
    per: str | None
    period: str | None
    run: str | None
    limits: Mapping[str, Decimal | float]
    is_changed: bool
    stopped: bool
    spent: Used
    reserved: Used
    lost: Used


@dataclass(frozen=True)
class Share:
    """What one run has used on one model, or on calls of tools (no model)."""

    run: str
    model: str | None
    state: Literal["open", "spent", "lost"]
    amounts: Used


@dataclass(frozen=True)
class Expense:
    """One attempt of a model request, or one call of a tool, as an account was charged for it."""

    id: int
    run: str
    key: str
    model: str | None
    state: Literal["open", "spent", "lost"]
    amounts: Used
    at: datetime
    settled_at: datetime | None


class Budgets:
    """See `budgets`."""

    def __init__(self, app: Outlive) -> None:
        self._app = app

    async def list(self, *, limit: int = 100, after: str | None = None) -> Page[BudgetInfo, str]:
        """List the budgets that were used or changed, by name; those per day as of today."""
        count = one_more(check_limit(limit))
        rows = await self._app._engine().store.list_accounts(None, None, count, after or "")
        return make_page(rows, limit, _info, lambda row: row.account)

    async def find(self, account: str, *, day: date | None = None) -> BudgetInfo | None:
        """Give a budget, as of today or a past day if it is one per day; None if nobody has used or changed it."""
        period = None if day is None else day.isoformat()
        rows = await self._app._engine().store.list_accounts(account, period, 1, "")
        return _info(rows[0]) if rows else None

    async def shares(self, account: str) -> Sequence[Share]:
        """List what each run has used of a budget on each model, and on tools (no model), as long as it is kept."""
        return [
            Share(row.run, row.model, row.state, _used(row.amounts))
            for row in await self._app._engine().store.list_shares(account)
        ]

    async def ledger(self, account: str, *, limit: int = 100, before: int | None = None) -> Page[Expense, int]:
        """List what an account was charged for, the latest first, as long as the runs are kept."""
        count = one_more(check_limit(limit))
        rows = await self._app._engine().store.list_ledger(account, count, _LATEST if before is None else before)
        return make_page(rows, limit, _expense, lambda row: row.reservation)

    async def put(
        self,
        account: str,
        *,
        usd: Decimal | str | float | None = KEPT,
        tokens: int | None = KEPT,
        requests: int | None = KEPT,
        tools: int | None = KEPT,
        wall: Duration | None = KEPT,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Change limits of a budget for all processes, at once; None lifts one, those not named stay.

        A run that failed for want of it goes on with `retry`. Calls of tools are counted only where code limits them,
        or the time.
        *Durable*: what is changed here wins over what code declares.
        """
        given = {"usd": usd, "tokens": tokens, "requests": requests, "tools": tools, "wall": wall}
        named = {name: value for name, value in given.items() if value is not KEPT}
        if not named:
            raise UsageError(f"put({account!r}, …) needs a limit to change: {', '.join(given)}")
        changed = check_limits(named)
        told = {name: str(value) if name == "usd" else changed[name] for name, value in named.items()}
        await self._put("limit", account, reason, by, told, changed=encode_limits(changed))

    async def stop(self, account: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Refuse all that is new; what is under way goes on, and is settled."""
        await self._put("stop", account, reason, by, stopped=True)

    async def resume(self, account: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Allow again what the limits allow."""
        await self._put("resume", account, reason, by, stopped=False)

    async def _put(
        self, action: str, account: str, reason: str | None, by: str | None, told: Any = None, **facts: Any
    ) -> None:
        if not isinstance(account, str) or not account:
            raise UsageError(f"a budget is named by its account, not {account!r}")
        engine = self._app._engine()
        note = make_note(engine, action, "budget", account, reason, by, told)
        await engine.store.put_account(account, **facts, note=note)


def budgets(app: Outlive) -> Budgets:
    """Give the budgets of an app, a client or a worker."""
    return Budgets(app)


def _info(row: AccountSums) -> BudgetInfo:
    limits = {
        name: Decimal(value) / NANO if name == "usd" else value
        for name, value in limits_of(row.declared, row.changed).items()
        if value is not None
    }
    spent, lost, reserved = (_used(amounts) for amounts in row.sums)
    return BudgetInfo(
        row.account,
        row.per,
        row.period or None,
        row.run,
        limits,
        row.changed != "{}",
        row.stopped,
        spent,
        reserved,
        lost,
    )


def _used(amounts: Amounts) -> Used:
    return Used(Decimal(amounts.usd) / NANO, amounts.tokens, amounts.requests, amounts.tools)


def _expense(row: LedgerRow) -> Expense:
    amounts = Amounts(row.usd, row.tokens, row.requests, row.tools)
    settled_at = None if row.settled_at is None else to_datetime(row.settled_at)
    return Expense(
        row.reservation, row.run, row.key, row.model, row.state, _used(amounts), to_datetime(row.at), settled_at
    )
