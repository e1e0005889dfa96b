"""What a retry keeps: all that no failure had a part in. What it asks about: whatever may have taken effect."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import outlive
from outlive import Outlive, Retry, RunOnHold, RunRefused, Status, step, workflow
from tests.engine.test_doubts import LIMIT_S, until

paid: list[str] = []
stumbles = iter(())


@pytest.fixture(autouse=True)
def _clean() -> None:
    global stumbles
    paid.clear()
    stumbles = iter([True])


def ask_the_bank(*_: Any) -> str:
    if not paid:
        raise LookupError("not paid")
    return f"{paid[0]}, as the bank says"


@step
async def stumble() -> str:
    await asyncio.sleep(0.1)
    if next(stumbles, False):
        raise ValueError("a stone")
    return "walked"


@step
async def walk(number: int) -> int:
    await asyncio.sleep(0.05)
    paid.append(f"walked {number}")
    return number


async def fails(run: outlive.Run[Any], error: type[BaseException], match: str | None = None) -> None:
    with pytest.raises(error, match=match):
        await run.result(timeout=LIMIT_S)


# -- doubts that nobody may lose ---------------------------------------------------
@step(on_unknown="park")
async def pay_parked() -> str:
    paid.append("paid")
    await asyncio.sleep(30 if len(paid) == 1 else 0)
    return "paid"


@step(on_unknown=ask_the_bank)
async def pay_verified() -> str:
    paid.append("paid")
    await asyncio.sleep(30 if len(paid) == 1 else 0)
    return "paid"


@workflow
async def pays_parked() -> str:
    return await pay_parked()


@workflow
async def pays_verified() -> str:
    return await pay_verified()


@workflow
async def stumbles_beside_paying() -> list[str]:
    return list(await outlive.gather(stumble(), pay_parked()))


async def interrupted(url: str, definition: Any, **options: Any) -> None:
    """Leave a run with a step that had begun when its process ended."""
    async with Outlive(url, include=[definition], grace=0) as app:
        await app.start(definition, id="r", **options)
        await until(lambda: paid)


async def test_a_run_cancelled_while_nobody_executes_it_keeps_its_doubt(url: str) -> None:
    await interrupted(url, pays_parked)
    async with Outlive(url, include=[pays_parked], worker=False) as app:
        await (await app.get("r")).cancel()
    async with Outlive(url, include=[pays_parked]) as app:
        run = await app.get("r")
        await fails(run, outlive.RunCancelled)
        await run.retry()
        with pytest.raises(RunOnHold, match="nobody knows whether it took effect"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.resolve("pay_parked#1", value="it was paid")
        assert await run.result(timeout=LIMIT_S) == "it was paid"
    assert paid == ["paid"]


async def test_a_run_that_is_late_while_nobody_executes_it_keeps_its_doubt(url: str) -> None:
    await interrupted(url, pays_verified, deadline=0.5)
    await asyncio.sleep(0.6)
    async with Outlive(url, include=[pays_verified]) as app:
        run = await app.get("r")
        await fails(run, outlive.DeadlineExceeded)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "paid, as the bank says"
    assert paid == ["paid"]


@step(on_unknown="park")
async def pay_and_tidy() -> str:
    paid.append("paid")
    try:
        await asyncio.sleep(30 if len(paid) == 1 else 0)
    finally:
        await asyncio.sleep(5)
    return "paid"


@workflow
async def stumbles_beside_tidying() -> list[str]:
    return list(await outlive.gather(stumble(), pay_and_tidy()))


async def test_a_recorded_error_that_cancels_a_doubt_on_replay_does_not_settle_it(url: str) -> None:
    async with Outlive(url, include=[stumbles_beside_tidying], grace=0) as app:
        run = await app.start(stumbles_beside_tidying, id="r")
        while not any(entry.outcome == "error" for entry in await run.entries()):
            await asyncio.sleep(0.01)
    async with Outlive(url, include=[stumbles_beside_tidying]) as app:
        run = await app.get("r")
        await fails(run, ValueError, "a stone")
        await run.retry()
        with pytest.raises(RunOnHold, match="nobody knows"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
    assert paid == ["paid"]


# -- bodies that end what cuts them off by an error of their own --------------------
async def request() -> str:
    paid.append("paid")
    try:
        await asyncio.sleep(30 if len(paid) == 1 else 0)
    except asyncio.CancelledError as cut:
        raise ConnectionError("the request was aborted") from cut
    return "paid"


@step(on_unknown=ask_the_bank, timeout=0.1, retry=Retry(attempts=3, first_delay=0.01))
async def request_in_time() -> str:
    return await request()


@step(on_unknown=ask_the_bank, retry=Retry(attempts=1_000, first_delay=0.01))
async def request_often() -> str:
    return await request()


@step(retry=Retry(attempts=1_000, first_delay=0.01))
async def poll_often() -> str:
    return await request()


@workflow
async def requests_in_time() -> str:
    return await request_in_time()


@workflow
async def requests_often() -> str:
    return await request_often()


@workflow
async def polls_often() -> str:
    return await poll_often()


@workflow
async def stumbles_beside_requesting() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stumble()), group.create_task(request_often())]
    return [task.result() for task in tasks]


async def test_a_client_that_words_a_timeout_by_itself_is_looked_up(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(requests_in_time) == "paid, as the bank says"
    assert paid == ["paid"]


async def test_a_client_that_words_a_cancellation_by_itself_is_not_tried_again(url: str) -> None:
    async with Outlive(url, include=[requests_often]) as app:
        run = await app.start(requests_often)
        await until(lambda: paid)
        await run.cancel()
        await fails(run, ConnectionError, "aborted")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "paid, as the bank says"
    assert paid == ["paid"]


async def test_a_sibling_that_words_its_cancellation_by_itself_is_looked_up(url: str) -> None:
    async with Outlive(url, include=[stumbles_beside_requesting]) as app:
        run = await app.start(stumbles_beside_requesting)
        await fails(run, ExceptionGroup, "TaskGroup")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", "paid, as the bank says"]
    assert paid == ["paid"]


async def test_such_a_body_does_not_go_on_while_its_run_is_paused(url: str) -> None:
    async with Outlive(url, include=[polls_often]) as app:
        run = await app.start(polls_often)
        await until(lambda: paid)
        await run.pause()
        while await run.status() != Status.PAUSED:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert paid == ["paid"]
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "paid"
    assert paid == ["paid", "paid"]


@step
async def cancels_itself() -> str:
    if next(stumbles, False):
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task
    return "fine"


@workflow
async def runs_what_cancels_itself() -> str:
    return await cancels_itself()


async def test_a_step_that_raises_cancelled_error_by_itself_is_retried(url: str) -> None:
    async with Outlive(url, include=[runs_what_cancels_itself]) as app:
        run = await app.start(runs_what_cancels_itself)
        await fails(run, outlive.RunFailed, "CancelledError")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "fine"


# -- who is asked, and when ----------------------------------------------------------
def slip() -> str:
    return {"state": "paid"}["status"]


@step(on_unknown=slip)
async def pay_with_a_slip() -> str:
    paid.append("paid")
    await asyncio.sleep(30)
    return "paid"


@workflow
async def pays_with_a_slip() -> str:
    return await pay_with_a_slip()


async def test_a_slip_of_who_is_asked_is_no_answer(url: str) -> None:
    """KeyError is a LookupError, too."""
    await interrupted(url, pays_with_a_slip)
    async with Outlive(url, include=[pays_with_a_slip]) as app:
        await fails(await app.get("r"), KeyError, "status")
    assert paid == ["paid"]


@step(on_unknown=ask_the_bank, timeout=0.1, retry=Retry(attempts=3, first_delay=0.01))
def pay_in_a_thread() -> str:
    time.sleep(0.5)
    paid.append("paid")
    return "paid"


@workflow
async def pays_in_a_thread() -> str:
    return await asyncio.to_thread(pay_in_a_thread)


async def test_nobody_is_asked_about_a_thread_that_still_goes_on(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(pays_in_a_thread) == "paid, as the bank says"
    assert paid == ["paid"]


@step(on_unknown=ask_the_bank, timeout=0.05, retry=Retry(attempts=3, first_delay=0.01))
async def pay_at_the_sixth() -> str:
    stumbled = next(stumbles, None)
    await asyncio.sleep(0 if stumbled is None else 30)
    return "paid"


@workflow
async def pays_at_the_sixth() -> str:
    return await pay_at_the_sixth()


async def test_a_doubt_has_all_its_attempts_again_after_a_retry(url: str) -> None:
    global stumbles
    async with Outlive(url, include=[pays_at_the_sixth]) as app:
        stumbles = iter([True] * 5)
        run = await app.start(pays_at_the_sixth)
        await fails(run, TimeoutError)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "paid"


# -- what a run has ended by --------------------------------------------------------
@step(on_unknown=ask_the_bank, timeout=0.1)
async def first_gateway() -> str:
    await asyncio.sleep(30)
    return "first"


@step(on_unknown="park")
async def second_gateway() -> str:
    paid.append("second")
    return "second"


@workflow
async def tries_two_gateways() -> None:
    try:
        await first_gateway()
    except TimeoutError:
        await second_gateway()
    async with asyncio.timeout(0.1):
        await outlive.receive("receipt")


async def test_an_error_of_the_body_is_not_taken_for_one_that_reads_alike(url: str) -> None:
    async with Outlive(url, include=[tries_two_gateways]) as app:
        run = await app.start(tries_two_gateways)
        await fails(run, TimeoutError)
        before = [entry.key for entry in await run.entries()]
        await run.retry()
        await fails(run, TimeoutError)
        assert [entry.key for entry in await run.entries()] == before
    assert paid == ["second"]


@step(on_unknown=lambda name: f"{name}, as the bank says")
async def pay_oddly(name: str) -> Any:
    await asyncio.sleep(0.05)
    paid.append(name)
    return object()


@workflow
async def pays_oddly_at_once() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pay_oddly(name)) for name in "abc"]
    return [task.result() for task in tasks]


async def test_errors_that_read_alike_are_all_found_out_about(url: str) -> None:
    async with Outlive(url, include=[pays_oddly_at_once]) as app:
        run = await app.start(pays_oddly_at_once)
        await fails(run, ExceptionGroup)
        first = list(paid)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == [f"{name}, as the bank says" for name in "abc"]
    assert paid == first


# -- what went on beside ------------------------------------------------------------
@workflow
async def walks_on() -> str:
    await walk(5)
    return "walked on"


async def long_walk() -> list[Any]:
    seen: list[Any] = [await walk(1), await walk(2)]
    await outlive.sleep(0.05)
    try:
        async with asyncio.timeout(0.05):
            await outlive.receive("never sent")
    except TimeoutError:
        seen.append(await walk(3))
    seen += await asyncio.gather(walk(4), walks_on())
    try:
        await trip()
    except LookupError:
        seen.append(await walk(6))
    return seen


@step
async def trip() -> None:
    paid.append("tripped")
    raise LookupError("a root")


@workflow
async def walks_beside(*, late: bool = False) -> Any:
    said = await asyncio.gather(stumble(), long_walk(), return_exceptions=True)
    seen = await walk(7)
    if isinstance(said[0], BaseException):
        raise said[0]
    return [*said, seen]


WALKED = ["walked 1", "walked 2", "walked 3", "walked 4", "walked 5", "tripped", "walked 6"]


async def test_a_branch_that_went_on_beside_a_failure_repeats_nothing(url: str) -> None:
    """Neither steps nor waits, children and errors that it has handled; what came of the failure is done again."""
    async with Outlive(url, include=[walks_beside]) as app:
        run = await app.start(walks_beside)
        await fails(run, ValueError, "a stone")
        assert sorted(paid) == sorted([*WALKED, "walked 7"])
        await run.retry()
        walked = [1, 2, 3, 4, "walked on", 6]
        assert await run.result(timeout=LIMIT_S) == ["walked", walked, 7]
        assert sorted(paid) == sorted([*WALKED, "walked 7", "walked 7"])


@workflow
async def walks_beside_twice() -> list[Any]:
    said = await asyncio.gather(long_walk_and_stumble(), long_walk(), return_exceptions=True)
    for end in said:
        if isinstance(end, BaseException):
            raise end
    return list(said)


async def long_walk_and_stumble() -> str:
    await stumble()
    await outlive.sleep(0.3)
    return await stumble()


async def test_a_run_that_is_retried_again_and_again_repeats_nothing_beside(url: str) -> None:
    global stumbles
    stumbles = iter([True, False, True, True, False])
    async with Outlive(url, include=[walks_beside_twice]) as app:
        run = await app.start(walks_beside_twice)
        for _ in range(3):
            await fails(run, ValueError, "a stone")
            await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", [1, 2, 3, 4, "walked on", 6]]
    assert sorted(paid) == sorted(WALKED)


# -- doubts of what came of the failure ---------------------------------------------
@step(on_unknown=ask_the_bank, timeout=0.1)
async def refund() -> str:
    paid.append("refunded")
    await asyncio.sleep(30)
    return "refunded"


@workflow
async def refunds_in_a_handler() -> None:
    try:
        await stumble()
    except ValueError:
        await refund()


@workflow
async def refunds_as_compensation() -> None:
    await outlive.on_rollback(refund)
    await stumble()


async def test_a_handler_that_may_have_taken_effect_is_not_executed_again_blindly(url: str) -> None:
    async with Outlive(url, include=[refunds_in_a_handler]) as app:
        run = await app.start(refunds_in_a_handler)
        await fails(run, TimeoutError)
        await run.retry()  # it has failed by this one
        assert await run.result(timeout=LIMIT_S) is None
    assert paid == ["refunded"]


@workflow
async def refunds_and_fails_as_before() -> None:
    try:
        await stumble()
    except ValueError:
        try:
            await refund()
        except TimeoutError:
            pass
        raise


async def test_a_retry_from_before_a_doubt_is_refused(url: str) -> None:
    async with Outlive(url, include=[refunds_and_fails_as_before]) as app:
        run = await app.start(refunds_and_fails_as_before)
        await fails(run, ValueError, "a stone")
        with pytest.raises(RunRefused, match=r"went on to refund#1, and nobody knows whether that took effect.*rewind"):
            await run.retry()
        assert await run.status() == Status.FAILED
        await run.rewind(to="stumble#1", reason="nothing was refunded")
        assert await run.result(timeout=LIMIT_S) is None
    assert paid == ["refunded"]


async def test_a_compensation_that_may_have_taken_effect_is_one(url: str) -> None:
    async with Outlive(url, include=[refunds_as_compensation]) as app:
        run = await app.start(refunds_as_compensation)
        await fails(run, ValueError, "a stone")
        with pytest.raises(RunRefused, match="compensations have been executed"):
            await run.retry()
    assert paid == ["refunded"]


async def test_a_rewind_asks_about_what_had_begun_before(url: str) -> None:
    async with Outlive(url, include=[stumbles_beside_paying]) as app:
        run = await app.start(stumbles_beside_paying)
        await fails(run, ValueError, "a stone")
        await run.rewind(to="1/stumble#1")
        with pytest.raises(RunOnHold, match="nobody knows"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
    assert paid == ["paid"]


# -- children ------------------------------------------------------------------------
@workflow
async def child_in_a_shielded_block() -> str:
    await pay_quickly()
    async with outlive.shielded():
        await tidy()
    return "never"


@step(on_unknown="park")
async def pay_quickly() -> str:
    paid.append("paid")
    return "paid"


@step
async def tidy() -> None:
    await asyncio.sleep(0.5)


@step
async def stumble_when_paid() -> str:
    await until(lambda: paid)
    return await stumble.spec.function()  # type: ignore[no-any-return]


@workflow
async def stumbles_beside_a_child() -> list[str]:
    return list(await outlive.gather(stumble_when_paid(), child_in_a_shielded_block()))


async def test_a_retry_waits_for_children_that_were_cancelled(url: str) -> None:
    async with Outlive(url, include=[stumbles_beside_a_child, child_in_a_shielded_block]) as app:
        run = await app.start(stumbles_beside_a_child, id="r")
        await fails(run, ValueError, "a stone")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["walked", "never"]
        assert [child.id for child in (await app.runs(workflow=child_in_a_shielded_block.spec.name)).items] == [
            "r/2/child_in_a_shielded_block#1"
        ]
    assert paid == ["paid"]


async def test_a_retry_waits_not_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker serves the child, it does not end."""
    monkeypatch.setattr("outlive.engine.control.CHILDREN_END_S", 0.1)
    async with Outlive(url, include=[stumbles_beside_a_child, child_in_a_shielded_block], grace=0) as app:
        run = await app.start(stumbles_beside_a_child, id="r")
        await fails(run, ValueError, "a stone")
    async with Outlive(url, worker=False) as app:
        run = await app.get("r")
        with pytest.raises(
            RunRefused, match=r"child 'r/2/child_in_a_shielded_block#1' was asked to cancel and is .*worker"
        ):
            await run.retry()
    assert paid == ["paid"]


@workflow
async def works_apart() -> str:
    await walk(1)
    await outlive.sleep(0.3)
    await walk(2)
    return "done"


@workflow
async def starts_and_stumbles() -> str:
    await outlive.start(works_apart)
    await stumble()
    await outlive.sleep(1)
    return "done"


async def test_children_that_were_only_started_go_on_with_their_parent(url: str) -> None:
    async with Outlive(url, include=[starts_and_stumbles, works_apart]) as app:
        run = await app.start(starts_and_stumbles, id="r")
        await fails(run, ValueError, "a stone")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "done"
        assert await (await app.get("r/works_apart#1")).result(timeout=LIMIT_S) == "done"
    assert paid == ["walked 1", "walked 2"]
