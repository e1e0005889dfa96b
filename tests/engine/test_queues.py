"""Queues through the public API: limits, order, waiting and what ends it, live change, which queues a worker serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import outlive
from outlive import DeadlineExceeded, Outlive, RunCancelled, Status, UsageError, step, workflow

running: set[str] = set()
most = 0
order: list[str] = []
gate: asyncio.Event


@pytest.fixture(autouse=True)
def _nothing_runs() -> None:
    global most
    running.clear()
    order.clear()
    most = 0


@step
async def work(name: str) -> str:
    global most
    running.add(name)
    order.append(name)
    most = max(most, len(running))
    await asyncio.sleep(0.01)
    running.discard(name)
    return name


@step
async def wait_at_gate(name: str) -> str:
    order.append(name)
    await gate.wait()
    return name


@workflow
async def queued_job(name: str) -> str:
    return await work(name)


@workflow
async def queued_gate(name: str) -> str:
    return await wait_at_gate(name)


@workflow
async def queued_rest(name: str) -> str:
    order.append(name)
    await outlive.sleep(60)
    return name


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.01)


async def stands(app: Outlive, name: str) -> tuple[int, int, int]:
    (info,) = [info for info in await app.queues() if info.name == name]
    return info.delayed, info.waiting, info.running


async def test_a_queue_runs_no_more_at_a_time_than_it_may(url: str) -> None:
    app = Outlive(url, include=[queued_job])
    app.queue("q", concurrency=3, per_key=2)
    async with app:
        runs = [await app.start(queued_job, f"{n}", queue="q", key=f"{n % 2}") for n in range(12)]
        assert [await run.result(timeout=20) for run in runs] == [f"{n}" for n in range(12)]
        assert 2 <= most <= 3
        assert (await runs[0].info()).queue == "q"


async def test_two_workers_share_the_limits(url: str) -> None:
    apps = [Outlive(url, include=[queued_job], name=name) for name in ("one", "other")]
    for app in apps:
        app.queue("q", concurrency=2)
    async with apps[0], apps[1]:
        runs = [await apps[n % 2].start(queued_job, f"{n}", queue="q") for n in range(20)]
        await asyncio.gather(*(run.result(timeout=20) for run in runs))
        assert most <= 2


async def test_in_the_order_of_priorities_and_by_turns_of_keys(url: str) -> None:
    async with Outlive(url, worker=False) as client:
        for name, key, priority in (("a1", "a", 0), ("a2", "a", 0), ("b1", "b", 0), ("low", "b", 9), ("top", "a", -1)):
            await client.start("queued_job", name, queue="q", key=key, priority=priority)
    app = Outlive(url, include=[queued_job])
    app.queue("q", concurrency=1)
    async with app:
        await app.drain_queue("q", timeout=20)
    assert order == ["top", "b1", "a1", "a2", "low"]  # a has had its turn with top


async def test_a_suspended_run_keeps_its_slot(url: str) -> None:
    app = Outlive(url, include=[queued_rest, queued_job])
    app.queue("q", concurrency=1)
    async with app:
        first = await app.start(queued_rest, "first", queue="q")
        second = await app.start(queued_job, "second", queue="q")
        roster = app._engine().roster
        await until(lambda: _rests(roster, first._row))
        roster.suspend(roster.executions[first._row])
        await until(lambda: _is(first, Status.SUSPENDED))
        assert await stands(app, "q") == (0, 1, 1)
        await first.cancel()
        assert await second.result(timeout=10) == "second"


async def _rests(roster: Any, row: int) -> bool:
    return row in roster.executions and roster.executions[row] in roster.idle


async def _is(run: outlive.Run, status: Status) -> bool:
    return await run.status() == status


async def test_a_rate_spreads_the_starts(url: str) -> None:
    app = Outlive(url, include=[queued_job])
    app.queue("q", rate=(2, 0.4))
    async with app:
        runs = [await app.start(queued_job, f"{n}", queue="q") for n in range(5)]
        await asyncio.gather(*(run.result(timeout=20) for run in runs))
        infos = [await run.info() for run in runs]
        times = sorted(info.started_at.timestamp() for info in infos if info.started_at is not None)
        assert all(later - before >= 0.4 for before, later in zip(times, times[2:], strict=False)), times


async def test_a_delayed_run_is_scheduled_and_starts(url: str) -> None:
    async with Outlive(url, include=[queued_job]) as app:
        run = await app.start(queued_job, "later", queue="q", delay=0.2)
        assert await run.status() == Status.SCHEDULED
        assert await run.result(timeout=10) == "later"
        info = await run.info()
        assert info.started_at is not None and (info.started_at - info.created_at).total_seconds() >= 0.2


async def test_a_waiting_run_that_is_cancelled_never_begins(url: str) -> None:
    async with Outlive(url, include=[queued_job]) as app:
        await app.pause_queue("q")
        run = await app.start(queued_job, "never", queue="q")
        late = await app.start(queued_job, "never", queue="q", delay=1000)
        assert await run.status() == Status.QUEUED
        for waiting in (run, late):
            assert await waiting.cancel("no need")
            with pytest.raises(RunCancelled, match="no need"):
                await waiting.result(timeout=10)
            assert await waiting.entries() == []
        await app.resume_queue("q")
        assert await stands(app, "q") == (0, 0, 0)
    assert order == []


async def test_a_waiting_run_that_is_paused_goes_back_in_line(url: str) -> None:
    async with Outlive(url, include=[queued_job]) as app:
        await app.pause_queue("q")
        run = await app.start(queued_job, "held", queue="q")
        await run.pause("wait")
        await until(lambda: _is(run, Status.PAUSED))
        await app.resume_queue("q")
        assert await (await app.start(queued_job, "other", queue="q")).result(timeout=10) == "other"
        await app.pause_queue("q")
        await run.resume()
        assert await run.status() == Status.QUEUED
        await app.resume_queue("q")
        assert await run.result(timeout=10) == "held"


async def test_a_run_whose_deadline_passes_in_line_fails_unbegun(url: str) -> None:
    async with Outlive(url, include=[queued_job]) as app:
        await app.pause_queue("q")
        run = await app.start(queued_job, "late", queue="q", deadline=0.1)
        assert await run.status() == Status.QUEUED
        with pytest.raises(DeadlineExceeded):
            await run.result(timeout=10)
        assert await stands(app, "q") == (0, 0, 0)
    assert order == []


async def test_limits_change_while_runs_wait(url: str) -> None:
    global gate
    gate = asyncio.Event()
    app = Outlive(url, include=[queued_gate])
    app.queue("q", concurrency=1, per_key=5)
    async with app:
        runs = [await app.start(queued_gate, f"{n}", queue="q") for n in range(5)]
        await until(lambda: _has_begun(1))
        assert await stands(app, "q") == (0, 4, 1)
        await app.put_queue("q", concurrency=3)
        await until(lambda: _has_begun(3))
        await app.put_queue("q", concurrency=None)
        await until(lambda: _has_begun(5))
        (info,) = await app.queues()
        assert (info.concurrency, info.per_key, info.is_changed) == (None, 5, True)
        gate.set()
        await asyncio.gather(*(run.result(timeout=10) for run in runs))
    again = Outlive(url, include=[queued_gate])
    again.queue("q", concurrency=2)
    async with again:
        assert [(info.concurrency, info.per_key) for info in await again.queues()] == [(None, None)]
        await again.reset_queue("q")
        assert [(info.concurrency, info.is_changed) for info in await again.queues()] == [(2, False)]


async def _has_begun(count: int) -> bool:
    return len(order) == count


async def test_a_worker_serves_its_queues_and_what_is_in_none(url: str) -> None:
    async with Outlive(url, include=[queued_job], queues=["mine"]) as app:
        other = await app.start(queued_job, "other", queue="yours")
        assert await (await app.start(queued_job, "mine", queue="mine")).result(timeout=10) == "mine"
        assert await (await app.start(queued_job, "plain", delay=0.01)).result(timeout=10) == "plain"
        assert await other.status() == Status.QUEUED
    async with Outlive(url, include=[queued_job]):
        assert await _ended(url, other.id) == "other"


async def _ended(url: str, run_id: str) -> str:
    async with Outlive(url, worker=False) as client:
        return str(await (await client.get(run_id)).result(timeout=10))


async def test_draining_waits_for_all_of_a_queue(url: str) -> None:
    global gate
    gate = asyncio.Event()
    app = Outlive(url, include=[queued_gate])
    app.queue("q", concurrency=1)
    async with app:
        for name in ("a", "b"):
            await app.start(queued_gate, name, queue="q")
        await until(lambda: _has_begun(1))
        with pytest.raises(TimeoutError, match=r"queue 'q' is not empty after 0.1 s: 1 running, 1 waiting"):
            await app.drain_queue("q", timeout=0.1)
        await until(lambda: _has_begun(1))
        await app.pause_queue("q")
        gate.set()
        await app.drain_queue("q", timeout=10)  # of a paused queue: what runs
        assert await stands(app, "q") == (0, 1, 0)
        await app.resume_queue("q")
        await app.drain_queue("q", timeout=10)
        assert await stands(app, "q") == (0, 0, 0)


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": 0}, {"concurrency": -1}, {"concurrency": 1.5}, {"concurrency": True}, {"per_worker": "3"},
        {"per_key": 2**31}, {"rate": 5}, {"rate": (0, 1)}, {"rate": (1, 0)}, {"rate": (1, -1)}, {"rate": (1, "s")},
        {"rate_per_key": (1, float("inf"))}, {"rate_per_key": (1, float("nan"))}, {"rate": (1, 2, 3)}, {"backlog": 0},
        {"on_full": "drop"}, {"on_full": None},
    ],
)  # fmt: skip
async def test_limits_that_are_none_are_refused(url: str, limits: dict[str, object]) -> None:
    app = Outlive(url, include=[queued_job])
    (name,) = limits
    with pytest.raises(UsageError, match=name):
        app.queue("q", **limits)  # type: ignore[arg-type]
    async with app:
        with pytest.raises(UsageError, match=name):
            await app.put_queue("q", **limits)  # type: ignore[arg-type]
        assert await app.queues() == []


async def test_no_limit_to_change(url: str) -> None:
    async with Outlive(url, include=[queued_job]) as app:
        with pytest.raises(UsageError, match="needs a limit to change: concurrency, per_worker"):
            await app.put_queue("q", reason="a slip")
        assert (await app.queues(), await app.audit()) == ([], [])


async def test_a_queue_is_declared_before_and_changed_after_entry(url: str) -> None:
    app = Outlive(url, include=[queued_job])
    with pytest.raises(UsageError, match="not open"):
        await app.put_queue("q", concurrency=1)
    with pytest.raises(UsageError, match="name of a queue"):
        app.queue("")
    with pytest.raises(UsageError, match="list of names"):
        Outlive(url, queues="q")
    async with app:
        with pytest.raises(UsageError, match="put_queue"):
            app.queue("q", concurrency=1)


@workflow
async def fans_out(count: int) -> list[str]:
    options = {"queue": "children", "parent_close": "abandon"}  # they are not to end with this run
    return [(await outlive.start(queued_job, f"{n}", id=f"child-{n}", **options)).id for n in range(count)]


async def test_children_wait_in_a_queue_and_are_never_refused(url: str) -> None:
    app = Outlive(url, include=[fans_out, queued_job])
    app.queue("children", concurrency=2, backlog=1)
    async with app:
        await app.pause_queue("children")
        run = await app.start(fans_out, 6)
        async with asyncio.timeout(10):
            while await stands(app, "children") != (0, 6, 0):
                await asyncio.sleep(0.01)
        await app.resume_queue("children")
        children = [await app.get(f"child-{n}") for n in range(6)]
        await run.result(timeout=10)
        await app.drain_queue("children", timeout=20)
        infos = [await child.info() for child in children]
        assert {(info.queue, info.status) for info in infos} == {("children", Status.SUCCEEDED)}
        assert most <= 2


async def test_a_run_started_in_a_transaction_waits_in_its_queue(url: str) -> None:
    @outlive.transaction
    async def book(tx: object) -> str:
        return (await app.start(queued_job, "in tx", queue="q", key="k", delay=0.1, tx=tx)).id

    @outlive.transaction
    async def overfill(tx: object) -> str:
        return (await app.start(queued_job, "never", queue="bounded", tx=tx)).id

    @workflow
    async def books() -> str:
        with pytest.raises(UsageError, match="bounded backlog"):
            await overfill()
        return await book()

    app = Outlive(url, include=[books, queued_job])
    app.queue("bounded", backlog=5)
    async with app:
        run_id = await app.run(books)
        assert await (await app.get(run_id)).result(timeout=10) == "in tx"
        assert order == ["in tx"]


async def test_operators_are_noted(url: str) -> None:
    async with Outlive(url, include=[queued_job], name="me") as app:
        await app.put_queue("q", concurrency=2)
        await app.pause_queue("q")
        await app.resume_queue("q")
        await app.reset_queue("q")
        noted = [(entry.action, entry.noun, entry.target, entry.by) for entry in await app.audit("q")]
        assert noted == [(action, "queue", "q", "me") for action in ("reset", "resume", "pause", "limit")]
