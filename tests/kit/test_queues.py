"""Queues on virtual time: rates, delays and debounced starts move with it."""

from __future__ import annotations

from datetime import timedelta

import outlive
from outlive import Debounce, workflow
from outlive.testing import simulate
from tests.kit import shop

moments: list[float] = []


@workflow
async def note() -> None:
    moments.append(outlive.now().timestamp())


async def test_a_rate_lets_so_many_in(outlive_app):
    moments.clear()
    app = outlive_app(include=[note])
    app.queue("mail", rate=(2, 60))
    async with app:
        for _ in range(5):
            await app.start(note, queue="mail")
        await app.run_until_idle()
        assert len(moments) == 2
        await app.advance("59s")
        assert len(moments) == 2
        await app.advance("1h")
        began = moments[0]
        assert [round(at - began) for at in moments] == [0, 0, 60, 60, 120]


async def test_one_at_a_time_for_days(outlive_app):
    app = outlive_app(include=[shop.order], workers=2)
    app.queue("slow", concurrency=1)
    async with app:
        runs = [await app.start(shop.order, str(number), queue="slow") for number in range(3)]
        await app.advance("8 days")
        assert [await run.status() for run in runs] == ["succeeded", "succeeded", "suspended"]
        await app.advance("1 day")
        assert await runs[-1].status() == "succeeded"


async def test_debounced_starts_wait_for_the_last(outlive_app):
    async with outlive_app(include=[shop.plainly]) as app:
        for name in "abc":
            run = await app.start(shop.plainly, name, queue="typed", key="k", debounce=Debounce(timedelta(minutes=1)))
            await app.advance("30s")
        assert shop.effects == []
        await app.advance("30s")
        await run.result()
    assert shop.effects == ["ship c", "ship c"]


def test_an_hour_between_admissions_costs_a_simulation_nothing():
    moments.clear()

    async def drive(app, world):
        for number in range(4):
            await app.start(note, id=f"note-{number}", queue="hourly")

    simulation = simulate(
        drive,
        include=[note],
        seed=5,
        limit_s=86_400.0,
        prepare=lambda world: world.sql(
            "insert into ol_queues (queue, limits) values ('hourly', '{\"rate\": [1, 3600.0]}')"
        ),
    )
    assert len(simulation.runs) == 4
    assert len([line for line in simulation.trace if line.endswith("s have passed")]) >= 3
