"""anyio in workflow bodies: its groups, scopes and timeouts, which many libraries are built on."""

from __future__ import annotations

import asyncio
import gc
import weakref

import anyio
import pytest

import outlive
from outlive import Outlive, RunCancelled, step, workflow

LIMIT_S = 20.0
done: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    done.clear()


@step
async def note(what: str) -> str:
    done.append(what)
    return what


@step
async def fails() -> None:
    await asyncio.sleep(0.05)
    raise ValueError("no")


async def waits(name: str) -> None:
    try:
        await outlive.receive(name)
    finally:
        with anyio.CancelScope(shield=True):
            await note(f"{name} stops")


@workflow
async def a_group_that_fails() -> list[str]:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(waits, "one")
            group.start_soon(waits, "two")
            await fails()
    except* ValueError as errors:
        done.extend(str(error) for error in errors.exceptions)
    return done[-1:]


async def test_a_group_cancels_those_who_wait(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(a_group_that_fails)
        assert await run.result(timeout=LIMIT_S) == ["no"]
        assert sorted(done) == ["no", "one stops", "two stops"]
        outcomes = {entry.key: entry.outcome for entry in await run.entries()}
        assert (outcomes["1/receive:one#1"], outcomes["2/receive:two#1"]) == ("error", "error")


@workflow
async def gives_up() -> list[str]:
    said = []
    with anyio.move_on_after(0.05) as scope:
        await outlive.receive("nothing")
    said.append(str(scope.cancelled_caught))
    with anyio.move_on_after(60):
        said.append(await outlive.receive("something"))
    try:
        with anyio.fail_after(0.05):
            await waits("never")
    except TimeoutError:
        said.append("too late")
    return said


async def test_timeouts_survive_that_the_run_leaves_memory(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(gives_up)
        async with asyncio.timeout(LIMIT_S):
            while not any(entry.key == "receive:something#1" for entry in await run.entries()):
                await asyncio.sleep(0.01)
            roster = app._engine().roster
            while roster.executions:
                for execution in list(roster.idle):
                    roster.suspend(execution)
                await asyncio.sleep(0.01)
        await run.send("something", "here")
        assert await run.result(timeout=LIMIT_S) == ["True", "here", "too late"]
    assert done == ["never stops"]


@workflow
async def within_a_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(waits, "one")
        await waits("two")


async def test_a_run_is_cancelled_within_a_group(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(within_a_group)
        async with asyncio.timeout(LIMIT_S):
            while len([entry for entry in await run.entries() if entry.kind == "receive"]) < 2:
                await asyncio.sleep(0.01)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
    assert sorted(done) == ["one stops", "two stops"]


async def test_a_run_that_leaves_memory_within_a_group_leaves_all_of_it(url: str) -> None:
    """anyio keeps the scopes of a task, and with them the task, until that has ended."""

    async def wait() -> None:
        await outlive.receive("go")

    @workflow
    async def waiter() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)

    async with Outlive(url, include=[waiter]) as app:
        run = await app.start(waiter)
        while not any(entry.kind == "receive" for entry in await run.entries()):
            await asyncio.sleep(0.01)
        roster = app._engine().roster
        (held,) = map(weakref.ref, roster.executions.values())
        roster.suspend(next(iter(roster.executions.values())))
        while roster.executions:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        gc.collect()
        assert held() is None
        await run.send("go", None)
        await run.result(timeout=20)
