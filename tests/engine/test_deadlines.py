"""Deadlines and shielded blocks: what they end, when they are delivered, and that a replay sees the same."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import DeadlineExceeded, Outlive, RunCancelled, Status, UsageError, step, workflow
from tests.engine.test_cancel import until

LIMIT_S = 20.0
done: list[str] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _clean() -> None:
    done.clear()
    gates.clear()


@step
async def mark(text: str) -> str:
    done.append(text)
    return text


@step
async def wait_for_gate(name: str) -> str:
    done.append(f"at {name}")
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


async def reached(text: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while text not in done:
            await asyncio.sleep(0.001)


@workflow
async def patient(seconds: float) -> str:
    await mark("began")
    try:
        await outlive.sleep(seconds)
    except asyncio.CancelledError:
        await mark("tidied up")
        raise
    return "slept"


@workflow
async def stubborn() -> str:
    try:
        await outlive.sleep(days=1)
    except asyncio.CancelledError:
        await outlive.sleep(0.01)
    return "went on"


async def test_a_run_that_is_late_is_told_and_fails(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient, 1000, deadline=timedelta(seconds=0.5))
        with pytest.raises(DeadlineExceeded, match="had not ended at its deadline") as told:
            await run.result(timeout=LIMIT_S)
        assert isinstance(told.value, TimeoutError)
        assert told.value.run_id == run.id
        info = await run.info()
        assert info.status == Status.FAILED
        assert info.deadline is not None
        about = abs(info.deadline - datetime.fromisoformat(told.value.deadline_at))
        assert about < timedelta(seconds=0.05), "its first owner estimates the database's clock"
        assert info.deadline - info.created_at == pytest.approx(timedelta(seconds=0.5), abs=timedelta(seconds=0.05))
        entries = [(entry.key, entry.kind, entry.name) for entry in await run.entries()]
        assert ("cancel#1", "cancel", "deadline") in entries
        assert done == ["began", "tidied up"]


async def test_a_run_that_is_in_time_has_never_heard_of_it(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient, 0, deadline=100)
        assert await run.result(timeout=LIMIT_S) == "slept"
        assert all(entry.kind != "cancel" for entry in await run.entries())
        assert (await run.info()).deadline is not None
        assert (await (await app.start(patient, 0)).info()).deadline is None


async def test_a_run_may_refuse_and_is_not_asked_again(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(stubborn, deadline=0.5)
        assert await run.result(timeout=LIMIT_S) == "went on"
        assert [entry.key for entry in await run.entries() if entry.kind == "cancel"] == ["cancel#1"]


async def test_a_cancelled_run_is_cancelled_and_not_late(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient, 1000, deadline=1000)
        await reached("began")
        assert await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=LIMIT_S)
        assert await run.status() == Status.CANCELLED


async def test_it_passes_while_the_run_is_in_no_memory(url: str) -> None:
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0
        run = await app.start(patient, 100_000, deadline=0.6)
        await until(run, Status.SUSPENDED)
        with pytest.raises(DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert done == ["began", "tidied up"]


async def test_it_passes_while_no_process_is_there(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient, 100_000, id="late", deadline=0.3)
        await reached("began")
    async with Outlive(url) as app:
        run = await app.get("late")
        with pytest.raises(DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert done == ["began", "tidied up"]


@pytest.mark.parametrize("delay", [None, 1000.0], ids=["queued", "scheduled"])
async def test_a_run_that_has_not_begun_never_runs_its_body(url: str, delay: float | None) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("patient", 0, delay=delay, deadline=0.01)
        await asyncio.sleep(0.02)
        async with Outlive(url, include=[patient]):
            with pytest.raises(DeadlineExceeded):
                await run.result(timeout=LIMIT_S)
        assert done == []
        assert await run.entries() == []


async def test_a_paused_run_hears_of_it_when_it_is_resumed(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient, 1000, deadline=0.3)
        await reached("began")
        assert await run.pause()
        await until(run, Status.PAUSED)
        await asyncio.sleep(0.35)
        assert await run.status() == Status.PAUSED
        assert await run.resume()
        with pytest.raises(DeadlineExceeded):
            await run.result(timeout=LIMIT_S)


@workflow
async def has_children(own: float | None) -> str:
    if own is not None:
        run = await outlive.start(patient, 1000, id="child", deadline=own)
        return run.id
    return await patient(1000)


@workflow
async def leaves_one_behind() -> str:
    return (await outlive.start(patient, 0, id="left", parent_close="abandon")).id


async def test_children_inherit_what_is_left(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(has_children, None, id="p", deadline=1000)
        await reached("began")
        child = await (await app.get("p/patient#1")).info()
        assert child.deadline == (await run.info()).deadline
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        earlier = await app.start(has_children, 0.01, id="earlier", deadline=1000)
        assert await earlier.result(timeout=LIMIT_S) == "child"
        started = await (await app.get("child")).info()
        assert started.deadline is not None and started.deadline - started.created_at < timedelta(seconds=1)
        later = await app.start(leaves_one_behind, deadline=1000)
        assert await later.result(timeout=LIMIT_S) == "left"
        assert (await (await app.get("left")).info()).deadline is None


@pytest.mark.parametrize("wrong", [-1, "soon", float("nan"), float("inf"), True], ids=repr)
async def test_no_deadline(url: str, wrong: Any) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match=r"deadline=…"):
            await app.start(patient, 0, id="no", deadline=wrong)
        with pytest.raises(outlive.RunNotFound):
            await app.get("no")


@workflow
async def shields_children() -> str:
    async with outlive.shielded():
        await outlive.start(patient, 1000, id="started")
        await outlive.start(patient, 1000, id="own", deadline=1000)
        return await sleeps_on(0.6)


@workflow
async def sleeps_on(seconds: float) -> str:
    await mark("a child sleeps")
    await outlive.sleep(seconds)
    return "slept"


async def test_children_of_a_shielded_block_are_not_torn_from_it(url: str) -> None:
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0  # so that the parent is replayed when the child has ended
        run = await app.start(shields_children, id="p", deadline=0.3)
        await reached("a child sleeps")
        for child in ("started", "p/sleeps_on#1"):
            assert (await (await app.get(child)).info()).deadline is None
        assert (await (await app.get("own")).info()).deadline is not None
        assert await run.result(timeout=LIMIT_S) == "slept"
        for child in ("started", "own"):
            with pytest.raises(RunCancelled):
                await (await app.get(child)).result(timeout=LIMIT_S)


# -- shielded -------------------------------------------------------------------
@workflow
async def shields() -> str:
    async with outlive.shielded():
        await wait_for_gate("inside")
        await mark("still inside")
    try:
        await mark("outside")
    except asyncio.CancelledError:
        await mark("told outside")
        raise
    return "never told"


@workflow
async def shields_a_branch() -> str:
    async def branch() -> None:
        async with outlive.shielded():
            await wait_for_gate("in a branch")
        await mark("the branch left its block")

    await asyncio.gather(branch(), outlive.sleep(1000))
    return "never"


@workflow
async def shields_to_the_end() -> str:
    async with outlive.shielded():
        return await wait_for_gate("to the end")


@workflow
async def sleeps_shielded(seconds: float) -> str:
    async with outlive.shielded():
        await mark("began")
        await outlive.sleep(seconds)
    await outlive.sleep(1000)
    return "never"


async def handled(app: Outlive) -> None:
    """Wait until the owner has read the open requests."""
    roster = app._engine().roster
    async with asyncio.timeout(LIMIT_S):
        while not any(execution.heard for execution in roster.executions.values()):
            await asyncio.sleep(0.001)


async def test_a_shielded_block_ends_before_the_cancellation_is_delivered(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(shields)
        await reached("at inside")
        assert await run.cancel("now")
        await handled(app)
        assert done == ["at inside"]
        gates["inside"].set()
        with pytest.raises(RunCancelled, match="now"):
            await run.result(timeout=LIMIT_S)
        assert [entry.key for entry in await run.entries()][:3] == ["wait_for_gate#1", "mark#1", "cancel#1"]
        assert "still inside" in done and done[-1] == "told outside"


async def test_a_shielded_branch_holds_it_back_for_the_run(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(shields_a_branch)
        await reached("at in a branch")
        assert await run.cancel()
        await handled(app)
        gates["in a branch"].set()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert [entry.key for entry in await run.entries()][:2] == ["1/wait_for_gate#1", "cancel#1"]


async def test_a_run_that_ends_within_its_block_has_not_been_cancelled(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(shields_to_the_end)
        await reached("at to the end")
        assert await run.cancel()
        await handled(app)
        gates["to the end"].set()
        assert await run.result(timeout=LIMIT_S) == "to the end"
        assert await run.status() == Status.SUCCEEDED


@pytest.mark.parametrize("ask", ["cancel", "deadline"])
async def test_a_shielded_sleep_is_slept_to_its_end(url: str, ask: str) -> None:
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0  # it leaves memory at once: what waits for its block must not wake it
        run = await app.start(sleeps_shielded, 1.0, deadline=0.2 if ask == "deadline" else None)
        await until(run, Status.SUSPENDED)
        if ask == "cancel":
            assert await run.cancel("later")
        with pytest.raises(RunCancelled if ask == "cancel" else DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert [entry.key for entry in await run.entries()][:3] == ["mark#1", "sleep#1", "cancel#1"]
        slept = (await run.entries())[1]
        assert slept.finished_at is not None and slept.finished_at - slept.started_at >= timedelta(seconds=1)


async def test_shielded_outside_a_workflow_is_refused() -> None:
    with pytest.raises(UsageError, match="workflow bodies"):
        async with outlive.shielded():
            pass
