"""Messages, values, streams, promises and calls, through the public API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

import outlive
from outlive import (
    AlreadySettled,
    CallUnanswered,
    Outlive,
    PromiseExpired,
    PromiseNotFound,
    RunEnded,
    RunNotFound,
    RunTimedOut,
    UsageError,
    step,
    workflow,
)

LIMIT_S = 20.0


@dataclass
class Order:
    name: str
    cents: int


@step
async def note(text: str) -> str:
    return text


@workflow
async def takes_letters(count: int, topic: str) -> list[Any]:
    return [await outlive.receive(topic) for _ in range(count)]


@workflow
async def asks_review(timeout_s: float) -> Any:
    return await outlive.receive("review", timeout=timeout_s, default="nothing")


@workflow
async def demands_review(timeout_s: float) -> Any:
    return await outlive.receive("review", timeout=timeout_s)


@workflow
async def writes_letters(to: str, values: list[int]) -> int:
    for value in values:
        await outlive.send(to, "review", value)
    return len(values)


@workflow
async def takes_order() -> int:
    order = await outlive.receive("order", as_type=Order)
    return order.cents


@workflow
async def takes_two_topics() -> list[Any]:
    async def take(topic: str, count: int) -> list[Any]:
        return [await outlive.receive(topic) for _ in range(count)]

    return await asyncio.gather(take("a", 2), take("b", 2))


async def test_a_message_reaches_a_waiting_run(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 2, "review")
        await run.send("review", {"ok": True})
        await app.send(run.id, "review", [1, 2])
        assert await run.result(LIMIT_S) == [{"ok": True}, [1, 2]]
        kinds = [(entry.kind, entry.name, entry.value) for entry in await run.entries()]
        assert kinds == [("receive", "review", {"ok": True}), ("receive", "review", [1, 2])]


async def test_a_message_that_came_first_is_there(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 3, "review", id="r", delay=0.3)
        await app.send_many([("r", "review", number) for number in range(3)])
        assert await run.result(LIMIT_S) == [0, 1, 2]


async def test_more_messages_than_are_read_at_a_time(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 450, "review", id="r")
        await app.send_many([("r", "review", number) for number in range(450)])
        assert await run.result(LIMIT_S) == list(range(450))


async def test_a_key_sends_once(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 2, "review", id="r")
        for _ in range(3):
            await run.send("review", "first", key="k")
        await run.send("review", "second")
        assert await run.result(LIMIT_S) == ["first", "second"]


async def test_topics_are_apart(url):
    async with Outlive(url) as app:
        run = await app.start(takes_two_topics, id="r")
        await app.send_many([("r", "b", 1), ("r", "a", 2), ("r", "b", 3), ("r", "a", 4)])
        assert await run.result(LIMIT_S) == [[2, 4], [1, 3]]


async def test_a_receipt_that_takes_too_long(url):
    async with Outlive(url) as app:
        assert await app.run(asks_review, 0.05) == "nothing"
        with pytest.raises(TimeoutError, match=r"no message 'review' came to run 'late' within 0.05 s"):
            await app.run(demands_review, 0.05, id="late")
        run = await app.start(demands_review, 500)
        await run.send("review", "in time")
        assert await run.result(LIMIT_S) == "in time"


@workflow
async def races_for_letters(count: int) -> list[Any]:
    return [(await outlive.race(outlive.receive("a"), outlive.receive("b")))[1] for _ in range(count)]


@workflow
async def reads_what_is_there() -> list[Any]:
    await outlive.receive("go")
    found = []
    while (letter := await outlive.receive("review", timeout=0, default=None)) is not None:
        found.append(letter)
    return found


@workflow
async def asks_for_promise(timeout_s: float) -> Any:
    promised = await outlive.promise(expires=timeout_s)
    await outlive.publish("token", promised.token)
    try:
        return await promised
    except PromiseExpired:
        return "nothing"


async def test_what_loses_a_race_leaves_its_message(url):
    async with Outlive(url) as app:
        there = await app.start(races_for_letters, 4, send=[("a", 1), ("b", 2), ("a", 3), ("b", 4)])
        assert sorted(await there.result(LIMIT_S)) == [1, 2, 3, 4]
        coming = await app.start(races_for_letters, 4)
        while len([entry for entry in await coming.entries() if entry.outcome == "started"]) < 2:
            await asyncio.sleep(0.01)
        await app.send_many([(coming.id, topic, number) for number, topic in enumerate("abab")])
        assert sorted(await coming.result(LIMIT_S)) == [0, 1, 2, 3]


async def test_a_receipt_without_waiting_takes_what_is_there(url):
    async with Outlive(url) as app:
        run = await app.start(reads_what_is_there, send=[("review", 1), ("review", 2), ("go", None)])
        assert await run.result(LIMIT_S) == [1, 2]


async def test_what_came_in_time_comes_before_the_timeout_though_nobody_was_there_to_hear_it(url):
    async with Outlive(url) as app:
        asking, promised = await app.start(asks_review, 1.0), await app.start(asks_for_promise, 1.0)
        token = await promised.value("token", wait=LIMIT_S)
        while not any(entry.outcome == "started" for entry in await asking.entries()):
            await asyncio.sleep(0.01)
    async with Outlive(url, worker=False) as client:
        await client.send(asking.id, "review", "good")
        await client.settle(token, "good")
        await asyncio.sleep(1.1)  # beyond both timeouts
    async with Outlive(url) as app:
        assert await (await app.get(asking.id)).result(LIMIT_S) == "good"
        assert await (await app.get(promised.id)).result(LIMIT_S) == "good"


async def test_what_came_in_time_comes_before_the_timeout_though_no_hint_was_heard(url, monkeypatch):
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        monkeypatch.setattr(app._engine().store, "wait_hint", _deaf)
        monkeypatch.setattr(app._engine().watcher._backoff, "after", lambda found: 3600.0)  # only when told to
        run = await app.start(asks_review, 1.5)
        while not any(entry.outcome == "started" for entry in await run.entries()):
            await asyncio.sleep(0.01)
        await client.send(run.id, "review", "good")
        assert await run.result(LIMIT_S) == "good"


async def test_workflows_send_to_each_other(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 6, "review", id="r")
        assert await app.run(writes_letters, "r", [1, 2, 3]) == 3
        assert await app.run(writes_letters, "r", [4, 5, 6]) == 3
        assert await run.result(LIMIT_S) == [1, 2, 3, 4, 5, 6]


async def test_a_message_to_nobody(url):
    async with Outlive(url) as app:
        with pytest.raises(RunNotFound):
            await app.send("nobody", "review", 1)
        with pytest.raises(RunNotFound):
            await app.run(writes_letters, "nobody", [1])
        done = await app.start(asks_review, 0)
        await done.result(LIMIT_S)
        with pytest.raises(RunEnded):
            await done.send("review", 1)
        with pytest.raises(RunEnded, match=done.id):
            await app.run(writes_letters, done.id, [1])


async def test_a_message_comes_as_its_type(url):
    async with Outlive(url) as app:
        run = await app.start(takes_order)
        await run.send("order", Order("tea", 250))
        assert await run.result(LIMIT_S) == 250


async def test_a_message_that_does_not_fit_holds_the_run(url):
    async with Outlive(url) as app:
        run = await app.start(takes_order)
        await run.send("order", {"name": "tea"})
        with pytest.raises(outlive.RunOnHold, match=r"cents.*; first the code, codec or key that reads it"):
            await run.result(LIMIT_S, stop_on_hold=True)


async def test_a_run_out_of_memory_is_woken(url):
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0
        run = await app.start(takes_letters, 2, "review", id="r")
        for value in (1, 2):
            async with asyncio.timeout(LIMIT_S):
                while await run.status() != "suspended":
                    await asyncio.sleep(0.01)
            started = [entry for entry in await run.entries() if entry.outcome == "started"]
            assert [entry.name for entry in started] == ["review"]
            await run.send("review", value)
        assert await run.result(LIMIT_S) == [1, 2]


async def test_start_and_message_are_written_together(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 2, "review", id="r", send=[("review", 1)])
        again = await app.start(takes_letters, 2, "review", id="r", send=[("review", 2)])
        assert (run.created, again.created) == (True, False)
        assert await run.result(LIMIT_S) == [1, 2]


@workflow
async def shows(steps: int) -> str:
    for number in range(steps):
        await outlive.publish("progress", number)
        await outlive.emit("log", f"line {number}")
        await note("step")
    return "shown"


async def test_values_and_streams_show(url):
    async with Outlive(url) as app:
        run = await app.start(shows, 5)
        items = [item async for item in run.stream("log")]
        assert [(item.seq, item.value) for item in items] == [(number, f"line {number - 1}") for number in range(1, 6)]
        assert [item.seq async for item in run.stream("log", after=3)] == [4, 5]
        assert [item async for item in run.stream("other")] == []
        assert await run.value("progress") == 4
        assert await run.value("other") is None
        with pytest.raises(RunEnded):
            await run.value("other", wait=LIMIT_S)


@workflow
async def shows_later() -> None:
    await outlive.receive("go")
    await outlive.publish("state", "went")
    await outlive.emit("log", 1)
    await outlive.receive("end")
    await outlive.emit("log", 2)


async def test_readers_wait_for_what_is_to_come(url):
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(shows_later)
        with pytest.raises(RunTimedOut):
            await run.value("state", wait=0.05)
        there = await client.get(run.id)

        async def follow() -> list[int]:
            return [item.value async for item in there.stream("log")]

        following = asyncio.create_task(follow())
        await there.send("go", None)
        assert await there.value("state", wait=LIMIT_S) == "went"
        await there.send("end", None)
        async with asyncio.timeout(LIMIT_S):
            assert await following == [1, 2]


@workflow
async def promising(expires: float | None) -> Any:
    first = await outlive.promise(expires)
    await outlive.publish("token", first.token)
    return await first


async def test_a_promise_is_settled_once(url):
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(promising, None)
        token = await (await client.get(run.id)).value("token", wait=LIMIT_S)
        await client.settle(token, {"paid": 3})
        assert await run.result(LIMIT_S) == {"paid": 3}
        with pytest.raises(AlreadySettled):
            await app.settle(token, 4)
        with pytest.raises(PromiseNotFound):
            await app.settle("0" * 48)


@workflow
async def reviewing(order: int, expires: float | None) -> list[str]:
    first = await outlive.promise(expires, topic="review", about={"order": order})
    second = await outlive.promise(topic="mail", about="order")
    return [await first, await second]


async def test_open_promises_are_listed_by_topic(url):
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        runs = [await app.start(reviewing, number, None, id=f"review-{number}") for number in range(5)]
        short = await app.start(reviewing, 5, 0.05, id="review-5")
        with pytest.raises(PromiseExpired):
            await short.result(LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            while len((await client.promises("review")).items) < 5:
                await asyncio.sleep(0.01)
        found, after = [], None
        while True:
            page = await client.promises("review", limit=2, after=after)
            found += page.items
            if page.next is None:
                break
            after = page.next
        assert [item.created_at for item in found] == sorted(item.created_at for item in found)
        assert {item.run_id: item.about for item in found} == {f"review-{n}": {"order": n} for n in range(5)}
        assert {(item.topic, item.key, item.expires_at) for item in found} == {("review", "promise#1", None)}
        assert (await client.promises("review", limit=5)).next is None  # the last page is full
        assert len((await client.promises("review", limit=2**63 - 1)).items) == 5
        (one,) = (await client.promises("review", run_id="review-3")).items
        assert await client.find_promise("review-3", one.key) == one
        assert await client.find_promise("review-3", "promise#9") is None
        assert await client.find_promise("nobody", one.key) is None
        await client.settle(one.token, "yes", by="ana", reason="looks right")
        assert len((await client.promises("review")).items) == 4
        (entry,) = await client.audit("review-3")
        assert (entry.by, entry.action, entry.reason, entry.facts) == (
            "ana",
            "settle",
            "looks right",
            {"promise": one.key},
        )
        with pytest.raises(AlreadySettled):
            await client.settle(one.token, "no", by="bob")
        assert len(await client.audit("review-3")) == 1
        await runs[0].cancel()
        with pytest.raises(outlive.RunCancelled):
            await runs[0].result(timeout=LIMIT_S)
        assert {item.run_id for item in (await client.promises("review")).items} == {"review-1", "review-2", "review-4"}
        (letter,) = (await client.promises("mail", run_id="review-3")).items
        await client.settle(letter.token, "sent")
        assert await runs[3].result(timeout=LIMIT_S) == ["yes", "sent"]
        assert (await client.promises("unheard of")).items == []


@workflow
async def about_nothing() -> None:
    await outlive.promise(about="what?")


async def test_wrong_questions_about_promises(url):
    async with Outlive(url) as app:
        with pytest.raises(outlive.UsageError, match="needs topic="):
            await (await app.start(about_nothing)).result(timeout=LIMIT_S)
        for wrong in ({"limit": 0}, {"run_id": ""}):
            with pytest.raises(outlive.UsageError):
                await app.promises("review", **wrong)
        with pytest.raises(outlive.UsageError):
            await app.promises("")
        with pytest.raises(outlive.UsageError, match="the key of an entry is printable text"):
            await app.find_promise("run", "promise#1\0")
        with pytest.raises(outlive.UsageError, match="say by whom"):
            await app.settle("0" * 48, 1, reason="why not")


async def test_a_promise_is_rejected(url):
    async with Outlive(url) as app:
        run = await app.start(promising, None)
        await app.settle(await run.value("token", wait=LIMIT_S), error=ValueError("too dear"))
        with pytest.raises(ValueError, match="too dear"):
            await run.result(LIMIT_S)
        other = await app.start(promising, None)
        await app.settle(await other.value("token", wait=LIMIT_S), error="no")
        with pytest.raises(outlive.RunFailed, match="no"):
            await other.result(LIMIT_S)


async def test_a_promise_expires(url):
    async with Outlive(url) as app:
        run = await app.start(promising, 0.1)
        with pytest.raises(PromiseExpired):
            await run.result(LIMIT_S)
        with pytest.raises(AlreadySettled):
            await app.settle(await run.value("token"), 1)


async def test_a_promise_expires_while_its_run_leaves_memory(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is settled is asked twice before the database has heard that it has expired."""
    async with Outlive(url) as app:
        engine = app._engine()
        engine.roster.idle_limit = 0
        settle = engine.store.settle

        async def settle_late(*args: Any, **options: Any) -> Any:
            turns = engine.watcher.turns
            while engine.watcher.turns < turns + 2:
                engine.watcher.nudge()
                await asyncio.sleep(0)
            return await settle(*args, **options)

        monkeypatch.setattr(engine.store, "settle", settle_late)
        run = await app.start(promising, 0.1)
        with pytest.raises(PromiseExpired):
            await run.result(LIMIT_S)


