"""Forced replay, and what else goes wrong in runs: the test hears of it."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive import JournalMismatch, workflow
from tests.kit import shop


async def test_code_that_takes_another_path_is_found(outlive_app):
    async with outlive_app(replay=True) as app:
        await app.start(shop.turning, id="turn")
        with pytest.raises(JournalMismatch, match=r"run 'turn' diverged at .*charge#1.*bank") as raised:
            await app.run_until_idle()
        assert raised.value.run_id == "turn"


async def test_it_goes_unseen_without_replay(outlive_app):
    async with outlive_app() as app:
        assert await app.run(shop.turning) == "payment of last"


@pytest.mark.parametrize("workers", [1, 2])
async def test_steady_code_is_replayed_at_every_await(outlive_app, workers):
    executed = []

    @workflow
    async def steady() -> list[object]:
        executed.append("top")
        found: list[object] = [await shop.charge("7"), outlive.random(), outlive.now().isoformat()]
        found += await outlive.gather(shop.charge("8"), shop.call_bank("9"), outlive.sleep(5))
        await outlive.sleep(hours=1)
        found.append(await asyncio.to_thread(shop.ship, "7"))
        found.append(await outlive.receive("more"))
        child = await outlive.start(shop.plainly, "child", parent_close="abandon")
        return [*found, child.id]

    async with outlive_app(replay=True, include=[steady, shop.plainly], workers=workers) as app:
        run = await app.start(steady)
        await app.advance("1 day")
        await run.send("more", 1)
        await run.result()
        await app.run_until_idle()
    assert len(executed) > 7
    assert sorted(shop.effects) == ["bank 9", "charge 7", "charge 8", "ship 7", "ship child", "ship child"]


async def test_a_failed_run_that_nobody_looks_at_fails_the_test(outlive_app):
    with pytest.raises(AssertionError, match=r"'f' of workflow failing has failed.*ValueError: no such thing"):
        async with outlive_app() as app:
            await app.start(shop.failing, id="f")
            await app.run_until_idle()


async def test_a_failed_run_that_was_looked_at_does_not(outlive_app):
    async with outlive_app() as app:
        with pytest.raises(ValueError, match="no such thing"):
            await app.run(shop.failing)
        run = await app.start(shop.failing)
        await app.run_until_idle()
        assert await run.status() == "failed"


async def test_a_run_that_was_looked_at_before_it_failed_was_not_seen(outlive_app):
    with pytest.raises(AssertionError, match="the test did not look at it"):
        async with outlive_app() as app:
            run = await app.start(shop.failing, delay=60)
            assert await run.status() == "scheduled"
            await app.advance("1 minute")


async def test_forks_are_handles_too(outlive_app):
    async with outlive_app() as app:
        run = await app.start(shop.order, "7")
        await app.advance("3 days")
        fork = await run.fork("sleep#1", {"charge#1": "nothing"})
        assert await fork.result("3 days") == ["nothing", "parcel of 7"]


async def test_a_paused_run_is_nothing_wrong(outlive_app):
    async with outlive_app() as app:
        run = await app.start(shop.order, "7")
        await app.run_until_idle()
        await run.pause()
        await app.advance("4 days")
        assert await run.status() == "paused"
        await run.resume()
        assert await run.result() == ["payment of 7", "parcel of 7"]


async def test_an_error_of_the_test_comes_first(outlive_app):
    with pytest.raises(KeyError):
        async with outlive_app() as app:
            app.stub(shop.charge, returns=1)
            raise KeyError("mine")


async def test_it_is_an_app_like_any_other(outlive_app):
    async with outlive_app() as app:
        run = await app.start(shop.order, "7", id="order-7")
        assert (await app.get("order-7")).id == run.id
        assert [item.id async for item in app.runs()] == ["order-7"]
        with pytest.raises(outlive.UsageError, match="open already"):
            await app.open()


async def test_of_two_workflows_of_one_name_the_started_one_is_served(outlive_app):
    def declare(value):
        @workflow(name="named-twice")
        async def named() -> int:
            return value

        return named

    first, second = declare(1), declare(2)
    async with outlive_app() as app:
        assert await app.run(first) == 1
    async with outlive_app() as app:
        assert await app.run(second) == 2
