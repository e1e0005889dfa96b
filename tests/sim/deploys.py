"""The simulated deploy: one process is replaced by one with the next version of the code, while all may die.

Whatever happens, a run that was past a patch point keeps the old path there, any
other takes the new one, and a pinned run is executed by code of one version only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import outlive
from outlive import Outlive, step, workflow
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist

RUNS = 10
world_of_test: SimWorld | None = None


def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


@step(check_arguments=False)
async def work(version: str) -> str:
    await asyncio.sleep(_world().chance.expovariate(1 / 0.05))
    return version


@workflow(name="plan", version="1")
async def old_plan() -> bool | None:
    for _ in range(3):
        await work("1")
    return None


@workflow(name="plan", version="2")
async def new_plan() -> bool | None:
    await work("2")
    is_new = outlive.patched("more work")
    if is_new:
        await outlive.sleep(0.02)
    for _ in range(2):
        await work("2")
    return is_new


def _define(version: str) -> Any:
    @workflow(name="tied", version=version, pin=True)
    async def tied() -> list[str]:
        made = []
        for _ in range(3):
            made.append(await work(version))
            await outlive.sleep(0.3)
        return made

    return tied


old_tied, new_tied = _define("1"), _define("2")


class Deploys:
    """What each process serves when it starts: the first one is replaced by new code, the others stay what they are."""

    def __iter__(self) -> Iterator[Any]:
        loop = asyncio.get_running_loop()
        name = next(process.name for process in _world().processes if process.loop is loop)
        if not name.startswith("p0"):
            return iter([new_tied if name.startswith("p1") else old_tied])
        return iter([old_plan if name == "p0.0" else new_plan])


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start runs, some by name; on the way, once, the process ends and a new version takes its place."""
    process = next(one for one in world.processes if one.app is app)
    client = Outlive("sqlite://", worker=False, include=[], name="client")
    client._world = process  # type: ignore[assignment]
    await insist(client.open)
    is_first = app._engine().definitions.find("plan") is old_plan.spec
    for number in range(RUNS):
        if is_first and number == RUNS // 2:
            await asyncio.sleep(world.chance.uniform(0, 0.3))
            world.kill(process)
            await process.nothing()
        plan = old_plan if is_first else new_plan
        await insist(lambda plan=plan, number=number: app.start(plan, id=f"plan {number}"))
        await insist(lambda number=number: client.start("tied", id=f"tied {number}"))
        await asyncio.sleep(world.chance.uniform(0, 0.1))
    await client.close()


def prepare(world: SimWorld) -> None:
    """Let the step bodies know their world."""
    global world_of_test
    world_of_test = world


def check(world: SimWorld, simulation: Simulation) -> None:
    """Every run has ended; patches are asked once and where they belong, and nobody mixed versions in a pinned run."""
    for run in simulation.runs.values():
        assert run.status == "succeeded", f"{run.id} {run.status} {run.error}"
        entries = [entry for entry in simulation.entries[run.id] if entry.seq is not None]
        done = [entry for entry in entries if entry.name == "work"]
        assert len(done) == 3, f"{run.id} has worked {len(done)} times"
        if run.workflow == "tied":
            assert len({entry.value for entry in done}) == 1, f"{run.id} was executed by {[e.value for e in done]}"
            continue
        patches = [entry for entry in entries if entry.kind == "patch"]
        assert len(patches) <= 1, f"{run.id} has {len(patches)} answers to one question"
        answer = json.loads(patches[0].value or "null") if patches else None
        assert json.loads(run.output or "null") == answer, f"{run.id} gave {run.output} after answering {answer}"
        if answer is not None:
            past = [entry.seq for entry in done[1:] if (entry.seq or 0) < (patches[0].seq or 0)]
            assert answer is not bool(past), f"{run.id} answered {answer} with {past} behind the point"
            slept = [entry for entry in entries if entry.kind == "timer"]
            assert len(slept) == int(answer), f"{run.id} took the wrong path"
