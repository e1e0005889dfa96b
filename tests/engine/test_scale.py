"""Many runs at once: more than there are connections, threads or places in memory; and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
from types import FrameType
from typing import Any

import pytest

import outlive
from outlive import Outlive, Status, step, workflow
from tests.support.evidence import Evidence
from tests.support.size import pick

pytestmark = pytest.mark.timeout(pick(small=120, full=1800))

LIMIT_S = pick(small=100, full=1500)
RUNS = pick(small=1_000, full=10_000)


class Meeting:
    """A place where so many steps have to be at the same time before any goes on."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.present = 0
        self.complete = asyncio.Event()

    async def attend(self) -> None:
        self.present += 1
        if self.present == self.expected:
            self.complete.set()
        await self.complete.wait()


meeting: Meeting


@step
async def attend(number: int) -> int:
    await meeting.attend()
    return number


@step
async def add(number: int, more: int) -> int:
    return number + more


@workflow
async def attendant(number: int) -> int:
    return await add(await attend(number), 1)


def store_of(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgres"


async def start_many(app: Outlive, definition: Any, arguments: Any) -> list[outlive.Run]:
    return list(await asyncio.gather(*(app.start(definition, *args) for args in arguments)))


async def results(runs: list[outlive.Run]) -> list[Any]:
    async with asyncio.timeout(LIMIT_S):
        return list(await asyncio.gather(*(run.result() for run in runs)))


async def count(app: Outlive, **filters: Any) -> int:
    return len([info async for info in app.runs(limit=1000, **filters)])


async def test_all_runs_are_in_a_step_at_once_on_a_pool_of_five(url: str, evidence: Evidence) -> None:
    global meeting
    meeting = Meeting(RUNS)
    async with Outlive(url, pool_size=5, max_running=RUNS) as app:
        runs = await start_many(app, attendant, ((number,) for number in range(RUNS)))
        assert await results(runs) == [number + 1 for number in range(RUNS)]
        assert meeting.present == RUNS
        assert await count(app, status=Status.SUCCEEDED) == RUNS
    evidence("many runs at once", store_of(url), in_a_step_at_once=RUNS, connections=5)


async def test_no_more_than_max_running_are_active(url: str) -> None:
    active, most = 0, 0

    @step
    async def busy() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1

    @workflow
    async def one_busy_step() -> None:
        await busy()

    async with Outlive(url, max_running=7, include=[one_busy_step]) as app:
        runs = await start_many(app, one_busy_step, ((),) * 300)
        async with asyncio.timeout(30):  # each that leaves makes room at once: polling alone would take a minute
            await results(runs)
        assert 1 <= most <= 7


@workflow
def sync_child(number: int) -> int:
    return plain_add(number, 1)


@step
def plain_add(number: int, more: int) -> int:
    return number + more


@workflow
def sync_parent(number: int) -> int:
    return sync_child(number) + sync_child(number)


async def test_sync_parents_waiting_for_sync_children_do_not_deadlock(url: str, evidence: Evidence) -> None:
    parents = pick(small=300, full=1_000)
    async with Outlive(url) as app:
        runs = await start_many(app, sync_parent, ((number,) for number in range(parents)))
        assert await results(runs) == [2 * (number + 1) for number in range(parents)]
        assert await count(app, status=Status.SUCCEEDED) == 3 * parents
    evidence("many runs at once", store_of(url), sync_parents_waiting=parents, sync_children=2 * parents)


@workflow
def sync_tower(height: int) -> int:
    return 1 + sync_tower(height - 1) if height else 0


async def test_towers_of_sync_children_higher_than_the_threads(url: str) -> None:
    async with Outlive(url) as app:
        runs = await start_many(app, sync_tower, ((100,), (80,), (3,)))
        assert await results(runs) == [100, 80, 3]


@workflow
async def sleeper(number: int, delay_s: float) -> int:
    before = await add(number, 1)
    await outlive.sleep(delay_s)
    return await add(before, 1)


async def test_sleeping_runs_leave_memory_and_come_back(url: str, evidence: Evidence) -> None:
    sleepers, resident = pick(small=800, full=20_000), 50
    delay_s = 3.0
    async with Outlive(url, max_running=sleepers) as app:
        engine = app._engine()
        engine.roster.idle_limit = resident
        runs = await start_many(app, sleeper, ((number, delay_s) for number in range(sleepers)))
        async with asyncio.timeout(LIMIT_S):  # all asleep, or some are awake again already
            while not await count(app, status=Status.SUSPENDED):
                await asyncio.sleep(0.01)
        assert await results(runs) == [number + 2 for number in range(sleepers)]
        for run in (runs[0], runs[-1]):
            assert [(entry.key, entry.outcome) for entry in await run.entries()] == [
                ("add#1", "ok"),
                ("sleep#1", "ok"),
                ("add#2", "ok"),
            ]
    evidence("many runs at once", store_of(url), sleepers=sleepers, in_memory=resident)


async def test_long_sleepers_cost_rows_not_memory(url: str) -> None:
    sleepers = pick(small=500, full=20_000)
    async with Outlive(url) as app:
        engine = app._engine()
        runs = await start_many(app, sleeper, ((number, 100_000.0) for number in range(sleepers)))
        async with asyncio.timeout(LIMIT_S):
            while engine.roster.executions or await count(app, status=Status.SUSPENDED) < sleepers:
                await asyncio.sleep(0.1)
        assert await runs[0].cancel()  # one is woken, the others stay where they are
        with pytest.raises(outlive.RunCancelled):
            await runs[0].result(timeout=LIMIT_S)
        assert await count(app, status=Status.SUSPENDED) == sleepers - 1


@workflow
async def wide(branches: int) -> int:
    return sum(await asyncio.gather(*(add(number, 1) for number in range(branches))))


class LineCount:
    """How many lines of Python this thread executes: what a clock would say, without its noise."""

    def __init__(self) -> None:
        self.lines = 0

    def __enter__(self) -> LineCount:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        self.lines += event == "line"
        return self._trace


async def test_a_wide_gather_is_linear(url: str) -> None:
    narrow, broad = 250, 1_000
    async with Outlive(url) as app:
        await app.run(wide, 10)
        spent: dict[int, int] = {}
        for branches in (narrow, broad):
            with LineCount() as count_of:
                run = await app.start(wide, branches)
                assert await run.result(timeout=LIMIT_S) == sum(range(1, branches + 1))
            spent[branches] = count_of.lines
            entries = await run.entries()
            assert [entry.seq for entry in entries] == list(range(1, branches + 1))
        assert spent[broad] < 6 * spent[narrow], spent  # linear gives 4, quadratic 16


@workflow
async def wide_with_children(branches: int) -> int:
    return sum(await asyncio.gather(*(attendant_of_nothing(number) for number in range(branches))))


@workflow
async def attendant_of_nothing(number: int) -> int:
    return await add(number, 1)


async def test_one_parent_of_many_children(url: str) -> None:
    async with Outlive(url, max_running=10) as app:
        run = await app.start(wide_with_children, 500)
        assert await run.result(timeout=LIMIT_S) == sum(range(1, 501))
        assert await count(app, workflow="attendant_of_nothing", status=Status.SUCCEEDED) == 500


@workflow
async def mixed(number: int) -> int:
    first, second = await outlive.gather(add(number, 1), add(number, 2))
    await outlive.sleep(0)
    return int(first + second + await asyncio.to_thread(plain_add, 1, 1))


async def test_runs_leave_nothing_behind(url: str) -> None:
    per_half = pick(small=800, full=5_000)  # traced; tests/engine/test_endless.py executes the many

    async def some(app: Outlive, runs: int) -> None:
        for _ in range(0, runs, 100):
            await results(await start_many(app, mixed, ((number,) for number in range(100))))

    async with Outlive(url) as app:
        await some(app, 500)  # caches fill
        engine = app._engine()
        tracemalloc.start()
        try:
            sizes = []
            for _ in range(2):
                await some(app, per_half)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            assert not engine.roster.executions
            assert not any(engine.watcher._waits.values())
            assert not engine.roster._lost_waits
            assert not engine._loose or len(engine._loose) < 10
        finally:
            tracemalloc.stop()
        grown = sizes[1] - sizes[0]
        assert grown < 1_000 * per_half, f"{grown / per_half:.0f} bytes of each run stay behind"  # a run takes 20 kB


async def test_waits_that_are_given_up_leave_nothing_behind(url: str) -> None:
    """Whoever asks again and again whether a run has ended, as servers do, asks for as long as it lives."""

    @workflow
    async def waiter() -> str:
        return str(await outlive.receive("go"))

    async with Outlive(url, include=[waiter]) as app:
        run = await app.start(waiter)
        while (await run.status()) is not Status.RUNNING:
            await asyncio.sleep(0.01)
        for _ in range(20):
            with pytest.raises(outlive.RunTimedOut):
                await run.result(timeout=0.001)
        waits = app._engine().roster._lost_waits
        assert [len(one) for one in waits.values() if one] == []
        await run.send("go", "end")
        assert await run.result(timeout=20) == "end"
        assert not waits


async def test_an_app_leaves_nothing_behind(url: str) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    for _ in range(3):
        async with Outlive(url, grace=5) as app:
            engine = app._engine()
            runs = await start_many(app, mixed, ((number,) for number in range(50)))
            sleeping = await start_many(app, sleeper, ((number, 1_000.0) for number in range(50)))
            await start_many(app, sync_parent, ((number,) for number in range(20)))
            await results(runs)
        assert not engine.roster.executions
        assert asyncio.all_tasks() == tasks
        # threads of the loop itself are not ours to end: asyncio.run does
        left = [each for each in set(threading.enumerate()) - threads if not each.name.startswith("asyncio_")]
        for thread in left:
            thread.join(timeout=5)
        assert not [thread for thread in left if thread.is_alive()]
    async with Outlive(url, worker=False) as client:
        statuses = {await (await client.get(run.id)).status() for run in sleeping}
        assert statuses <= {Status.SUSPENDED, Status.QUEUED, Status.RUNNING}
        assert await count(client, status=Status.RUNNING) == 0  # nobody owns anything now
    async with Outlive(url) as app:  # whatever was left in the middle goes on
        async with asyncio.timeout(LIMIT_S):
            while await count(app, workflow="sync_parent", status=Status.SUCCEEDED) < 60:
                await asyncio.sleep(0.02)
