"""The simulated workload: transfers, branches, children, timers, retries, cancellation, each with its own check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import outlive
from outlive import Outlive, Retry, step, transaction, workflow
from outlive.errors import StoreError
from outlive.testing import Simulation, SimWorld

RUNS = 8
LARGE = 66_000  # above limits.BLOB_THRESHOLD_CHARS
world_of_test: SimWorld | None = None
begun: set[tuple[str, str, int, str, int]] = set()  # bodies, by process, run, claim, key, attempt


def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


def body_begins(before: list[str], *, repeatable: bool = False) -> None:
    """A step body calls this first: its own entry may not be durable yet, the keys `before` it have to be.

    `repeatable`: a transaction, whose body runs again after a rollback.
    """
    world, info, loop = _world(), outlive.info(), asyncio.get_running_loop()
    assert isinstance(info, outlive.StepInfo)
    world.log(f"body {info.run_id} {info.key} attempt {info.attempt}")
    process = next(process for process in world.processes if process.loop is loop)
    body = (process.name, info.run_id, info.fencing_token, info.key, info.attempt)
    if body in begun and not repeatable:
        world.problem(f"double dispatch: {info.run_id} {info.key} begins twice under one claim")
    begun.add(body)
    if (info.run_id, info.key) in world.durable and not process.outrun:
        world.problem(f"G2: {info.run_id} {info.key} executes although its outcome is on disk")
    for earlier in before:
        if (info.run_id, earlier) not in world.durable:
            world.problem(f"barrier: {info.run_id} {info.key} begins before {earlier} is on disk")


@step
async def record(place: int, before: list[str]) -> int:
    body_begins(before)
    await asyncio.sleep(_world().chance.expovariate(1 / 0.02))
    return place


@step(retry=Retry(attempts=4, first_delay=0.05))
async def flaky(place: int, before: list[str]) -> int:
    body_begins(before)
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    await asyncio.sleep(0.01)
    if info.attempt < 2 and _world().chance.random() < 0.3:
        raise ConnectionError("flaky")
    return place


@transaction
async def book(tx: Any, run_id: str, cents: int) -> int:
    body_begins([], repeatable=True)
    await tx.execute("insert into bookings (run, cents) values ($1, $2)", run_id, cents)
    return cents


@workflow
async def sequential(run_id: str) -> int:
    total = 0
    keys: list[str] = []
    for place in range(4):
        total += await record(place, keys)
        keys.append(f"record#{place + 1}")
    total += await book(run_id, 7)
    total += await flaky(1, [*keys, "book#1"])
    return total


@workflow
async def branched(run_id: str) -> list[int]:
    order: list[int] = []

    async def branch(number: int) -> None:
        order.append(await record(number, []))
        if number % 2:
            await asyncio.sleep(0.03)
        order.append(await record(number + 10, []))

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(branch(number))
    winner, _ = await outlive.race(record(1, []), outlive.sleep(0.02))
    try:
        async with asyncio.timeout(0.03):
            await record(99, [])
    except TimeoutError:
        await book(run_id, winner + 1)
    else:
        await book(run_id, winner + 3)
    return order


@workflow
async def family(run_id: str) -> int:
    handle = await outlive.start(sequential, f"{run_id}/extra", id=f"{run_id}/extra", parent_close="abandon")
    total = sum(await asyncio.gather(sequential(f"{run_id}/a"), sequential(f"{run_id}/b")))
    await outlive.sleep(1.5)
    return total + len(handle.id)


@workflow
async def sleeper(run_id: str) -> int:
    await outlive.sleep(40)
    return await book(run_id, 1)


@step
async def grow(size: int, before: list[str]) -> str:
    body_begins(before)
    await asyncio.sleep(_world().chance.expovariate(1 / 0.002))
    return "x" * size


@workflow
async def bulky(run_id: str) -> int:
    """What is committed apart, with small outcomes before it, beside it and after it."""
    booked = await book(run_id, 1)
    keys = ["book#1"]

    async def branch(number: int) -> int:
        total = 0
        for turn in range(3):
            total += len(await grow(1 if (number + turn) % 3 else LARGE, list(keys)))
            keys.append(f"{number}/grow#{turn + 1}")
        return total

    return booked + sum(await asyncio.gather(branch(1), branch(2), branch(3)))


@workflow
async def relay(run_id: str, number: int = 0) -> int:
    """Goes on as new: in each generation a step, a booking and children of its own."""
    await record(number, [])
    await book(f"{run_id}/{number}", number)
    await sequential(f"{run_id}/{number}/child")
    if number < 3:
        await outlive.continue_as_new(run_id, number + 1)
    await outlive.sleep(0.5)
    return number


KINDS = (sequential, branched, family, sleeper, bulky, relay)


async def drive(app: Outlive, world: SimWorld, kinds: Sequence[Any] = KINDS) -> None:
    for number in range(RUNS):
        run_id = f"r{number}"
        while True:
            try:
                await app.start(kinds[number % len(kinds)], run_id, id=run_id)
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                break
        await asyncio.sleep(world.chance.uniform(0, 0.1))


def check(world: SimWorld, simulation: Simulation) -> None:
    """Every run has succeeded with the value that only its own journal can give, and booked once."""
    booked: dict[str, int] = {}
    for run_id, count in _bookings(world):
        booked[run_id] = count
    assert all(run.status == "succeeded" for run in simulation.runs.values()), _failures(simulation.runs.values())
    for run in simulation.runs.values():
        own = run.input.split('"')[3]
        if run.workflow == "relay":
            turns = [booked.get(f"{own}/{number}") for number in range(4)]
            assert turns == [1, 1, 1, 1], f"the generations of {own} booked {turns}"
            assert (run.output, run.generation) == ("3", 3), f"{run.id} gave {run.output} after {run.generation}"
            keys = {entry.key for entry in simulation.entries[run.id]}
            assert keys == {f"~3/{name}#1" for name in ("record", "book", "sequential", "sleep")}, f"{own}: {keys}"
        elif run.workflow != "family":
            assert booked.get(own) == 1, f"{own} was booked {booked.get(own)} times"
        if run.workflow == "branched":
            entries = simulation.entries[run.id]
            recorded = [entry.value for entry in entries if entry.name == "record" and entry.key[0] in "123"]
            assert json.loads(run.output or "")[:6] == [int(value or 0) for value in recorded[:6]], "delivery order"
        if run.workflow == "bulky":
            assert run.output == str(3 * LARGE + 7), f"{run.id} gave {run.output}"
        if run.workflow == "sequential":
            assert run.output == "14", f"{run.id} gave {run.output}"


def _failures(runs: Any) -> str:
    return "; ".join(f"{run.id} {run.status} {run.error}" for run in runs if run.status != "succeeded")


def _bookings(world: SimWorld) -> Iterator[tuple[str, int]]:
    yield from world.sql("select run, count(*) from bookings group by run")


def prepare(world: SimWorld) -> None:
    """Make the user's table, and let the step bodies know their world."""
    global world_of_test
    world_of_test = world
    begun.clear()
    world.sql("create table bookings (run text, cents integer)")
