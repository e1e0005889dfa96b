"""Stock asyncio on the loop of a run: it behaves as asyncio does, and replays in the same order.

Each shape is executed once with random step durations, then replayed from every
prefix of its journal with other durations (`check_replays`).
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import Retry, StepFailed, UsageError, step, workflow
from outlive.engine import runloop
from tests.support.solo import EPOCH, Solo, check_replays, pause

seen: list[Any] = []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test leaves a word in a log: no destroyed task, no exception that nobody retrieved."""
    seen.clear()
    caplog.set_level(logging.WARNING)
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name in LOGS] == []


LOGS = ("asyncio", "outlive.run")


def allow(caplog: pytest.LogCaptureFixture, part: str) -> None:
    """Take note of the one thing that this test is expected to log."""
    messages = [record.getMessage() for record in caplog.records if record.name in LOGS]
    assert messages, f"nothing was logged of {part!r}"
    assert all(part in message for message in messages), messages
    caplog.clear()


@step
async def fetch(name: str) -> str:
    await pause()
    return name


@step
async def note(what: list[str]) -> str:
    await pause()
    return "+".join(what)


@step
async def fail(name: str) -> str:
    await pause()
    raise LookupError(name)


@step
def plain(name: str) -> str:
    return name.upper()


# -- shapes whose path depends on the order of delivery -------------------------
@workflow
async def gathers() -> str:
    order: list[str] = []

    async def branch(name: str) -> None:
        order.append(await fetch(name))

    await asyncio.gather(*(branch(name) for name in "abcd"))
    return await note(order)


@workflow
async def groups() -> str:
    order: list[str] = []

    async def branch(name: str) -> None:
        order.append(await fetch(name))
        order.append(await fetch(name * 2))

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(branch(name))
    return await note(order)


@workflow
async def group_that_fails() -> str:
    async def branch(name: str) -> None:
        await fetch(name)
        await fail(name)
        await fetch("never")

    try:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(branch(name))
    except* LookupError as errors:
        return await note([str(error) for error in errors.exceptions])
    return "none"


@workflow
async def queues() -> str:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
    taken: list[str] = []

    async def produce(name: str) -> None:
        for number in range(2):
            await queue.put(await fetch(f"{name}{number}"))

    async def consume() -> None:
        while (item := await queue.get()) is not None:
            taken.append(await fetch(f"got-{item}"))

    consumer = asyncio.create_task(consume())
    await asyncio.gather(*(produce(name) for name in "ab"))
    await queue.put(None)
    await consumer
    return await note(taken)


@workflow
async def priority_queues() -> str:
    queue: asyncio.PriorityQueue[str] = asyncio.PriorityQueue()

    async def produce(name: str) -> None:
        await queue.put(await fetch(name))

    async with asyncio.TaskGroup() as group:
        for name in "zyx":
            group.create_task(produce(name))
        first = await queue.get()
    return await note([first, await queue.get(), await queue.get()])


@workflow
async def events() -> str:
    ready, order = asyncio.Event(), []

    async def wait(name: str) -> None:
        await ready.wait()
        order.append(await fetch(name))

    async def set_it() -> None:
        await fetch("first")
        ready.set()

    await asyncio.gather(wait("a"), wait("b"), set_it())
    return await note(order)


@workflow
async def locks() -> str:
    lock, order = asyncio.Lock(), []

    async def branch(name: str) -> None:
        await fetch(name)
        async with lock:
            order.append(name)
            await fetch(f"{name}-alone")
            assert order[-1] == name

    await asyncio.gather(*(branch(name) for name in "abc"))
    return await note(order)


@workflow
async def semaphores() -> str:
    places, order = asyncio.Semaphore(2), []

    async def branch(name: str) -> None:
        async with places:
            order.append(await fetch(name))

    await asyncio.gather(*(branch(name) for name in "abcde"))
    return await note(order)


@workflow
async def conditions() -> str:
    condition, items, order = asyncio.Condition(), [], []

    async def consume(name: str) -> None:
        async with condition:
            await condition.wait_for(lambda: bool(items))
            order.append(name + items.pop(0))
        await fetch(name)

    async def produce(name: str) -> None:
        item = await fetch(name)
        async with condition:
            items.append(item)
            condition.notify()

    await asyncio.gather(consume("c1"), consume("c2"), produce("p1"), produce("p2"))
    return await note(order)


@workflow
async def barriers() -> str:
    barrier, order = asyncio.Barrier(3), []

    async def branch(name: str) -> None:
        await fetch(name)
        order.append(f"{name}{await barrier.wait()}")

    await asyncio.gather(*(branch(name) for name in "abc"))
    return await note(order)


