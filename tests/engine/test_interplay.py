"""Where two parts meet: runs of queues that are retried, forked, rewound or go on as new; promises and deadlines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import AlreadySettled, DuplicateRun, Outlive, Status, step, workflow
from outlive.errors import DeadlineExceeded, PromiseNotFound

LIMIT_S = 20.0
executed: list[str] = []
failing: set[str] = set()
running: set[str] = set()
most_at_once: list[int] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    for facts in (executed, failing, running, most_at_once):
        facts.clear()


@step
async def work(name: str) -> str:
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    running.add(info.run_id)
    most_at_once.append(len(running))
    await asyncio.sleep(0.02)
    running.discard(info.run_id)
    executed.append(name)
    if name in failing:
        raise LookupError(name)
    return name


@workflow
async def job(name: str) -> str:
    await work(f"{name} begins")
    return await work(name)


@workflow
async def turns(name: str, left: int) -> str:
    await work(f"{name} {left}")
    if left:
        await outlive.continue_as_new(name, left - 1)
    return name


@workflow
async def asks(name: str) -> Any:
    await work(f"{name} asks")
    question = await outlive.promise()
    await outlive.publish("token", question.token)
    answer = await question
    return [answer, await work(name)]


async def fail(app: Outlive, name: str, **options: Any) -> Any:
    failing.add(name)
    run = await app.start(job, name, id=name, queue="q", **options)
    with pytest.raises(LookupError):
        await run.result(timeout=LIMIT_S)
    failing.clear()
    return run


async def test_retried_runs_stand_in_line_again(url: str) -> None:
    app = Outlive(url)
    app.queue("q", concurrency=1)
    async with app:
        runs = [await fail(app, f"r{number}") for number in range(3)]
        executed.clear()
        await asyncio.gather(*(run.retry() for run in runs))
        assert await asyncio.gather(*(run.result(timeout=LIMIT_S) for run in runs)) == ["r0", "r1", "r2"]
        assert sorted(executed) == ["r0", "r1", "r2"]
        assert max(most_at_once) == 1
        (queue,) = await app.queues()
        assert (queue.waiting, queue.running) == (0, 0)


async def test_a_fork_stands_in_the_line_of_its_origin(url: str) -> None:
    app = Outlive(url)
    app.queue("q", concurrency=1)
    async with app:
        run = await app.start(job, "origin", id="origin", queue="q")
        assert await run.result(timeout=LIMIT_S) == "origin"
        executed.clear()
        await app.pause_queue("q")
        fork = await run.fork("work#2", {"work#1": "patched"})
        assert await fork.status() == Status.QUEUED
        await app.resume_queue("q")
        assert await fork.result(timeout=LIMIT_S) == "origin"
        assert executed == ["origin"]


async def test_who_goes_on_as_new_keeps_its_slot_and_counts_once(url: str) -> None:
    app = Outlive(url)
    app.queue("q", concurrency=1, rate=(2, 3600))
    async with app:
        first = await app.start(turns, "first", 4, queue="q")
        second = await app.start(turns, "second", 4, queue="q")
        third = await app.start(turns, "third", 0, queue="q")
        assert await first.result(timeout=LIMIT_S) == "first"
        assert await second.result(timeout=LIMIT_S) == "second"
        assert executed == [f"{name} {left}" for name in ("first", "second") for left in (4, 3, 2, 1, 0)]
        assert await third.status() == Status.QUEUED


async def test_a_retry_leaves_the_place_to_the_run_that_has_taken_it(url: str) -> None:
    async with Outlive(url) as app:
        run = await fail(app, "old", dedupe="order 7")
        await app.pause_queue("q")
        new = await app.start(job, "new", id="new", queue="q", dedupe="order 7")
        await run.retry()
        with pytest.raises(DuplicateRun, match="new"):
            await app.start(job, "late", id="late", queue="q", dedupe="order 7")
        await app.resume_queue("q")
        assert await new.result(timeout=LIMIT_S) == "new"
        assert await run.result(timeout=LIMIT_S) == "old"
        assert (await app.start(job, "late", id="late", queue="q", dedupe="order 7")).created


async def test_a_retry_takes_its_place_again_if_it_is_free(url: str) -> None:
    async with Outlive(url) as app:
        run = await fail(app, "old", dedupe="order 7")
        await app.pause_queue("q")
        await run.retry()
        with pytest.raises(DuplicateRun, match="old"):
            await app.start(job, "late", id="late", queue="q", dedupe="order 7")
        await app.resume_queue("q")
        assert await run.result(timeout=LIMIT_S) == "old"


async def test_a_rewind_makes_a_new_promise_of_the_same_place(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks, "r", id="r", queue="q")
        old = await run.value("token", wait=LIMIT_S)
        await app.settle(old, "first")
        assert await run.result(timeout=LIMIT_S) == ["first", "r"]
        await run.rewind("promise#1")
        async with asyncio.timeout(LIMIT_S):
            while (new := await run.value("token")) == old:
                await asyncio.sleep(0.01)
        with pytest.raises((PromiseNotFound, AlreadySettled)):
            await app.settle(old, "again")
        await app.settle(new, "second")
        assert await run.result(timeout=LIMIT_S) == ["second", "r"]


async def test_a_retry_keeps_the_answer_that_was_given(url: str) -> None:
    failing.add("r")
    async with Outlive(url) as app:
        run = await app.start(asks, "r", id="r")
        await app.settle(await run.value("token", wait=LIMIT_S), "yes")
        with pytest.raises(LookupError):
            await run.result(timeout=LIMIT_S)
        failing.clear()
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["yes", "r"]
        assert executed == ["r asks", "r", "r"]


async def test_a_deadline_that_passes_in_line_frees_the_place(url: str) -> None:
    async with Outlive(url) as app:
        await app.pause_queue("q")
        late = await app.start(job, "late", id="late", queue="q", dedupe="one", deadline=0.2)
        with pytest.raises(DeadlineExceeded):
            await late.result(timeout=LIMIT_S)
        await app.start(job, "next", id="next", queue="q", dedupe="one")
        assert executed == []
        await app.resume_queue("q")
        assert await (await app.get("next")).result(timeout=LIMIT_S) == "next"
        assert executed == ["next begins", "next"]
