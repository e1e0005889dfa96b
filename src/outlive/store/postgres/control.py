"""What operators do to runs: another generation, a fork, a deletion; and the audit of all that they do.

Invariant: an action and its note are one transaction. `write_audit` is for
every action of an operator, wherever it is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from outlive import hooks
from outlive.model.reads import AuditRow, EntryRow
from outlive.model.writes import ExistingRun, Fork, Note, Reopening
from outlive.store.postgres.database import Database, Send
from outlive.store.postgres.reading import to_entry
from outlive.store.refusals import GenerationEnded, RowTaken, SingletonTaken, WriteRefused


async def write_audit(send: Send, note: Note) -> None:
    """Note an action within its transaction."""
    await send("insert_audit", **asdict(note))


class Control(Database):
    """What a Store does for operators."""

    @hooks.commit_site("reopen")
    async def reopen(self, reopenings: Sequence[Reopening], note: Note) -> bool:
        async with self._transaction() as send:
            for reopening in reopenings:
                await send("lock_singleton", row=reopening.row)
            for reopening in reopenings:
                if not await _may_reopen(send, reopening):
                    return False
            for reopening in reopenings:
                await _reopen(send, reopening)
            await write_audit(send, note)
        children = [child for reopening in reopenings for child in reopening.cancelled]
        for child in children:
            await self._write("wake_requested", row=child)
        return True

    @hooks.commit_site("fork")
    async def fork(self, fork: Fork, note: Note) -> ExistingRun | None:
        try:
            async with self._transaction() as send:
                return await _fork(send, fork, note)
        except WriteRefused as error:
            if getattr(error.__cause__, "constraint_name", None) == "runs_pkey":
                raise RowTaken([fork.row]) from error
            raise

    @hooks.commit_site("delete_runs")
    async def delete_runs(self, rows: Sequence[int], note: Note) -> tuple[list[str], list[str]]:
        async with self._transaction() as send:
            in_the_way = await send("list_undeletable", rows=list(rows))
            if not in_the_way:
                await send("delete_runs", rows=list(rows))
                await write_audit(send, note)
        unfinished = [row["id"] for row in in_the_way if row["unfinished"]]
        return unfinished, [row["id"] for row in in_the_way if not row["unfinished"]]

    async def list_descendants(self, row: int) -> list[int]:
        return [found["row"] for found in await self._read("list_descendants", row=row)]

    async def list_past(self, row: int, generation: int) -> list[EntryRow]:
        return [to_entry(record) for record in await self._read("list_past", row=row, generation=generation)]

    async def list_audit(self, target: str | None, limit: int, after: int | None) -> list[AuditRow]:
        return [AuditRow(**row) for row in await self._read("list_audit", target=target, limit=limit, after=after)]


async def _may_reopen(send: Send, reopening: Reopening) -> bool:
    live = await send("lock_live", row=reopening.row)
    for run in await send("lock_run", row=reopening.row):
        owner, claim = live[0] if live else (None, run["claim"])
        return owner is None and (run["generation"], claim) == (reopening.generation, reopening.claim)
    return False


async def _check_singleton(send: Send, row: int) -> None:
    """Refuse to make a singleton, or a fork of it, unfinished beside another one."""
    for (other,) in await send("find_singleton", row=row):
        raise SingletonTaken(other)


async def _reopen(send: Send, reopening: Reopening) -> None:
    row = reopening.row
    ended = not await send("lock_live", row=row)
    if ended:
        await _check_singleton(send, row)
    await send("insert_generation", row=row, action=reopening.action)
    await send("keep_past", row=row, keys=[*reopening.dropped, *reopening.awaited])
    for block in ("delete_entries", "return_messages", "delete_promises"):
        await send(block, row=row, keys=reopening.dropped)
    for key, value in reopening.awaited.items():
        await send("await_again", row=row, key=key, value=value)
    await send("begin_generation", row=row)
    if ended:
        await send("delete_requests", row=row)
        await send("place_again", row=row)
    else:
        await send("release_again", row=row, resume=reopening.resume)
        if reopening.resume:
            await send("delete_pauses", row=row)
    await send("cancel_children", rows=reopening.cancelled, payload=json.dumps("its parent was rewound"))


async def _fork(send: Send, fork: Fork, note: Note) -> ExistingRun | None:
    row, origin = fork.row, fork.origin
    await send("lock_singleton", row=origin)
    generations = [found["generation"] for found in await send("lock_run", row=origin)]
    inserted = await send("insert_fork", row=row, id=fork.id, origin=origin, deadline_s=fork.deadline_s)
    if generations and not inserted:
        (existing,) = await send("find_fork", id=fork.id)
        return ExistingRun(existing["row"], existing["id"], existing["workflow"])
    if generations != [fork.generation]:
        raise GenerationEnded
    await _check_singleton(send, origin)
    await send("copy_entries", row=row, origin=origin, keys=fork.kept)
    await send("copy_blobs", row=row, origin=origin)
    await send("copy_attributes", row=row, origin=origin)
    for key, value in fork.patch.items():
        await send("patch_entry", row=row, key=key, value=value)
    await send("place_fork", row=row, origin=origin)
    await write_audit(send, note)
    return None