@workflow
async def as_completed_over_tasks() -> str:
    tasks = [asyncio.create_task(fetch(name)) for name in "abcdef"]
    return await note([await each for each in asyncio.as_completed(tasks)])


@workflow
async def as_completed_over_ended_tasks() -> str:
    tasks = [asyncio.create_task(fetch(name)) for name in "abcdefgh"]
    await asyncio.gather(*tasks)
    return await note([await each for each in asyncio.as_completed(tasks)])


@workflow
async def as_completed_in_time() -> str:
    tasks = [asyncio.create_task(fetch(name)) for name in "abcd"]
    got = []
    try:
        for each in asyncio.as_completed(tasks, timeout=0.5):
            got.append(await each)
    except TimeoutError:
        got.append("late")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return await note(got)


@workflow
async def waits_for_the_first() -> str:
    tasks = {asyncio.create_task(fetch(name)) for name in "abcdef"}
    order: list[str] = []
    while tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            order.append(await fetch(f"{task.result()}{len(tasks)}"))
    return await note(order)


@workflow
async def iterates_over_sets() -> str:
    done, _ = await asyncio.wait([asyncio.create_task(fetch(name)) for name in "abcdefgh"])
    first = [task.result() for task in done]
    gathered, _ = await asyncio.wait([asyncio.gather(fetch(name)) for name in "abcdefgh"])
    second = [task.result()[0] for task in gathered]
    futures = {asyncio.get_running_loop().create_future() for _ in range(8)}
    for number, future in enumerate(futures):
        future.set_result(number)
    third = [str(future.result()) for future in {*futures}]
    return await note(first + second + third)


@workflow
async def waits_until_an_error() -> str:
    tasks = [asyncio.create_task(fetch("a")), asyncio.create_task(fail("b")), asyncio.create_task(fetch("c"))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return await note([type(end).__name__ for end in ends] + [str(len(done))])


@workflow
async def timeouts() -> str:
    got = []
    for name in "abcd":
        try:
            async with asyncio.timeout(0.5):
                got.append(await fetch(name))
                got.append(await fetch(name * 2))
        except TimeoutError:
            got.append(await fetch(f"{name}-late"))
    return await note(got)


@workflow
async def timeouts_at() -> str:
    loop = asyncio.get_running_loop()
    got = []
    try:
        async with asyncio.timeout_at(loop.time() + 0.7) as limit:
            got.append(await fetch("a"))
            limit.reschedule(loop.time() + 0.4)
            got.append(await fetch("b"))
            limit.reschedule(None)
            got.append(await fetch("c"))
    except TimeoutError:
        got.append("late")
    return await note(got)


@workflow
async def nested_timeouts() -> str:
    got = []
    try:
        async with asyncio.timeout(0.8):
            for name in "abc":
                try:
                    async with asyncio.timeout(0.4):
                        got.append(await fetch(name))
                except TimeoutError:
                    got.append("inner")
    except TimeoutError:
        got.append("outer")
    return await note(got)


@workflow
async def waits_for() -> str:
    async def two(name: str) -> str:
        return await fetch(name) + await fetch(name * 2)

    got = []
    for name in "abc":
        try:
            got.append(await asyncio.wait_for(two(name), 0.6))
        except TimeoutError:
            got.append(await fetch(f"{name}-late"))
    got.append(await asyncio.wait_for(fetch("d"), None))
    try:
        await asyncio.wait_for(fetch("e"), 0)
    except TimeoutError:
        got.append("at once")
    got.append(await asyncio.create_task(fetch("f")))
    return await note(got)


@workflow
async def sleeps() -> str:
    order: list[str] = []

    async def branch(delay: float) -> None:
        await asyncio.sleep(delay)
        order.append(str(delay))
        await fetch(str(delay))

    async def until(at: datetime) -> None:
        await outlive.sleep_until(at)
        order.append("until")

    now = outlive.now()
    await asyncio.gather(*(branch(delay) for delay in (0.3, 0.1, 0.2, 0.1)), until(now + timedelta(seconds=0.15)))
    order.append(await asyncio.sleep(0.05, "value"))
    return await note(order)


@workflow
async def yields() -> str:
    order: list[str] = []

    async def branch(name: str) -> None:
        for number in range(3):
            order.append(f"{name}{number}")
            await asyncio.sleep(0)

    await asyncio.gather(branch("a"), branch("b"), outlive.sleep(0))
    return await note(order)


@workflow
async def tasks_awaited_later() -> str:
    early = asyncio.create_task(fetch("early"), name="early")
    order = [await fetch("main")]
    order.append("ended" if early.done() else "running")
    order.append(await early)
    return await note(order)


@workflow
async def shields() -> str:
    task = asyncio.create_task(fetch("kept"))
    got = []
    try:
        async with asyncio.timeout(0.3):
            got.append(await asyncio.shield(task))
    except TimeoutError:
        got.append("late")
        got.append(await task)
    return await note(got)


@workflow
async def threads() -> str:
    return await note(list(await asyncio.gather(*(asyncio.to_thread(plain, name) for name in "abc"))))


@workflow
async def async_generators() -> str:
    async def numbers(name: str) -> AsyncIterator[str]:
        for number in range(3):
            yield await fetch(f"{name}{number}")

    async def pairs() -> AsyncIterator[str]:
        async with aclosing(numbers("x")) as some, aclosing(numbers("y")) as others:
            async for one in some:
                yield one + await anext(others)

    order: list[str] = []

    async def consume() -> None:
        async with aclosing(pairs()) as both:
            async for pair in both:
                order.append(pair)
                if len(order) > 3:
                    break

    await asyncio.gather(consume(), consume())
    return await note(order)


@workflow
async def races() -> str:
    index, value = await outlive.race(fetch("a"), fetch("b"), outlive.sleep(0.5))
    results = await outlive.gather(fetch("c"), fail("d"), return_exceptions=True)
    mapped = await outlive.map(fetch, ["e", "f", "g"], limit=2)
    async with outlive.group() as group:
        task = group.create_task(fetch("h"))
    return await note([str(index), str(value), type(results[1]).__name__, *mapped, task.result()])


@workflow
async def gather_that_fails() -> str:
    try:
        await outlive.gather(fetch("a"), fail("b"), fetch("c"))
    except LookupError as error:
        return await note([str(error)])
    return "none"


@workflow
async def chance() -> str:
    drawn = []

    async def branch(name: str) -> None:
        await fetch(name)
        drawn.append(f"{outlive.random():.9f} {outlive.uuid()} {outlive.now().isoformat()}")

    await asyncio.gather(*(branch(name) for name in "abc"))
    return await note(drawn)


@workflow
async def times() -> str:
    loop = asyncio.get_running_loop()
    read = []
    for name in "abc":
        await fetch(name)
        read.append(repr(loop.time()))
        await note(read)
    await asyncio.sleep(0.123456789)
    return await note([repr(loop.time())])


SHAPES = [
    gathers, groups, group_that_fails, queues, priority_queues, events, locks, semaphores, conditions, barriers,
    as_completed_over_tasks, as_completed_over_ended_tasks, as_completed_in_time, waits_for_the_first,
    iterates_over_sets, waits_until_an_error, timeouts, timeouts_at, nested_timeouts, waits_for, sleeps, yields,
    tasks_awaited_later, shields, threads, async_generators, races, gather_that_fails, chance, times,
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.spec.name)
def test_every_prefix_replays(solo: Solo, shape: Any) -> None:
    ends = {str(check_replays(solo, shape, seed=seed).outcome) for seed in range(12)}
    if shape in (gathers, queues, locks, as_completed_over_tasks, waits_for_the_first, timeouts, races):
        assert len(ends) > 1, "the durations changed nothing, so this test shows nothing"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.spec.name)
