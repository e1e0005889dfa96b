"""Deaths where a test wants them: nothing more of that process happens, and another one goes on."""

from __future__ import annotations

import asyncio

import pytest

from outlive import RunOnHold, UsageError, step, workflow
from tests.kit import shop


@pytest.mark.parametrize(("point", "charges"), [("before", 1), ("after", 2), ("recorded", 1)])
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_step_executes_again_only_if_nothing_was_recorded(outlive_app, point, charges, replay, workers):
    async with outlive_app(replay=replay, workers=workers) as app:
        app.crash_at(shop.charge, point)
        run = await app.start(shop.order, "7")
        await app.run_until_idle()
        assert shop.effects == ["charge 7"] * charges
        assert app.crashes == 1
        await app.advance("3 days")
        assert await run.result() == ["payment of 7", "parcel of 7"]
        assert shop.effects == [*["charge 7"] * charges, "ship 7"]


@pytest.mark.parametrize("point", ["before", "after", "recorded"])
async def test_a_transaction_takes_effect_once(outlive_app, point):
    async with outlive_app() as app:
        app.sql("create table bookings (name text)")
        app.crash_at(shop.book, point)
        assert await app.run(shop.booking, "7") == "7"
        assert app.sql("select name from bookings") == [("7",)]
        assert app.crashes == 1


@pytest.mark.parametrize("point", ["before", "after", "recorded"])
@pytest.mark.parametrize("occurrence", [1, 2])
async def test_plain_functions_crash_too(outlive_app, point, occurrence):
    async with outlive_app() as app:
        app.crash_at("ship", point, occurrence=occurrence)
        assert await app.run(shop.plainly, "7") == "parcel of 7" * 2
    assert len(shop.effects) == (3 if point == "after" else 2)


async def test_the_dead_do_nothing_more(outlive_app):
    gate = asyncio.Event()
    seen = []

    @step
    async def slow() -> None:
        try:
            seen.append("slow begins")
            await gate.wait()
            seen.append("slow ends")
        finally:
            seen.append("slow tidies up")

    @step
    async def quick() -> None:
        seen.append("quick")

    @workflow
    async def two() -> None:
        await asyncio.gather(slow(), quick())

    async with outlive_app(include=[two]) as app:
        app.crash_at(quick, "after")
        run = await app.start(two)
        while seen.count("quick") < 2:
            await asyncio.sleep(0.001)
            if app.world.living()[1:] == []:
                await app._start_worker(0)
        gate.set()
        await run.result()
        assert seen.count("slow begins") == 2
        assert seen.count("slow ends") == seen.count("slow tidies up") == 1


@pytest.mark.parametrize("crash", [False, True])
async def test_an_app_may_end_in_the_middle(outlive_app, crash):
    seen = []

    @step
    async def endless() -> None:
        try:
            seen.append("begins")
            await asyncio.Event().wait()
        finally:
            seen.append("ends")

    @workflow
    async def waiting() -> None:
        await asyncio.gather(endless(), shop.order("7"), shop.review(), asyncio.to_thread(shop.plainly, "7"))

    async with outlive_app(include=[waiting, shop.order, shop.review, shop.plainly]) as app:
        if crash:
            app.crash_at(shop.ship, "after")
        await app.start(waiting)
        await app.start(shop.plainly, "8")
        async with asyncio.timeout(20):
            while len(shop.effects) < 2 or not seen or (crash and not app._dead()):
                await asyncio.sleep(0.001)
    assert seen.count("begins") == seen.count("ends") == 1  # the fixtures of these tests look for tasks and threads


async def test_an_app_can_be_used_again(outlive_app):
    app = outlive_app()
    for _ in range(2):
        async with app:
            assert await app.run(shop.plainly, "7", id="same") == "parcel of 7" * 2
    assert shop.effects == ["ship 7"] * 4


async def test_a_run_that_kills_its_workers_is_quarantined(outlive_app):
    async with outlive_app() as app:
        for occurrence in range(1, 8):
            app.crash_at(shop.charge, "before", occurrence=occurrence)
        run = await app.start(shop.order, "7")
        with pytest.raises(RunOnHold, match="quarantined"):
            await app.advance("1h")
        assert await run.status() == "quarantined"
        assert shop.effects == []


async def test_children_and_their_parents_survive(outlive_app):
    async with outlive_app(workers=3) as app:
        app.crash_at(shop.charge, "after", occurrence=2)
        app.crash_at(shop.ship, "recorded")
        run = await app.start(shop.parent, "7")
        await app.advance("1 week")
        assert await run.result() == ["payment of 7!", "parcel of 7!"]
        assert app.crashes == 2


async def test_a_crash_that_never_happens_fails(outlive_app):
    with pytest.raises(AssertionError, match=r"crash_at\('charge', 'after'\) never happened: .* there 1 times"):
        async with outlive_app() as app:
            app.crash_at(shop.charge, "after", occurrence=2)
            await app.start(shop.order, "7")
            await app.run_until_idle()


async def test_wrong_points_are_refused(outlive_app):
    async with outlive_app() as app:
        with pytest.raises(UsageError, match="not 'during'"):
            app.crash_at(shop.charge, "during")
        with pytest.raises(UsageError, match="takes a step"):
            app.crash_at(shop.order, "after")
        with pytest.raises(UsageError, match="counts from 1"):
            app.crash_at(shop.charge, "after", occurrence=0)
