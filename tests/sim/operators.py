"""The simulated office: sagas that fail, are cancelled or late; operators who retry and rewind; workers that die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import outlive
from outlive import Outlive, RunRefused, Status, step, transaction, workflow
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist as insist_slowly

ITEMS = 4
DEADLINE_S, NAP_S = 3.0, 120.0
insist = partial(insist_slowly, pause_s=0.05)
world_of_test: SimWorld | None = None
begun: set[tuple[Any, ...]] = set()
mended: set[str] = set()  # runs whose trouble is over


def _world() -> SimWorld:
    assert world_of_test is not None
    return world_of_test


def body_begins() -> outlive.StepInfo:
    """A step body calls this first: what is in the journal as it stands now may not execute."""
    world, info, loop = _world(), outlive.info(), asyncio.get_running_loop()
    assert isinstance(info, outlive.StepInfo)
    world.log(f"body {info.run_id} {info.key} attempt {info.attempt} claim {info.fencing_token}")
    process = next(process for process in world.processes if process.loop is loop)
    body = (process.name, info.run_id, info.fencing_token, info.key, info.attempt)
    if body in begun:
        world.problem(f"double dispatch: {info.run_id} {info.key} begins twice under one claim")
    begun.add(body)
    database: Any = world.store
    settled = database._writer._connection.rows(  # at once, whatever transaction is open
        "select 1 from ol_entries e join ol_runs r using (row) where r.id = ? and e.key = ? and e.outcome <> 'started'",
        (info.run_id, info.key),
    )
    if settled and not process.outrun:
        world.problem(f"G2: {info.run_id} {info.key} executes although its outcome is on disk")
    return info


@step
async def record(place: int) -> int:
    body_begins()
    await asyncio.sleep(_world().chance.expovariate(1 / 0.02))
    return place


@step
async def try_it(run_id: str) -> str:
    body_begins()
    await asyncio.sleep(0.01)
    if run_id not in mended:
        raise LookupError("it is broken")
    return "it works"


@step
async def fails_to_undo(item: int) -> None:
    body_begins()
    await asyncio.sleep(0.3)  # long enough to be cancelled, if it could be
    raise ConnectionError(f"nobody answers for {item}")


@transaction
async def book(tx: Any, run_id: str, item: int, cents: int) -> int:
    await tx.execute("insert into bookings (run, item, cents) values ($1, $2, $3)", run_id, item, cents)
    return item


@workflow
async def saga(run_id: str, how: str) -> None:
    for item in range(ITEMS):
        await book(run_id, item, 1)
        await outlive.on_rollback(book, run_id, item, -1)
        if item == 1:
            await outlive.on_rollback(fails_to_undo, item)
        await record(item)
        await outlive.sleep(0.2)
    if how == "fails":
        raise LookupError("the last one is not to be had")
    await outlive.sleep(NAP_S)


@workflow
async def pairs(run_id: str) -> None:
    """What is booked in a shielded block is booked whole."""
    for item in range(0, 2_000, 2):
        async with outlive.shielded():
            await book(run_id, item, 1)
            await outlive.sleep(0.1)
            await book(run_id, item + 1, -1)
        await outlive.sleep(0.1)


@workflow
async def mends(run_id: str) -> list[Any]:
    first = await record(1)
    return [first, *await outlive.gather(mends_below(run_id), record(2)), await record(3)]


@workflow
async def mends_below(run_id: str) -> str:
    await record(0)
    return await try_it(run_id)


@workflow
async def rewound(run_id: str) -> list[int]:
    results = []
    for place in range(4):
        results.append(await record(place))
        await outlive.sleep(0.3)
    return results


KINDS = (saga, pairs, mends, mends_below, rewound)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start all; then act as operators do who ask again when the database does not answer."""
    starts: list[Callable[[], Awaitable[Any]]] = [
        lambda: app.start(saga, "fails", "fails", id="fails"),
        lambda: app.start(saga, "cancelled", "sleeps", id="cancelled"),
        lambda: app.start(saga, "late", "sleeps", id="late", deadline=DEADLINE_S),
        lambda: app.start(pairs, "pairs", id="pairs"),
        *(lambda number=number: app.start(mends, f"m{number}", id=f"m{number}") for number in range(2)),
        *(lambda number=number: app.start(rewound, f"w{number}", id=f"w{number}") for number in range(2)),
    ]
    for start in starts:
        await insist(start)
    await asyncio.gather(
        cancel(app, world, "cancelled"),
        cancel(app, world, "pairs"),
        *(mend(app, world, f"m{number}") for number in range(2)),
        *(rewind(app, world, f"w{number}") for number in range(2)),
    )


