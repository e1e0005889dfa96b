"""The main job through the public API: start, steps, results, errors, retries, timers, children."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import Outlive, Permanent, Retry, RunFailed, Status, UsageError, step, workflow


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Receipt:
    order: str
    payment: str
    at: datetime


calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@step
async def charge(order_id: str, cents: int) -> str:
    calls.append((order_id, cents))
    return f"payment-{order_id}-{cents}"


@workflow
async def checkout(order: Order) -> Receipt:
    payment = await charge(order.id, order.cents)
    return Receipt(order.id, payment, outlive.now())


async def test_a_run_gives_its_result_and_its_journal(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(checkout, Order("o1", 500), id="order-o1")
        receipt = await run.result(timeout=10)
        assert isinstance(receipt, Receipt)
        assert (receipt.order, receipt.payment) == ("o1", "payment-o1-500")
        assert receipt.at.tzinfo is UTC
        assert await run.status() == Status.SUCCEEDED
        assert run.created
        entries = await run.entries()
        assert [(entry.seq, entry.key, entry.kind, entry.outcome) for entry in entries] == [
            (1, "charge#1", "step", "ok"),
            (2, "now#1", "now", "ok"),
        ]
        info = await run.info()
        assert info.workflow == "checkout"
        assert info.created_at <= (info.started_at or info.created_at) <= (info.finished_at or info.created_at)
    assert calls == [("o1", 500)]


async def test_the_same_id_is_the_same_run(url: str) -> None:
    async with Outlive(url) as app:
        first = await app.start(checkout, Order("o1", 500), id="same")
        second = await app.start(checkout, Order("o2", 1), id="same")
        assert first.created and not second.created
        assert (await first.result()).order == (await second.result()).order == "o1"
        with pytest.raises(outlive.RunExists, match="sleeper"):
            await app.start(sleeper, 1, id="same")


@workflow
async def sleeper(delay: float) -> str:
    await outlive.sleep(delay)
    return "rested"


async def test_sleep_is_a_timer_entry(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeper, 0.05)
        assert await run.result(timeout=10) == "rested"
        (entry,) = await run.entries()
        assert (entry.key, entry.kind, entry.name) == ("sleep#1", "timer", "sleep")
        assert entry.finished_at is not None
        assert entry.finished_at - entry.started_at >= timedelta(seconds=0.05)


class CardDeclined(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@step
async def decline() -> None:
    raise CardDeclined(7)


@workflow
async def declined() -> str:
    try:
        await decline()
    except CardDeclined as error:
        return f"declined {error.code}"
    return "paid"


@workflow
async def declined_for_good() -> None:
    await decline()


async def test_errors_come_back_as_their_class(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(declined) == "declined 7"
        with pytest.raises(CardDeclined):
            await app.run(declined_for_good)
        run = await app.start(declined_for_good)
        with pytest.raises(CardDeclined):
            await run.result()
        assert await run.status() == Status.FAILED


@workflow
async def fails_with_a_local_class() -> None:
    class Local(Exception):
        pass

    raise Local("nobody can import me")


async def test_an_error_that_cannot_be_rebuilt_is_run_failed(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(RunFailed, match="nobody can import me"):
            await app.run(fails_with_a_local_class)


@step(retry=Retry(attempts=3, first_delay=0.001))
async def flaky(until: int) -> int:
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    calls.append((info.attempt, info.idempotency_key))
    if info.attempt < until:
        raise ConnectionError(f"attempt {info.attempt}")
    return info.attempt


@workflow
async def retries(until: int) -> int:
    return await flaky(until)


async def test_a_step_is_retried(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(retries, 3)
        assert await run.result(timeout=10) == 3
        (entry,) = await run.entries()
        assert (entry.attempts, entry.outcome) == (3, "ok")
        assert [attempt for attempt, _ in calls] == [1, 2, 3]
        assert len({key for _, key in calls}) == 1
        with pytest.raises(ConnectionError, match="attempt 3"):
            await app.run(retries, 4)


@step(retry=Retry(attempts=5, first_delay=0.001))
async def hopeless() -> None:
    calls.append("hopeless")
    raise Permanent("never")


@step(timeout=0.01)
async def too_slow() -> None:
    await asyncio.sleep(60)


@workflow
async def limits(which: str) -> str:
    try:
        await (hopeless() if which == "permanent" else too_slow())
    except Permanent:
        return "permanent"
    except TimeoutError:
        return "timeout"
    return "nothing"


async def test_permanent_errors_and_time_limits(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(limits, "permanent") == "permanent"
        assert calls == ["hopeless"]
        assert await app.run(limits, "timeout") == "timeout"


@workflow
async def parent(count: int) -> list[str]:
    receipts = await asyncio.gather(*(checkout(Order(f"c{n}", n)) for n in range(count)))
    return [receipt.payment for receipt in receipts]


async def test_a_workflow_called_in_a_workflow_is_a_child_run(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(parent, 3, id="p")
        assert await run.result(timeout=10) == ["payment-c0-0", "payment-c1-1", "payment-c2-2"]
        children = [info async for info in app.runs(workflow="checkout")]
        assert {info.id for info in children} == {"p/1/checkout#1", "p/2/checkout#1", "p/3/checkout#1"}
        assert {info.parent for info in children} == {"p"}
        assert {(entry.key, entry.kind, entry.outcome) for entry in await run.entries()} == {
            (f"{n}/checkout#1", "child", "ok") for n in (1, 2, 3)
        }


@step
def plain_step(value: int) -> int:
    return value + 1


@workflow
def plain_workflow(value: int) -> int:
    outlive.sync.sleep(0.001)
    return plain_step(plain_step(value))


@workflow
async def mixed(value: int) -> int:
    return await asyncio.to_thread(plain_step, await asyncio.to_thread(plain_workflow, value))


async def test_plain_functions_run_in_threads(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(plain_workflow, 1) == 3
        run = await app.start(mixed, 1, id="mixed")
        assert await run.result(timeout=10) == 4
        assert [entry.kind for entry in await run.entries()] == ["child", "step"]
        child = await app.get("mixed/plain_workflow#1")
        assert [entry.key for entry in await child.entries()] == ["sleep#1", "plain_step#1", "plain_step#2"]


@workflow
async def calls_a_plain_step_directly() -> int:
    return plain_step(1)


@workflow
async def waits_for_a_foreign_future() -> None:
    await foreign[0]


@workflow
async def opens_a_socket() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


@workflow
async def runs_anything_in_a_thread() -> None:
    await asyncio.to_thread(print, "hello")


@workflow
async def iterates_over_bare_coroutines() -> None:
    coroutines = [charge("a", 1), charge("b", 2)]
    try:
        for each in asyncio.as_completed(coroutines):
            await each
    finally:
        for coroutine in coroutines:
            coroutine.close()


@workflow
async def waits_for_no_number() -> None:
    asyncio.get_running_loop().call_later(float("nan"), print)


@workflow
async def waits_without_end() -> str:
    async with asyncio.timeout(float("inf")):
        await charge("a", 1)
    task = asyncio.create_task(asyncio.sleep(float("inf")))
    await outlive.sleep(0.01)
    task.cancel()
    return "went on"


async def test_a_wait_without_end_is_a_timer_like_others(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(waits_without_end) == "went on"


foreign: list[asyncio.Future[None]] = []


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        (calls_a_plain_step_directly, "asyncio.to_thread"),
        (waits_for_a_foreign_future, "@step"),
        (opens_a_socket, "@step"),
        (runs_anything_in_a_thread, "@step"),
        (iterates_over_bare_coroutines, "create_task"),
        (waits_for_no_number, "nan"),
    ],
)
async def test_what_a_body_may_not_do_says_what_to_write(url: str, bad: Any, advice: str) -> None:
    foreign[:] = [asyncio.get_running_loop().create_future()]
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match=advice):
            await app.run(bad)


@step
async def waits_long() -> None:
    calls.append("begun")
    try:
        await asyncio.sleep(60)
    finally:
        calls.append("ended")


@workflow
async def cancellable() -> str:
    try:
        await waits_long()
    except asyncio.CancelledError:
        await charge("refund", 1)
        raise
    return "done"


async def test_cancel_is_delivered_at_a_durable_await(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancellable)
        while "begun" not in calls:
            await asyncio.sleep(0.001)
        assert await run.cancel("changed my mind") is True
        with pytest.raises(outlive.RunCancelled, match="changed my mind"):
            await run.result(timeout=10)
        assert calls == ["begun", "ended", ("refund", 1)]
        assert await run.status() == Status.CANCELLED
        assert await run.cancel() is False
        assert [(entry.key, entry.outcome) for entry in await run.entries()] == [
            ("cancel#1", "ok"),
            ("waits_long#1", "error"),
            ("charge#1", "ok"),
        ]


async def test_a_client_starts_by_name_and_a_worker_runs(url: str) -> None:
    if url == "sqlite://":
        pytest.fail("a private database has no second process")
    async with Outlive(url, worker=False) as client:
        run = await client.start("checkout", {"id": "o1", "cents": 5}, id="by-name")
        assert await run.status() == Status.QUEUED
        async with Outlive(url):
            receipt = await run.result(timeout=10, as_type=Receipt)
        assert receipt.payment == "payment-o1-5"


async def test_a_workflow_outlives_another_of_the_same_name_and_place(url: str) -> None:
    def make(answer: int) -> Any:
        @workflow(name="made twice")
        async def made() -> int:
            return answer

        return made

    first, second = make(1), make(2)
    async with Outlive(url) as app:
        assert await app.run(second) == 2
    del second
    gc.collect()
    async with Outlive(url) as app:
        assert await app.run("made twice") == 1
        assert await app.run(first) == 1


async def test_use_before_entry_is_an_error(url: str) -> None:
    app = Outlive(url)
    with pytest.raises(UsageError, match="async with"):
        await app.start(checkout, Order("a", 1))


async def test_runs_are_listed_newest_first_by_page(url: str) -> None:
    async with Outlive(url) as app:
        for wrong in ({"created_after": "today"}, {"created_before": 7}, {"after": "x"}):
            with pytest.raises(UsageError, match=r"time zone|`next` of a page"):
                app.runs(**wrong)
        for n in range(5):
            await app.run(sleeper, 0, id=f"s{n}")
        page = await app.runs(workflow="sleeper", limit=2)
        assert [info.id for info in page.items] == ["s4", "s3"]
        pages = app.runs(limit=2)
        for _ in range(2):  # a list is read anew each time
            assert [info.id async for info in pages] == ["s4", "s3", "s2", "s1", "s0"]
        assert [info.id async for info in app.runs(status="failed")] == []
        with pytest.raises(UsageError, match="no status"):
            app.runs(status="succeded")


@step
async def forgotten() -> None:
    raise AssertionError("nobody awaits it")


@workflow
async def forgets() -> str:
    forgotten()
    return "done"


async def test_who_forgets_to_await_a_step_is_told_which(url: str) -> None:
    async def run_it() -> None:
        assert await app.run(forgets) == "done"
        gc.collect()

    async with Outlive(url) as app:
        with pytest.warns(RuntimeWarning, match="'forgotten' was never awaited"):
            await run_it()