async def test_an_idle_promise_is_found_after_a_restart(url):
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0
        run = await app.start(promising, None, id="r")
        token = await run.value("token", wait=LIMIT_S)
    async with Outlive(url, worker=False) as client:
        await client.settle(token, "later")
    async with Outlive(url) as app:
        assert await (await app.get("r")).result(LIMIT_S) == "later"


@workflow
async def answering(limit: int) -> list[str]:
    items: list[str] = []
    full = asyncio.Event()

    def check(name: str, count: int = 1) -> None:
        if len(items) + count > limit:
            raise ValueError(f"no room for {count} {name}")

    async def add(name: str, count: int = 1) -> int:
        items.extend([await note(name)] * count)
        if len(items) == limit:
            full.set()
        return len(items)

    def fails() -> None:
        raise KeyError("out of order")

    outlive.on_call("add", add, validate=check)
    outlive.on_call("fails", fails)
    outlive.on_call("list", lambda: list(items))
    await full.wait()
    return items


async def test_calls_are_answered(url):
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(answering, 3)
        there = await client.get(run.id)
        assert await there.call("add", "tea", timeout=LIMIT_S) == 1
        with pytest.raises(ValueError, match="no room for 5 milk"):
            await there.call("add", "milk", 5, timeout=LIMIT_S)
        with pytest.raises(outlive.DecodeFailed):
            await there.call("add", 17, timeout=LIMIT_S)
        with pytest.raises(KeyError, match="out of order"):
            await there.call("fails", timeout=LIMIT_S)
        assert await run.call("list", timeout=LIMIT_S) == ["tea"]
        names = [entry.name for entry in await run.entries() if entry.kind == "receive" and entry.seq]
        assert names == ["call/add", "call/fails", "call/list"], "what was refused is not in the journal"
        assert await run.call("add", "milk", 2, timeout=LIMIT_S) == 3
        assert await run.result(LIMIT_S) == ["tea", "milk", "milk"]
        with pytest.raises(RunEnded):
            await run.call("list", timeout=LIMIT_S)


