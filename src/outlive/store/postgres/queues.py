"""Queues: what limits them, and the claim from their lines.

The claim is a function of the schema: it locks the rows of the queues first and
counts then, in another snapshot. Invariant: nobody takes a slot without that lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from outlive import hooks
from outlive.model.line import QueueLimits, list_rates
from outlive.model.reads import Claimed, LineClaim, LineRow, QueueRow
from outlive.model.writes import Fence, Note
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database
from outlive.store.refusals import FenceLost

_ABOUT_ALL = ("stands", "waiting", "next_at", "last_queue", "run_row")


class Queues(Database):
    """What a Store does for queues."""

    @hooks.commit_site("claim_line")
    async def claim_line(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, after: str
    ) -> LineClaim:
        rows = await self._write(
            "claim_line",
            worker=fence.worker,
            epoch=fence.epoch,
            workflows=list(workflows),
            queues=None if queues is None else list(queues),
            limit=limit,
            after=after,
        )
        if not rows[0]["stands"]:
            raise FenceLost(fence)
        claimed = [
            Claimed(**{name: value for name, value in row.items() if name not in _ABOUT_ALL})
            for row in rows
            if row["row"] is not None
        ]
        return LineClaim(claimed, rows[0]["waiting"], rows[0]["next_at"], rows[0]["last_queue"])

    @hooks.commit_site("put_queue")
    async def put_queue(
        self,
        queue: str,
        *,
        declared: str | None = None,
        changed: str | None = None,
        reset: bool = False,
        paused: bool | None = None,
        note: Note | None = None,
    ) -> None:
        async with self._transaction() as send:
            await send("put_queue", queue=queue, declared=declared, changed=changed, reset=reset, paused=paused)
            if note is not None:
                await write_audit(send, note)

    @hooks.commit_site("reschedule")
    async def reschedule(
        self,
        run_id: str,
        *,
        delay_s: float | None = None,
        at: float | None = None,
        priority: int | None = None,
        note: Note | None = None,
    ) -> bool:
        async with self._transaction() as send:
            found = await send("reschedule_run", id=run_id, delay_s=delay_s, at=at, priority=priority)
            if found and found[0]["moved"]:
                if priority is not None:
                    await send("set_priority", row=found[0]["row"], priority=priority)
                if note is not None:
                    await write_audit(send, note)
        if not found:
            raise KeyError(run_id)
        return bool(found[0]["moved"])

    async def list_queues(self, queue: str | None = None) -> list[QueueRow]:
        return [QueueRow(**row) for row in await self._read("list_queues", queue=queue)]

    async def read_line(self, row: int, limits: QueueLimits) -> LineRow | None:
        found = await self._read("read_line", row=row, **list_rates(limits))
        return LineRow(**found[0]) if found else None
