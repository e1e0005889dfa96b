"""Actions on all runs that a query means, through the public API, on both stores."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive import Outlive, Status, UsageError, bulk, workflow
from outlive.bulk import Bulk

broken = True


@workflow
async def held_up(number: int) -> int:
    await outlive.sleep(days=1)
    return number


@workflow
async def breaks_for_a_while(number: int) -> int:
    if broken:
        raise ValueError("not yet")
    return number


@workflow
async def has_broken_child(number: int) -> int:
    return await breaks_for_a_while(number) + 1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BULK_BATCH_RUNS", 3)
    monkeypatch.setattr("tests.engine.test_bulk.broken", True)


async def fill(app: Outlive) -> None:
    for number in range(10):
        await app.start(held_up, number, id=f"r{number}", attributes={"even": number % 2 == 0})


async def statuses(app: Outlive, query: str) -> set[str]:
    return {info.status async for info in app.runs(query)}


async def until(app: Outlive, query: str, *wanted: Status) -> None:
    while not await statuses(app, query) <= set(wanted):
        await asyncio.sleep(0.02)


async def test_cancel_what_a_query_means(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await fill(app)
        assert await app.cancel("even:true", dry_run=True) == 5
        assert await app.count("status:cancelled") == 0
        assert await app.cancel("even:true", reason="no longer wanted", by="ann") == 5
        await until(app, "even:true", Status.CANCELLED)
        assert await app.cancel("even:true") == 0
        assert await statuses(app, "even:false") <= {Status.RUNNING, Status.SUSPENDED}
        (note,) = await app.audit("r4")
        assert (note.by, note.reason, note.action) == ("ann", "no longer wanted", "cancel")
        assert await app.cancel("all") == 5
        await until(app, "all", Status.CANCELLED)


async def test_pause_and_resume(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await fill(app)
        assert await app.pause("id:r1,r2,r3,r4,nobody") == 4
        await until(app, "id:r1,r2,r3,r4", Status.PAUSED)
        assert await app.pause("all", dry_run=True) == 6
        assert await app.resume("all", dry_run=True) == 4
        assert await app.resume("even:false status:paused") == 2
        await until(app, "id:r1,r3", Status.RUNNING, Status.SUSPENDED)
        assert await statuses(app, "id:r2,r4") == {Status.PAUSED}


async def test_resume_withdraws_pauses_that_nobody_has_carried_out(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        for number in range(4):
            await client.start("held_up", number, id=f"r{number}")
        assert await client.pause("id:r1,r2,r3") == 3
        assert await client.resume("id:r0,r1", dry_run=True) == 1
        assert await client.resume("id:r2 status:paused") == 0, "it is not held yet"
        assert await client.resume("id:r0,r1") == 1
        assert await client.resume("workflow:held_up") == 2
        assert await client.resume("all") == 0


async def test_retry_takes_families_along(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Outlive(url, include=[breaks_for_a_while, has_broken_child]) as app:
        for number in range(4):
            run = await app.start(has_broken_child, number, id=f"r{number}")
            with pytest.raises(ValueError, match="not yet"):
                await run.result(timeout=20)
        assert await app.retry("all", dry_run=True) == 8  # with their children
        monkeypatch.setattr("tests.engine.test_bulk.broken", False)
        assert await app.retry("status:failed") == 4
        await until(app, "all", Status.SUCCEEDED)
        assert [await (await app.get(f"r{number}")).result() for number in range(4)] == [1, 2, 3, 4]


async def test_what_is_refused_changes_nothing(url: str) -> None:
    async with Outlive(url, include=[held_up]) as app:
        await fill(app)
        for act, query, message in (
            (app.cancel, "", '"all" means every run'),
            (app.cancel, "  ", '"all" means every run'),
            (app.pause, "stauts:queued", "did you mean status"),
            (app.cancel, "status:failed", "is for runs that are scheduled, queued, running.*leaves none"),
            (app.resume, "status:running", "is for runs that are paused, quarantined"),
            (app.retry, "status:running", "is for runs that are failed, cancelled"),
        ):
            with pytest.raises(UsageError, match=message):
                await act(query)
        with pytest.raises(UsageError, match="reason=… is text"):
            await app.cancel("all", reason=1)  # type: ignore[arg-type]
        assert await statuses(app, "all") <= {Status.RUNNING, Status.SUSPENDED}
    assert issubclass(Outlive, Bulk)