@workflow
async def serves_slowly(number: int = 0) -> str:
    async def think() -> str:
        await outlive.publish("thinks", number)
        await outlive.sleep(3600)
        return "thought"

    outlive.on_call("think", think)
    await outlive.receive("go")
    if number == 0:
        await outlive.continue_as_new(1)
    return "ended"


async def test_a_call_that_was_accepted_is_answered_also_by_the_end(url):
    async with Outlive(url) as app:
        run = await app.start(serves_slowly, id="slow")
        for number in range(2):  # it goes on as new, then ends
            call = asyncio.create_task(run.call("think", timeout=LIMIT_S))
            while await run.value("thinks", wait=LIMIT_S) != number:
                await asyncio.sleep(0.01)
            await run.send("go", None)
            with pytest.raises(CallUnanswered, match="run 'slow' ended, or continued as new"):
                await call
        assert await run.result(LIMIT_S) == "ended"


async def test_a_call_that_nobody_answers(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 1, "end")
        with pytest.raises(RunTimedOut, match=r"within 0.05 s: nothing there has answered 'unknown' yet \(on_call\)"):
            await run.call("unknown", timeout=0.05)
        asking = asyncio.create_task(run.call("unknown", timeout=LIMIT_S))
        await asyncio.sleep(0)
        await run.send("end", None)
        with pytest.raises(RunEnded):
            await asking


