"""Which code a journal is compared with: a run may have been started by name, or by other code than executes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunOnHold, Status, step, workflow

LIMIT_S = 20.0
NAP_S = 0.4
executed: list[str] = []
asks_for = "one"  # what the code that is not deterministic does


@pytest.fixture(autouse=True)
def _clean() -> None:
    global asks_for
    asks_for = "one"
    executed.clear()


@step
async def note(text: str) -> str:
    executed.append(text)
    return text


@step
async def other(text: str) -> str:
    return await note(text)


@workflow(name="plan")
async def first_code() -> str:
    await note("one")
    await outlive.sleep(NAP_S)
    return await note("first")


@workflow(name="plan")
async def edited_code() -> str:
    """The first step is gone, another one has come."""
    await other("new")
    await outlive.sleep(NAP_S)
    return await other("edited")


@workflow(name="plan")
async def unsteady_code() -> str:
    await (note("one") if asks_for == "one" else other("two"))
    await outlive.sleep(NAP_S)
    return await note("end")


@workflow(name="nap")
async def nap(delay_s: float) -> float:
    await outlive.sleep(delay_s)
    return delay_s


@workflow(name="plan")
async def two_children() -> float:
    return max(await outlive.gather(nap(NAP_S), nap(3600)))


@workflow(name="plan")
async def one_child() -> float:
    (slept,) = await outlive.gather(nap(NAP_S))
    await outlive.sleep(NAP_S)
    return slept


@workflow(name="plan")
async def forgetful_code() -> str:
    return await other("new")


Start = Callable[[str, Any], Any]


async def by_name(url: str, code: Any) -> None:
    """A client that knows no workflow stores no version."""
    async with Outlive(url, worker=False, include=[]) as client:
        run = await client.start("plan", id="run")
        assert (await run.info()).version is None


async def by_definition(url: str, code: Any) -> None:
    async with Outlive(url, worker=False, include=[code]) as client:
        run = await client.start(code, id="run")
        assert (await run.info()).version == code.spec.version


@pytest.fixture(params=[by_name, by_definition])
def start(request: pytest.FixtureRequest) -> Start:
    """The two ways to start a run from a client; the second tells the version of the code given."""
    return request.param  # type: ignore[no-any-return]


async def execute_until(url: str, code: Any, entries: int) -> None:
    """Let code execute the run until it has so many entries."""
    async with Outlive(url, include=[code, nap]) as app:
        run = await app.get("run")
        async with asyncio.timeout(LIMIT_S):
            while len(await run.entries()) < entries:
                await asyncio.sleep(0.005)


async def finish(url: str, code: Any) -> Any:
    async with Outlive(url, include=[code, nap]) as app:
        run = await app.get("run")
        try:
            return await run.result(timeout=LIMIT_S, stop_on_hold=True)
        finally:
            for info in (await app.runs(workflow="nap")).items:
                await (await app.get(info.id)).cancel()


async def test_the_same_code_is_replayed_strictly(url: str, start: Start) -> None:
    global asks_for
    await start(url, unsteady_code)
    await execute_until(url, unsteady_code, 1)
    asks_for = "two"
    with pytest.raises(RunOnHold, match=r"diverged at note#1.*the code asks for.*other#1") as held:
        await finish(url, unsteady_code)
    assert str(held.value).count("resume()") == 1
    assert executed == ["one"]
    asks_for = "one"
    async with Outlive(url, include=[unsteady_code]) as app:
        run = await app.get("run")
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "end"


async def test_other_code_is_an_edit(url: str, start: Start) -> None:
    await start(url, first_code)
    await execute_until(url, first_code, 1)
    await execute_until(url, edited_code, 2)
    assert executed == ["one", "new"]
    assert await finish(url, edited_code) == "edited"
    assert executed == ["one", "new", "edited"]


async def test_what_other_code_never_asks_for_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    await by_definition(url, first_code)
    await execute_until(url, first_code, 1)
    assert await finish(url, forgetful_code) == "new"
    (told,) = [record.getMessage() for record in caplog.records if record.name == "outlive.run"]
    assert "never asked for what is recorded: step 'note' (note#1)" in told


async def test_other_code_may_go_on_after_each_restart(url: str, start: Start) -> None:
    """What the first code has begun and the other one does not ask for is no divergence, whoever wrote the rest."""
    await start(url, two_children)
    await execute_until(url, two_children, 2)
    async with Outlive(url, include=[one_child, nap]) as app:
        run = await app.get("run")
        async with asyncio.timeout(LIMIT_S):
            while "ok" not in {entry.outcome for entry in await run.entries()}:
                await asyncio.sleep(0.005)
        assert await run.status() != Status.PAUSED
    assert await finish(url, one_child) == NAP_S


async def test_code_that_wrote_all_of_it_is_replayed_strictly_whoever_started_it(url: str) -> None:
    global asks_for
    await by_definition(url, first_code)  # a client of an older deployment
    await execute_until(url, unsteady_code, 1)
    asks_for = "two"
    with pytest.raises(RunOnHold, match="diverged at note#1"):
        await finish(url, unsteady_code)
    assert executed == ["one"]
