"""Plain workflows: their threads never outlive the run that they belong to."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from outlive import Outlive, step, workflow
from outlive.engine.threads import ThreadBody

entered: list[threading.Thread] = []


@step
def add_one(number: int) -> int:
    return number + 1


@workflow
def plain_sum(number: int) -> int:
    entered.append(threading.current_thread())
    return add_one(add_one(number))


async def test_a_run_that_leaves_memory_as_its_thread_calls_lets_the_thread_go(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has arrived on the loop, and nothing has taken it up yet."""
    arrived, left = ThreadBody._arrived, []

    def arrive_and_leave(body: ThreadBody, make: Any, reply: Any) -> None:
        arrived(body, make, reply)
        if not left:
            left.append(body)
            body.execution.engine.abandon(body.execution, None)

    entered.clear()
    monkeypatch.setattr(ThreadBody, "_arrived", arrive_and_leave)
    async with Outlive(url) as app:
        assert await (await app.start(plain_sum, 1)).result(timeout=20) == 3
    assert len(entered) == 2 and left
    for thread in entered:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()
