"""Stock asyncio on the loop of a run: it behaves as asyncio does, and replays in the same order.

Each shape is executed once with random step durations, then replayed from every
prefix of its journal with other durations (`check_replays`).
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import Retry, StepFailed, UsageError, step, workflow
from outlive.codec.payload import JsonCodec
from outlive.engine import runloop
from tests.support.solo import EPOCH, Solo, check_replays, delays, pause

seen: list[Any] = []


@pytest.fixture(autouse=True, scope="module")
def _only_our_garbage() -> Iterator[None]:
    """Let each test collect its own garbage, in a fraction of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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

    got = "none"
    try:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(branch(name))
    except* LookupError as errors:
        got = await note([str(error) for error in errors.exceptions])
    return got


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
        stayed = solo.play(shape, step_delay=delays(seed))
        left = solo.play(shape, step_delay=delays(seed), suspending=True)
        assert left.status == stayed.status
        if shape is not threads:  # real ones end in any order
            assert left.keys == stayed.keys
        if shape not in (times, chance):
            assert left.value == stayed.value
        assert sorted(left.executed) == sorted(stayed.executed)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.spec.name)
def test_death_at_any_moment_continues(solo: Solo, shape: Any) -> None:
    """Dead after each of its first writes, then again: recorded steps never execute again."""
    for after in range(1, 12):
        dead = solo.play(shape, step_delay=delays(after), die_after_entries=after)
        settled = {entry.key for entry in dead.settled}
        assert len(set(dead.executed)) == len(dead.executed)
        again = solo.play(shape, entries=dead.entries, step_delay=delays(after + 100))
        assert again.status in ("succeeded", "failed")
        assert again.settled[: len(dead.settled)] == dead.settled
        assert not settled & set(again.executed)
        if dead.status != "died":
            assert again.executed == []
            break


# -- it behaves as asyncio does -------------------------------------------------
def test_outcomes_are_delivered_as_they_come(solo: Solo) -> None:
    durations = {"1/fetch#1": 4.0, "2/fetch#1": 2.0, "3/fetch#1": 3.0, "4/fetch#1": 1.0}
    assert solo.play(gathers, step_delay=durations).value == "d+b+c+a"


def test_a_step_begins_when_all_before_it_is_on_disk(solo: Solo) -> None:
    on_disk: list[tuple[str, int]] = []
    begin = solo.bodies.begin

    def begin_and_look(call: Any, **options: Any) -> None:
        on_disk.append((call.key, len(solo.runs[1].entries)))
        begin(call, **options)

    solo.bodies.begin = begin_and_look  # type: ignore[method-assign]
    played = solo.play(timeouts, commit_delay=lambda: 0.01)
    assert played.status == "succeeded"
    assert [count for _, count in on_disk] == list(range(9))


def test_timers_are_due_from_the_last_outcome(solo: Solo) -> None:
    @workflow
    async def late() -> list[float]:
        loop = asyncio.get_running_loop()
        await fetch("a")
        at = loop.time()
        await asyncio.sleep(10)
        return [at, loop.time()]

    played = solo.play(late, step_delay=lambda _: 3.0)
    assert played.value == [EPOCH + 3, EPOCH + 13]
    # The process dies after 5 of the 10 seconds and comes back after 4 more: the timer is not set again.
    dead = solo.play(late, step_delay=lambda _: 3.0, die_at=8.0)
    assert dead.keys == ["fetch#1"]
    again = solo.play(late, entries=dead.entries, down_for=4.0)
    assert again.value == [EPOCH + 3, EPOCH + 13]


def test_time_stands_still_within_a_turn(solo: Solo) -> None:
    @workflow
    async def reads() -> bool:
        loop = asyncio.get_running_loop()
        first = loop.time()
        time.sleep(0.002)
        await asyncio.sleep(0)
        return first == loop.time()

    assert solo.play(reads).value is True


def test_timers_of_one_moment_fire_in_the_order_of_their_making(solo: Solo) -> None:
    @workflow
    async def many() -> list[int]:
        order: list[int] = []
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in range(40):
            handle = loop.call_later(1.0, order.append, number)
            if number % 3 == 0:
                handle.cancel()
        loop.call_later(1.0, done.set)
        await done.wait()
        return order

    assert solo.play(many).value == [number for number in range(40) if number % 3]


