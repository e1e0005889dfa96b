"""Compensations: what is executed when a run fails or is cancelled, in which order, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunCancelled, RunFailed, RunRefused, Status, UsageError, step, transaction, workflow
from tests.engine.test_cancel import until

LIMIT_S = 20.0
done: list[str] = []
broken: set[str] = set()
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _clean() -> None:
    done.clear()
    broken.clear()
    gates.clear()


class Unrebuildable(Exception):
    def __init__(self, *, why: str) -> None:
        super().__init__(f"because {why}")


@step
async def book(what: str) -> str:
    done.append(f"book {what}")
    if what in broken:
        raise LookupError(f"no {what}")
    if what == "moon":
        raise Unrebuildable(why="too far")
    return f"{what} 1"


@step
async def cancel_booking(what: str) -> str:
    done.append(f"cancel {what}")
    if f"cancel {what}" in broken:
        raise ConnectionError(f"nobody answers for {what}")
    return f"{what} 0"


@transaction
async def refund(tx: Any, cents: int) -> None:
    done.append(f"refund {cents}")
    await tx.execute("insert into refunds (cents) values ($1)", cents)


@step
def call_off(what: str) -> None:
    done.append(f"call off {what}")


@step
async def wait_at(name: str) -> str:
    done.append(f"at {name}")
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


async def reached(text: str, times: int = 1) -> None:
    async with asyncio.timeout(LIMIT_S):
        while done.count(text) < times:
            await asyncio.sleep(0.001)


@workflow
async def trip(*stops: str) -> list[str]:
    booked = []
    for stop in stops:
        booked.append(await book(stop))
        await outlive.on_rollback(cancel_booking, booked[-1])
    return booked


def journal(entries: list[outlive.Entry]) -> list[tuple[str, str]]:
    return [(entry.key, entry.outcome) for entry in entries]


async def test_the_last_is_undone_first(url: str) -> None:
    broken.add("car")
    async with Outlive(url) as app:
        run = await app.start(trip, "hotel", "flight", "car")
        with pytest.raises(LookupError, match="no car") as told:
            await run.result(timeout=LIMIT_S)
        assert done == ["book hotel", "book flight", "book car", "cancel flight 1", "cancel hotel 1"]
        assert journal(await run.entries()) == [
            ("book#1", "ok"),
            ("on_rollback:cancel_booking#1", "ok"),
            ("book#2", "ok"),
            ("on_rollback:cancel_booking#2", "ok"),
            ("book#3", "error"),
            ("rollback/cancel_booking#1", "ok"),
            ("rollback/cancel_booking#2", "ok"),
        ]
        registered = (await run.entries())[1]
        assert (registered.kind, registered.name) == ("on_rollback", "cancel_booking")
        assert registered.value == {"args": ["hotel 1"], "kwargs": {}}
        assert not hasattr(told.value, "__notes__")


async def test_nothing_is_undone_on_success(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(trip, "hotel", "flight") == ["hotel 1", "flight 1"]
        assert done == ["book hotel", "book flight"]


@workflow
async def patient_trip() -> None:
    await outlive.on_rollback(cancel_booking, await book("hotel"))
    await wait_at("the airport")


@workflow
async def slow_to_undo() -> None:
    await outlive.on_rollback(cancel_booking, "first")
    await outlive.on_rollback(wait_at, "the counter")
    await wait_at("the airport")


async def test_a_cancelled_run_is_undone_too(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient_trip)
        await reached("at the airport")
        assert await run.cancel("ill")
        with pytest.raises(RunCancelled, match="ill"):
            await run.result(timeout=LIMIT_S)
        assert done == ["book hotel", "at the airport", "cancel hotel 1"]


async def test_a_late_run_is_undone_too(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(patient_trip, deadline=0.5)
        with pytest.raises(outlive.DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert done == ["book hotel", "at the airport", "cancel hotel 1"]


async def test_nothing_cancels_a_compensation(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(slow_to_undo)
        await reached("at the airport")
        assert await run.cancel("once")
        await reached("at the counter")
        assert await run.cancel("twice")
        roster = app._engine().roster
        async with asyncio.timeout(LIMIT_S):
            while not any(len(execution.heard) == 2 for execution in roster.executions.values()):
                await asyncio.sleep(0.001)
        gates["the counter"].set()
        with pytest.raises(RunCancelled, match="once"):
            await run.result(timeout=LIMIT_S)
        assert done == ["at the airport", "at the counter", "cancel first"]


async def test_a_run_that_is_paused_while_it_is_undone_goes_on_there(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(slow_to_undo)
        await reached("at the airport")
        await run.cancel("enough")
        await reached("at the counter")
        await run.pause()
        await until(run, Status.PAUSED)
    async with Outlive(url) as app:
        run = await app.get(run.id)
        await run.resume()
        await reached("at the counter", 2)
        gates["the counter"].set()
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=LIMIT_S)
        assert done.count("cancel first") == 1


async def test_one_that_fails_stops_none_of_the_others_and_is_told(url: str) -> None:
    broken.update(("car", "cancel flight 1"))
    async with Outlive(url) as app:
        run = await app.start(trip, "hotel", "flight", "car", id="t")
        with pytest.raises(LookupError, match="no car") as told:
            await run.result(timeout=LIMIT_S)
        assert done[-2:] == ["cancel flight 1", "cancel hotel 1"]
        assert told.value.__notes__ == [
            "compensation cancel_booking failed: ConnectionError: nobody answers for flight 1"
        ]
        failed = next(entry for entry in await run.entries() if entry.key == "rollback/cancel_booking#1")
        assert failed.error is not None and failed.error["text"] == "nobody answers for flight 1"


async def test_it_is_told_whatever_the_error_is(url: str) -> None:
    broken.add("cancel hotel 1")
    note = ["compensation cancel_booking failed: ConnectionError: nobody answers for hotel 1"]
    async with Outlive(url) as app:
        run = await app.start(trip, "hotel", "moon")
        with pytest.raises(RunFailed, match="too far") as failed:
            await run.result(timeout=LIMIT_S)
        assert failed.value.__notes__ == note
        run = await app.start(patient_trip)
        await reached("at the airport")
        await run.cancel()
        with pytest.raises(RunCancelled) as cancelled:
            await run.result(timeout=LIMIT_S)
        assert cancelled.value.__notes__ == note


@workflow
async def mixed() -> None:
    await outlive.on_rollback(cancel_booking, what="by name")
    await outlive.on_rollback(refund, 500)
    await outlive.on_rollback(call_off, "party")
    items = ["kept as it was"]
    await outlive.on_rollback(cancel_booking, items[0])
    items.clear()
    raise ValueError("the body itself")


async def test_steps_of_every_kind(url: str) -> None:
    async with Outlive(url) as app:
        await app.run(make_table)
        with pytest.raises(ValueError, match="the body itself"):
            await app.run(mixed)
        assert done == ["cancel kept as it was", "call off party", "refund 500", "cancel by name"]
        assert await app.run(count_refunds) == 1


@transaction
async def create_refunds(tx: Any) -> None:
    await tx.execute("create table refunds (cents integer)")


@transaction
async def read_refunds(tx: Any) -> int:
    return int(await tx.fetchval("select count(*) from refunds"))


@workflow
async def make_table() -> None:
    await create_refunds()


@workflow
async def count_refunds() -> int:
    return await read_refunds()


@workflow
async def bad_result() -> int:
    await outlive.on_rollback(cancel_booking, "all")
    return object()  # type: ignore[return-value]


async def test_a_result_that_cannot_be_stored_is_a_failure(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(outlive.EncodeFailed):
            await app.run(bad_result)
        assert done == ["cancel all"]


@workflow
def plain_trip() -> None:
    outlive.sync.on_rollback(call_off, "plain")
    with outlive.sync.shielded():
        outlive.sync.sleep(0.3)
        call_off("within")
    outlive.sync.sleep(1_000)


async def test_a_plain_workflow(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(plain_trip)
        async with asyncio.timeout(LIMIT_S):
            while not app._engine().roster.idle:
                await asyncio.sleep(0.001)
        await run.cancel("stop")
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert done == ["call off within", "call off plain"]


async def test_what_was_undone_is_not_retried(url: str) -> None:
    broken.add("car")
    async with Outlive(url) as app:
        run = await app.start(trip, "hotel", "car")
        with pytest.raises(LookupError):
            await run.result(timeout=LIMIT_S)
        broken.clear()
        with pytest.raises(RunRefused, match="compensations have been executed"):
            await run.retry()
        await run.rewind("book#1")
        assert await run.result(timeout=LIMIT_S) == ["hotel 1", "car 1"]
        assert done.count("book hotel") == 2


async def test_what_was_not_undone_is_undone_again(url: str) -> None:
    broken.update(("car", "cancel hotel 1"))
    async with Outlive(url) as app:
        run = await app.start(trip, "hotel", "car")
        with pytest.raises(LookupError):
            await run.result(timeout=LIMIT_S)
        broken.remove("cancel hotel 1")
        await run.rewind("rollback/cancel_booking#1")
        with pytest.raises(LookupError) as told:
            await run.result(timeout=LIMIT_S)
        assert not hasattr(told.value, "__notes__")
        assert done == ["book hotel", "book car", "cancel hotel 1", "cancel hotel 1"]


@workflow
async def wrong(what: str) -> None:
    thing: Any = {"workflow": trip, "function": len, "nothing": None}[what]
    await outlive.on_rollback(thing, 1)


@pytest.mark.parametrize("what", ["workflow", "function", "nothing"])
async def test_what_is_no_step_is_refused(url: str, what: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match="takes a step or transaction"):
            await app.run(wrong, what)


@workflow
async def wrong_arguments() -> None:
    await outlive.on_rollback(cancel_booking, object())


async def test_arguments_that_cannot_be_stored_are_refused_where_they_are_given(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(outlive.EncodeFailed, match="cancel_booking"):
            await app.run(wrong_arguments)
        with pytest.raises(UsageError, match="workflow bodies"):
            await outlive.on_rollback(cancel_booking, 1)
