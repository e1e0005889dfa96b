"""Budgets: reservations on accounts, and their ledger as others read it.

Invariant: what is decided on accounts is decided and written under the write lock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from outlive.hooks import commit_site
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
from outlive.model.line import put_together
from outlive.model.writes import Fence, Note
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.control import write_audit
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection


class Ledger(Database):
    """What a Store does for budgets."""

    @commit_site("reserve")
    @writing
    def reserve(self, db: Connection, fence: Fence, reservation: Reservation, earlier: Spent | None = None) -> Granted:
        check_fence(db, fence)
        now = self._wall()
        is_known = bool(db.rows(SQL["find_reservation"], _facts(reservation)))
        db.many(SQL["put_accounts"], [asdict(charge) for charge in reservation.charges if charge.declared is not None])
        names = json.dumps([charge.account for charge in reservation.charges])
        accounts = [AccountRow(*row) for row in db.rows(SQL["read_limits"], {"accounts": names})]
        pending = _list_pending(db, names)
        balances = _list_balances(db, places_of(accounts, pending, now))
        booking = book(reservation, earlier, accounts, pending, balances, now, is_known=is_known)
        _write(db, booking, reservation, now)
        return booking.granted

    @reading
    def list_charged(self, db: Connection, row: int) -> list[Charge]:
        return [Charge(*facts) for facts in db.rows(SQL["list_charged"], (row,))]

    @commit_site("put_account")
    @writing
    def put_account(
        self, db: Connection, account: str, *, changed: str | None = None, stopped: bool | None = None, note: Note
    ) -> None:
        found = db.rows(SQL["find_account"], (account,))
        before: tuple[str, int] = found[0] if found else ("{}", 0)
        limits = put_together(before[0], changed or "{}")
        db.run(SQL["put_account"], (account, limits, before[1] if stopped is None else int(stopped)))
        write_audit(db, note, self._wall())

    @reading
    def list_accounts(
        self, db: Connection, account: str | None, period: str | None, limit: int, after: str
    ) -> list[AccountSums]:
        found = db.rows(SQL["list_accounts"], {"account": account, "limit": limit, "after": after})
        now = self._wall()
        periods = {row[0]: name_period(row[1], now) if period is None else period for row in found}
        sums = add_up(db.rows(SQL["list_sums"], {"places": json.dumps(list(periods.items()))}))
        return [
            AccountSums(name, per, run, declared, changed, bool(stopped), periods[name], sums[name])
            for name, per, run, declared, changed, stopped in found
        ]

    @reading
    def list_shares(self, db: Connection, account: str) -> list[Share]:
        rows = db.rows(SQL["list_shares"], (account,))
        return [Share(run, model, state, Amounts(*amounts)) for run, model, state, *amounts in rows]

    @reading
    def list_ledger(self, db: Connection, account: str, limit: int, before: int) -> list[LedgerRow]:
        return [
            LedgerRow(*row)
            for row in db.rows(SQL["list_ledger"], {"account": account, "limit": limit, "before": before})
        ]


def _facts(reservation: Reservation) -> dict[str, Any]:
    named = ("reservation", "row", "run", "scope", "key", "generation", "model", "at_once")
    return {name: getattr(reservation, name) for name in named}


def _list_pending(db: Connection, accounts: str) -> list[PendingRow]:
    rows = db.rows(SQL["list_pending"], {"accounts": accounts})
    return [PendingRow(bool(is_over), bool(is_gone), *facts) for is_over, is_gone, *facts in rows]


def _list_balances(db: Connection, places: Sequence[tuple[str, str]]) -> list[Balance]:
    rows = db.rows(SQL["list_balances"], {"places": json.dumps(places)})
    return [Balance(account, period, Amounts(*sums[:4]), Amounts(*sums[4:])) for account, period, *sums in rows]


def _write(db: Connection, booking: Booking, reservation: Reservation, now: float) -> None:
    for row in booking.folded:
        facts = {"reservation": row.reservation, "account": row.account}
        if row.is_gone:
            db.run(SQL["delete_reservations"], facts)
        else:
            db.run(SQL["fold_reservations"], {**facts, "state": row.state, **row.amounts._asdict(), "now": now})
    db.many(SQL["put_balances"], [balance.columns() for balance in booking.balances])
    state = "spent" if reservation.at_once else "open"
    common = {**_facts(reservation), **reservation.amounts._asdict(), "state": state, "now": now}
    for account, period in booking.periods.items():
        db.run(SQL["insert_reservations"], {**common, "account": account, "period": period})
