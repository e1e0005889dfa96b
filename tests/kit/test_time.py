"""Virtual time: it moves when it is told to, and everything that waits moves with it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

import outlive
from outlive import RunTimedOut, UsageError, step, workflow
from outlive.testing.durations import to_seconds
from tests.kit import shop


async def test_three_days_pass_at_once(outlive_app):
    async with outlive_app(now=datetime(2027, 3, 1, 9, tzinfo=UTC)) as app:
        run = await app.start(shop.order, "7")
        await app.run_until_idle()
        assert shop.effects == ["charge 7"]
        assert await run.status() == "suspended"
        await app.advance("2 days 23h 59m")
        assert await run.status() == "suspended"
        await app.advance(minutes=1)
        assert app.now() == datetime(2027, 3, 4, 9, tzinfo=UTC)
        assert await run.result() == ["payment of 7", "parcel of 7"]
        assert (await run.info()).finished_at == app.now()


async def test_each_moment_comes_in_its_turn(outlive_app):
    @workflow
    async def hourly() -> list[str]:
        seen = []
        for _ in range(5):
            await outlive.sleep(hours=1)
            seen.append(f"{outlive.now():%H:%M:%S.%f}")
        return seen

    async with outlive_app(include=[hourly], now=datetime(2027, 1, 1, tzinfo=UTC)) as app:
        run = await app.start(hourly)
        await app.advance("1 day")
        assert await run.result() == [f"0{hour}:00:00.000000" for hour in range(1, 6)]


async def test_result_with_a_timeout_lets_that_time_pass(outlive_app):
    async with outlive_app() as app:
        began = app.now()
        run = await app.start(shop.order, "7")
        with pytest.raises(RunTimedOut):
            await run.result("1 day")
        assert app.now() == began + timedelta(days=1)
        assert await run.result(timeout=timedelta(weeks=1)) == ["payment of 7", "parcel of 7"]
        assert app.now() == began + timedelta(days=3)


async def test_result_of_a_run_that_waits_says_for_what(outlive_app):
    async with outlive_app(now=datetime(2027, 1, 1, tzinfo=UTC)) as app:
        run = await app.start(shop.order, "7", id="order-7")
        with pytest.raises(AssertionError, match=r"'order-7' has not ended, .* due at 2027-01-04 00:00:00: move"):
            await run.result()
        mail = await app.start(shop.review)
        with pytest.raises(AssertionError, match="receive:review#1"):
            await mail.result()


async def test_retries_wait_in_virtual_time(outlive_app):
    tries = []

    def refuse(order: str) -> int:
        tries.append(app.now())
        if len(tries) < 4:
            raise ConnectionError("closed")
        return 4

    async with outlive_app() as app:
        app.stub(shop.call_bank, calls=refuse)
        run = await app.start(shop.both, "7")
        await app.run_until_idle()
        assert len(tries) == 1
        await app.advance("1h")
        assert await run.result() == ["payment of 7", 4]
        assert [(later - tries[0]).total_seconds() for later in tries] == [0, 60, 120, 180]


async def test_schedules_tick(outlive_app):
    app = outlive_app(now=datetime(2027, 1, 1, 12, 30, tzinfo=UTC), include=[shop.tick])
    app.schedule("ticks", shop.tick, cron="0 6,18 * * *")
    async with app:
        await app.advance(days=2)
        assert len((await app.runs()).items) == 4
    assert shop.effects == ["01 18:00", "02 06:00", "02 18:00", "03 06:00"]


async def test_receive_times_out(outlive_app):
    async with outlive_app() as app:
        run, other = await app.start(shop.review), await app.start(shop.review)
        await app.advance("6 days")
        await other.send("review", "fine")
        assert await other.result() == "fine"
        await app.advance("1 day")
        assert await run.result() == "nobody looked"


async def test_deadlines_and_delays_pass(outlive_app):
    async with outlive_app() as app:
        late = await app.start(shop.order, "7", deadline=timedelta(days=1))
        later = await app.start(shop.tick, delay=timedelta(days=2))
        await app.advance("1 day")
        with pytest.raises(outlive.DeadlineExceeded):
            await late.result()
        assert await later.status() == "scheduled"
        await app.advance("1 day")
        await later.result()


async def test_bodies_take_real_time_and_no_virtual_time(outlive_app):
    @step
    async def real() -> float:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        return time.monotonic() - began

    @workflow
    async def one() -> float:
        return await real()

    async with outlive_app(include=[one]) as app:
        began = app.now()
        assert await (await app.start(one)).result() >= 0.02
        assert app.now() == began


async def test_what_never_ends_is_named(outlive_app):
    never = asyncio.Event()

    async with outlive_app(patience=0.05) as app:
        app.stub(shop.charge, calls=lambda order: never.wait())
        await app.start(shop.order, "7", id="order-7")
        with pytest.raises(AssertionError, match=r"still not idle .* executing: charge#1 of run 'order-7'"):
            await app.run_until_idle()


@pytest.mark.parametrize(
    ("text", "total_s"),
    [
        ("3 days", 259_200),
        ("90s", 90),
        ("1h 30m", 5_400),
        ("1.5 hours", 5_400),
        ("2 weeks, 1 day and 5 min", 1_296_300),
    ],
)
def test_durations_are_read(text, total_s):
    assert to_seconds(text) == total_s


@pytest.mark.parametrize("text", ["", "3", "days", "3 fortnights", "3 days ago", "-1 day"])
def test_other_text_is_no_duration(text):
    with pytest.raises(UsageError, match="is no duration"):
        to_seconds(text)
