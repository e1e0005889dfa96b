"""Short ways to make the records that a store is given, with plain defaults."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from outlive.ids import Ids
from outlive.model.reads import WorkerRow
from outlive.model.writes import Batch, EntryWrite, Fence, Finish, Mark, NewRun, Release
from outlive.store.interface import Store

_numbers = itertools.count(Ids.first_row(time.time()))  # as writers draw them

LEASE_S = 60.0
EXPIRED_S = -1.0  # a lease that has run out when it is given


def new_run(run_id: str, row: int | None = None, *, owned: bool = False, **facts: Any) -> NewRun:
    return NewRun(
        started_at=time.time() if owned else None,
        row=next(_numbers) if row is None else row,
        id=run_id,
        workflow=facts.pop("workflow", "ship"),
        input=facts.pop("input", "[]"),
        **facts,
    )


def new_entry(row: int, key: str = "/pay#1", **facts: Any) -> EntryWrite:
    settled = facts.get("outcome", "ok") != "started"
    plain: dict[str, Any] = {
        "seq": 1 if settled else None,
        "kind": "step",
        "name": "pay",
        "digest": "d1",
        "outcome": "ok",
        "value": '"paid"' if settled else None,
        "error": None,
        "attempts": 1,
        "started_at": 1_700_000_000.25,
        "finished_at": 1_700_000_000.75 if settled else None,
    }
    return EntryWrite(row=row, key=key, **(plain | facts))


def finish(row: int, claim: int = 1, **facts: Any) -> Finish:
    plain: dict[str, Any] = {"status": "succeeded", "output": "1", "error": None, "started_at": 1_700_000_000.0}
    return Finish(row=row, claim=claim, **(plain | facts))


def release(row: int, claim: int = 1, wake_at: float | None = None, **facts: Any) -> Release:
    return Release(row=row, claim=claim, wake_at=wake_at, **facts)


def mark(row: int, claim: int = 1, *, in_user_code: bool = True, clear_crashes: bool = False) -> Mark:
    return Mark(row=row, claim=claim, in_user_code=in_user_code, clear_crashes=clear_crashes)


def new_worker(**facts: Any) -> WorkerRow:
    plain: dict[str, Any] = {
        "worker": next(_numbers),
        "epoch": 1,
        "host": "here",
        "pid": os.getpid(),
        "name": "shop",
        "lock_path": None,
        "expires_at": 0.0,
    }
    return WorkerRow(**(plain | facts))


async def register(store: Store, lease_s: float = LEASE_S, **facts: Any) -> Fence:
    return await store.register(new_worker(**facts), lease_s)


async def start(store: Store, *run_ids: str, **facts: Any) -> list[NewRun]:
    """Start runs that nobody owns."""
    runs = [new_run(run_id, **facts) for run_id in run_ids]
    committed = await store.commit(Batch(starts=runs), None)
    assert not committed.existing
    return runs


async def start_owned(store: Store, fence: Fence, *run_ids: str, **facts: Any) -> list[NewRun]:
    """Start runs that belong to a worker."""
    runs = [new_run(run_id, owned=True, **facts) for run_id in run_ids]
    committed = await store.commit(Batch(starts=runs), fence)
    assert not committed.existing
    return runs


async def claim_all(store: Store, fence: Fence, *, suspect: bool = False) -> list[str]:
    return [run.id for run in await store.claim(fence, ["ship"], None, 100, suspect=suspect)]


async def status(store: Store, run_id: str) -> str:
    run = await store.find_run(run_id)
    assert run is not None
    return run.status
