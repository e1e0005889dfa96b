"""Side rows of a batch: messages, receipts, values, stream items, promises, settlements, what reservations came to.

Invariant: a side row is written with its entry and only then; what numbers
itself (stream items) only with an entry that is new, or with a key that is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec.structs import asdict

from outlive.model.ledger import Spent
from outlive.model.mail import (
    Delivery,
    NewItem,
    NewMessage,
    NewPromise,
    NewValue,
    Receipt,
    Settlement,
    SideRow,
)
from outlive.model.writes import Committed
from outlive.store.sqlfile import load_sql
from outlive.store.sqlite.drivers import Connection

SQL = load_sql("outlive.store.sqlite")


def write_sides(
    db: Connection,
    sides: Sequence[SideRow],
    written: Collection[tuple[int, str]],
    new: Collection[tuple[int, str]],
    committed: Committed,
    now: float,
) -> None:
    """Write the side rows of entries that this batch has `written`, some of them for the first time."""
    for side in sides:
        place: Any = (side.row, side.entry)
        if side.entry is not None and place not in written:
            if isinstance(side, NewMessage):
                committed.deliveries[side.run, side.key] = Delivery(None, "unknown")
        elif isinstance(side, NewMessage):
            committed.deliveries[side.run, side.key] = _deliver(db, side, now)
        elif isinstance(side, Receipt):
            db.run(SQL["receive_messages"], (side.entry or "", side.message, side.row))
        elif isinstance(side, NewValue):
            db.run(SQL["put_values"], (side.row, side.name, side.value, side.codec, now))
        elif isinstance(side, NewPromise):
            made = (side.token, side.row, side.entry or side.token, now, side.expires_at)
            db.run(SQL["insert_promises"], (*made, side.topic, side.about, side.about_codec))
        elif isinstance(side, Settlement):
            db.run(SQL["settle_promises"], settlement_values(side, now))
        elif isinstance(side, Spent):
            db.run(SQL["settle_reservations"], {**asdict(side), "now": now})
        elif isinstance(side, NewItem) and (side.entry is None or place in new):
            facts = {"row": side.row, "name": side.name, "value": side.value, "codec": side.codec, "key": side.key}
            db.run(SQL["insert_items"], {**facts, "now": now})


def _deliver(db: Connection, message: NewMessage, now: float) -> Delivery:
    found = db.rows(SQL["find_recipient"], (message.key, message.run))
    if not found:
        return Delivery(None, "unknown")
    ((row, is_over, is_there),) = found
    if not is_there and is_over:
        return Delivery(row, "ended")
    if not is_there:
        facts = (row, message.topic, message.key, message.value, message.codec, message.sender, now)
        db.run(SQL["insert_messages"], facts)
    return Delivery(row, None)


def settlement_values(given: Settlement, now: float) -> dict[str, Any]:
    facts = asdict(given)
    return {name: facts[name] for name in ("token", "outcome", "value", "error", "codec")} | {"now": now}
