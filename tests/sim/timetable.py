"""The simulated timetable: schedules of every kind of overlap, changed and paused while workers die and clocks jump.

Whatever happens, each tick has one fate: it has started its one run, waits, or
was counted as skipped. What an operator has said stays said.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import takewhile
from typing import Any

import outlive
from outlive import Outlive, ScheduleNotFound, step, workflow
from outlive.clock import to_datetime
from outlive.errors import StoreError
from outlive.model.schedule import ScheduleRow, read_spec, tick_id
from outlive.model.ticks import list_ticks
from outlive.testing import Simulation, SimWorld
from outlive.testing.world import finish
from tests.sim.insist import insist

RUN_FOR_S = 45.0
ALONE = ("one after the other", "one at a time")
CATCH_UP = timedelta(minutes=10)
world_of_test: SimWorld | None = None


def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


@step
async def work(longest_s: float) -> None:
    """Take a while; meanwhile no other run of a schedule that wants one at a time may be unfinished."""
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    name = info.run_id.partition("@")[0]
    found = _world().sql(f"select count(*) from ol_live l join ol_runs r using (row) where r.id like '{name}@%'")
    if name in ALONE and found != [(1,)]:
        _world().problem(f"{info.run_id} executes, and {found[0][0]} runs of its schedule are unfinished")
    await asyncio.sleep(_world().chance.uniform(0, longest_s))


@workflow
async def errand(longest_s: float) -> str:
    await work(longest_s)
    return "done"


@workflow
async def endless() -> None:
    await outlive.sleep(100)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Put schedules, let them run, change one on the way, and pause them all; again from the top after a death."""
    soon = to_datetime(1_800_000_010)

    async def put(name: str, workflow: Any, *args: Any, **options: Any) -> None:
        await insist(lambda: app.put_schedule(name, workflow, *args, catch_up=CATCH_UP, **options))

    await put("side by side", errand, 5.0, every=3)
    await put("one after the other", errand, 9.0, cron="*/4 * * * * *", overlap="queue")
    await put("one at a time", errand, 9.0, every=4, overlap="skip")
    await put("only the newest", endless, every=7, overlap="cancel")
    await put("once", errand, 1.0, at=soon)
    await put("with a change", errand, 1.0, every=5, jitter=3)
    await asyncio.sleep(world.chance.uniform(0, RUN_FOR_S))
    await put("with a change", errand, 2.0, every=5, priority=3)
    await asyncio.sleep(RUN_FOR_S)
    for schedule in await insist(app.schedules):
        await insist(lambda name=schedule.name: app.pause_schedule(name))
    paused = world.sql("select * from ol_schedules")
    await asyncio.sleep(15)
    if world.sql("select * from ol_schedules") != paused:
        world.problem("a schedule that is paused goes on")
    try:
        await app.get_schedule("nobody's")
    except (ScheduleNotFound, StoreError):
        pass


def check(world: SimWorld, simulation: Simulation) -> None:
    """Each tick has one fate, and no run comes from anything but a tick."""
    assert all(run.status in ("succeeded", "cancelled") for run in simulation.runs.values())
    for row in finish(world.store.list_schedules()):
        ours = sorted(run_id for run_id in simulation.runs if run_id.startswith(f"{row.name}@"))
        assert row.paused, f"{row.name} was paused, and goes on"
        _check_fates(row, ours)
        spec = read_spec(row)
        if row.name == "with a change":
            assert (json.loads(spec.input)["args"], spec.priority) == ([2.0], 3), "what was put was lost"
        cancelled = [run_id for run_id in ours if simulation.runs[run_id].status == "cancelled"]
        assert cancelled == (ours[:-1] if spec.overlap == "cancel" else []), f"cancelled of {row.name}: {cancelled}"


def _check_fates(row: ScheduleRow, ours: list[str]) -> None:
    spec = read_spec(row)
    ended = row.next_at if row.next_at is not None else 4e9
    ticks = takewhile(lambda tick: tick < ended, list_ticks(spec, row.created_at, row.created_at))
    waiting = [tick_id(row.name, tick) for tick in row.waiting]
    expected = [tick_id(row.name, tick) for tick in (ticks if spec.at is None else [spec.at])]
    assert len(expected) > (0 if spec.at else 2), f"{row.name} has hardly begun"
    if spec.overlap == "skip":
        assert set(ours) <= set(expected)
        assert len(ours) + row.skipped == len(expected), f"{row.name}: {len(ours)} + {row.skipped} of {len(expected)}"
    else:
        assert sorted(ours + waiting) == sorted(expected), f"{row.name}: {set(expected) ^ set(ours + waiting)}"
        assert row.skipped == 0, f"{row.name} has skipped {row.skipped}"


def prepare(world: SimWorld) -> None:
    """Let the step bodies know their world."""
    global world_of_test
    world_of_test = world