@pytest.mark.parametrize(
    "use",
    [
        lambda: outlive.receive("x"),
        lambda: outlive.send("r", "x", 1),
        lambda: outlive.publish("x", 1),
        lambda: outlive.emit("x", 1),
        lambda: outlive.promise(),
    ],
)
async def test_outside_a_workflow_there_is_nobody_to_talk(use):
    with pytest.raises(UsageError, match="for workflow bodies"):
        await use()


async def test_wrong_names_and_values_write_nothing(url):
    async with Outlive(url) as app:
        run = await app.start(takes_letters, 1, "review", id="r")
        for wrong in ("", "a/b", "a#b", 7, None):
            with pytest.raises(UsageError):
                await run.send(wrong, 1)
        with pytest.raises(outlive.EncodeFailed):
            await run.send("review", float("nan"))
        with pytest.raises(UsageError):
            await run.send("review", 1, key="")
        with pytest.raises(UsageError):
            _ = [item async for item in run.stream("log", after=-1)]
        with pytest.raises(outlive.EncodeFailed):
            await app.start(takes_letters, 1, "review", id="other", send=[("review", object())])
        with pytest.raises(RunNotFound):
            await app.get("other")
        await run.send("review", "right")
        assert await run.result(LIMIT_S) == ["right"]


@pytest.mark.parametrize("wrong", ["t", 5, None, {"r": 1}, [("r",)], [("r", "t", 1, "k", 2)], ["rt"]], ids=repr)
async def test_what_no_messages_are(url, wrong):
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match=r"each of them \(run id, topic, value\) or \(run id, topic, value, key\)"):
            await app.send_many(wrong)
        with pytest.raises(UsageError, match=r"each of them \(topic, value\) or \(topic, value, key\)"):
            await app.start(takes_letters, 1, "review", id="r", send=wrong)
        assert await app.count() == 0


