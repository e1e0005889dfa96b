# ruff: noqa: E501 - one row of the frozen table, one line
"""The frozen table of keys: what a run's entries are called, for every way of making a branch.

Keys are stored in users' databases and a run started by one version of Outlive
is continued by the next. So this table is never edited, only extended: a line
that fails means that journals of runs in flight would no longer fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import outlive
from outlive import Retry, step, transaction, workflow
from outlive.codec.payload import CallShape, digest_arguments
from outlive.model.children import child_id, is_child_id
from tests.support.solo import Solo, pause


@step
async def a() -> str:
    await pause()
    return "a"


@step
async def b(_value: Any = None) -> str:
    await pause()
    return "b"


@step
async def slow() -> str:
    await asyncio.sleep(100)
    return "slow"


@step
async def fails() -> None:
    raise LookupError("no")


@step(retry=Retry(attempts=3, first_delay=1))
async def flaky() -> str:
    info = await pause()
    if info.attempt < 3:
        raise ConnectionError("again")
    return "done"


@step
def plain(value: int = 0) -> int:
    return value


@transaction
async def book(tx: Any) -> None:
    await tx.execute("insert into bookings default values")


@workflow(version="1")
async def child() -> None:
    await a()


@workflow(version="1")
def plain_child() -> None:
    plain()


async def two() -> None:
    await a()
    await b()


# -- one branch -----------------------------------------------------------------
@workflow
async def awaits() -> None:
    await a()
    await b()
    await a()
    await two()


@workflow
async def awaits_in_another_order() -> None:
    first, second = b(1), b(2)
    await second
    await first


@workflow
async def awaits_what_fails() -> None:
    try:
        await fails()
    except LookupError:
        await a()
    await flaky()


@workflow
async def answers() -> None:
    outlive.now(), outlive.random(), outlive.uuid()
    outlive.now()
    await two()
    outlive.random()


@workflow
async def sleeps() -> None:
    await asyncio.sleep(0)
    await outlive.sleep(0)
    await asyncio.sleep(1)
    await outlive.sleep(hours=1)
    await outlive.sleep_until(outlive.now() + timedelta(seconds=5))


@workflow
async def timers() -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(1, lambda: None)
    loop.call_at(loop.time() + 2, lambda: loop.call_later(1, lambda: None))
    loop.call_later(4, lambda: None).cancel()
    await asyncio.sleep(10)


@workflow
async def timeouts() -> None:
    async with asyncio.timeout(10):
        await a()
        async with asyncio.timeout(5):
            await b()
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 1):
            await slow()
    except TimeoutError:
        await a()
    try:
        async with asyncio.timeout(0):
            await slow()
    except TimeoutError:
        await b()


@workflow
async def reschedules() -> None:
    async with asyncio.timeout(10) as limit:
        await a()
        limit.reschedule(asyncio.get_running_loop().time() + 20)
        await b()
        await asyncio.sleep(1)
    try:
        async with asyncio.timeout(1):
            await slow()
    except TimeoutError:
        pass


@workflow
async def waits_for() -> None:
    await asyncio.wait_for(a(), 10)
    await asyncio.wait_for(two(), 10)
    await asyncio.wait_for(two(), None)
    try:
        await asyncio.wait_for(slow(), 1)
    except TimeoutError:
        await a()
    try:
        await asyncio.wait_for(slow(), 0)
    except TimeoutError:
        await a()
    await asyncio.create_task(b())
    await asyncio.wait_for(asyncio.gather(a(), two()), 10)
    await asyncio.wait_for(asyncio.create_task(two()), 10)
    await asyncio.wait_for(asyncio.wait_for(a(), 10), 10)


@workflow
async def generators() -> None:
    async def items() -> AsyncIterator[str]:
        yield await a()
        yield await b()

    async with aclosing(items()) as both:
        async for _ in both:
            await b()


@workflow
async def transactions() -> None:
    await book()
    await asyncio.gather(book(), book())


@workflow
async def barrier() -> None:
    await a()
    await outlive.durable()


# -- many branches -----------------------------------------------------------------
@workflow
async def gathers() -> None:
    await asyncio.gather(a(), b(), two())
    await a()
    await asyncio.gather(a(), a())


@workflow
async def nested_gathers() -> None:
    async def inner() -> None:
        await a()
        await asyncio.gather(a(), two())
        await a()

    await asyncio.gather(inner(), asyncio.gather(a(), b()), inner())


@workflow
async def tasks() -> None:
    first = asyncio.create_task(two())
    second = asyncio.ensure_future(a())
    await b()
    await first
    await second
    third = asyncio.get_running_loop().create_task(a())
    await third


@workflow
async def groups() -> None:
    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(a())
            await b()

    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
        await a()
        group.create_task(inner())


@workflow
async def ambient_branches() -> None:
    await outlive.gather(a(), two())
    await outlive.race(a(), b())
    async with outlive.group() as group:
        group.create_task(a())
        group.create_task(a())
    await outlive.map(b, [1, 2])
    await outlive.map(b, [1, 2], limit=1)
    await a()


@workflow
async def losing_branches() -> None:
    await outlive.race(slow(), outlive.sleep(5), a())
    task = asyncio.create_task(slow())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    try:
        await outlive.gather(slow(), fails())
    except LookupError:
        await b()


@workflow
async def leftovers() -> None:
    asyncio.create_task(slow())
    await a()


@workflow
async def shields() -> None:
    await asyncio.shield(two())
    await asyncio.shield(asyncio.create_task(a()))


@workflow
async def waits() -> None:
    await asyncio.wait([asyncio.create_task(a()), asyncio.create_task(b())])
    for each in asyncio.as_completed([asyncio.create_task(a()), asyncio.create_task(two())]):
        await each


@workflow
async def answers_in_branches() -> None:
    async def draws() -> None:
        outlive.random()
        await outlive.sleep(1)
        outlive.random()

    await asyncio.gather(draws(), draws())
    outlive.random()


@workflow
async def threads() -> None:
    await asyncio.to_thread(plain)
    await asyncio.to_thread(plain, 1)
    await asyncio.create_task(asyncio.to_thread(plain, 2))
    await asyncio.get_running_loop().run_in_executor(None, plain, 3)


# -- children, plain workflows -------------------------------------------------------
@workflow
async def children() -> None:
    await child()
    await asyncio.gather(child(), child())
    await asyncio.to_thread(plain_child)
    await outlive.start(child)
    await outlive.start(child, id="named")


@workflow
def plain_workflow() -> None:
    plain()
    outlive.sync.sleep(1)
    plain(1)
    outlive.sync.now(), outlive.sync.random(), outlive.sync.uuid()
    plain_child()


# -- names that look like something else ---------------------------------------------
@step(name="sleep")
async def step_called_sleep() -> None: ...


@step(name="1")
async def step_called_1() -> None: ...


@step(name="now")
async def step_called_now() -> None: ...


@step(name="cancel")
async def step_called_cancel() -> None: ...


@step(name="Schritt für Schritt")
async def step_with_spaces() -> None: ...


@workflow
async def names() -> None:
    await step_called_sleep()
    await asyncio.sleep(1)
    outlive.now()
    await step_called_now()
    await step_called_1()
    await asyncio.gather(step_called_1(), step_with_spaces())


@workflow
async def cancelled() -> None:
    await step_called_cancel()
    try:
        await asyncio.gather(outlive.sleep(1_000), slow())
    finally:
        await a()


@workflow
async def asks_for_patches() -> None:
    for _ in range(2):
        outlive.patched("a")
        await a()
    await outlive.map(lambda _: b() if outlive.patched("fee, with VAT") else a(), range(2))


# -- stopping -------------------------------------------------------------------
@workflow
async def holds_back() -> None:
    async with outlive.shielded():
        await a()
        await asyncio.gather(a(), b())
    await slow()


@workflow
async def compensates() -> None:
    async def branch() -> None:
        await outlive.on_rollback(a)
        await a()

    await outlive.on_rollback(b, 1)
    await outlive.on_rollback(b, 2)
    await asyncio.gather(branch(), two())
    await outlive.on_rollback(book)
    await fails()


@workflow
async def continues_as_new(number: int = 0) -> None:
    await a()
    await asyncio.gather(a(), outlive.sleep(1))
    outlive.patched("a")
    await child()
    if number < 12:
        await outlive.continue_as_new(number + 1)


# key and kind, by seq; an entry that was cancelled is marked
TABLE: dict[Any, str] = {
    awaits: "a#1 step, b#1 step, a#2 step, a#3 step, b#2 step",
    awaits_in_another_order: "b#1 step, b#2 step",
    awaits_what_fails: "fails#1 step, a#1 step, flaky#1 step",
    answers: "now#1 now, random#1 random, uuid#1 uuid, now#2 now, a#1 step, b#1 step, random#2 random",
    sleeps: "sleep#1 timer, sleep#2 timer, now#1 now, sleep#3 timer",
    timers: "timer#1 timer, timer#2 timer, timer#4 timer, sleep#1 timer",
    timeouts: "a#1 step, b#1 step, timer#3 timer, slow#1 step cancelled, a#2 step, slow#2 step cancelled, b#2 step",
    reschedules: "a#1 step, b#1 step, sleep#1 timer, timer#3 timer, slow#1 step cancelled",
    waits_for: "a#1 step, a#2 step, b#1 step, a#3 step, b#2 step, timer#3 timer, slow#1 step cancelled, a#4 step, a#5 "
    "step, 1/b#1 step, 2/a#1 step, 3/a#1 step, 3/b#1 step, 4/a#1 step, 4/b#1 step, a#6 step",
    generators: "a#1 step, b#1 step, b#2 step, b#3 step",
    transactions: "book#1 transaction, 1/book#1 transaction, 2/book#1 transaction",
    barrier: "a#1 step, durable#1 durable",
    gathers: "1/a#1 step, 2/b#1 step, 3/a#1 step, 3/b#1 step, a#1 step, 4/a#1 step, 5/a#1 step",
    nested_gathers: "1/a#1 step, 2/b#1 step, 3/a#1 step, 4/a#1 step, 3/1/a#1 step, 3/2/a#1 step, 4/1/a#1 step, 4/2/a#1 step, "
    "3/2/b#1 step, 4/2/b#1 step, 3/a#2 step, 4/a#2 step",
    tasks: "b#1 step, 1/a#1 step, 2/a#1 step, 1/b#1 step, 3/a#1 step",
    groups: "a#1 step, 1/b#1 step, 1/1/a#1 step, 2/b#1 step, 2/1/a#1 step",
    ambient_branches: "1/a#1 step, 2/a#1 step, 2/b#1 step, 3/a#1 step, 4/b#1 step, 5/a#1 step, 6/a#1 step, 7/b#1 step, 8/b#1 "
    "step, 9/b#1 step, 10/b#1 step, a#1 step",
    losing_branches: "3/a#1 step, 1/slow#1 step cancelled, sleep#1 timer, 4/slow#1 step cancelled, 6/fails#1 step, 5/slow#1 "
    "step cancelled, b#1 step",
    leftovers: "a#1 step, 1/slow#1 step cancelled",
    shields: "1/a#1 step, 1/b#1 step, 2/a#1 step",
    waits: "1/a#1 step, 2/b#1 step, 3/a#1 step, 4/a#1 step, 4/b#1 step",
    answers_in_branches: "1/random#1 random, 2/random#1 random, 1/sleep#1 timer, 1/random#2 random, 2/sleep#1 timer, 2/random#2 "
    "random, random#1 random",
    threads: "plain#1 step, plain#2 step, 1/plain#1 step, plain#3 step",
    children: "child#1 child, 1/child#1 child, 2/child#1 child, plain_child#1 child, child#2 start, child#3 start",
    plain_workflow: "plain#1 step, sleep#1 timer, plain#2 step, now#1 now, random#1 random, uuid#1 uuid, plain_child#1 child",
    names: "sleep#1 step, sleep#2 timer, now#1 now, now#2 step, 1#1 step, 1/1#1 step, 2/Schritt für Schritt#1 step",
    holds_back: "a#1 step, 1/a#1 step, 2/b#1 step, cancel#1 cancel, slow#1 step cancelled",
    compensates: "on_rollback:b#1 on_rollback, on_rollback:b#2 on_rollback, 1/on_rollback:a#1 on_rollback, 1/a#1 step, 2/a#1 step, "
    "2/b#1 step, on_rollback:book#1 on_rollback, fails#1 step, rollback/book#1 transaction, rollback/a#1 step, rollback/b#1 step, "
    "rollback/b#2 step",
    cancelled: "cancel#1 step, cancel#2 cancel, 2/slow#1 step cancelled, a#1 step",
    asks_for_patches: "patch:a#1 patch, a#1 step, patch:a#2 patch, a#2 step, patch:fee, with VAT#1 patch, "
    "patch:fee, with VAT#2 patch, 1/b#1 step, 2/b#1 step",
    continues_as_new: "~12/a#1 step, ~12/1/a#1 step, ~12/2/sleep#1 timer, ~12/patch:a#1 patch, ~12/child#1 child",
}


def keys_of(solo: Solo, body: Any) -> str:
    """Play a run and name its entries."""
    played = solo.play(body, cancel_at=[0.0] if body is holds_back else [5.0] if body is cancelled else ())
    marks = [" cancelled" if "CancelledError" in (entry.error or "") else "" for entry in played.entries]
    return ", ".join(f"{entry.key} {entry.kind}{mark}" for entry, mark in zip(played.entries, marks, strict=True))


@pytest.mark.parametrize("body", TABLE, ids=lambda body: body.spec.name)
def test_keys_are_frozen(solo: Solo, body: Any) -> None:
    solo.serve(child, plain_child)
    assert keys_of(solo, body) == TABLE[body]


def test_children_are_named_by_their_keys(solo: Solo) -> None:
    solo.serve(child, plain_child)
    ids = ["solo/child#1", "solo/1/child#1", "solo/2/child#1", "solo/plain_child#1", "solo/child#2", "named"]
    assert sorted(solo.play(children).children) == sorted(ids)
    long = solo.play(children, run_id="r" * 200).children
    assert {len(run_id) for run_id in long} == {200, len("named")}
    assert len(long) == len(ids)
    assert "r" * 183 + "~a351e7bdadcaee6b" in long


def test_children_of_later_generations_are_others() -> None:
    assert child_id("p", "child#1", 0) == "p/child#1"
    assert child_id("p", "1/child#1", 2) == "p/1/child#1@2"
    assert child_id("p" * 200, "child#1", 2) == "p" * 183 + "~baf4533a3c64af57"
    for run_id in ("p", "p" * 200):
        for generation in (0, 1, 12):
            assert is_child_id(child_id(run_id, "child#1", generation), run_id, "child#1")
    assert not is_child_id("named", "p", "child#1")
    assert not is_child_id("p/child#2", "p", "child#1")


def test_idempotency_keys_are_frozen(solo: Solo) -> None:
    """Services outside have them on record: the same run and entry has the same key for ever."""

    @step(retry=Retry(attempts=2, first_delay=1))
    async def tells() -> str:
        info = await pause()
        if info.attempt == 1:
            raise ConnectionError
        return info.idempotency_key

    @workflow
    async def asks() -> list[str]:
        return [await tells(), *await asyncio.gather(tells(), tells())]

    assert solo.play(asks, run_id="order-17").value == ["ebb00d83f6962c0d", "697f152c8331c4a9", "285e92d09a4b89d5"]


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: str
    cents: int


def shape_of(first: Any, second: Any = 2, *, third: Any = None) -> None: ...


# Digests are compared by every replay: another digest at the same key pauses the run.
DIGESTS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((1,), {}, "728a01e10644afec"),
    ((), {"first": 1}, "728a01e10644afec"),
    ((1, 2), {}, "a0fd6e74ed297e52"),
    ((1,), {"third": 3}, "7132cdaa0113c926"),
    ((1.0,), {}, "4c5efe4a4d7798ff"),
    ((True,), {}, "561cd8c844bc50b1"),
    ((None,), {}, "420524f2ad84e2ec"),
    (("text",), {}, "1e1a954c9334a8ff"),
    (("Zürich ✓",), {}, "00c3fef5dfb3973b"),
    (([1, [2, "3"]],), {}, "bf097bcb9f85a12e"),
    (((1, 2),), {}, "fe1e1a0dbaae0a9c"),
    (({"b": 1, "a": 2},), {}, "aa0ae8727c503b15"),
    (({"a": 2, "b": 1},), {}, "aa0ae8727c503b15"),
    (({3, 1, 2},), {}, "769b95b49d068293"),
    ((b"bytes",), {}, "62262d0c07db66e2"),
    ((Decimal("1.50"),), {}, "7b45e578e3f88a4b"),
    ((datetime(2027, 1, 1, 12, tzinfo=UTC),), {}, "9b9ada6826ca9b3f"),
    ((timedelta(hours=1),), {}, "0acaac973ed868c6"),
    ((UUID(int=7),), {}, "4e513fc1509b087f"),
    ((Colour.RED,), {}, "7716af7a941347fe"),
    ((Order("o1", 500),), {}, "1f0d988fdf37b176"),
    (([Order("o1", 500)],), {}, "6ed34398f84450f6"),
    ((10**30,), {}, "edb2a2b07bec413b"),
    ((0.1 + 0.2,), {}, "1e2247c814d9b6e4"),
]


@pytest.mark.parametrize(("args", "kwargs", "frozen"), DIGESTS)
def test_digests_of_arguments_are_frozen(args: tuple[Any, ...], kwargs: dict[str, Any], frozen: str) -> None:
    assert digest_arguments(CallShape(shape_of), args, kwargs, where="arguments") == frozen
