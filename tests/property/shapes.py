"""Random workflow shapes: small programs as nested lists, and the workflow that carries one out.

A program is the argument of the workflow `shape`, so it is data of the run and
one code version serves all. Every construct leaves its mark in a log that is the
run's result: two executions that differ anywhere give different results.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from hypothesis import strategies as st

import outlive
from outlive import Retry, step, transaction, workflow
from tests.support.solo import pause

Program = list[Any]


mended: set[int] = set()  # numbers that are refused no more
_has_place: contextvars.ContextVar[bool] = contextvars.ContextVar("has_place", default=False)


class Refused(Exception):
    """What the steps and bodies of these programs raise."""


@step
async def work(number: int) -> int:
    await pause()
    return number


@step
async def refuse(number: int) -> int:
    await pause()
    if number not in mended:
        raise Refused(number)
    return number


@step(retry=Retry(attempts=3, first_delay=0.2, jitter=0.5))
async def flaky(failures: int) -> int:
    info = await pause()
    if info.attempt <= failures:
        raise Refused(info.attempt)
    return failures


@step
async def stubborn(number: int) -> int:
    """A step that does not let itself be cancelled."""
    try:
        await pause()
    except asyncio.CancelledError:
        pass
    return number


@step(timeout=0.3)
async def limited(number: int) -> int:
    await pause()
    return number


@step
def plain(number: int) -> int:
    return number


@transaction
async def book(tx: Any, number: int) -> int:
    await tx.execute("insert into bookings values ($1)", number)
    await pause()
    return number


@workflow(version="1")
async def child(number: int) -> int:
    await work(number)
    await outlive.sleep(0.3)
    if number % 3 == 0:
        raise Refused(number)
    return number


class Machine:
    """Carries out one program. What its branches share is here."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.queues = [asyncio.Queue[Any](maxsize=1), asyncio.Queue[Any]()]
        self.events = [asyncio.Event(), asyncio.Event()]
        self.locks = [asyncio.Lock(), asyncio.Lock()]
        self.places = asyncio.Semaphore(2)
        self.condition = asyncio.Condition()
        self.tasks: list[asyncio.Task[Any]] = []

    async def run(self, program: Program) -> Any:
        name, *parts = program
        carry_out: Callable[..., Coroutine[Any, Any, Any]] = getattr(self, f"do_{name}")
        try:
            value = await carry_out(*parts)
        except BaseException as error:
            self.log.append(f"{name} raised {type(error).__name__}")
            raise
        self.log.append([name, value])
        return value

    def all(self, programs: list[Program]) -> list[Coroutine[Any, Any, Any]]:
        return [self.run(program) for program in programs]

    # -- leaves ---------------------------------------------------------------
    async def do_work(self, number: int) -> Any:
        return await work(number)

    async def do_refuse(self, number: int) -> Any:
        return await refuse(number)

    async def do_flaky(self, failures: int) -> Any:
        return await flaky(failures)

    async def do_stubborn(self, number: int) -> Any:
        return await stubborn(number)

    async def do_limited(self, number: int) -> Any:
        return await limited(number)

    async def do_plain(self, number: int) -> Any:
        return await asyncio.to_thread(plain, number)

    async def do_book(self, number: int) -> Any:
        return await book(number)

    async def do_child(self, number: int) -> Any:
        return await child(number)

    async def do_sleep(self, delay: float) -> Any:
        await asyncio.sleep(delay)
        return asyncio.get_running_loop().time()

    async def do_yield(self) -> Any:
        await asyncio.sleep(0)

    async def do_now(self) -> Any:
        return outlive.now().isoformat()

    async def do_random(self) -> Any:
        return outlive.random()

    async def do_uuid(self) -> Any:
        return str(outlive.uuid())

    async def do_durable(self) -> Any:
        await outlive.durable()

    async def do_raise(self, number: int) -> Any:
        raise Refused(number)

    # -- one branch after the other ---------------------------------------------
    async def do_seq(self, *programs: Program) -> Any:
        return [await self.run(program) for program in programs]

    async def do_repeat(self, times: int, program: Program) -> Any:
        return [await self.run(program) for _ in range(times)]

    async def do_either(self, one: Program, other: Program) -> Any:
        """Go one way or the other, by all that has happened so far."""
        return await self.run(one if sum(map(ord, repr(self.log))) % 2 else other)

    async def do_catch(self, program: Program) -> Any:
        try:
            return await self.run(program)
        except Exception as error:
            return repr(error)

    async def do_finally(self, program: Program, cleanup: Program) -> Any:
        try:
            return await self.run(program)
        finally:
            await self.run(cleanup)

    async def do_undo(self, program: Program, cleanup: Program) -> Any:
        try:
            return await self.run(program)
        except asyncio.CancelledError:
            await self.run(cleanup)
            raise

    async def do_timeout(self, limit: float, program: Program) -> Any:
        try:
            async with asyncio.timeout(limit):
                return await self.run(program)
        except TimeoutError:
            return "late"

    async def do_wait_for(self, limit: float, program: Program) -> Any:
        try:
            return await asyncio.wait_for(self.run(program), limit)
        except TimeoutError:
            return "late"

    async def do_generate(self, *programs: Program) -> Any:
        async def values() -> AsyncIterator[Any]:
            try:
                for program in programs:
                    yield await self.run(program)
            finally:
                self.log.append("generated")

        async with aclosing(values()) as generator:
            async for value in generator:
                self.log.append(value)
                if len(self.log) % 5 == 0:
                    break

    # -- branches -----------------------------------------------------------------
    async def do_gather(self, *programs: Program) -> Any:
        return await asyncio.gather(*self.all(list(programs)))

    async def do_gather_all(self, *programs: Program) -> Any:
        return [repr(end) for end in await asyncio.gather(*self.all(list(programs)), return_exceptions=True)]

    async def do_gather_all_or_raise(self, *programs: Program) -> Any:
        """Wait for all, and fail as the first of them."""
        ends = await asyncio.gather(*self.all(list(programs)), return_exceptions=True)
        await work(len(ends))
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return ends

    async def do_outlive_gather(self, *programs: Program) -> Any:
        return await outlive.gather(*self.all(list(programs)))

    async def do_race(self, *programs: Program) -> Any:
        return await outlive.race(*self.all(list(programs)))

    async def do_group(self, *programs: Program) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(program)) for program in programs]
        return [task.result() for task in tasks]

    async def do_map(self, limit: int, *numbers: int) -> Any:
        return await outlive.map(work, numbers, limit=limit)

    async def do_as_completed(self, *programs: Program) -> Any:
        tasks = [asyncio.create_task(branch) for branch in self.all(list(programs))]
        got = []
        for each in asyncio.as_completed(tasks):
            try:
                got.append(await each)
            except Exception as error:
                got.append(repr(error))
        return got

    async def do_wait(self, when: str, *programs: Program) -> Any:
        """Iterate over both sets that `wait` gives, calling steps: they have to be in the same order each time."""
        waited = {asyncio.create_task(branch) for branch in self.all(list(programs))}
        done, pending = await asyncio.wait(waited, return_when=when)
        for number, task in enumerate(done):
            self.log.append([await work(number), repr(task.exception()) if not task.cancelled() else "cancelled"])
        for task in pending:
            task.cancel()
        return [repr(end) for end in await asyncio.gather(*pending, return_exceptions=True)]

    async def do_shield(self, limit: float, program: Program) -> Any:
        inner = asyncio.create_task(self.run(program))
        self.tasks.append(inner)
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(inner)
        except TimeoutError:
            return "left alone"

    async def do_create(self, program: Program) -> Any:
        """A task that is awaited at the end of the program, or left running if that does not come."""
        self.tasks.append(asyncio.create_task(self.run(program), name=f"task {len(self.tasks)}"))

    async def do_cancel(self) -> Any:
        return self.tasks[0].cancel() if self.tasks else None

    # -- between branches -----------------------------------------------------------
    async def do_put(self, which: int) -> Any:
        async with asyncio.timeout(2.0):
            await self.queues[which].put(len(self.log))

    async def do_get(self, which: int) -> Any:
        try:
            async with asyncio.timeout(2.0):
                return await self.queues[which].get()
        except TimeoutError:
            return "nothing"

    async def do_set(self, which: int) -> Any:
        self.events[which].set()

    async def do_await_event(self, which: int) -> Any:
        try:
            return await asyncio.wait_for(self.events[which].wait(), 2.0)
        except TimeoutError:
            return "never"

    async def do_locked(self, which: int, program: Program) -> Any:
        if self.locks[which].locked():
            return await self.do_placed(program)
        async with self.locks[which]:
            return await self.run(program)

    async def do_placed(self, program: Program) -> Any:
        if _has_place.get():  # who waits for a second one may wait for himself
            return await self.run(program)
        token = _has_place.set(True)
        try:
            async with self.places:
                return await self.run(program)
        finally:
            _has_place.reset(token)

    async def do_notify(self, program: Program) -> Any:
        value = await self.run(program)
        async with self.condition:
            self.condition.notify_all()
        return value

    async def do_await_notice(self) -> Any:
        try:
            async with asyncio.timeout(2.0), self.condition:
                return await self.condition.wait()
        except TimeoutError:
            return "unnoticed"


