"""Who may execute what: workers and their leases, claims, takeover, requests and wake-ups.

Knows the tables of workers, live rows and requests. Invariant: a run changes
owner here only from nobody to a claimer, or from a worker that is gone to
nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from outlive import hooks
from outlive.limits import SUSPECT_CRASHES, SUSPECT_GROUPS
from outlive.model.reads import Claimed, TakenOver, WorkerRow
from outlive.model.writes import Fence, Note
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database
from outlive.store.postgres.reading import to_claimed
from outlive.store.refusals import FenceLost, WriteRefused

SWEEP_OVERLAP_S = 60.0  # what came so long ago is looked at by every sweep ...
SWEEPS_PER_FULL = 600  # ... and older by one of so many, the first of a process among them
FOREVER_S = 1e9


class Ownership(Database):
    """What a Store does for workers, claims, requests and wake-ups."""

    _sweeps = 0

    # -- workers ------------------------------------------------------------
    @hooks.commit_site("register")
    async def register(self, worker: WorkerRow, lease_s: float) -> Fence:
        registered = await self._write("insert_worker", **asdict(worker), lease_s=lease_s)
        if not registered:
            raise WriteRefused(f"worker number {worker.worker} is taken by another process; draw another")
        return Fence(worker.worker, worker.epoch)

    @hooks.commit_site("unregister")
    async def unregister(self, fence: Fence) -> None:
        ((left,),) = await self._write("delete_worker", worker=fence.worker, epoch=fence.epoch)
        if not left:
            raise FenceLost(fence)

    @hooks.commit_site("release_strays")
    async def release_strays(self, fence: Fence, kept: Sequence[int]) -> int:
        (row,) = await self._write("release_strays", worker=fence.worker, epoch=fence.epoch, kept=list(kept))
        if not row["stands"]:
            raise FenceLost(fence)
        return int(row["released"])

    @hooks.commit_site("take_over")
    async def take_over(self, dead: Sequence[int]) -> TakenOver:
        (row,) = await self._write("take_over", dead=list(dead))
        return TakenOver(row["workers"], row["released"], row["quarantined"])

    @hooks.commit_site("claim")
    async def claim(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool = False
    ) -> list[Claimed]:
        rows = await self._write(
            "claim_runs",
            worker=fence.worker,
            epoch=fence.epoch,
            workflows=list(workflows),
            queues=None if queues is None else list(queues),
            limit=limit,
            suspect=suspect,
            suspect_crashes=SUSPECT_CRASHES,
            groups=[SUSPECT_GROUPS.get(crashes, 1) for crashes in range(1, max(SUSPECT_GROUPS) + 1)],
        )
        if not rows[0]["stands"]:
            raise FenceLost(fence)
        return [to_claimed(row) for row in rows if row["row"] is not None]

    # -- requests, wake-ups -------------------------------------------------
    @hooks.commit_site("add_request")
    async def add_request(self, run_id: str, kind: str, payload: str | None, note: Note | None = None) -> bool:
        async with self._transaction() as send:
            found = await send("insert_request", id=run_id, kind=kind, payload=payload)
            if note is not None and found and found[0]["status"] is None:
                await write_audit(send, note)
        if not found:
            raise KeyError(run_id)
        if found[0]["status"] is not None:
            return False
        hooks.point("add_request.recorded")
        await self._write("wake_requested", row=found[0]["row"])
        return True

    @hooks.commit_site("resume")
    async def resume(
        self, run_id: str, note: Note | None = None, *, decision: str | None = None, claim: int | None = None
    ) -> bool:
        async with self._transaction() as send:
            withdrawn = await send("withdraw_pause", id=run_id) if decision is None else ()
            found = await send("resume_run", id=run_id, claim=claim)
            resumed = bool(withdrawn) or any(run["resumed"] for run in found)
            if decision is not None and resumed:
                await send("insert_request", id=run_id, kind="resolve", payload=decision)
            if note is not None and resumed:
                await write_audit(send, note)
        if not found:
            raise KeyError(run_id)
        return resumed

    @hooks.commit_site("wake")
    async def wake(self, rows: Sequence[int]) -> None:
        await self._write("wake_run", rows=list(rows))

    @hooks.commit_site("sweep")
    async def sweep(self) -> int:
        since_s = FOREVER_S if self._sweeps % SWEEPS_PER_FULL == 0 else SWEEP_OVERLAP_S
        self._sweeps += 1
        woken = [*await self._write("sweep_runs", since_s=since_s), *await self._write("wake_mailed", since_s=since_s)]
        return len(woken)
