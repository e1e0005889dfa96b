"""The store's reads: runs, entries, ends, requests and workers as plain values.

Each is one statement, so one snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outlive.model.reads import Claimed, EndedRun, EntryRow, RequestRow, RunRow, WorkerRow
from outlive.model.writes import Fence
from outlive.store.postgres.database import Database
from outlive.store.postgres.statements import Statement, named_block, number_parameters
from outlive.store.refusals import FenceLost


class Reading(Database):
    """The reads of a Store."""

    async def find_run(self, run_id: str) -> RunRow | None:
        rows = await self._list("where_id", id=run_id)
        return rows[0] if rows else None

    async def _list(self, where: str, **values: Any) -> list[RunRow]:
        query = select_runs(named_block(where))
        return [RunRow(**row) for row in await self._pool.fetch(query.text, query.arguments(values))]

    async def list_entries(self, run_id: str) -> list[EntryRow]:
        return [to_entry(record) for record in await self._read("load_entries", rows=[], id=run_id)]

    async def list_ended(self, rows: Sequence[int]) -> list[EndedRun]:
        return [EndedRun(**row) for row in await self._read("list_ended", rows=list(rows))]

    async def list_children(self, row: int, *, unfinished: bool) -> list[RunRow]:
        children = await self._list("where_parent", parent=row, unfinished=unfinished)
        return sorted(children, key=lambda child: child.row)  # few: to order them by an index would read all of it

    async def load_entries(self, rows: Sequence[int]) -> Mapping[int, list[EntryRow]]:
        entries: dict[int, list[EntryRow]] = {row: [] for row in rows}
        for record in await self._read("load_entries", rows=list(rows), id=None):
            entries[record[0]].append(to_entry(record))
        return entries

    async def list_requests(self, fence: Fence) -> list[RequestRow]:
        rows = await self._read("list_requests", worker=fence.worker, epoch=fence.epoch)
        if not rows:
            raise FenceLost(fence)
        return [RequestRow(**row) for row in rows if row["request"] is not None]

    async def list_workers(self) -> list[WorkerRow]:
        return [WorkerRow(**row) for row in await self._read("list_workers")]

    async def has_suspects(self) -> bool:
        ((found,),) = await self._read("has_suspects")
        return bool(found)

    async def next_due(self) -> float | None:
        ((due_at,),) = await self._read("next_due")
        return None if due_at is None else float(due_at)


def select_runs(where: str) -> Statement:
    """Give the statement that reads runs by a condition."""
    return number_parameters(f"{named_block('select_runs')}\n{where}\n) v")


def to_claimed(row: Any) -> Claimed:
    """Give a row of `claim_runs`."""
    facts = dict(row)
    del facts["stands"]
    return Claimed(**facts)


def to_entry(record: Any) -> EntryRow:
    """Give a row of `load_entries`; by position, since a recovery reads many."""
    facts: tuple[Any, ...] = tuple(record)
    return EntryRow(*facts[1:])