def test_callbacks_and_their_contexts(solo: Solo) -> None:
    where = contextvars.ContextVar("where", default="outside")

    @workflow
    async def calls() -> list[str]:
        loop, order = asyncio.get_running_loop(), []
        where.set("in the body")
        loop.call_soon(lambda: order.append(where.get()))
        context = contextvars.Context()
        loop.call_soon(lambda: order.append(where.get()), context=context)
        loop.call_later(1, lambda: order.append(f"later {where.get()}"))
        cancelled = loop.call_soon(order.append, "never")
        cancelled.cancel()
        assert cancelled.cancelled()
        await asyncio.sleep(2)
        return order

    assert solo.play(calls).value == ["in the body", "outside", "later in the body"]


def test_context_variables_stay_within_their_run(solo: Solo) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @step
    async def who() -> str:
        return tenant.get()

    @workflow
    async def sets() -> list[str]:
        before = tenant.get()
        tenant.set("me")

        async def branch() -> str:
            inner = tenant.get()
            tenant.set("branch")
            return inner

        return [before, await branch(), await asyncio.create_task(branch()), tenant.get(), await who()]

    for _ in range(2):
        assert solo.play(sets).value == ["nobody", "me", "branch", "branch", "nobody"]
    assert tenant.get() == "nobody"


def test_a_callback_that_fails_is_logged_and_harms_nobody(solo: Solo, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def calls() -> str:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        asyncio.get_running_loop().call_later(0.5, lambda: [].pop())
        await asyncio.sleep(1)
        return await fetch("fine")

    assert solo.play(calls).value == "fine"
    assert [type(record.exc_info[1]) for record in caplog.records] == [ZeroDivisionError, IndexError]  # type: ignore[index]
    caplog.clear()


def test_an_exception_that_nobody_retrieved_is_logged(solo: Solo, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def forgets() -> str:
        task = asyncio.create_task(fail("forgotten"))
        await asyncio.wait([task])
        return "fine"

    assert solo.play(forgets).value == "fine"
    solo.runs.clear()
    gc.collect()
    allow(caplog, "never retrieved")


@pytest.mark.parametrize("end", [SystemExit(3), GeneratorExit("odd"), BaseException("rare"), StopIteration("stop")])
def test_no_error_of_a_body_or_step_ends_the_process(solo: Solo, end: BaseException) -> None:
    @step
    async def ends() -> None:
        await pause()
        raise end

    @step
    def ends_in_a_thread() -> None:
        raise end

    @workflow
    async def in_a_step() -> list[str]:
        got = []
        for call in (ends, lambda: asyncio.to_thread(ends_in_a_thread)):
            try:
                await call()
            except BaseException as error:
                got.append(f"{type(error).__name__}: {error}")
        return got

    @workflow
    async def in_the_body() -> None:
        await fetch("a")
        raise end

    @workflow
    async def in_a_branch() -> None:
        async def branch() -> None:
            raise end

        await asyncio.gather(branch(), fetch("a"))

    @workflow
    def in_a_thread() -> None:
        plain("a")
        raise end

    assert len(check_replays(solo, in_a_step).value) == 2
    for body in (in_the_body, in_a_branch, in_a_thread):
        played = solo.play(body)
        assert played.status == "failed", body
        assert str(end) in str(played.error) or isinstance(end, StopIteration)  # which Python turns into another


def test_a_step_that_raises_cancelled_error_is_a_failed_step(solo: Solo) -> None:
    """CancelledError means a durable cancel request and nothing else."""

    @step(retry=Retry(attempts=2, first_delay=0.1))
    async def odd() -> None:
        raise asyncio.CancelledError("by itself")

    @workflow
    async def tries() -> str:
        try:
            await odd()
        except StepFailed as error:
            return error.text
        return "?"

    assert check_replays(solo, tries).value == "by itself"


@pytest.mark.parametrize("kind", ["sleep", "callback", "timeout"])
def test_a_loop_that_never_waits_is_stopped(solo: Solo, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runloop, "TURN_MAX_CALLBACKS", 1_000)

    @workflow
    async def spins() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        if kind == "callback":
            again()
        while kind == "sleep":
            await asyncio.sleep(0)
        while kind == "timeout":
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                continue
        await asyncio.get_running_loop().create_future()

    played = solo.play(spins)
    assert played.status == "paused"
    assert isinstance(played.error, UsageError)
    assert "durable call" in str(played.error)


def test_what_is_left_running_is_cancelled_recorded_and_named(solo: Solo, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def leaves() -> str:
        asyncio.create_task(fetch("one"), name="the first")
        asyncio.create_task(outlive.sleep(1_000), name="the second")
        return await fetch("done")

    durations = {"1/fetch#1": 100.0}
    played = solo.play(leaves, step_delay=durations)
    assert (played.status, played.value) == ("succeeded", "done")
    assert caplog.messages == [
        "run 'solo' returned while it had tasks running, which are cancelled: the first, the second"
    ]
    assert [(entry.key, entry.outcome) for entry in played.entries] == [("fetch#1", "ok"), ("1/fetch#1", "error")]
    assert played.took_s < 1
    for cut in range(3):
        again = solo.play(leaves, entries=played.prefix(cut), step_delay=durations)
        assert again.outcome == played.outcome
        assert again.keys == played.keys


def test_what_is_left_running_may_end_in_order(solo: Solo) -> None:
    @workflow
    async def leaves() -> str:
        async def cleans() -> None:
            try:
                await outlive.sleep(1_000)
            except asyncio.CancelledError:
                await fetch("cleaned")

        asyncio.create_task(cleans(), name="cleaner")
        return await fetch("done")

    assert check_replays(solo, leaves).keys == ["fetch#1", "1/fetch#1"]


def test_a_run_that_waits_for_nothing_is_seen_as_waiting(solo: Solo) -> None:
    @workflow
    async def stands() -> None:
        await asyncio.Event().wait()

    assert solo.play(stands).status == "waiting"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("getaddrinfo", "@step"), ("call_soon_threadsafe", "@step"), ("create_connection", "@step"),
        ("subprocess_exec", "@step"), ("add_signal_handler", "@step"), ("run_until_complete", "@step"),
        ("sock_recv", "@step"),
    ],
)  # fmt: skip
def test_the_outside_world_is_refused_by_name(solo: Solo, name: str, advice: str) -> None:
    @workflow
    async def reaches_out() -> None:
        getattr(asyncio.get_running_loop(), name)()

    with pytest.raises(UsageError, match=advice) as raised:
        solo.play(reaches_out).result()
    assert name in str(raised.value)


def test_tasks_are_made_by_the_loop(solo: Solo) -> None:
    @workflow
    async def makes() -> str:
        return await asyncio.Task(fetch("a"))  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="create_task"):
        solo.play(makes).result()


