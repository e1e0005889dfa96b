"""Begins the next generation of a run that goes on as new, within the transaction of a batch.

Invariant: sent a second time it finds another generation and changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict

from outlive.limits import GENERATIONS_KEPT
from outlive.model.writes import Continue
from outlive.store.sqlfile import load_sql
from outlive.store.sqlite.drivers import Connection

SQL = load_sql("outlive.store.sqlite")

_BLOCKS = (
    "end_generation", "continue_run", "refresh_live", "move_entries", "clear_entries", "forget_messages",
    "forget_promises", "forget_entries", "forget_generations", "forget_blobs", "forget_expenses",
    "forget_accounts",
)  # fmt: skip


def continue_run(db: Connection, end: Continue, worker: int, now: float) -> None:
    """Move the journal of a run to the past, of which the last generations stay, and give it other arguments."""
    row = {**asdict(end), "worker": worker, "now": now, "last_gone": end.generation - GENERATIONS_KEPT}
    if db.rows(SQL["find_standing"], row):
        for block in _BLOCKS if end.close_reason is None else (*_BLOCKS, "release_children"):
            db.run(SQL[block], row)
