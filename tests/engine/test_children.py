"""Children: how they end their parents' waits, and what becomes of them when the parent ends first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, Status, step, workflow
from outlive.codec.payload import digest, encode_arguments
from outlive.engine.calls import child_reference
from outlive.model.reads import WorkerRow
from outlive.model.writes import Batch, EntryWrite, NewRun

LIMIT_S = 20.0
gates: dict[str, asyncio.Event] = {}
ended: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    gates.clear()
    ended.clear()


class Broke(Exception):
    def __init__(self, cents: int) -> None:
        super().__init__(cents)
        self.cents = cents


@step
async def wait_for_gate(name: str) -> str:
    try:
        await gates.setdefault(name, asyncio.Event()).wait()
    finally:
        ended.append(name)
    return name


@step
async def echo(text: str) -> str:
    return text


@workflow
async def child(name: str) -> str:
    return await wait_for_gate(name)


@workflow
async def broke(cents: int) -> None:
    raise Broke(cents)


@workflow
async def other(name: str) -> str:
    return name


async def entered(name: str) -> None:
    """Wait until a step is in the middle of its work."""
    async with asyncio.timeout(LIMIT_S):
        while name not in gates:
            await asyncio.sleep(0)


async def until_final(run: outlive.Run) -> Status:
    async with asyncio.timeout(LIMIT_S):
        while not (status := await run.status()).final:
            await asyncio.sleep(0.01)
    return status


@workflow
async def leaves_child(parent_close: str, fail: bool) -> str:
    run = await outlive.start(child, "left", id="left", parent_close=parent_close)  # type: ignore[arg-type]
    await wait_for_gate("parent")
    if fail:
        raise Broke(1)
    return run.id


@pytest.mark.parametrize("fail", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize("parent_close", ["cancel", "abandon"])
async def test_parent_close(url: str, parent_close: str, fail: bool) -> None:
    async with Outlive(url) as app:
        run = await app.start(leaves_child, parent_close, fail)
        await entered("left")
        await entered("parent")
        gates["parent"].set()
        if fail:
            with pytest.raises(Broke):
                await run.result(timeout=LIMIT_S)
        else:
            assert await run.result(timeout=LIMIT_S) == "left"
        left = await app.get("left")
        if parent_close == "cancel":
            with pytest.raises(outlive.RunCancelled, match="its parent"):
                await left.result(timeout=LIMIT_S)
        else:
            assert await left.status() == Status.RUNNING
            gates["left"].set()
            assert await left.result(timeout=LIMIT_S) == "left"


async def test_a_wrong_parent_close(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(outlive.UsageError, match="'cancel' or 'abandon'"):
            await app.run(leaves_child, "adopt", False)


@workflow
async def waits_for_broke(catch: bool) -> str:
    try:
        await broke(7)
    except Broke as error:
        if catch:
            return f"caught {error.cents}"
        raise
    return "nothing was wrong"


@workflow
def plain_waits_for_broke() -> str:
    try:
        plain_broke(8)
    except Broke as error:
        return f"caught {error.cents}"
    return "nothing was wrong"


@workflow
def plain_broke(cents: int) -> None:
    raise Broke(cents)


async def test_a_childs_failure_is_its_own_error_in_the_parent(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(waits_for_broke, True) == "caught 7"
        assert await app.run(plain_waits_for_broke) == "caught 8"
        run = await app.start(waits_for_broke, False, id="p")
        with pytest.raises(Broke) as caught:
            await run.result(timeout=LIMIT_S)
        assert caught.value.cents == 7
        (entry,) = await run.entries()
        assert (entry.key, entry.kind, entry.outcome) == ("broke#1", "child", "error")
        assert await (await app.get("p/broke#1")).status() == Status.FAILED


@workflow
async def waits_for_child(name: str) -> str:
    try:
        return await child(name)
    except outlive.StepFailed as error:
        return f"{error.matches('RunCancelled')}: {error}"  # a handle's errors are not raised in a body
    except asyncio.CancelledError:
        ended.append("parent cancelled")
        await echo("tidy up")
        raise


async def test_a_cancelled_child_is_an_error_in_the_parent(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(waits_for_child, "c", id="p")
        await entered("c")
        assert await (await app.get("p/child#1")).cancel("not wanted")
        assert (await run.result(timeout=LIMIT_S)).startswith("True: ")


async def test_a_cancelled_parent_cancels_the_child_it_waits_for(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(waits_for_child, "c", id="p")
        await entered("c")
        assert await run.cancel("enough")
        with pytest.raises(outlive.RunCancelled, match="enough"):
            await run.result(timeout=LIMIT_S)
        assert await until_final(await app.get("p/child#1")) == Status.CANCELLED
        assert sorted(ended) == ["c", "parent cancelled"]
        assert [entry.key for entry in await run.entries()] == ["cancel#1", "child#1", "echo#1"]


@workflow
async def gives_up_on_child() -> str:
    winner, value = await outlive.race(child("slow"), wait_for_gate("go"))
    return f"{winner} {value}"


async def test_a_child_that_lost_a_race_is_cancelled(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(gives_up_on_child, id="p")
        await entered("slow")
        await entered("go")
        gates["go"].set()
        assert await run.result(timeout=LIMIT_S) == "1 go"
        (lost,) = [info async for info in app.runs(workflow="child")]
        assert await until_final(await app.get(lost.id)) == Status.CANCELLED
        assert sorted(ended) == ["go", "slow"]


@workflow
async def starts_taken(name: str) -> str:
    try:
        run = await outlive.start(child, "c", id=name)
    except outlive.StepFailed as error:
        return f"{error.matches('RunExists')}: {error}"
    return f"started {run.id}"


@workflow
async def waits_for_taken() -> str:
    try:
        return await child("c")
    except outlive.StepFailed as error:
        return f"{error.matches('RunExists')}: {error}"


async def test_a_childs_id_that_is_taken_by_another_run(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(other, "x", id="taken") == "x"
        said = await (await app.start(starts_taken, "taken")).result(timeout=LIMIT_S)
        assert said.startswith("True: ") and "already exists for workflow 'other'" in said
        assert await app.run(other, "x", id="p/child#1") == "x"
        said = await (await app.start(waits_for_taken, id="p")).result(timeout=LIMIT_S)
        assert said.startswith("True: ") and "already exists for workflow 'other'" in said
        assert await (await app.get("taken")).result() == "x"
        assert "c" not in gates  # no child has begun


async def leave_half_started(url: str, parent: Any, run_id: str, kind: str, child_id: str) -> None:
    """Write the journal of a process that had sent the start of a child, and died before it heard of the refusal."""
    async with outlive.Outlive(url, worker=False) as client:
        engine = client._engine()
        store, now = engine.store, engine.clock.now()
        fence = await store.register(WorkerRow(17, 1, "gone", 1, "gone", None, 0.0), 15)
        text = encode_arguments(engine.codec, child.spec.shape, ("c",), {}, where="arguments")
        run = NewRun(engine.ids.row_id(now), run_id, parent.spec.name, '{"args":[],"kwargs":{}}', started_at=now)
        run.version = parent.spec.version
        key, reference = "child#1", NewRun(engine.ids.row_id(now), child_id, "child", text)
        reference.parent, reference.parent_key, reference.parent_close = run.row, key, "cancel"
        entry = EntryWrite(run.row, key, None, kind, "child", digest(text), "started", None, None, 1, now, None)
        entry.value = child_reference(reference)
        committed = await store.commit(Batch([run, reference], [entry]), fence)
        assert list(committed.existing) == [reference.row]
        await store.unregister(fence)


@workflow
async def starts_what_is_taken() -> str:
    run = await outlive.start(child, "c")
    return f"started {run.id}"


@pytest.mark.parametrize("kind", ["child", "start"])
async def test_a_crash_forgets_no_refusal(url: str, kind: str) -> None:
    parent = waits_for_taken if kind == "child" else starts_what_is_taken
    async with Outlive(url) as app:
        assert await app.run(other, "x", id="p/child#1") == "x"
    await leave_half_started(url, parent, "p", kind, "p/child#1")
    async with Outlive(url) as app:
        run = await app.get("p")
        if kind == "child":
            assert "already exists for workflow 'other'" in await run.result(timeout=LIMIT_S)
        else:
            with pytest.raises(outlive.RunFailed, match="already exists for workflow 'other'"):
                await run.result(timeout=LIMIT_S)
        assert [entry.outcome for entry in await run.entries()] == ["error"]


@workflow
async def hands_on(depth: int) -> Any:
    if not depth:
        return await wait_for_gate("bottom")
    return await hands_on(depth - 1)


async def test_a_cancel_goes_down_to_grandchildren(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(hands_on, 3, id="top")
        await entered("bottom")
        assert await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        for info in [info async for info in app.runs()]:
            assert await until_final(await app.get(info.id)) == Status.CANCELLED, info
        assert ended == ["bottom"]


@workflow
async def uses_handle() -> str:
    run = await outlive.start(other, "x", id="x")
    try:
        await run.result()
    except outlive.UsageError as error:
        return str(error)
    return "nothing was wrong"


async def test_a_handle_is_not_asked_in_a_workflow_body(url: str) -> None:
    async with Outlive(url) as app:
        assert "await the workflow itself" in await app.run(uses_handle)


async def test_a_parent_that_left_memory_hears_of_its_child(url: str) -> None:
    async with Outlive(url) as app:
        app._engine().roster.idle_limit = 0  # whoever waits leaves at once
        run = await app.start(waits_for_child, "c", id="p")
        await entered("c")
        async with asyncio.timeout(LIMIT_S):
            while await run.status() != Status.SUSPENDED:
                await asyncio.sleep(0.01)
        gates["c"].set()
        assert await run.result(timeout=LIMIT_S) == "c"
