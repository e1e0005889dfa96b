"""The simulated workload of pruning: families at work, while everything that has ended is pruned all the time."""

from __future__ import annotations

import asyncio
from typing import Any

import outlive
from outlive import Outlive, transaction, workflow
from outlive.errors import StoreError
from outlive.testing import Simulation, SimWorld

FAMILIES = 3
started: set[str] = set()  # families: an id that was pruned is free, and would begin another one


@transaction
async def book(tx: Any, label: str, total: int) -> int:
    await tx.execute("insert into booked (label, total) values ($1, $2)", label, total)
    return total


@workflow
async def leaf(label: str) -> int:
    return await book(label, 1)


@workflow
async def late(label: str) -> int:
    """Outlive the parent."""
    await outlive.sleep(4.0)
    return await book(label, 1)


@workflow
async def family(label: str, depth: int) -> int:
    """Await some children after the other, and let one go; its own time goes on long after their ends."""
    total = 0
    for number in range(2):
        child = f"{label}.{number}"
        total += await (family(child, depth - 1) if depth else leaf(child))
        await outlive.sleep(0.4)
    await outlive.start(late, f"{label}.free", id=f"{label}.free", parent_close="abandon")
    first, second = await asyncio.gather(leaf(f"{label}.2"), leaf(f"{label}.3"))
    await outlive.sleep(1.0)
    return await book(label, total + first + second)


KINDS = (leaf, late, family)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start each family once, though its id is free again when it has been pruned, and prune until nothing is left."""
    for number in range(FAMILIES):
        label = f"f{number}"
        while label not in started:
            try:
                await app.start(family, label, number % 3, id=label)
                started.add(label)
            except StoreError:
                await asyncio.sleep(0.2)
    count = 1
    while count:
        try:
            await app.prune(older_than=0)
            for info in (await app.runs("parent:*")).items:
                if info.parent is None:
                    world.problem(f"{info.id} names a parent that was pruned")
            count = await app.count()
        except StoreError:
            pass  # a part of it may have been done
        await asyncio.sleep(world.chance.uniform(0, 0.3))


def prepare(world: SimWorld) -> None:
    """Make the user's table."""
    started.clear()
    world.sql("create table booked (label text, total integer)")


def expected(label: str, depth: int) -> dict[str, int]:
    """Give what a family books: each of its runs once."""
    booked: dict[str, int] = {}
    for number in range(2):
        booked |= expected(f"{label}.{number}", depth - 1) if depth else {f"{label}.{number}": 1}
    total = booked[f"{label}.0"] + booked[f"{label}.1"] + 2
    return booked | dict.fromkeys([f"{label}.2", f"{label}.3", f"{label}.free"], 1) | {label: total}


def check(world: SimWorld, simulation: Simulation) -> None:
    """Every run has booked once what its children gave it, and nothing of any run is left."""
    booked = world.sql("select label, total from booked")
    wanted = [pair for number in range(FAMILIES) for pair in expected(f"f{number}", number % 3).items()]
    assert sorted(booked) == sorted(wanted)
    assert not simulation.runs
    for table in ("ol_entries", "ol_blobs", "ol_live", "ol_requests", "ol_run_attributes"):
        assert world.sql(f"select count(*) from {table}") == [(0,)], table
