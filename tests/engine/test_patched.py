"""`patched` through the public API: code is changed under runs that are under way, with a restart in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, step, workflow

LIMIT_S = 20.0
executed: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()


@step
async def note(text: str) -> str:
    executed.append(text)
    return text


@workflow(name="plan")
async def old_code(nap_s: float) -> list[str]:
    first = await note("first")
    await outlive.sleep(nap_s)
    return [first, await note("second"), await note("old")]


@workflow(name="plan")
async def new_code(nap_s: float) -> list[str]:
    if outlive.patched("greeting"):
        await note("greeting")
    first = await note("first")
    await outlive.sleep(nap_s)
    second = await note("second")
    return [first, second, await note("new") if outlive.patched("ending") else await note("old")]


@workflow(name="plan")
async def final_code(nap_s: float) -> list[str]:
    await note("greeting")
    first = await note("first")
    await outlive.sleep(nap_s)
    return [first, await note("second"), await note("new")]


async def execute_until(url: str, code: Any, count: int) -> None:
    async with Outlive(url, include=[code]) as app:
        run = await app.start(code, 0.3, id="run")
        async with asyncio.timeout(LIMIT_S):
            while len(await run.entries()) < count:
                await asyncio.sleep(0.005)


async def finish(url: str, code: Any) -> Any:
    async with Outlive(url, include=[code]) as app:
        run = await app.start(code, 0.3, id="run")
        result = await run.result(timeout=LIMIT_S, stop_on_hold=True)
        patches = {entry.name: entry.value for entry in await run.entries() if entry.kind == "patch"}
        return result, patches


async def test_a_run_under_way_takes_the_old_path_where_it_went(url: str) -> None:
    await execute_until(url, old_code, 1)
    result, patches = await finish(url, new_code)
    assert result == ["first", "second", "new"]
    assert patches == {"greeting": False, "ending": True}
    assert executed == ["first", "second", "new"]


async def test_a_new_run_takes_the_new_path(url: str) -> None:
    assert await finish(url, new_code) == (["first", "second", "new"], {"greeting": True, "ending": True})
    assert executed == ["greeting", "first", "second", "new"]


async def test_the_calls_may_go_while_runs_are_under_way(url: str) -> None:
    await execute_until(url, new_code, 3)
    result, patches = await finish(url, final_code)
    assert result == ["first", "second", "new"]
    assert patches == {"greeting": True}
    assert executed == ["greeting", "first", "second", "new"]
