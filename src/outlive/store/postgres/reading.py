"""The store's reads: runs, entries, ends, requests and workers as plain values. Each is one statement, so one snapshot.

Invariant: the text of a listing depends on which filters are set, never on
their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outlive.model.reads import Claimed, EndedRun, EntryRow, RequestRow, RunQuery, RunRow, WorkerRow
from outlive.model.status import Status
from outlive.model.writes import Fence
from outlive.store.interface import FenceLost
from outlive.store.postgres.database import Database
from outlive.store.postgres.statements import named_block

# What a live row of a derived status looks like; the status itself is tested again.
_LIVE = {
    Status.PAUSED: "l.hold = 'paused'",
    Status.QUARANTINED: "l.hold = 'quarantined'",
    Status.RUNNING: "l.owner is not null",
    Status.SUSPENDED: "l.owner is null and l.started_at is not null",
    Status.SCHEDULED: "l.owner is null and l.started_at is null and l.wake_at > now()",
    Status.QUEUED: "l.owner is null and l.started_at is null",
}
_FILTERS = {
    "id": "r.id = {}",
    "parent": "r.parent = {}",
    "workflow": "r.workflow = {}",
    "queue": "r.queue = {}",
    "id_prefix": "starts_with(r.id, {})",
    "created_after": "r.created_at >= to_timestamp({}::float8)",
    "created_before": "r.created_at < to_timestamp({}::float8)",
    "after": "r.row < {}",
}
_UNSUCCESSFUL = {Status.FAILED, Status.CANCELLED}


class Reading(Database):
    """The reads of a Store."""

    async def find_run(self, run_id: str) -> RunRow | None:
        rows = await self._list(*compose_list(RunQuery(), run_id=run_id))
        return rows[0] if rows else None

    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        return await self._list(*compose_list(query))

    async def _list(self, text: str, arguments: list[Any]) -> list[RunRow]:
        return [RunRow(**row) for row in await self._pool.fetch(text, arguments)]

    async def list_entries(self, run_id: str) -> list[EntryRow]:
        return [to_entry(record) for record in await self._read("load_entries", rows=[], id=run_id)]

    async def list_ended(self, rows: Sequence[int]) -> list[EndedRun]:
        return [EndedRun(**row) for row in await self._read("list_ended", rows=list(rows))]

    async def list_children(self, row: int, *, unfinished: bool) -> list[RunRow]:
        children = await self._list(*compose_list(RunQuery(), parent_row=row, unfinished=unfinished))
        return sorted(children, key=lambda child: child.row)

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


def compose_list(
    query: RunQuery, run_id: str | None = None, parent_row: int | None = None, unfinished: bool = False
) -> tuple[str, list[Any]]:
    """Give the statement that lists runs by these filters, newest first, and its arguments.

    The run of an id, and the children of a run, come all and in no order.
    """
    conditions: list[str] = []
    arguments: list[Any] = []
    for name, condition in _FILTERS.items():
        value = {"id": run_id, "parent": parent_row}.get(name, getattr(query, name, None))
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))
    if unfinished:
        conditions.append("r.status is null")
    if narrower := _narrow(query.statuses):
        conditions.append(narrower)
    head = named_block("select_runs") + (f" where {' and '.join(conditions)}" if conditions else "") + ") v"
    if query.statuses:
        arguments.append(list(query.statuses))
        head += f" where v.status = any (${len(arguments)}::text[])"
    if run_id is None and parent_row is None:  # those are few: to order them by an index would read all of it
        arguments.append(query.limit)
        head += f" order by v.row desc limit ${len(arguments)}"
    return head, arguments


def _narrow(statuses: tuple[str, ...]) -> str | None:
    """Give a condition that finds these statuses among few rows: derived ones have no index, and history is long."""
    wanted: set[str] = set(statuses)
    if wanted and wanted <= _LIVE.keys():
        looks = " or ".join(f"({look})" for status, look in _LIVE.items() if status in wanted)
        return f"r.row = any (array(select l.row from outlive.live l where {looks}))"
    if wanted and wanted <= _UNSUCCESSFUL:
        return "r.status in ('failed', 'cancelled')"
    return None


def to_claimed(row: Any) -> Claimed:
    """Give a row of `claim_runs`."""
    facts = dict(row)
    del facts["stands"]
    return Claimed(**facts)


def to_entry(record: Any) -> EntryRow:
    """Give a row of `load_entries`; by position, since a recovery reads many."""
    facts: tuple[Any, ...] = tuple(record)
    return EntryRow(*facts[1:])
