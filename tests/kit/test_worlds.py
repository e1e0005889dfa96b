"""Simulated worlds of long-lived workflows: idle time passes at once, and nothing that was due in it is missed."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive import workflow
from outlive.testing import Fault, SimulationFailed, simulate
from tests.kit import shop

WEEK_S = 7 * 86_400.0


@workflow
async def waits() -> list[float]:
    seen = []
    for hours in (1, 24, 0.001, 100):
        began = outlive.now()
        await outlive.sleep(hours=hours)
        seen.append((outlive.now() - began).total_seconds() / 3600)
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_days_pass_at_once_and_in_order(seed):
    sent = []

    async def drive(app, world):
        await app.start(waits, id="waits")
        run = await app.start(shop.review, id="review")
        await asyncio.sleep(7_200)
        sent.append(world.now())
        await run.send("review", "fine", key="once")
        await asyncio.sleep(5)

    def check(world, simulation):
        assert simulation.runs["review"].output == '"fine"'
        assert all(at < 3 * 7_200 for at in sent), sent  # a driver that died begins again
        (waited,) = [run.output for run in simulation.runs.values() if run.id == "waits"]
        for got, wanted in zip(map(float, waited.strip("[]").split(",")), (1, 24, 0.001, 100), strict=True):
            assert wanted - 0.001 <= got < wanted + 0.02, waited  # clocks differ; deaths take their time

    simulation = simulate(drive, include=[waits, shop.review], seed=seed, check=check, limit_s=WEEK_S)
    assert len(simulation.trace) < 1_000


def test_a_driver_that_hears_of_a_fault_begins_again():

    async def drive(app, world):
        await (await app.start(shop.review, id="review", send=[("review", "fine")])).result()

    for at in range(1, 40):
        simulation = simulate(
            drive,
            include=[shop.review],
            seed=at,
            limit_s=WEEK_S,
            faults=[Fault("refuse", at), Fault("freeze", at + 5, 9)],
        )
        assert simulation.runs["review"].output == '"fine"'


def test_a_driver_that_fails_is_told_with_its_error():
    async def drive(app, world):
        await app.start("nobody's")

    with pytest.raises(SimulationFailed, match="the driving program failed: UsageError"):
        simulate(drive, include=[waits], seed=1)
