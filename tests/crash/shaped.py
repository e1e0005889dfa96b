"""What a child process does with random workflow shapes: drive them to their ends, and replay whole journals.

The programs are in `programs.json` beside the ledger, which the parent has written.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from outlive import Outlive, Run, RunOnHold, StepInfo
from outlive.model.reads import RunRow, WorkerRow
from outlive.model.writes import Batch, EntryWrite, NewRun, Release
from tests.crash import scenario
from tests.property import shapes

TABLE = "create table if not exists bookings (number integer not null)"
FILE = "programs.json"
LONGEST_STEP_S = 0.08
JOURNALS = "journals.json"


async def pause() -> StepInfo:
    """Stand for the work of a step: write down that it executes, then take as long as its place says."""
    info = scenario.executed()
    chance = random.Random(f"{info.run_id} {info.key} {info.attempt}")
    await asyncio.sleep(chance.choice([0.0, chance.random()]) * LONGEST_STEP_S)
    return info


def use_pause() -> None:
    """Let the steps of the shapes take real time, not that of a play."""
    shapes.pause = pause  # type: ignore[attr-defined]


def read_programs() -> list[dict[str, Any]]:
    """Read what is to be run: id, program, and when to cancel it."""
    programs: list[dict[str, Any]] = json.loads(scenario.ledger.with_name(FILE).read_text())
    return programs


async def drive(url: str, lease_s: float, cancel: Callable[[Outlive, str, str], Awaitable[None]]) -> None:
    """Start every program and wait until all have ended; whatever a process before this one did stands."""
    use_pause()
    programs = read_programs()
    async with Outlive(url, lease=lease_s, include=[shapes.shape, shapes.child]) as app:
        print("ready", flush=True)
        runs = await asyncio.gather(*(app.start(shapes.shape, each["program"], id=each["id"]) for each in programs))

        async def cancel_later(each: dict[str, Any]) -> None:
            await asyncio.sleep(each["cancel_after_s"])
            await cancel(app, each["id"], url)

        cancels = [asyncio.create_task(cancel_later(each)) for each in programs if each["cancel_after_s"] is not None]
        await asyncio.gather(*(_ended(run) for run in runs))
        for task in cancels:
            task.cancel()
        await asyncio.gather(*cancels, return_exceptions=True)
        for info in [info async for info in app.runs()]:  # children that nobody waited for
            await _ended(await app.get(info.id))
        await _write_down(app)


async def _ended(run: Run) -> None:
    try:
        await run.result(stop_on_hold=True)
    except RunOnHold:
        raise
    except Exception:  # whatever it was that ended the run
        if not (await run.status()).final:
            raise


async def _write_down(app: Outlive) -> None:
    """Write all runs and journals into a file beside the ledger."""
    store, ids = app._engine().store, [info.id async for info in app.runs()]
    found = [(await store.find_run(run_id), await store.list_entries(run_id)) for run_id in ids]
    text = json.dumps(
        [[asdict(run), [asdict(entry) for entry in entries]] for run, entries in found if run is not None]
    )
    scenario.ledger.with_name(JOURNALS).write_text(text)


async def replay(url: str, lease_s: float) -> None:
    """In an empty database, let each run begin with its whole journal: as if its process had died before its end."""
    use_pause()
    found = json.loads(scenario.ledger.with_name(JOURNALS).read_text())
    runs = [RunRow(**run) for run, _ in found]
    async with Outlive(url, worker=False) as client:
        engine, store = client._engine(), client._engine().store
        fence = await store.register(WorkerRow(1, 1, "elsewhere", 1, "copies", None, 0.0), 60.0)
        for run, (_, entries) in zip(runs, found, strict=True):
            writes = [EntryWrite(row=run.row, **entry) for entry in entries]
            await store.commit(Batch(starts=[_before_its_end(run)], entries=writes), fence)
            await store.commit(Batch(releases=[Release(run.row, 1, wake_at=engine.clock.now())]), fence)
        await store.unregister(fence)
    async with Outlive(url, lease=lease_s, include=[shapes.shape, shapes.child]) as app:
        for run in runs:
            await _ended(await app.get(run.id))


def _before_its_end(run: RunRow) -> NewRun:
    """The same run, its row number included: the order of sets of tasks derives from it."""
    return NewRun(
        row=run.row,
        id=run.id,
        workflow=run.workflow,
        input=run.input,
        version=run.version,
        codec=run.codec,
        started_at=run.started_at,
    )
