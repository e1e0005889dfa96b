"""Schedules: read, written against a revision together with the runs that they start, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache

import msgspec

from outlive import hooks
from outlive.model.schedule import ScheduleRow, ScheduleWrite
from outlive.model.writes import NewRun, Note
from outlive.store.blobs import Blobs
from outlive.store.postgres.commit import combine
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database
from outlive.store.postgres.statements import Statement, named_block, number_parameters, statement


class Schedules(Database):
    """What a Store does for schedules."""

    @hooks.commit_site("write_schedule")
    async def write_schedule(
        self,
        write: ScheduleWrite,
        starts: Sequence[NewRun] = (),
        cancels: Sequence[int] = (),
        reason: str | None = None,
        note: Note | None = None,
    ) -> bool:
        blobs = Blobs()
        runs = [blobs.move_out_of_run(run) for run in starts]
        parts = [
            "insert_schedule" if write.expected is None else "update_schedule",
            "skip_entries",
            "insert_runs" if runs else "skip_runs",
            *(["insert_blobs"] if blobs else []),
            *(["cancel_runs"] if cancels else []),
        ]
        values = {
            **asdict(write),
            "run": msgspec.json.encode(runs).decode(),
            "worker": None,
            "blob_row": [blob.row for blob in blobs],
            "blob_name": [blob.name for blob in blobs],
            "blob_text": [blob.text for blob in blobs],
            "cancels": list(cancels),
            "reason": reason,
        }
        made = _assemble(tuple(parts))
        if note is None:
            (row,) = await self._pool.fetch(made.text, made.arguments(values), writing=True)
            return bool(row["fenced"])
        async with self._pool.transaction() as connection:
            (row,) = await connection.fetch(made.text, *made.arguments(values))
            if row["fenced"]:
                audit = statement("insert_audit")
                await connection.fetch(audit.text, *audit.arguments(asdict(note)))
        return bool(row["fenced"])

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


@cache
def _assemble(parts: tuple[str, ...]) -> Statement:
    return number_parameters(combine(*parts))