def test_leaving_memory_changes_nothing(solo: Solo, shape: Any) -> None:
    for seed in range(5):
        stayed = solo.play(shape, step_delay=slow(seed))
        left = solo.play(shape, step_delay=slow(seed), suspending=True)
        assert left.status == stayed.status
        assert left.keys == stayed.keys
        if shape is not times:
            assert left.value == stayed.value or shape is chance
        assert sorted(left.executed) == sorted(stayed.executed)


def slow(seed: int) -> Any:
    from tests.support.solo import delays

    return delays(seed)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.spec.name)
def test_death_at_any_moment_continues(solo: Solo, shape: Any) -> None:
    """Dead after each of its first writes, then again: recorded steps never execute again."""
    for after in range(1, 12):
        dead = solo.play(shape, step_delay=slow(after), die_after_entries=after)
        settled = {entry.key for entry in dead.settled}
        assert len(set(dead.executed)) == len(dead.executed)
        again = solo.play(shape, entries=dead.entries, step_delay=slow(after + 100))
        assert again.status in ("succeeded", "failed")
        assert again.settled[: len(dead.settled)] == dead.settled
        assert not settled & set(again.executed)
        if dead.status != "died":
            assert again.executed == []
            break


# -- it behaves as asyncio does ---------------------------------------------------
def test_outcomes_are_delivered_as_they_come(solo: Solo) -> None:
    played = solo.play(gathers, step_delay={"1/fetch#1": 4, "2/fetch#1": 2, "3/fetch#1": 3, "4/fetch#1": 1}.get_or_zero)
    assert played.value == "d+b+c+a"
