"""Starts that look first for what stands in their way: full queues, and runs that there may be only one of.

Each is a transaction of its own that locks what others of its kind look at too.
Invariant: it inserts a run, or gives the one that stands in its way, or has
changed nothing.
"""

from __future__ import annotations

import json
from functools import cache

import msgspec

from outlive import hooks
from outlive.errors import QueueFull
from outlive.model.attributes import index_attributes
from outlive.model.line import decode_limits
from outlive.model.writes import ExistingRun, NewRun, Terms
from outlive.store.blobs import Blobs
from outlive.store.postgres.commit import combine, list_attributes, name_start_parts
from outlive.store.postgres.database import Database, Send
from outlive.store.postgres.statements import Statement, number_parameters
from outlive.store.refusals import RowTaken, WriteRefused


class Starting(Database):
    """What a Store does for a run that is started alone."""

    @hooks.commit_site("start_alone")
    async def start_alone(self, run: NewRun, terms: Terms, dropped: str) -> ExistingRun | None:
        blobs = Blobs()
        moved = blobs.move_out_of_run(run)
        parents: list[int] = []
        replaced: list[int] = []
        try:
            async with self._transaction() as send:
                existing = await _find_in_the_way(send, moved, blobs, terms)
                if existing is None:
                    replaced = await _replace_others(send, moved, terms)
                    parents = await _make_room(send, run.queue, dropped)
                    await _insert(send, moved, blobs, terms, is_delayed=terms.once == "debounce" or bool(replaced))
        except WriteRefused as error:
            if getattr(error.__cause__, "constraint_name", None) == "runs_pkey":
                raise RowTaken([run.row]) from error
            raise
        hooks.point("start_alone.committed")
        for row in replaced:
            await self._write("wake_requested", row=row)
        if parents:
            await self._write("wake_run", rows=parents)
        return None if existing is None or existing.row == run.row else existing


async def _find_in_the_way(send: Send, run: NewRun, blobs: Blobs, terms: Terms) -> ExistingRun | None:
    """Lock what others look at too; give the run that is taken for this one."""
    once = {"workflow": run.workflow, "key": run.key or ""}
    if terms.once is not None:
        await send("lock_once", **once)
    if terms.once == "debounce":
        for row in await send("find_debounced", **once):
            await _replace_arguments(send, row["row"], run, blobs, terms)
            return ExistingRun(**row)
    if run.queue:
        await send("insert_queue", queue=run.queue)
        await send("lock_queue", queue=run.queue)
    for row in await send("find_taken", run_id=[run.id], run_row=[]):
        return ExistingRun(**row)
    if run.dedupe is not None:
        for row in await send("find_duplicates", dedupe=[run.dedupe], queues=[run.queue]):
            return ExistingRun(row["row"], row["id"], row["workflow"])
    if terms.once == "singleton" and not terms.replaces:
        for row in await send("list_singletons", **once):
            return ExistingRun(**row)
    return None


async def _replace_arguments(send: Send, row: int, run: NewRun, blobs: Blobs, terms: Terms) -> None:
    await send("postpone_run", row=row, wait_s=terms.wait_s, claim_name=run.claim_name)
    await send("forget_input", row=row)
    names = ("input", "codec", "version", "pinned", "attributes")
    await send("replace_input", row=row, **{name: getattr(run, name) for name in names})
    for blob in blobs:
        await send("insert_blob", row=row, name=blob.name, text=blob.text)
    await send("delete_attributes", row=row)
    for name, value in index_attributes(run.attributes):
        await send("insert_attribute", row=row, name=name, value=value)


async def _replace_others(send: Send, run: NewRun, terms: Terms) -> list[int]:
    """Ask the others of a singleton to cancel; give their rows."""
    if not terms.replaces:
        return []
    rows = [row["row"] for row in await send("list_singletons", workflow=run.workflow, key=run.key or "")]
    await send("cancel_children", rows=rows, payload=json.dumps(f"run {run.id!r} takes its place"))
    return rows


async def _make_room(send: Send, queue: str, dropped: str) -> list[int]:
    """End who has waited longest for a queue that is full, or refuse; give the parent that waits for it."""
    if not queue:
        return []
    ((text,),) = await send("lock_queue", queue=queue)
    limits = decode_limits(text)
    if limits.backlog is None:
        return []
    ((waiting,),) = await send("count_backlog", queue=queue, backlog=limits.backlog)
    if waiting < limits.backlog:
        return []
    oldest = await send("find_oldest", queue=queue) if limits.on_full == "drop_oldest" else []
    if not oldest:
        raise QueueFull(queue, limits.backlog)
    await send("drop_run", row=oldest[0]["row"], error=dropped)
    return [row["parent"] for row in oldest if row["parent"] is not None]


async def _insert(send: Send, run: NewRun, blobs: Blobs, terms: Terms, *, is_delayed: bool) -> None:
    (row,) = await send(
        _statement(run.dedupe is not None),
        run=msgspec.json.encode([run]).decode(),
        blob_row=[blob.row for blob in blobs],
        blob_name=[blob.name for blob in blobs],
        blob_text=[blob.text for blob in blobs],
        worker=None,
        **list_attributes([run]),
    )
    if not row["started"]:
        raise RowTaken([run.row])  # or its id, in this moment: the next try finds it
    if terms.once is not None:
        wait_s = max(terms.wait_s, run.delay_s)
        await send("mark_once", row=run.row, once=terms.once, is_delayed=is_delayed, wait_s=wait_s, cap_s=terms.cap_s)
    if terms.once == "singleton":
        await send("mark_singleton", row=run.row)


@cache
def _statement(unique: bool) -> Statement:
    parts = name_start_parts(unique=unique, bounded=False)
    return number_parameters(combine("pass_fence", "skip_entries", *parts, "insert_attributes", "insert_blobs"))
