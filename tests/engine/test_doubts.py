"""Steps that may not be repeated blindly, and of which nobody knows what became: a retry finds out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import outlive
from outlive import Outlive, Retry, step, workflow
from tests.engine import half_done
from tests.engine.test_unknown_outcomes import LIMIT_S, kill_within_step, make_app

BANK = "OUTLIVE_TEST_BANK"
paid: list[str] = []
stumbles = iter(())


@pytest.fixture(autouse=True)
def _clean() -> None:
    global stumbles
    half_done.effects.clear()
    half_done.asked.clear()
    paid.clear()
    stumbles = iter([True])


async def until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_bank_that_did_not_answer_is_asked_again_by_a_retry(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_within_step(url, "verifies")
    monkeypatch.setenv(BANK, "down")
    async with make_app(url) as app:
        run = await app.get("verifies")
        for _ in range(2):
            with pytest.raises(ConnectionError, match="down"):
                await run.result(timeout=LIMIT_S)
            await run.retry()
        with pytest.raises(ConnectionError):
            await run.result(timeout=LIMIT_S)
        monkeypatch.setenv(BANK, "paid")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["before", "paid"]
    assert half_done.effects == []


async def test_a_bank_that_did_not_answer_says_in_the_end_that_it_was_not_paid(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_within_step(url, "verifies")
    monkeypatch.setenv(BANK, "down")
    async with make_app(url) as app:
        run = await app.get("verifies")
        with pytest.raises(ConnectionError):
            await run.result(timeout=LIMIT_S)
        monkeypatch.setenv(BANK, "not found")
        await run.retry()
        assert (await run.result(timeout=LIMIT_S))[0] == "before"
    assert len(half_done.effects) == 1


async def test_who_dies_while_the_bank_does_not_answer_leaves_the_question(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_within_step(url, "verifies_patiently")
    monkeypatch.setenv(BANK, "down")
    async with Outlive(url, include=[half_done], grace=0):
        await until(lambda: len(half_done.asked) > 2)
    monkeypatch.setenv(BANK, "paid")
    async with make_app(url) as app:
        assert await (await app.get("verifies_patiently")).result(timeout=LIMIT_S) == "paid"
    assert half_done.effects == []


def ask_the_bank() -> str:
    if not paid:
        raise LookupError("not paid")
    return paid[0]


@step(on_unknown=ask_the_bank)
def pay() -> str:
    """In a thread, that nobody can stop."""
    time.sleep(0.3)
    paid.append("paid")
    return "paid"


@step(on_unknown="park")
async def pay_slowly() -> str:
    await asyncio.sleep(0.3)
    paid.append("paid")
    return "paid"


@step
async def stumble() -> str:
    await asyncio.sleep(0.1)
    if next(stumbles, False):
        raise ValueError("a stone")
    return "walked"


@workflow
async def walks_and_pays() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stumble()), group.create_task(asyncio.to_thread(pay))]
    return [task.result() for task in tasks]


@workflow
async def walks_beside_paying() -> list[Any]:
    said = await asyncio.gather(stumble(), pay_slowly(), return_exceptions=True)
    if isinstance(said[0], BaseException):
        raise said[0]
    return list(said)


async def test_what_was_cancelled_in_the_middle_is_looked_up_by_a_retry(url: str) -> None:
    async with Outlive(url, include=[walks_and_pays]) as app:
        run = await app.start(walks_and_pays)
        with pytest.raises(ExceptionGroup, match="TaskGroup"):
            await run.result(timeout=LIMIT_S)
        await until(lambda: paid)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", "paid"]
    assert paid == ["paid"]


async def test_a_cancelled_run_looks_up_what_it_was_doing(url: str) -> None:
    async with Outlive(url, include=[walks_and_pays]) as app:
        next(stumbles)
        run = await app.start(walks_and_pays)
        await asyncio.sleep(0.2)
        await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        await until(lambda: paid)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", "paid"]
    assert paid == ["paid"]


async def test_a_retry_repeats_nothing_that_has_succeeded_beside_what_failed(url: str) -> None:
    async with Outlive(url, include=[walks_beside_paying]) as app:
        run = await app.start(walks_beside_paying)
        with pytest.raises(ValueError, match="a stone"):
            await run.result(timeout=LIMIT_S)
        assert paid == ["paid"]
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", "paid"]
        assert [(entry.name, entry.outcome) for entry in await run.entries()] == [
            ("pay_slowly", "ok"),
            ("stumble", "ok"),
        ]
    assert paid == ["paid"]


@step(on_unknown=ask_the_bank)
async def pay_with_a_stone() -> Any:
    paid.append("paid")
    return object()


@workflow
async def pays_oddly() -> Any:
    return await pay_with_a_stone()


async def test_a_step_whose_result_cannot_be_kept_was_executed(url: str) -> None:
    async with Outlive(url, include=[pays_oddly]) as app:
        run = await app.start(pays_oddly)
        with pytest.raises(outlive.EncodeFailed):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "paid"
    assert paid == ["paid"]


@step(retry=Retry(attempts=3, first_delay=0.01), on_unknown=ask_the_bank)
async def pay_at_last() -> str:
    paid.append("no")
    if len(paid) < 3:
        raise ValueError("no money")
    return "paid"


@workflow
async def pays_at_last() -> str:
    return await pay_at_last()


async def test_an_attempt_that_has_failed_is_no_doubt(url: str) -> None:
    async with Outlive(url, include=[pays_at_last]) as app:
        assert await app.run(pays_at_last) == "paid"
    assert len(paid) == 3


@step(timeout=0.1, retry=Retry(attempts=3, first_delay=0.4, jitter=0), on_unknown=ask_the_bank)
def pay_too_slowly() -> str:
    return str(pay.spec.function())


@workflow
async def pays_too_slowly() -> str:
    return await asyncio.to_thread(pay_too_slowly)


async def test_an_attempt_that_was_too_slow_is_looked_up_before_the_next(url: str) -> None:
    """Its thread goes on, and pays."""
    async with Outlive(url, include=[pays_too_slowly]) as app:
        assert await app.run(pays_too_slowly) == "paid"
    assert paid == ["paid"]


@step(timeout=0.1, retry=Retry(attempts=3, first_delay=0.01), on_unknown="park")
async def pay_parked() -> str:
    paid.append("paid")
    await asyncio.sleep(30)
    return "paid"


@workflow
async def pays_parked() -> str:
    return await pay_parked()


async def test_a_parked_step_that_was_too_slow_waits_for_a_person_after_a_retry(url: str) -> None:
    async with Outlive(url, include=[pays_parked]) as app:
        run = await app.start(pays_parked)
        with pytest.raises(TimeoutError):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        with pytest.raises(outlive.RunOnHold, match="nobody knows whether it took effect"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.resolve("pay_parked#1", value="it was paid")
        assert await run.result(timeout=LIMIT_S) == "it was paid"
    assert paid == ["paid"]


@step(timeout=0.1, retry=Retry(attempts=2, first_delay=0.01))
async def read_slowly() -> str:
    paid.append("read")
    await asyncio.sleep(30 if len(paid) == 1 else 0)
    return "read"


@workflow
async def reads_slowly() -> str:
    return await read_slowly()


async def test_a_plain_step_that_was_too_slow_is_executed_again(url: str) -> None:
    async with Outlive(url, include=[reads_slowly]) as app:
        assert await app.run(reads_slowly) == "read"
    assert paid == ["read", "read"]
