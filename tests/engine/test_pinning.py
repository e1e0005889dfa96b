"""Pinned runs go on with code of their version only, whoever starts them; versions are counted for the way out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, Status, UsageError, VersionCount, step, workflow

LIMIT_S = 20.0
executed: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()


@step(check_arguments=False)
async def note(text: str) -> str:
    executed.append(text)
    return text


def define(version: str, *, pin: bool = True) -> Any:
    @workflow(name="plan", version=version, pin=pin)
    async def plan(nap_s: float = 0.3) -> str:
        await note(f"begun by {version}")
        await outlive.sleep(nap_s)
        return await note(f"ended by {version}")

    return plan


one, two = define("1"), define("2")


@workflow
async def parent() -> str:
    await note("parent")
    return await one()  # type: ignore[no-any-return]


async def executing(app: Outlive, run_id: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not [info for info in (await app.runs(id_prefix=run_id)).items if info.id == run_id]:
            await asyncio.sleep(0.005)
        while not await (await app.get(run_id)).entries():
            await asyncio.sleep(0.005)


async def counted(app: Outlive) -> dict[str | None, int]:
    return {count.version: count.runs for count in await app.versions("plan")}


async def test_a_pinned_run_says_so(url: str) -> None:
    async with Outlive(url, include=[one, parent], worker=False) as app:
        assert (await (await app.start(one, id="pinned")).info()).pinned is True
        assert (await (await app.start(parent, id="free")).info()).pinned is False


async def test_two_versions_side_by_side_each_end_their_own(url: str) -> None:
    async with Outlive(url, include=[one]) as old, Outlive(url, include=[two]) as new:
        assert await (await old.start(one, id="old")).result(timeout=LIMIT_S) == "ended by 1"
        async with Outlive(url, worker=False, include=[one, note]) as client:
            first = await client.start(one, id="started by a client")
            second = await new.start(two, id="new")
            assert await first.result(timeout=LIMIT_S) == "ended by 1"
            assert await second.result(timeout=LIMIT_S) == "ended by 2"
    assert executed.count("begun by 1") == 2


async def test_a_run_waits_for_its_version(url: str) -> None:
    async with Outlive(url, include=[one]) as old:
        await old.start(one, id="run")
        await executing(old, "run")
    async with Outlive(url, include=[two]) as new:
        assert await (await new.start(two, 0, id="other")).result(timeout=LIMIT_S) == "ended by 2"
        (count,) = await new.versions("plan")
        assert count == VersionCount("plan", "1", True, False, {Status.SUSPENDED: 1})
        assert "ended by 1" not in executed
    async with Outlive(url, include=[one]) as again:
        (count,) = await again.versions()
        assert count.is_current
        assert await (await again.get("run")).result(timeout=LIMIT_S) == "ended by 1"
        assert await again.versions() == []
    assert executed.count("begun by 1") == 1


async def test_the_version_binds_the_run_whose_code_no_longer_pins(url: str) -> None:
    async with Outlive(url, include=[one]) as old:
        await old.start(one, id="run")
        await executing(old, "run")
    async with Outlive(url, include=[define("2", pin=False)]) as new:
        assert await counted(new) == {"1": 1}
    async with Outlive(url, include=[define("1", pin=False)]) as same:
        assert await (await same.get("run")).result(timeout=LIMIT_S) == "ended by 1"


async def test_a_run_started_by_name_counts_for_the_code_that_executes_it(url: str) -> None:
    code = define("1", pin=False)
    async with Outlive(url, worker=False, include=[]) as client:
        await client.start("plan", 3600, id="run")
        assert await counted(client) == {None: 1}
        async with Outlive(url, include=[code]) as app:
            await executing(app, "run")
            (count,) = await app.versions("plan")
            assert (count.version, count.is_current, count.pinned) == ("1", True, False)
        assert await counted(client) == {"1": 1}


async def test_a_run_started_by_name_is_pinned_by_whoever_executes_it_first(url: str) -> None:
    async with Outlive(url, worker=False, include=[]) as client:
        await client.start("plan", 0.3, id="run")
        assert (await client.versions())[0].version is None
    async with Outlive(url, include=[one]) as old:
        await executing(old, "run")
        assert await counted(old) == {"1": 1}
        assert (await (await old.get("run")).info()).version == "1"
    async with Outlive(url, include=[two]) as new:
        await (await new.start(two, 0, id="other")).result(timeout=LIMIT_S)
        assert await counted(new) == {"1": 1}
    async with Outlive(url, include=[one]) as again:
        assert await (await again.get("run")).result(timeout=LIMIT_S) == "ended by 1"
    assert executed.count("begun by 1") == 1


async def test_a_child_is_pinned_to_the_version_of_its_parents_code(url: str) -> None:
    async with Outlive(url, include=[parent, one]) as old:
        await old.start(parent, id="run")
        await executing(old, "run")
        await executing(old, "run/plan#1")
    async with Outlive(url, include=[parent, two]) as new:
        assert await counted(new) == {"1": 1}
        await (await new.start(two, 0, id="other")).result(timeout=LIMIT_S)
        assert not (await (await new.get("run")).status()).final
        async with Outlive(url, include=[one]) as beside:
            assert await (await beside.get("run")).result(timeout=LIMIT_S) == "ended by 1"


async def test_runs_that_are_not_pinned_go_on_with_pinned_code(url: str) -> None:
    """Pinning begins with the runs that start after it."""
    async with Outlive(url, include=[define("0", pin=False)]) as old:
        await old.start("plan", id="run")
        await executing(old, "run")
    async with Outlive(url, include=[two]) as new:
        assert await (await new.get("run")).result(timeout=LIMIT_S) == "ended by 2"
        assert (await (await new.get("run")).info()).version == "0"


@pytest.mark.parametrize("version", ["", 2, "a\nb", "x" * 201])
def test_a_wrong_version_is_refused_where_it_is_written(version: Any) -> None:
    with pytest.raises(UsageError, match="version=…"):
        workflow(version=version)
