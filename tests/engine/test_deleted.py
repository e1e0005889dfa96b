"""Runs that are deleted or pruned while somebody waits for them: handles in any process, and workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import outlive
from outlive import Outlive, Run, RunNotFound, step, workflow

LIMIT_S = 20.0
broken = True


@workflow
async def answers_nothing() -> str:
    async def never() -> None:
        await outlive.receive("never")

    outlive.on_call("ask", never)
    await outlive.publish("phase", "waiting")
    await outlive.emit("log", "began")
    return str(await outlive.receive("word"))


@workflow
async def gives_word() -> str:
    return str(await outlive.receive("word"))


@step
async def check() -> None:
    if broken:
        raise ValueError("broken")


@workflow
async def outlives_its_child() -> list[Any]:
    async def awaited() -> str:
        try:
            return await gives_word()
        except RunNotFound as error:
            return f"no run {error.run_id}"

    async def breaks() -> None:
        await outlive.receive("go")
        await check()

    breaking = asyncio.create_task(breaks())
    said = await awaited()
    await breaking
    await outlive.publish("said", said)
    return [said, await outlive.receive("end")]


held: dict[str, Run] = {}


@step
async def wait_for_other() -> str:
    return str(await held["other"].result(timeout=LIMIT_S))


@workflow
async def reports() -> str:
    try:
        return await wait_for_other()
    except RunNotFound as error:
        return f"no run {error.run_id}"


@pytest.fixture(autouse=True)
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.engine.test_deleted.broken", True)


def look_away(app: Outlive) -> asyncio.Event:
    """Let an app see nothing of what it waits for until the event is set."""
    looper, gate = app._engine().watcher.looper, asyncio.Event()
    turn = looper._turn

    async def gated() -> float:
        await gate.wait()
        return await turn()

    looper._turn = gated
    looper.wake()
    return gate


async def delete(_: Outlive, run: Run) -> None:
    await run.delete()


async def prune(app: Outlive, _: Run) -> None:
    assert await app.prune(0) == 1


WAITS: dict[str, Callable[[Run], Awaitable[Any]]] = {
    "result": lambda run: run.result(),
    "result within": lambda run: run.result(timeout=LIMIT_S),
    "value": lambda run: run.value("other", wait=LIMIT_S),
    "stream": lambda run: anext(aiter(run.stream("log", after=1))),
    "call": lambda run: run.call("ask"),
}


@pytest.mark.parametrize("remove", [delete, prune])
async def test_who_waits_for_a_run_that_goes_hears_of_it(url: str, remove: Any) -> None:
    async with Outlive(url, include=[answers_nothing]) as app, Outlive(url, worker=False) as client:
        run = await app.start(answers_nothing)
        assert await run.value("phase", wait=LIMIT_S) == "waiting"
        elsewhere = await client.get(run.id)
        gate, watcher = look_away(client), client._engine().watcher
        tasks = [asyncio.ensure_future(wait(elsewhere)) for wait in WAITS.values()]
        async with asyncio.timeout(LIMIT_S):
            while len(watcher._waits.get("end", {}).get(run._row, ())) < len(WAITS):
                await asyncio.sleep(0.01)
        await run.send("word", "bye")
        assert await run.result(timeout=LIMIT_S) == "bye"
        await remove(app, run)
        gate.set()
        async with asyncio.timeout(LIMIT_S):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(outcome), str(run.id) in str(outcome)) for outcome in outcomes] == [(RunNotFound, True)] * len(
            WAITS
        )


@pytest.mark.parametrize("ask", [*WAITS, "value now", "stream from the beginning"])
async def test_a_handle_of_a_run_that_is_gone(url: str, ask: str) -> None:
    async with Outlive(url, include=[answers_nothing]) as app:
        run = await app.start(answers_nothing)
        await run.send("word", "bye")
        await run.result(timeout=LIMIT_S)
        assert await run.value("other") is None
        await run.delete()
        asked = {
            **WAITS,
            "value now": lambda run: run.value("phase"),
            "stream from the beginning": lambda run: anext(aiter(run.stream("log"))),
        }
        with pytest.raises(
            RunNotFound, match=f"no run '{run.id}' in this store: .*deleted or pruned; .*start it again"
        ):
            await asyncio.wait_for(asyncio.ensure_future(asked[ask](run)), LIMIT_S)


async def test_a_child_that_is_deleted_while_its_parent_is_retried(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Outlive(url, include=[outlives_its_child]) as app:
        run = await app.start(outlives_its_child)
        await run.send("go", 1)
        child = await child_of(app, run)
        async with asyncio.timeout(LIMIT_S):
            while not any(entry.outcome == "error" for entry in await run.entries()):
                await asyncio.sleep(0.01)
        await child.send("word", "in vain")
        with pytest.raises(ValueError, match="broken"):
            await run.result(timeout=LIMIT_S)
        monkeypatch.setattr("tests.engine.test_deleted.broken", False)
        store = app._engine().store
        reopen = store.reopen

        async def reopen_late(*args: Any) -> bool:
            await child.delete()
            return await reopen(*args)

        monkeypatch.setattr(store, "reopen", reopen_late)
        await run.retry()
        assert await run.value("said", wait=LIMIT_S) == f"no run {child.id}"
    async with Outlive(url, include=[outlives_its_child]) as app:  # replays
        run = await app.get(run.id)
        await run.send("end", "ended")
        assert await run.result(timeout=LIMIT_S) == [f"no run {child.id}", "ended"]


async def child_of(app: Outlive, run: Run) -> Run:
    async with asyncio.timeout(LIMIT_S):
        while not (found := [info.id async for info in app.runs(f"parent:{run.id}")]):
            await asyncio.sleep(0.01)
    return await app.get(found[0])


async def test_a_step_that_waits_for_a_run_that_goes(url: str) -> None:
    async with Outlive(url, include=[reports, gives_word]) as app:
        other = await app.start(gives_word, id="other")
        await other.send("word", 1)
        await other.result(timeout=LIMIT_S)
        await other.delete()
        held["other"] = other
        assert await app.run(reports) == "no run other"