@workflow(version="1")
async def shape(program: Any) -> Any:
    machine = Machine()
    try:
        await machine.run(program)
    except Refused as error:
        machine.log.append(repr(error))
    if len(machine.log) % 3:
        await asyncio.gather(*machine.tasks, return_exceptions=True)
    return machine.log


@workflow(version="1")
async def strict_shape(program: Any) -> Any:
    """The same, but what fails in it fails the run."""
    machine = Machine()
    try:
        return await machine.run(program)
    finally:
        await asyncio.gather(*machine.tasks, return_exceptions=True)


numbers = st.integers(0, 9)
which = st.integers(0, 1)
limits = st.sampled_from([0.05, 0.2, 0.5, 1.0])

_lone_leaves: st.SearchStrategy[Program] = st.one_of(
    st.tuples(st.just("work"), numbers),
    st.tuples(st.just("work"), numbers),
    st.tuples(st.just("refuse"), numbers),
    st.tuples(st.just("flaky"), st.integers(0, 3)),
    st.tuples(st.just("stubborn"), numbers),
    st.tuples(st.just("limited"), numbers),
    st.tuples(st.just("book"), numbers),
    st.tuples(st.just("sleep"), limits),
    st.tuples(st.sampled_from(["yield", "now", "random", "uuid", "durable", "await_notice"])),
    st.tuples(st.sampled_from(["put", "get", "set", "await_event"]), which),
    st.tuples(st.just("map"), st.integers(1, 3), numbers, numbers, numbers),
    st.tuples(st.just("raise"), numbers),
).map(list)
leaves = st.one_of(_lone_leaves, st.tuples(st.just("child"), numbers).map(list), st.just(["cancel"]))


