"""A process stands still at each of its calls to the store: what others have decided meanwhile, it does not execute."""

from __future__ import annotations

import asyncio

import outlive
from outlive import Outlive, step, workflow
from outlive.testing import SimWorld, simulate
from outlive.testing.faultplan import Fault
from tests.support.size import pick

STALL_S = 12.0  # longer than a lease and what taking over needs
CALLS = 60
SEEDS = pick(small=1, full=5)

executed: list[str] = []
world_of_test: SimWorld | None = None


def is_lost(number: int) -> str:
    if executed:
        return "done"
    return "given up"


@step(on_unknown=is_lost)
async def once(number: int) -> str:
    """Execute, unless somebody has decided that it did not."""
    assert world_of_test is not None
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    if (info.run_id, info.key) in world_of_test.durable:
        world_of_test.problem(f"{info.key} executes although it was decided what became of it")
    executed.append(info.key)
    return "done"


@workflow
async def careful() -> str:
    await outlive.sleep(0.1)
    return await once(1)


async def drive(app: Outlive, world: SimWorld) -> None:
    await app.start(careful, id="careful")
    await asyncio.sleep(2 * STALL_S)  # so that a process that stands still goes on in this world


def prepare(world: SimWorld) -> None:
    global world_of_test
    world_of_test = world
    executed.clear()


def test_what_was_decided_meanwhile_does_not_execute() -> None:
    for seed in range(SEEDS):
        for call in range(1, CALLS):
            simulate(
                drive, include=[careful], seed=seed, prepare=prepare, faults=[Fault("freeze", call, STALL_S)], workers=2
            )
