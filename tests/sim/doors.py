"""The simulated doors: starts that look who is there already; queues that are full, paused, drained or not for all.

Whoever starts is told what is so: that his run stands, or which other one is in
its place. At each start and claim the database itself is looked at.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import outlive
from outlive import Debounce, DuplicateRun, Outlive, QueueFull, workflow
from outlive.errors import StoreError
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist

LIMITS = {
    "narrow": '{"concurrency": 1, "backlog": 2, "on_full": "reject"}',
    "dropping": '{"concurrency": 1, "backlog": 2, "on_full": "drop_oldest"}',
    "gate": '{"concurrency": 2}',
}
BACKLOG = 2
WAIT_S, CAP_S = 0.5, 1.2
PICKY = "p2"  # a place whose process serves one queue

world_of_test: SimWorld | None = None
numbers = itertools.count(1)  # of starts
gathered: dict[str, int] = {}  # the last number that a debounced run was given, as callers know it
unknown: set[int] = set()  # numbers of debounced starts without a reply
refused: set[str] = set()
latest: list[str] = []  # runs that take each other's place


@workflow
async def visit(number: int, rest_s: float) -> int:
    await outlive.sleep(rest_s)
    return number


@workflow
async def endless() -> None:
    """Never end, and be the only one."""
    assert world_of_test is not None
    found = world_of_test.sql("select count(*) from ol_live where key = 'throne' and started_at is not null")
    if found > [(1,)]:
        world_of_test.problem(f"{found[0][0]} of those that take each other's place execute")
    await outlive.sleep(100_000)


KINDS = (visit, endless)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Come to all doors at once, again from the top after a death."""
    await asyncio.gather(
        come_once(app, world),
        come_alone(app, world),
        gather_calls(app, world),
        take_the_throne(app, world),
        *(crowd(app, world, queue) for queue in ("narrow", "dropping")),
        keep_the_gate(app, world),
    )


async def come_once(app: Outlive, world: SimWorld) -> None:
    """Start beside one of the same dedupe: who is attached or refused is told of one that has not ended."""
    for _ in range(6):
        on_duplicate = world.chance.choice(["reject", "attach"])
        options = {"queue": "open", "dedupe": "one", "on_duplicate": on_duplicate}
        ended = list_ended(world)
        try:
            run = await insist(lambda options=options: app.start(visit, next(numbers), 0.6, **options))
            there = None if run.created else run.id
            if there is not None and on_duplicate == "reject":
                world.problem(f"a start is attached to {there}, and should be refused")
        except DuplicateRun as duplicate:
            there = duplicate.run_id
            if on_duplicate == "attach":
                world.problem(f"a start is refused for {there}, and should be attached")
        if there in ended:
            world.problem(f"{there} has ended, and keeps others out")
        await asyncio.sleep(world.chance.uniform(0, 0.6))


async def come_alone(app: Outlive, world: SimWorld) -> None:
    """Start what is skipped beside one of its key."""
    options: Any = {"queue": "open", "key": "alone", "singleton": "skip"}
    for _ in range(5):
        ended = list_ended(world)
        run = await insist(lambda: app.start(visit, next(numbers), 0.4, **options))
        if not run.created and run.id in ended:
            world.problem(f"{run.id} has ended, and keeps others out")
        await asyncio.sleep(world.chance.uniform(0, 0.6))


async def gather_calls(app: Outlive, world: SimWorld) -> None:
    """Start many that become one, with the arguments of the last."""
    options: Any = {"queue": "open", "key": "many", "debounce": Debounce(WAIT_S, CAP_S)}
    for _ in range(8):
        number = next(numbers)
        unknown.add(number)
        try:
            gathered[(await app.start(visit, number, 0.1, **options)).id] = number
            unknown.remove(number)
        except StoreError:
            pass
        await asyncio.sleep(world.chance.uniform(0, 0.6))


async def take_the_throne(app: Outlive, world: SimWorld) -> None:
    """Start some that replace each other; the last one ends because somebody says so."""
    for _ in range(3):
        run = await insist(lambda: app.start(endless, queue="open", key="throne", singleton="replace"))
        await asyncio.sleep(world.chance.uniform(0, 0.8))
    latest.append(run.id)
    await insist(lambda: run.cancel("it is late"))


async def crowd(app: Outlive, world: SimWorld, queue: str) -> None:
    """Start more than there is room for."""
    for place in range(6):
        run_id = f"{queue} {place}"
        try:
            await insist(lambda run_id=run_id: app.start(visit, next(numbers), 0.3, id=run_id, queue=queue))
            refused.discard(run_id)
        except QueueFull:
            refused.add(run_id)
        await asyncio.sleep(world.chance.uniform(0, 0.2))


