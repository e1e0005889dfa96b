"""The lease of a process is lost: its runs go on, here or elsewhere, and the process goes on too."""

from __future__ import annotations

import asyncio

from outlive import Outlive, step, workflow

asked: asyncio.Event


@step
async def ask() -> str:
    asked.set()
    await asyncio.sleep(0.2)
    return "answer"


@workflow
async def asking() -> str:
    return await ask()


async def test_news_of_a_loss_that_comes_twice_costs_one_incarnation(url: str) -> None:
    """A write and the beat both hear of it, and the second may come when the process has registered again."""
    global asked
    asked = asyncio.Event()
    async with Outlive(url, lease=1) as app:
        run = await app.start(asking)
        await asked.wait()
        engine = app._engine()
        lost = engine.fence()
        engine.lease_lost(lost)
        assert not engine.executions
        asked.clear()
        async with asyncio.timeout(10):
            await asked.wait()  # registered again, and claimed what the lost incarnation had
        regained = engine.fence()
        engine.lease_lost(lost)
        assert engine.fence() == regained != lost
        assert len(engine.executions) == 1
        assert await (await app.get(run.id)).result(timeout=10) == "answer"