async def test_what_settles_no_promise(url):
    async with Outlive(url) as app:
        for wrong in (None, 5, b"token"):
            with pytest.raises(UsageError, match="token of a promise"):
                await app.settle(wrong)
        for error in (5, ValueError, ["no"]):
            with pytest.raises(UsageError, match="error=… is an exception, or a text"):
                await app.settle("token", error=error)
        with pytest.raises(UsageError, match="not both"):
            await app.settle("token", 5, "no")


@workflow
async def says_everything() -> None:
    promise = await outlive.promise(expires=3600)
    await outlive.publish("state", {"ready": True})
    await outlive.emit("log", promise.token)
    await outlive.send("listener", "hello", 1)
    outlive.on_call("stop", lambda: None)

    async def listen() -> None:
        await outlive.receive("hello", timeout=3600)
        await outlive.send("listener", "hello", 2)

    await asyncio.gather(listen(), outlive.receive("stop"))
    await promise


async def test_keys_are_frozen(url):
    """Journals of runs that are under way have them: another key at the same place is divergence."""
    async with Outlive(url) as app:
        await app.start(takes_letters, 2, "hello", id="listener")
        run = await app.start(says_everything)
        async with asyncio.timeout(LIMIT_S):
            while not (made := [entry.value for entry in await run.entries() if entry.kind == "promise"]):
                await asyncio.sleep(0.01)
        await run.send("hello", 1)
        await run.call("stop", timeout=LIMIT_S)
        await (await app.get("listener")).result(LIMIT_S)
        await run.send("stop", None)
        async with asyncio.timeout(LIMIT_S):
            while not any(entry.key == "wait#1" for entry in await run.entries()):
                await asyncio.sleep(0.01)
        await app.settle(made[0]["token"], 3)
        await run.result(LIMIT_S)
        found = {(entry.key, entry.kind, entry.name) for entry in await run.entries()}
        assert found == {
            ("promise#1", "promise", "promise"),
            ("publish:state#1", "publish", "state"),
            ("emit:log#1", "emit", "log"),
            ("send:hello#1", "send", "hello"),
            ("2/receive:hello#1", "receive", "hello"),
            ("2/send:hello#1", "send", "hello"),
            ("3/receive:stop#1", "receive", "stop"),
            ("1/call:stop#1", "receive", "call/stop"),
            ("1/call:stop#2", "receive", "call/stop"),
            ("1/1/answer:stop#1", "answer", "stop"),
            ("wait#1", "wait", "promise#1"),
        }