async def keep_the_gate(app: Outlive, world: SimWorld) -> None:
    """Pause the queue and wait until nobody of it runs; open it and wait until nobody is left."""
    for place in range(4):
        await insist(lambda place=place: app.start(visit, next(numbers), 0.3, id=f"gate {place}", queue="gate"))
    await insist(lambda: app.pause_queue("gate"))
    await insist(lambda: app.drain_queue("gate"))
    if world.sql("select 1 from ol_live where queue = 'gate' and line = 'admitted'"):
        world.problem("a paused queue is drained, and something of it runs")
    await insist(lambda: app.resume_queue("gate"))
    await insist(lambda: app.drain_queue("gate"))
    if world.sql("select 1 from ol_live where queue = 'gate'"):
        world.problem("a queue is drained, and somebody is left")


def list_ended(world: SimWorld) -> set[str]:
    return {run_id for (run_id,) in world.sql("select id from ol_runs where status is not null")}


def prepare(world: SimWorld) -> None:
    """Declare the queues, and look at the database at each start and claim."""
    global world_of_test, numbers
    world_of_test, numbers = world, itertools.count(1)
    for known in (gathered, unknown, refused, latest):
        known.clear()  # type: ignore[attr-defined]
    world.served[PICKY] = ["gate"]
    for queue, limits in LIMITS.items():
        world.sql(f"insert into ol_queues (queue, declared, limits) values ('{queue}', '{limits}', '{limits}')")
    store: Any = world.store
    commit, start_alone, claim, claim_line = store.commit, store.start_alone, store.claim, store.claim_line

    async def watched_commit(*args: Any) -> Any:
        committed = await commit(*args)
        _check_lines(world)
        return committed

    async def watched_start(run: Any, terms: Any, dropped: str) -> Any:
        line = "from ol_live where queue = '{0}' and line in ('delayed', 'waiting') and owner is null"
        before = world.sql(f"select row {line.format(run.queue)} order by line_at, row")
        now = world.database_now()
        try:
            existing = await start_alone(run, terms, dropped)
        except QueueFull:
            if _count_waiting(world, run.queue) < BACKLOG:
                world.problem(f"{run.queue} is full, and has room")
            raise
        if terms.once == "debounce":
            row = run.row if existing is None else existing.row
            ((line_at, first),) = world.sql(
                f"select line_at, created_at from ol_live join ol_runs using (row) where row = {row}"
            )
            if line_at != min(now + WAIT_S, first + CAP_S):
                world.problem(f"gathered calls start at {line_at}, {now} is the last one, {first} the first")
        elif run.queue == "dropping" and existing is None:
            left = world.sql(f"select row {line.format(run.queue)} and row <> {run.row} order by line_at, row")
            if left != before[len(before) - len(left) :]:
                world.problem(f"of {before} are left {left}")
        _check_lines(world)
        return existing

    async def watched_claim(*args: Any, **options: Any) -> Any:
        claimed = await claim(*args, **options)
        _check_owners(world)
        return claimed

    async def watched_claim_line(*args: Any) -> Any:
        paused = [queue for (queue,) in world.sql("select queue from ol_queues where paused")]
        found = await claim_line(*args)
        if any(run.queue in paused for run in found.claimed):
            world.problem("a paused queue admits somebody")
        _check_owners(world)
        return found

    store.commit, store.start_alone = watched_commit, watched_start
    store.claim, store.claim_line = watched_claim, watched_claim_line


def _count_waiting(world: SimWorld, queue: str) -> int:
    ((count,),) = world.sql(f"select count(*) from ol_live where queue = '{queue}' and line in ('delayed', 'waiting')")
    return count  # type: ignore[no-any-return]


def _check_lines(world: SimWorld) -> None:
    for queue in ("narrow", "dropping"):
        if _count_waiting(world, queue) > BACKLOG:
            world.problem(f"more wait for {queue} than may")
    for facts in ("key = 'alone'", "key = 'many' and line in ('delayed', 'waiting')"):
        if world.sql(f"select count(*) from ol_live where {facts}") > [(1,)]:
            world.problem(f"there are two of which there may be one: {facts}")


def _check_owners(world: SimWorld) -> None:
    wrong = world.sql(
        "select w.name, l.queue from ol_live l join ol_workers w on w.worker = l.owner"
        f" where w.name like '{PICKY}.%' and l.queue not in ('', 'gate')"
    )
    if wrong:
        world.problem(f"a worker has what it does not serve: {wrong}")


def check(world: SimWorld, simulation: Simulation) -> None:
    """Every run has ended as its starter was told."""
    for run in simulation.runs.values():
        if run.workflow == "endless":
            told = "takes its place" in (run.error or "") or (run.id in latest and "it is late" in (run.error or ""))
            assert run.status == "cancelled" and told, f"{run.id} {run.status} {run.error}"
        elif run.queue == "dropping" and run.status == "cancelled":
            assert "its queue was full" in (run.error or ""), run.error
        else:
            assert run.status == "succeeded", f"{run.id} {run.status} {run.error}"
    assert not refused & simulation.runs.keys(), f"refused, and there: {refused & simulation.runs.keys()}"
    for run_id, number in gathered.items():
        done = json.loads(simulation.runs[run_id].output or "null")
        assert done == number or (done > number and done in unknown), f"{run_id} was given {number}, and did {done}"