# -- cancellation -----------------------------------------------------------------
@step
async def stubborn() -> str:
    try:
        await pause()
    except asyncio.CancelledError:
        pass
    return "anyway"


def test_a_cancelled_step_that_returns_gives_its_value_then_cancels(solo: Solo) -> None:
    """The value is not lost, and neither is the cancellation: it comes at the next await."""

    @workflow
    async def compensates() -> str:
        got = "nothing"
        try:
            got = await stubborn()
            await fetch("next")
        except asyncio.CancelledError:
            await note(["undo", got])
            raise
        return got

    played = check_replays(solo, compensates, seed=4, cancel_at=[0.1], ends="cancelled, succeeded")
    assert played.status == "cancelled"
    assert played.executed == ["stubborn#1", "note#1"]
    assert [entry.key for entry in played.entries] == ["cancel#1", "stubborn#1", "fetch#1", "note#1"]


def test_the_value_that_a_cancellation_missed_ends_no_run_twice(solo: Solo) -> None:
    @workflow
    async def last() -> str:
        return await stubborn()

    @workflow
    async def in_time() -> str:
        async with asyncio.timeout(0.1):
            got = await stubborn()
        return got + await fetch("more")

    assert solo.play(last, step_delay=lambda _: 1.0, cancel_at=[0.1]).value == "anyway"
    assert solo.play(in_time, step_delay=lambda _: 1.0).value == "anywaymore"


