"""Schedules through the public API: each tick one run, what an operator changes, what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from outlive import Outlive, Status, step, workflow

LONG_AGO, NEVER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
gates: dict[str, asyncio.Event] = {}


@workflow
async def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@step
async def pass_gate(name: str) -> None:
    await gates.setdefault(name, asyncio.Event()).wait()


@workflow
async def held_up(gate: str) -> str:
    await pass_gate(gate)
    return gate


@pytest.fixture(autouse=True)
def new_gates() -> None:
    gates.clear()


async def runs_of(app: Outlive, name: str) -> list[Any]:
    """List the runs of a schedule, oldest first."""
    return sorted([info async for info in app.runs(id_prefix=f"{name}@")], key=lambda info: info.id)


async def until_runs(app: Outlive, name: str, number: int, status: str | None = None) -> list[Any]:
    """Wait until a schedule has so many runs (of a status)."""
    while True:
        found = [info for info in await runs_of(app, name) if status in (None, info.status)]
        if len(found) >= number:
            return found
        await asyncio.sleep(0.02)


async def test_each_tick_is_one_run_with_its_arguments(url: str) -> None:
    app = Outlive(url, include=[greet])
    app.schedule("often", greet, "ann", every=1, kwargs={"loud": True})
    peer = Outlive(url, include=[greet])
    async with app, peer:
        found = (await until_runs(app, "often", 3))[:3]
        ticks = [datetime.fromisoformat(info.id.partition("@")[2]) for info in found]
        assert {late - early for early, late in pairwise(ticks)} == {timedelta(seconds=1)}
        info = await app.get_schedule("often")
        assert ticks[0] == info.created_at + timedelta(seconds=1)
        assert (info.every, info.declared, info.changed, info.skipped) == (1.0, True, False, 0)
        assert await (await app.get(found[0].id)).result() == "ANN"
        assert info.next_at is not None
        assert info.last_at is not None


async def test_cron_fires_by_seconds(url: str) -> None:
    async with Outlive(url, include=[greet]) as app:
        await app.put_schedule("seconds", greet, "bob", cron="* * * * * *", zone="Europe/Berlin")
        found = await until_runs(app, "seconds", 2, Status.SUCCEEDED)
        assert all(info.id.endswith("Z") and "." not in info.id for info in found)
        assert await (await app.get(found[0].id)).result() == "bob"


async def test_one_off_starts_once_and_ends(url: str) -> None:
    app = Outlive(url, include=[greet])
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    app.schedule("once", greet, "ann", at=soon)
    async with app:
        (info,) = await until_runs(app, "once", 1)
        assert datetime.fromisoformat(info.id.partition("@")[2]) == soon
        assert (await app.get_schedule("once")).next_at is None
        assert await app.next_fires("once", 3) == []
    again = Outlive(url, include=[greet])
    again.schedule("once", greet, "ann", at=soon)
    async with again:
        assert (await again.get_schedule("once")).next_at is None
        assert len(await runs_of(again, "once")) == 1