async def _deaf(timeout_s: float) -> bool:
    await asyncio.sleep(timeout_s)
    return False


async def _silent() -> None:
    return None


async def test_everything_arrives_without_hints(url, monkeypatch):
    """Hints only shorten the wait: with the notifier broken, polling finds everything."""
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        for each in (app, client):
            monkeypatch.setattr(each._engine().store, "notify", _silent)
            monkeypatch.setattr(each._engine().store, "wait_hint", _deaf)
        run = await client.start(says_when_asked, id="r")
        await run.send("go", None)
        token = await run.value("token", wait=LIMIT_S)
        items = [item.value async for item in _first_items(run, 1)]
        await client.settle(token, "settled")
        assert await run.call("state", timeout=LIMIT_S) == "settled"
        await run.send("end", None)
        assert (await run.result(LIMIT_S), items) == ("ended", [0])


async def _first_items(run, count):
    async for item in run.stream("log"):
        yield item
        if item.seq == count:
            return


@workflow
async def says_when_asked() -> str:
    await outlive.receive("go")
    promise = await outlive.promise()
    await outlive.publish("token", promise.token)
    await outlive.emit("log", 0)
    state = await promise
    outlive.on_call("state", lambda: state)
    await outlive.receive("end")
    return "ended"


@workflow
async def shows_and_waits() -> str:
    await outlive.publish("state", "waits")
    return await outlive.receive("answer", timeout=3600)


async def test_who_begins_to_wait_as_its_process_leaves_is_left_waiting(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()
    async with Outlive(url) as app:
        store = app._engine().store
        list_mail = store.list_mail

        async def list_slowly(*wanted: Any) -> Any:
            asked.set()
            await asyncio.sleep(0.05)
            return await list_mail(*wanted)

        monkeypatch.setattr(store, "list_mail", list_slowly)
        await app.start(shows_and_waits, id="waits")
        await asked.wait()
    async with Outlive(url, worker=False) as client:
        run = await client.get("waits")
        assert await run.status() == "suspended"
        assert "waits for a message 'answer'" in await run.why()
