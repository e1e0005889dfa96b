"""Budgets: reservations on accounts, and their ledger as others read it.

Invariant: what is decided on accounts is read after their rows are locked, in the
order of their names, and written before the locks are given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from outlive import hooks
from outlive.model.ledger import (
    AccountRow,
    AccountSums,
    Amounts,
    Balance,
    Booking,
    Charge,
    Granted,
    LedgerRow,
    PendingRow,
    Reservation,
    Share,
    Spent,
    add_up,
    book,
    name_period,
    places_of,
)
from outlive.model.writes import Fence, Note
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database, Send
from outlive.store.refusals import FenceLost


class Ledger(Database):
    """What a Store does for budgets."""

    @hooks.commit_site("reserve")
    async def reserve(self, fence: Fence, reservation: Reservation, earlier: Spent | None = None) -> Granted:
        async with self._transaction() as send:
            if not await send("hold_fence", worker=fence.worker, epoch=fence.epoch):
                raise FenceLost(fence)
            await send("put_accounts", charges=_as_json([asdict(charge) for charge in reservation.charges]))
            names = [charge.account for charge in reservation.charges]
            locked = await send("read_limits", accounts=names)
            now = max((row["now"] for row in locked), default=0.0)
            accounts = [AccountRow(*row[:6]) for row in locked]
            is_known = bool(await send("find_reservation", **_facts(reservation)))
            pending = [PendingRow(**row) for row in await send("list_pending", accounts=names)]
            balances = _balances(await send("list_balances", **_places(places_of(accounts, pending, now))))
            booking = book(reservation, earlier, accounts, pending, balances, now, is_known=is_known)
            await _write(send, booking, reservation)
        return booking.granted

    async def list_charged(self, row: int) -> list[Charge]:
        return [Charge(**found) for found in await self._read("list_charged", row=row)]

    @hooks.commit_site("put_account")
    async def put_account(
        self, account: str, *, changed: str | None = None, stopped: bool | None = None, note: Note
    ) -> None:
        async with self._transaction() as send:
            await send("put_account", account=account, changed=changed, stopped=stopped)
            await write_audit(send, note)

    async def list_accounts(self, account: str | None, period: str | None, limit: int, after: str) -> list[AccountSums]:
        now = await self.now()
        found = await self._read("list_accounts", account=account, limit=limit, after=after)
        periods = {row["account"]: name_period(row["per"], now) if period is None else period for row in found}
        sums = add_up(await self._read("list_sums", **_places(list(periods.items()))))
        return [AccountSums(**row, period=periods[row["account"]], sums=sums[row["account"]]) for row in found]

    async def list_shares(self, account: str) -> list[Share]:
        rows = await self._read("list_shares", account=account)
        return [Share(run, model, state, Amounts(*amounts)) for run, model, state, *amounts in rows]

    async def list_ledger(self, account: str, limit: int, before: int) -> list[LedgerRow]:
        found = await self._read("list_ledger", account=account, limit=limit, before=before)
        return [LedgerRow(**row) for row in found]


def _facts(reservation: Reservation) -> dict[str, Any]:
    named = ("reservation", "row", "run", "scope", "key", "generation", "model", "at_once")
    return {name: getattr(reservation, name) for name in named}


def _as_json(records: Sequence[Any]) -> str:
    return msgspec.json.encode(records).decode()


def _places(places: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"account": [account for account, _ in places], "period": [period for _, period in places]}


def _balances(rows: Sequence[Any]) -> list[Balance]:
    return [Balance(account, period, Amounts(*sums[:4]), Amounts(*sums[4:])) for account, period, *sums in rows]


async def _write(send: Send, booking: Booking, reservation: Reservation) -> None:
    gone = [row for row in booking.folded if row.is_gone]
    if booking.folded:
        await send("fold_reservations", folded=_as_json(booking.folded))
        await send("put_balances", balances=_as_json([balance.columns() for balance in booking.balances]))
    if gone:
        await send("delete_reservations", gone=_as_json(gone))
    if booking.periods:
        state = "spent" if reservation.at_once else "open"
        places = _places(list(booking.periods.items()))
        await send("insert_reservations", **_facts(reservation), **reservation.amounts._asdict(), state=state, **places)