async def cancel(app: Outlive, world: SimWorld, run_id: str) -> None:
    """Ask for the end, and impatiently again and again."""
    run = await insist(lambda: app.get(run_id))
    await asyncio.sleep(world.chance.uniform(0, 2))
    while not (await insist(run.status)).final:
        await insist(lambda: run.cancel("enough"))
        await asyncio.sleep(world.chance.uniform(0, 0.4))


async def mend(app: Outlive, world: SimWorld, run_id: str) -> None:
    """Retry a run that has failed, once what it failed by is mended."""
    run, tries = await insist(lambda: app.get(run_id)), 0
    while (status := await insist(run.status)) != Status.SUCCEEDED:
        if status == Status.FAILED:
            tries += 1
            if tries == 3 or world.chance.random() < 0.3:
                mended.add(run_id)
            if tries > 12:
                world.problem(f"{run_id} is retried in vain")
            try:
                await insist(run.retry)
            except RunRefused:
                world.log(f"{run_id} has been retried")
        await asyncio.sleep(world.chance.uniform(0, 0.6))


async def rewind(app: Outlive, world: SimWorld, run_id: str) -> None:
    """Rewind a run once, whenever; let it go on if an operator died over it."""
    run = await insist(lambda: app.get(run_id))
    await asyncio.sleep(world.chance.uniform(0, 2))
    while (await insist(run.info)).generation == 0:
        if any(entry.key == "record#2" and entry.seq for entry in await insist(run.entries)):
            await insist(lambda: run.rewind("record#2"))
        await asyncio.sleep(0.05)
    while (status := await insist(run.status)) != Status.SUCCEEDED:
        if status == Status.PAUSED:
            await insist(run.resume)
        await asyncio.sleep(0.2)


def check(world: SimWorld, simulation: Simulation) -> None:
    """Everything booked is booked once and undone once; everything retried and rewound came to its end, as noted."""
    runs = simulation.runs
    ends = {run_id: run.status for run_id, run in runs.items() if "/" not in run_id}
    wanted = {"fails": "failed", "cancelled": "cancelled", "late": "failed", "pairs": "cancelled"}
    wanted |= {f"{kind}{number}": "succeeded" for kind in "mw" for number in range(2)}
    assert ends == wanted, ends
    assert "DeadlineExceeded" in (runs["late"].error or ""), runs["late"].error
    late = runs["late"]
    assert (late.finished_at or 0.0) - late.created_at < NAP_S - 20, "the deadline came when the run woke by itself"
    for run_id in ("fails", "cancelled", "late"):
        _check_saga(world, run_id, simulation)
    booked = world.sql("select item, cents from bookings where run = 'pairs' order by item")
    assert booked == [(item, -1 if item % 2 else 1) for item in range(len(booked))] and len(booked) % 2 == 0, booked
    for run_id in ("m0", "m1"):
        assert runs[run_id].output == '[1,"it works",2,3]', runs[run_id].output
    for run_id in ("w0", "w1"):
        assert runs[run_id].output == "[0,1,2,3]", runs[run_id].output
        assert [entry.name for entry in simulation.entries[run_id]] == ["record", "sleep"] * 4
    for run_id, generation in ((run_id, runs[run_id].generation) for run_id in ends):
        actions = "'retry', 'rewind'"
        ((noted,),) = world.sql(f"select count(*) from ol_audit where target = '{run_id}' and action in ({actions})")
        assert noted == generation, f"{run_id} is in generation {generation}, and {noted} actions are noted"


def _check_saga(world: SimWorld, run_id: str, simulation: Simulation) -> None:
    entries = simulation.entries[run_id]
    registered = [entry for entry in entries if entry.kind == "on_rollback"]
    undone = [entry for entry in entries if entry.key.startswith("rollback/")]
    assert [entry.name for entry in undone] == [entry.name for entry in reversed(registered)], run_id
    assert all((entry.outcome == "error") == (entry.name == "fails_to_undo") for entry in undone), run_id
    told = "nobody answers for 1" in (simulation.runs[run_id].error or "")
    assert told == any(entry.name == "fails_to_undo" for entry in registered), run_id
    items = sum(entry.name == "book" for entry in registered)
    booked = world.sql(f"select item, cents from bookings where run = '{run_id}' order by item, cents")
    assert booked == [(item, cents) for item in range(items) for cents in (-1, 1)], f"{run_id}: {booked}"


def prepare(world: SimWorld) -> None:
    """Make the tables, and let the step bodies know their world."""
    global world_of_test
    world_of_test = world
    begun.clear()
    mended.clear()
    world.sql("create table bookings (run text, item integer, cents integer)")
