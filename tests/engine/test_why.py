"""`run.why()` through the public API, on both stores."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive import Outlive, Retry, Run, RunNotFound, Status, step, workflow


@workflow
async def listens() -> str:
    return await outlive.receive("review")  # type: ignore[no-any-return]


@workflow
async def waits_for_listener() -> str:
    return await listens()


@step(retry=Retry(attempts=5, first_delay=3600))
async def never_works() -> None:
    raise ConnectionError("no route to host")


@workflow
async def keeps_trying() -> None:
    await never_works()


@workflow
async def breaks() -> None:
    raise ValueError("out of stock")


async def until(run: Run, words: str) -> str:
    """Ask until the answer has these words."""
    while words not in (said := await run.why()):
        await asyncio.sleep(0.02)
    return said


async def test_what_a_run_says(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        lonely = await client.start("listens", id="lonely")
        assert "no worker is alive → start one that serves workflow 'listens'" in await lonely.why()
        late = await client.start("listens", id="late", delay=7200)
        assert "has a delayed start: until" in await late.why()
    async with Outlive(url, include=[waits_for_listener, listens, keeps_trying, breaks], name="shop") as app:
        parent = await app.start(waits_for_listener, id="parent")
        said = await until(parent, "message")
        assert said.startswith("run 'parent' is in the hands of worker 'shop'")
        assert "waits for child 'parent/listens#1', which" in said
        assert said.endswith("waits for a message 'review' → send('review', …)")
        trying = await app.start(keeps_trying, id="trying")
        assert "step 'never_works' (never_works#1), after 1 attempt with ConnectionError: no route" in await until(
            trying, "attempt"
        )
        broken = await app.start(breaks, id="broken")
        with pytest.raises(ValueError, match="stock"):
            await broken.result()
        assert "with ValueError: out of stock → retry() it" in await broken.why()
        held = await app.get("lonely")
        await held.pause("look at it", by="ann")
        assert "is paused by ann, because: " in await until(held, "is paused")
        await app.send("parent/listens#1", "review", "ok")
        assert await parent.result(timeout=10) == "ok"
        assert "has succeeded" in await parent.why()
        with pytest.raises(RunNotFound):
            await Run(app._engine, "nobody", 1, None, created=False).why()
    assert Status.PAUSED.held
