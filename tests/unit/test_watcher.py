"""The watcher: news that come while a question is under way are asked for again, and one wait's failure is its own."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from outlive.engine.looper import Backoff
from outlive.engine.watcher import Watcher


class SlowStore:
    """Answers a question when it is told to, with what was there when it was asked."""

    def __init__(self) -> None:
        self.values: dict[Any, str] = {}
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def list_values(self, wanted: list[Any]) -> dict[Any, str]:
        found = {key: self.values[key] for key in wanted if key in self.values}
        self.asked.set()
        await self.may_answer.wait()
        return found

    list_settled = list_mail = list_items = list_ended = list_values


async def test_a_hint_during_an_empty_answer_is_not_lost() -> None:
    store = SlowStore()
    watcher = Watcher(store, (), Backoff(random.Random(1)))  # type: ignore[arg-type]
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    watcher.watch("value", (1, "state"), lambda news: heard.done() or heard.set_result(news))
    watcher.looper.start(asyncio.get_running_loop())
    try:
        await store.asked.wait()
        store.asked.clear()
        store.values[1, "state"] = "there"  # after the snapshot of the question under way
        watcher.nudge()
        store.may_answer.set()
        await asyncio.wait_for(store.asked.wait(), 5)  # at once: the next poll of its own would come too
        assert await heard == "there"
        assert watcher.turns == 2
    finally:
        await watcher.looper.stop()


async def test_a_wait_that_fails_harms_no_other(caplog: Any) -> None:
    store = SlowStore()
    store.may_answer.set()
    watcher = Watcher(store, (), Backoff(random.Random(1)))  # type: ignore[arg-type]
    heard: list[str] = []

    def broken(_: object) -> None:
        raise LookupError("cannot be read")

    store.values[1, "state"] = "there"
    watcher.watch("value", (1, "state"), broken)
    watcher.watch("value", (1, "state"), heard.append)
    await watcher._turn()
    assert heard == ["there"]
    assert "cannot be told" in caplog.text


async def test_what_begins_to_wait_during_a_question_is_asked_for_next() -> None:
    store = SlowStore()
    watcher = Watcher(store, (), Backoff(random.Random(1)))  # type: ignore[arg-type]
    looked: list[str] = []
    watcher.watch("value", (1, "state"), lambda _: None, lambda: looked.append("first"))
    turn = asyncio.create_task(watcher._turn())
    await store.asked.wait()
    watcher.watch("promise", "token", lambda _: None, lambda: looked.append("second"))
    store.may_answer.set()
    await turn
    assert looked == ["first"], "the store was not asked for what the second one waits for"
    await watcher._turn()
    assert looked == ["first", "second"]