def test_a_timeout_that_a_value_missed_ends_at_the_next_await(solo: Solo) -> None:
    @workflow
    async def limited() -> str:
        got = []
        try:
            async with asyncio.timeout(0.1):
                got.append(await stubborn())
                got.append(await fetch("more"))
        except TimeoutError:
            got.append("late")
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        return await note(got)

    played = check_replays(solo, limited, seed=4)
    assert played.value in ("anyway+late", "anyway+more")
    assert solo.play(limited, step_delay=lambda _: 1.0).value == "anyway+late"


def test_the_loser_of_a_race_goes_no_further(solo: Solo) -> None:
    @workflow
    async def races_on() -> int:
        async def loser() -> None:
            await stubborn()
            await fetch("never 1")
            await fetch("never 2")

        index, _ = await outlive.race(loser(), fetch("winner"))
        return index

    played = solo.play(races_on, step_delay={"1/stubborn#1": 5.0, "2/fetch#1": 1.0})
    assert played.value == 1
    assert played.executed == ["1/stubborn#1", "2/fetch#1"]


def test_cancel_in_plain_waits_and_in_sync_bodies(solo: Solo) -> None:
    @workflow
    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await fetch("undo")
            raise

    @workflow
    def sync_waits() -> None:
        try:
            outlive.sync.sleep(100)
        except asyncio.CancelledError:
            plain("undo")
            raise

    @step
    def slow_plain() -> str:
        return "value"

    for body in (waits, sync_waits):
        played = check_replays(solo, body, cancel_at=[1.0], ends="cancelled")
        assert played.status == "cancelled"
        assert str(played.error) == "request 1"
        assert len(played.executed) == 1
        assert played.handled == [1]


def test_a_sync_body_gets_the_value_then_the_cancellation(solo: Solo) -> None:
    @workflow(name="child")
    async def child() -> str:
        return await stubborn()

    @workflow
    def compensates() -> str:
        got = "nothing"
        try:
            got = committed()
            plain("next")
        except asyncio.CancelledError:
            plain(f"undo {got}")
            raise
        return got

    @outlive.transaction
    def committed(tx: Any) -> str:
        return "booked"

    # The request arrives while the transaction commits: it is past the point of cancellation.
    played = check_replays(solo, compensates, cancel_at=[0.5], commit_delay=lambda: 1.0, ends="cancelled, succeeded")
    assert played.status == "cancelled"
    assert [begun.args for begun in played.begun] == [(), ("undo booked",)]
    assert played.keys == ["committed#1", "cancel#1", "plain#1", "plain#2"]


def test_two_requests_cancel_twice(solo: Solo) -> None:
    @workflow
    async def insists() -> str:
        for _ in range(2):
            try:
                await outlive.sleep(100)
            except asyncio.CancelledError:
                await fetch("not yet")
        return "done"

    played = check_replays(solo, insists, cancel_at=[1.0, 2.0])
    assert played.value == "done"
    assert played.keys == ["cancel#1", "fetch#1", "cancel#2", "fetch#2"]


# -- leaving memory -----------------------------------------------------------------
async def cleanup() -> None:
    seen.append("a branch began")
    await fetch("cleanup")


async def generator() -> AsyncIterator[str]:
    try:
        yield await fetch("from generator")
    finally:
        await fetch("generator cleanup")
        seen.append("went on after a call")


@asynccontextmanager
async def managed() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await fetch("managed cleanup")
        seen.append("went on after a call")


variable = contextvars.ContextVar("variable", default="")


@step
async def work() -> str:
    await pause()
    return "worked"


async def _step() -> None:
    await fetch("cleanup")


async def _steps_gathered() -> None:
    await asyncio.gather(fetch("1"), fetch("2"))


async def _steps_made_first() -> None:
    calls = [fetch("1"), fetch("2"), fetch("3")]
    for call in calls:
        await call


async def _branches_gathered() -> None:
    await asyncio.gather(cleanup(), cleanup())


async def _ambient_gather() -> None:
    await outlive.gather(cleanup(), cleanup())


async def _ambient_race() -> None:
    await outlive.race(cleanup(), cleanup())


async def _ambient_map() -> None:
    await outlive.map(fetch, ["1", "2", "3"], limit=2)


async def _group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(cleanup())
        group.create_task(cleanup())


async def _task() -> None:
    task = asyncio.create_task(cleanup())
    await task


