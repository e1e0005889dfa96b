"""Cancel, pause and resume, wherever the run stands: delayed, unclaimed, working, asleep, out of memory, held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunCancelled, Status, step, workflow

LIMIT_S = 20.0
gates: dict[str, asyncio.Event] = {}
done: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    gates.clear()
    done.clear()


@step
async def mark(text: str) -> str:
    done.append(text)
    return text


@step
async def wait_for_gate(name: str) -> str:
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@workflow
async def worker_run(name: str) -> str:
    await mark("began")
    await wait_for_gate(name)
    return await mark("ended")


@workflow
async def sleeper(seconds: float) -> str:
    await mark("began")
    try:
        await outlive.sleep(seconds)
    except asyncio.CancelledError:
        await mark("tidied up")
        raise
    return await mark("ended")


@workflow
async def swallows() -> str:
    try:
        await wait_for_gate("swallows")
    except asyncio.CancelledError:
        return await mark("went on all the same")
    return "undisturbed"


@workflow
async def clings() -> str:
    for attempt in range(2):
        try:
            await wait_for_gate(f"clings {attempt}")
        except asyncio.CancelledError:
            await mark(f"refused {attempt}")
    return "kept going"


async def entered(name: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while name not in gates:
            await asyncio.sleep(0)


async def until(run: outlive.Run, status: Status) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await run.status() != status:
            await asyncio.sleep(0.01)


async def test_cancel_of_a_run_whose_start_is_delayed(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, 0, delay=1000)
        assert await run.status() == Status.SCHEDULED
        assert await run.cancel("not needed")
        with pytest.raises(RunCancelled, match="not needed"):
            await run.result(timeout=LIMIT_S)
        assert done == []


async def test_cancel_of_a_run_that_nobody_has_claimed(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("sleeper", 0)
        assert await run.status() == Status.QUEUED
        assert await run.cancel("too late")
        assert await run.status() == Status.QUEUED  # a client executes nothing
        async with Outlive(url, include=[sleeper]):
            with pytest.raises(RunCancelled, match="too late"):
                await run.result(timeout=LIMIT_S)
        assert "ended" not in done


@pytest.mark.parametrize("seconds", [1_000, 100_000], ids=["in memory", "out of memory"])
async def test_cancel_of_a_sleeping_run(url: str, seconds: float) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, seconds)
        if seconds > 3600:
            await until(run, Status.SUSPENDED)
        else:
            while not done:
                await asyncio.sleep(0)
        assert await run.cancel("wake up")
        with pytest.raises(RunCancelled, match="wake up"):
            await run.result(timeout=LIMIT_S)
        assert done == ["began", "tidied up"]
        keys = [entry.key for entry in await run.entries()]
        assert keys[0] == "mark#1" and keys[-1] == "mark#2" and "cancel#1" in keys


async def test_cancel_of_a_paused_run(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(worker_run, "gate")
        await entered("gate")
        assert await run.pause("have a look")
        with pytest.raises(outlive.RunOnHold, match="have a look"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.cancel("seen enough")
        with pytest.raises(RunCancelled, match="seen enough"):
            await run.result(timeout=LIMIT_S)
        assert done == ["began"]


async def test_cancel_twice_is_delivered_once_per_request(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, 1_000)
        while not done:
            await asyncio.sleep(0)
        assert list(await asyncio.gather(run.cancel("first"), run.cancel("second"))) == [True, True]
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert await run.status() == Status.CANCELLED
        assert await run.cancel() is False
        assert "ended" not in done


async def test_a_workflow_may_swallow_its_cancellation(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(swallows)
        await entered("swallows")
        assert await run.cancel()
        assert await run.result(timeout=LIMIT_S) == "went on all the same"
        assert await run.status() == Status.SUCCEEDED
        stubborn = await app.start(clings)
        await entered("clings 0")
        assert await stubborn.cancel()
        await entered("clings 1")
        assert await stubborn.cancel()
        assert await stubborn.result(timeout=LIMIT_S) == "kept going"
        assert [entry.key for entry in await stubborn.entries()] == [
            "cancel#1",
            "wait_for_gate#1",
            "mark#1",
            "cancel#2",
            "wait_for_gate#2",
            "mark#2",
        ]


async def test_cancel_of_what_is_not_there_and_what_has_ended(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, 0)
        assert await run.result(timeout=LIMIT_S) == "ended"
        assert await run.cancel() is False
        assert await run.pause() is False
        assert await run.resume() is False
        assert await run.result(timeout=LIMIT_S) == "ended"


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", object(), 7], ids=["nul", "surrogate", "object", "number"])
async def test_a_reason_that_cannot_be_stored(url: str, reason: Any) -> None:
    async with Outlive(url) as app:
        run = await app.start(worker_run, "gate")
        await entered("gate")
        for ask in (run.cancel, run.pause):
            with pytest.raises((outlive.EncodeFailed, outlive.UsageError), match="reason"):
                await ask(reason)
        gates["gate"].set()
        assert await run.result(timeout=LIMIT_S) == "ended"


@workflow
def plain_sleeper() -> str:
    outlive.sync.sleep(1_000)
    return "rested"


async def test_cancel_of_a_plain_workflow(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(plain_sleeper)
        async with asyncio.timeout(LIMIT_S):
            while not app._engine().roster.idle:
                await asyncio.sleep(0.001)
        assert await run.cancel("get up")
        with pytest.raises(RunCancelled, match="get up"):
            await run.result(timeout=LIMIT_S)


async def test_pause_and_resume(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(worker_run, "gate")
        await entered("gate")
        assert await run.resume() is False  # it is not held
        assert await run.pause()
        await until(run, Status.PAUSED)
        with pytest.raises(outlive.RunTimedOut):  # a held run keeps its caller waiting
            await run.result(timeout=0.1)
        assert not app._engine().roster.executions
        gates["gate"].set()
        assert await run.resume()
        assert await run.result(timeout=LIMIT_S) == "ended"
        assert done == ["began", "ended"]  # what was recorded was not repeated


@pytest.mark.parametrize("asked", ["suspended", "in memory", "in line", "unclaimed"])
async def test_the_last_word_counts(url: str, asked: str) -> None:
    async with Outlive(url, worker=False) as client, Outlive(url, include=[sleeper], name="worker") as app:
        queue = "held" if asked == "in line" else None
        await app.pause_queue("held")
        run = await client.start("sleeper", 100_000 if asked == "suspended" else 100, queue=queue)
        if asked == "suspended":
            await until(run, Status.SUSPENDED)
        elif asked == "in memory":
            async with asyncio.timeout(LIMIT_S):
                while not done:
                    await asyncio.sleep(0)
        for turn in range(20):
            assert await run.pause()
            for _ in range(turn):
                await asyncio.sleep(0)
            assert await run.resume(), turn
            assert not await run.resume()
        assert {"pause", "resume"} == {entry.action for entry in await app.audit(run.id, limit=1000)}
        assert len(await app.audit(run.id, limit=1000)) == 40
        await asyncio.wait_for(run.pause(), LIMIT_S)
        await until(run, Status.PAUSED)
        assert await run.resume()
        assert await run.status() != Status.PAUSED
        await app.resume_queue("held")
        await until(run, Status.SUSPENDED if asked == "suspended" else Status.RUNNING)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)


async def test_pause_of_a_run_out_of_memory_survives_a_restart(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, 100_000, id="s")
        await until(run, Status.SUSPENDED)
        assert await run.pause()
        await until(run, Status.PAUSED)
    async with Outlive(url) as app:
        run = await app.get("s")
        assert await run.status() == Status.PAUSED
        assert await run.resume()
        await until(run, Status.SUSPENDED)
        assert done == ["began"]


async def test_pause_of_a_run_that_nobody_has_claimed(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("sleeper", 0)
        assert await run.pause("not yet")
        async with Outlive(url, include=[sleeper]):
            await until(run, Status.PAUSED)
            assert await run.resume()
            assert await run.result(timeout=LIMIT_S) == "ended"
            assert done.count("ended") == 1


changed = False


@workflow
async def changes() -> None:
    await mark("second version" if changed else "first version")
    await outlive.sleep(1_000)


async def test_cancel_of_a_run_that_cannot_be_replayed(url: str) -> None:
    global changed
    async with Outlive(url) as app:
        run = await app.start(changes, id="changes")
        async with asyncio.timeout(LIMIT_S):
            while len(await run.entries()) < 1:
                await asyncio.sleep(0.005)
    changed = True
    try:
        async with Outlive(url) as app:
            run = await app.get("changes")
            assert await run.pause()
            await until(run, Status.PAUSED)
            assert await run.resume()
            with pytest.raises(outlive.RunOnHold, match="diverged"):
                await run.result(timeout=LIMIT_S, stop_on_hold=True)
            assert await run.cancel("hopeless")
            with pytest.raises(RunCancelled, match="hopeless"):
                await run.result(timeout=LIMIT_S)
            assert done == ["first version"]
            assert [entry.key for entry in await run.entries()] == ["mark#1"]
    finally:
        changed = False
