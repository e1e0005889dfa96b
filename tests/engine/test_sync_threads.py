"""The thread of a sync workflow ends when its run leaves memory, wherever the two stand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlive import Outlive, step, workflow
from outlive.engine.threads import ThreadBody


@step
def look() -> int:
    return 7


@workflow
def looks() -> int:
    return look() + look()


async def test_a_call_that_has_arrived_when_its_run_leaves_ends_its_thread(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has made a durable call, and the run's loop does not turn any more before the run is released."""
    arrived, calls = ThreadBody._arrived, 0

    def arrive_and_leave(self: ThreadBody, make: Any, reply: Any) -> None:
        nonlocal calls
        arrived(self, make, reply)
        calls += 1
        if calls == 2:
            self.execution.engine.roster.release(self.execution)  # type: ignore[attr-defined]

    monkeypatch.setattr(ThreadBody, "_arrived", arrive_and_leave)
    async with Outlive(url) as app:
        assert await (await app.start(looks)).result(timeout=10) == 14
        async with asyncio.timeout(5):
            while app._engine().roster.threads._taken:
                await asyncio.sleep(0.01)