async def _sleep() -> None:
    await asyncio.sleep(1)


async def _ambient_sleep() -> None:
    await outlive.sleep(1)


async def _ambient_sleep_until() -> None:
    await outlive.sleep_until(datetime.fromisoformat("2100-01-01T00:00:00+00:00"))


async def _wait_for() -> None:
    await asyncio.wait_for(fetch("1"), 5)


async def _wait_for_at_once() -> None:
    await asyncio.wait_for(fetch("1"), 0)


async def _timeout() -> None:
    async with asyncio.timeout(5):
        await fetch("1")


async def _shield() -> None:
    await asyncio.shield(cleanup())


async def _thread() -> None:
    await asyncio.to_thread(plain, "x")


async def _now() -> None:
    outlive.now()


async def _random() -> None:
    outlive.random()


async def _child() -> None:
    await gathers()


async def _start() -> None:
    await outlive.start(gathers)


async def _durable() -> None:
    await outlive.durable()


async def _event() -> None:
    await asyncio.Event().wait()


async def _queue() -> None:
    await asyncio.Queue[str]().get()


async def _generator() -> None:
    async for _ in generator():
        await fetch("in the loop")


async def _outside_world() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


CLEANUPS = [
    _step, _steps_gathered, _steps_made_first, _branches_gathered, _ambient_gather, _ambient_race, _ambient_map,
    _group, _task, _sleep, _ambient_sleep, _ambient_sleep_until, _wait_for, _wait_for_at_once, _timeout, _shield,
    _thread, _now, _random, _child, _start, _durable, _event, _queue, _generator, _outside_world,
]  # fmt: skip


@pytest.mark.parametrize("clean", CLEANUPS, ids=lambda clean: clean.__name__[1:])
@pytest.mark.parametrize("how", ["finally", "except", "branch", "swallowed", "managed"])
def test_nothing_runs_or_is_recorded_on_the_way_out(solo: Solo, clean: Any, how: str) -> None:
    solo.serve(gathers)

    async def cleans() -> None:
        await clean()
        seen.append("went on after a call")

    @workflow
    async def body() -> str:
        if how == "finally":
            try:
                await work()
            finally:
                await cleans()
        elif how == "except":
            try:
                await work()
            except BaseException:
                await cleans()
                raise
        elif how == "branch":

            async def branch() -> None:
                try:
                    await work()
                finally:
                    await cleans()

            await asyncio.gather(branch(), branch(), outlive.sleep(100))
        elif how == "swallowed":
            for _ in range(3):
                try:
                    await work()
                except BaseException:
                    try:
                        await cleans()
                    except BaseException:
                        continue
            return await fetch("swallowed")
        else:
            async with managed(), asyncio.timeout(100):
                try:
                    await work()
                finally:
                    await cleans()
        return "done"

    played = solo.play(body, step_delay=lambda _: 1.0, die_at=0.5)
    gc.collect()
    assert played.status == "died"
    assert played.executed == (["1/work#1", "2/work#1"] if how == "branch" else ["work#1"])
    assert played.entries == []
    assert seen == []


@pytest.mark.parametrize("clean", CLEANUPS, ids=lambda clean: clean.__name__[1:])
def test_nothing_runs_or_is_recorded_after_a_divergence(solo: Solo, clean: Any) -> None:
    solo.serve(gathers)

    @workflow(name="body", version="1")
    async def body() -> None:
        await work()
        outlive.now()

    @workflow(name="body", version="1")
    async def edited() -> None:
        try:
            await work()
            outlive.random()
        except BaseException:
            await clean()
            seen.append("went on after a call")
        finally:
            await clean()
            seen.append("went on after a call")

    whole = solo.play(body).entries
    played = solo.play(edited, entries=whole)
    assert played.mismatch is not None
    assert (played.executed, played.entries, seen) == ([], whole, [])