def _around_alone(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    """Combine parts whose branches share nothing but what they await."""
    some = st.lists(inner, min_size=1, max_size=4)
    many = st.sampled_from(["seq", "gather", "gather_all", "outlive_gather", "race", "group", "as_completed"])
    whens = st.sampled_from([asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED])
    return st.one_of(
        st.builds(lambda name, inside: [name, *inside], many, some),
        st.builds(lambda name, inside: [name, *inside], many, some),
        st.builds(lambda when, inside: ["wait", when, *inside], whens, some),
        st.builds(
            lambda name, limit, one: [name, limit, one],
            st.sampled_from(["timeout", "wait_for", "shield"]),
            limits,
            inner,
        ),
        st.builds(lambda name, one: [name, one], st.sampled_from(["catch", "placed", "notify", "create"]), inner),
        st.builds(lambda name, one, two: [name, one, two], st.sampled_from(["finally", "undo"]), inner, inner),
        st.builds(lambda times, one: ["repeat", times, one], st.integers(1, 3), inner),
    )


def _around(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    return st.one_of(
        _around_alone(inner),
        st.lists(inner, min_size=1, max_size=4).map(lambda inside: ["generate", *inside]),
        st.builds(lambda one, two: ["either", one, two], inner, inner),
        st.builds(lambda lock, one: ["locked", lock, one], which, inner),
    )


parts = st.recursive(leaves, _around, max_leaves=10)
_lone_parts = st.recursive(_lone_leaves, _around_alone, max_leaves=8)


@st.composite
def failing_programs(draw: st.DrawFn) -> Program:
    """A program in which branches fail while others go on; they share nothing but what they await."""
    name = draw(st.sampled_from(["gather", "gather_all_or_raise", "outlive_gather", "group"]))
    before, after = draw(st.lists(_lone_parts, max_size=2)), draw(st.lists(_lone_parts, max_size=1))
    others = draw(st.lists(st.lists(_lone_parts, min_size=1, max_size=4), min_size=1, max_size=3))
    return [name, ["seq", *before, ["refuse", 1], *after], *(["seq", *inside] for inside in others)]


programs: st.SearchStrategy[Program] = st.builds(
    lambda name, inside: [name, *inside],
    st.sampled_from(["seq", "gather_all", "group", "as_completed"]),
    st.lists(parts, min_size=1, max_size=4),
)

# -- without anything that depends on time: no branches, no limits, no chance ------
_timeless_leaves: st.SearchStrategy[Program] = st.one_of(
    st.tuples(st.sampled_from(["work", "refuse", "book", "child", "raise", "stubborn"]), numbers),
    st.tuples(st.sampled_from(["yield", "durable"])),
    st.tuples(st.just("map"), st.integers(1, 3), numbers, numbers, numbers),
).map(list)


def _in_sequence(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    some = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        some.map(lambda inside: ["seq", *inside]),
        st.builds(lambda name, one: [name, one], st.sampled_from(["catch", "placed", "notify"]), inner),
        st.builds(lambda name, one, two: [name, one, two], st.sampled_from(["either", "finally"]), inner, inner),
        st.builds(lambda times, one: ["repeat", times, one], st.integers(1, 3), inner),
        st.builds(lambda lock, one: ["locked", lock, one], which, inner),
    )


timeless_programs: st.SearchStrategy[Program] = st.lists(
    st.recursive(_timeless_leaves, _in_sequence, max_leaves=10), min_size=1, max_size=5
).map(lambda inside: ["seq", *inside])
