"""Schedules: read, written against a revision together with the runs that they start, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec

from outlive import hooks
from outlive.model.schedule import ScheduleRow, ScheduleWrite
from outlive.model.writes import Note
from outlive.store.blobs import Blobs
from outlive.store.postgres.commit import combine, name_start_parts
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database
from outlive.store.postgres.statements import Statement, named_block, number_parameters, statement

_NAME = attrgetter("name")


class Schedules(Database):
    """What a Store does for schedules."""

    @hooks.commit_site("write_schedules")
    async def write_schedules(self, writes: Sequence[ScheduleWrite], note: Note | None = None) -> list[bool]:
        if len(writes) == 1 and note is None:
            made, arguments = _compose(writes[0])
            rows = await self._pool.fetch(made.text, arguments, writing=True)
            return [bool(rows[0]["fenced"])]
        written = {}
        async with self._pool.transaction() as connection:
            for write in sorted(writes, key=_NAME):  # two that write the same schedules wait in the same order
                made, arguments = _compose(write)
                (row,) = await connection.fetch(made.text, *arguments)
                written[write.name] = bool(row["fenced"])
            if note is not None and any(written.values()):
                audit = statement("insert_audit")
                await connection.fetch(audit.text, *audit.arguments(asdict(note)))
        return [written[write.name] for write in writes]

    @hooks.commit_site("delete_schedule")
    async def delete_schedule(self, name: str, note: Note) -> bool:
        async with self._transaction() as send:
            deleted = bool(await send("delete_schedule", name=name))
            if deleted:
                await write_audit(send, note)
        return deleted

    async def list_schedules(self, name: str | None = None) -> list[ScheduleRow]:
        return await self._list_schedules("where_schedule", name=name)

    async def list_due_schedules(self, but: Sequence[str], limit: int) -> list[ScheduleRow]:
        return await self._list_schedules("where_schedule_due", but=list(but), limit=limit)

    async def next_tick(self, but: Sequence[str]) -> float | None:
        ((wait_s,),) = await self._read("next_tick", but=list(but))
        return None if wait_s is None else float(wait_s)

    async def _list_schedules(self, block: str, **values: object) -> list[ScheduleRow]:
        query = number_parameters(named_block("select_schedules") + "\n" + named_block(block))
        return [ScheduleRow(**row) for row in await self._pool.fetch(query.text, query.arguments(values))]


def _compose(write: ScheduleWrite) -> tuple[Statement, list[Any]]:
    """Give the statement and the arguments that write a schedule with the runs that it starts."""
    blobs = Blobs()
    runs = [blobs.move_out_of_run(run) for run in write.starts]
    made = _assemble(
        "insert_schedule" if write.expected is None else "update_schedule",
        "skip_entries",
        *(name_start_parts(bounded=False) if runs else ["skip_runs"]),
        *(["insert_blobs"] if blobs else []),
        *(["cancel_runs"] if write.cancels else []),
    )
    values = {one.name: getattr(write, one.name) for one in fields(write)} | {
        "run": msgspec.json.encode(runs).decode(),
        "worker": None,
        "blob_row": [blob.row for blob in blobs],
        "blob_name": [blob.name for blob in blobs],
        "blob_text": [blob.text for blob in blobs],
    }
    return made, made.arguments(values)


@cache
def _assemble(*parts: str) -> Statement:
    return number_parameters(combine(*parts))