def test_a_loop_that_catches_everything_does_not_hang(solo: Solo, caplog: pytest.LogCaptureFixture) -> None:
    async def tries(call: Any) -> None:
        while True:
            try:
                await call()
            except BaseException:
                seen.append(1)
                assert len(seen) < 10_000

    calls = [work, lambda: asyncio.sleep(9), lambda: asyncio.to_thread(plain, ""), gathers, outlive.durable]
    for call in calls:

        @workflow
        async def endless(call: Any = call) -> None:
            await tries(call)

        solo.serve(gathers)
        seen.clear()
        played = solo.play(endless, step_delay=lambda _: 1.0, commit_delay=lambda: 0.1, die_at=0.5)
        begun = len(played.begun)
        gc.collect()
        assert begun == len(played.begun)
        assert played.status == "died"
        allow(caplog, "keeps on awaiting")


def test_a_generator_that_is_dropped_half_way_stays_silent(solo: Solo) -> None:
    @workflow
    async def drops() -> str:
        async for item in generator():
            await work()
            return item
        return ""

    assert solo.play(drops, step_delay=lambda _: 1.0).value == "from generator"
    for at in (0.5, 1.5):
        assert solo.play(drops, step_delay=lambda _: 1.0, die_at=at).status == "died"
    gc.collect()
    assert seen == []


def test_finally_blocks_see_their_own_context_and_task(solo: Solo) -> None:
    @workflow
    async def resets() -> None:
        async def branch(name: str) -> None:
            token = variable.set(name)
            try:
                await work()
            finally:
                seen.append((variable.get(), asyncio.current_task().get_name()))  # type: ignore[union-attr]
                variable.reset(token)

        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(branch(name), name=name)

    assert solo.play(resets, step_delay=lambda _: 1.0, die_at=0.5).status == "died"
    assert sorted(seen) == [("a", "a"), ("b", "b")]
    assert variable.get() == ""


def test_a_run_that_dies_before_its_first_turn(solo: Solo) -> None:
    @workflow
    async def body() -> None:
        seen.append("began")

    @workflow
    def sync_body() -> None:
        seen.append("began")

    for each in (body, sync_body):
        assert solo.play(each, die_at=0).status == "died"
    assert seen == []


def test_a_sync_body_is_unwound_in_its_thread(solo: Solo) -> None:
    @workflow
    def body() -> str:
        try:
            outlive.sync.sleep(100)
        finally:
            try:
                plain("cleanup")
                seen.append("went on after a call")
            except Exception:
                seen.append("an ordinary except caught it")
            finally:
                outlive.sync.now()
                seen.append("went on after a call")
        return "done"

    played = solo.play(body, die_at=1.0)
    assert (played.status, played.entries, played.executed) == ("died", [], [])
    solo.join_threads()
    assert seen == []
    assert solo.play(body, entries=played.entries).status == "succeeded"


def test_a_sync_body_does_not_rest_while_it_computes(solo: Solo) -> None:
    """Woken by a timer it is busy again: else it would be suspended with nothing to wake it."""

    @workflow
    def naps() -> str:
        for _ in range(3):
            outlive.sync.sleep(1)
            time.sleep(0.01)
        return "done"

    was_idle: list[bool] = []
    is_computing = solo.main.is_computing

    def look() -> bool:
        computing = is_computing()
        if computing:
            was_idle.append(solo.runs[1].execution.idle)  # type: ignore[union-attr]
        return computing

    solo.main.is_computing = look
    assert solo.play(naps).value == "done"
    assert was_idle
    assert not any(was_idle)


# -- errors of the engine's neighbours stop one run only ------------------------------
def test_a_journal_that_cannot_be_read_pauses_the_run(solo: Solo) -> None:
    @workflow(version="1")
    async def adds() -> int:
        return await number() + await number()

    @step
    async def number() -> int:
        return 1

    whole = solo.play(adds).entries
    for text in ("no JSON", '"text"', "[1]"):
        broken = [whole[0], dataclasses.replace(whole[1], value=text)]
        played = solo.play(adds, entries=broken)
        assert (played.status, played.executed) == ("paused", []), text


def test_a_codec_that_fails_pauses_the_run(solo: Solo) -> None:
    class Broken(JsonCodec):
        def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
            if where.startswith("result of step"):
                raise KeyError("the key of the codec is gone")
            return super().decode(text, hint, where=where)

    whole = solo.play(gathers).entries
    solo.codec = Broken()
    played = solo.play(gathers, entries=whole)
    assert (played.status, played.executed) == ("paused", [])
    assert isinstance(played.error, KeyError)
