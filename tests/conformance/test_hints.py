"""Hints between processes: they arrive, are kept, and cost nothing when lost."""

from __future__ import annotations

import asyncio
import time

from tests.conformance.records import start


async def test_no_hint_is_a_timeout(database):
    async with database.open() as store:
        await asyncio.gather(store.wait_hint(0.01), return_exceptions=True)  # what opening left behind
        began = time.monotonic()
        assert await store.wait_hint(0.05) is False
        assert time.monotonic() - began >= 0.04
        await store.notify()


async def test_a_peer_is_heard(shared):
    async with shared.open() as one, shared.open() as two:
        await _quiet(one)
        waiting = asyncio.create_task(one.wait_hint(20.0))
        await asyncio.sleep(0)
        while not waiting.done():
            await two.notify()
            await asyncio.wait([waiting], timeout=0.05)
        assert await waiting is True


async def test_a_hint_while_nobody_waits_is_kept(shared):
    async with shared.open() as one, shared.open() as two:
        await _quiet(one)
        await start(two, "order-1")
        await two.notify()
        began = time.monotonic()
        assert await one.wait_hint(20.0) is True
        assert time.monotonic() - began < 10


async def test_all_who_wait_are_told(shared):
    async with shared.open() as one, shared.open() as two:
        await _quiet(one)
        waiting = [asyncio.create_task(one.wait_hint(20.0)) for _ in range(3)]
        await asyncio.sleep(0)
        await start(two, "order-1")
        await two.notify()
        assert await asyncio.gather(*waiting) == [True] * 3


async def test_a_wait_may_be_cancelled(database):
    async with database.open() as store:
        waiting = asyncio.create_task(store.wait_hint(20.0))
        await asyncio.sleep(0.01)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)


async def _quiet(store) -> None:
    """Listen, and hear out what has happened until now."""
    while await store.wait_hint(0.1):
        pass
