"""Runs that have not begun are moved to another time: what waits, what is past it, and what is no time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import DeadlineExceeded, Debounce, Outlive, RunNotFound, Status, UsageError, sync, workflow

HOUR_S = 3_600
LIMIT_S = 10.0
order: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_runs() -> None:
    order.clear()


@workflow
async def moved_job(name: str) -> str:
    order.append(name)
    return name


@workflow
async def moved_rest(name: str) -> None:
    order.append(name)
    await outlive.sleep(HOUR_S)


@pytest.mark.parametrize("queue", [None, "q"])
async def test_later_and_then_at_once_on_another_worker(url: str, queue: str | None) -> None:
    async with Outlive(url, include=[moved_job]), Outlive(url, worker=False) as client:
        run = await client.start("moved_job", "a", queue=queue, delay=HOUR_S)
        before = await run.info()
        assert await run.reschedule(timedelta(hours=2))
        after = await run.info()
        assert after.status == Status.SCHEDULED and before.starts_at is not None and after.starts_at is not None
        assert timedelta(minutes=59) < after.starts_at - before.starts_at < timedelta(minutes=61)
        assert [info.starts_at async for info in client.runs("status:scheduled")] == [after.starts_at]
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
        assert await run.reschedule(at=at)
        assert (await run.info()).starts_at == at
        assert await run.reschedule(0)
        assert await run.result(timeout=LIMIT_S) == "a"  # its worker hears of it: nobody waits for an hour
        info = await run.info()
        assert info.starts_at is None
        assert await run.reschedule(HOUR_S) is False
        assert await run.info() == info


async def test_back_out_of_the_line(url: str) -> None:
    async with Outlive(url, include=[moved_job]) as app:
        await app.pause_queue("q")
        late = await app.start(moved_job, "late", queue="q")
        await app.start(moved_job, "soon", queue="q")
        first = await app.start(moved_job, "first", queue="q", priority=7)
        assert await late.reschedule(HOUR_S)
        assert await first.reschedule(priority=-3)
        assert (await first.info()).priority == -3
        (queue,) = await app.queues()
        assert (queue.delayed, queue.waiting) == (1, 2)
        await app.resume_queue("q")
        await app.drain_queue("q", timeout=LIMIT_S)
        assert order == ["first", "soon"]
        assert await late.status() == Status.SCHEDULED
        assert await late.reschedule(delay=0, priority=1)
        assert await late.result(timeout=LIMIT_S) == "late"
        assert [(one.action, one.target, one.facts) for one in (await app.audit(late.id))] == [
            ("reschedule", late.id, {"delay_s": 0.0, "priority": 1}),
            ("reschedule", late.id, {"delay_s": 3600.0}),
        ]


async def test_a_debounced_run_starts_at_its_cap_at_the_latest(url: str) -> None:
    async with Outlive(url, include=[moved_job]) as app:
        run = await app.start(moved_job, "a", key="k", debounce=Debounce(wait=60, cap=120))
        assert await run.reschedule(HOUR_S)
        info = await run.info()
        assert info.starts_at is not None
        assert timedelta(seconds=119) < info.starts_at - info.created_at < timedelta(seconds=121)
        assert not (await app.start(moved_job, "b", key="k", debounce=Debounce(wait=60, cap=120))).created
        assert await run.reschedule(0)
        assert await run.result(timeout=LIMIT_S) == "b"


async def test_who_replaces_another_waits_for_its_end(url: str) -> None:
    begun = asyncio.Event()
    release = asyncio.Event()

    @workflow(name="moved_slow")
    async def slow(name: str) -> str:
        order.append(name)
        begun.set()
        if name == "old":
            try:
                await outlive.sleep(HOUR_S)
            finally:
                async with outlive.shielded():
                    await holds_on()
                order.append("old has gone")
        return name

    @outlive.step(name="moved_holds_on")
    async def holds_on() -> None:
        await release.wait()

    async with Outlive(url, include=[slow, holds_on]) as app:
        await app.start(slow, "old", key="k", singleton="replace")
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        new = await app.start(slow, "new", key="k", singleton="replace", delay=HOUR_S)
        assert await new.reschedule(0)
        store = app._engine().store
        found = await store.claim_line(app._engine().fence(), ["moved_slow"], None, 5, "")
        assert found.claimed == [] and order == ["old"]
        release.set()
        assert await new.result(timeout=LIMIT_S) == "new"
        assert order == ["old", "old has gone", "new"]


@pytest.mark.parametrize("queue", [None, "q"])
async def test_a_deadline_stays(url: str, queue: str | None) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("moved_job", "a", queue=queue, delay=HOUR_S, deadline=0.3)
        assert await run.reschedule(2 * HOUR_S)
    async with Outlive(url, include=[moved_job]) as app:
        run = await app.get(run.id)
        with pytest.raises(DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert order == []


async def test_who_is_past_it_and_who_never_was(url: str) -> None:
    async with Outlive(url, include=[moved_rest]) as app:
        run = await app.start(moved_rest, "a")
        while not order:
            await asyncio.sleep(0.01)
        assert await run.reschedule(HOUR_S, priority=4) is False
        assert (await run.info()).priority == 0
        unwanted = await app.start(moved_rest, "b", delay=HOUR_S)
        nobody = outlive.Run(app._engine, "nobody", 1, None, created=False)
        with pytest.raises(RunNotFound):
            await nobody.reschedule(1)
        assert await unwanted.reschedule(5, reason="not yet", by="ada")
        (entry,) = await app.audit(unwanted.id)
        assert (entry.by, entry.reason, entry.noun) == ("ada", "not yet", "run")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing to change"),
    ({"delay": -1}, "delay="),
    ({"delay": float("nan")}, "delay="),
    ({"delay": float("inf")}, "hundred years"),
    ({"delay": "1h"}, "delay="),
    ({"delay": True}, "delay="),
    ({"delay": timedelta(seconds=-1)}, "delay="),
    ({"delay": 101 * 365.25 * 86_400}, "hundred years"),
    ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
    ({"at": "2030-01-01T00:00:00Z"}, "time zone"),
    ({"at": datetime(9999, 1, 1, tzinfo=UTC)}, "hundred years"),
    ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "exclude"),
    ({"priority": 2**31}, "priority="),
    ({"priority": -(2**31)}, "priority="),
    ({"priority": 1.5}, "priority="),
    ({"priority": True}, "priority="),
    ({"delay": 1, "priority": "high"}, "priority="),
    ({"delay": 1, "reason": 5}, "reason="),
]


async def test_what_is_no_time_changes_nothing(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        run = await client.start("moved_job", "a", delay=HOUR_S)
        before = await run.info()
        for options, words in WRONG:
            with pytest.raises(UsageError, match=words):
                await run.reschedule(**options)
        assert await run.info() == before
        assert await client.audit() == []


def test_without_an_event_loop(url: str) -> None:
    with sync.Outlive(url, include=[moved_job]) as app:
        run = app.start(moved_job, "a", delay=HOUR_S)
        assert run.reschedule(at=datetime.now(UTC) - timedelta(days=1))
        assert run.result(timeout=LIMIT_S) == "a"
