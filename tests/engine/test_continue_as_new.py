"""`continue_as_new` through the public API: same run, another journal; nothing of the old one is in the way."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import outlive
from outlive import EncodeFailed, Outlive, RunCancelled, Status, UsageError, step, workflow
from outlive.limits import GENERATIONS_KEPT
from outlive.testing import FrozenJournal, replay
from tests.support.size import pick

LIMIT_S = 30.0
executed: list[str] = []
idempotency: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()
    idempotency.clear()


@step
async def note(text: str) -> str:
    executed.append(text)
    idempotency.append(outlive.info().idempotency_key)  # type: ignore[union-attr]
    return text


@step
def note_plainly(text: str) -> str:
    executed.append(text)
    return text


@workflow
async def count(number: int, last: int, total: int = 0) -> int:
    await note(f"{number}")
    if number < last:
        await outlive.continue_as_new(number + 1, last, kwargs={"total": total + number})
    return total + number


@workflow
def count_plainly(number: int, last: int) -> str:
    note_plainly(f"{number}")
    if number < last:
        outlive.sync.continue_as_new(number + 1, last)
    return f"ended at {number}"


async def test_the_run_stays_and_its_journal_goes(url: str) -> None:
    async with Outlive(url, include=[count]) as app:
        run = await app.start(count, 1, 8, id="run", key="ann", attributes={"a": 1})
        assert await run.result(timeout=LIMIT_S) == 36
        assert executed == [str(number) for number in range(1, 9)]
        info = await run.info()
        assert (info.status, info.key, info.attributes, info.generation) == (Status.SUCCEEDED, "ann", {"a": 1}, 7)
        assert [entry.key for entry in await run.entries()] == ["~7/note#1"]
        assert len((await app.runs()).items) == 1
    assert len(set(idempotency)) == 8, "a service must not take one generation's call for another's"


async def test_plain_workflows_do_too(url: str) -> None:
    async with Outlive(url, include=[count_plainly]) as app:
        assert await (await app.start(count_plainly, 1, 5)).result(timeout=LIMIT_S) == "ended at 5"
    assert executed == ["1", "2", "3", "4", "5"]


@workflow
async def naps(number: int) -> int:
    await outlive.sleep(0.4)
    await note(f"{number}")
    if number < 3:
        await outlive.continue_as_new(number + 1)
    return number


async def test_time_begins_anew_and_a_restart_goes_on_with_the_last_generation(url: str) -> None:
    async with Outlive(url, include=[naps]) as app:
        run = await app.start(naps, 1, id="run")
        async with asyncio.timeout(LIMIT_S):
            while (await run.info()).generation < 1:
                await asyncio.sleep(0.01)
        started_at = (await run.info()).started_at
    for _ in range(2):
        async with Outlive(url, include=[naps]) as app:
            run = await app.get("run")
            assert await run.result(timeout=LIMIT_S) == 3
    assert executed == ["1", "2", "3"]
    async with Outlive(url, worker=False) as client:
        info = await (await client.get("run")).info()
        assert info.started_at == started_at
        assert info.finished_at is not None
        assert (info.finished_at - info.started_at).total_seconds() >= 1.2  # type: ignore[operator]


@workflow
async def tidies(number: int) -> list[str]:
    try:
        if number == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(note("in a branch"))
                await note("in a group")
                await outlive.continue_as_new(2)
        return [await note("second")]
    except Exception as error:
        await note(f"caught {error!r}")
        raise
    finally:
        await note(f"finally {number}")


async def test_it_ends_the_body_as_a_return_does(url: str) -> None:
    """`finally` runs, its calls are journaled before the end; no `except Exception` sees anything, nor does a group."""
    async with Outlive(url, include=[tidies]) as app:
        run = await app.start(tidies, 1)
        assert await run.result(timeout=LIMIT_S) == ["second"]
    assert sorted(executed[:2]) == ["in a branch", "in a group"]
    assert executed[2:] == ["finally 1", "second", "finally 2"]


@workflow
async def child(number: int) -> int:
    await note(f"child {number}")
    if number < 3:
        await outlive.continue_as_new(number + 1)
    return number * 10


@workflow
async def waits_for_ever() -> None:
    await outlive.sleep(days=1)


@workflow
async def parent(number: int) -> list[Any]:
    value = await child(1)
    ending = await outlive.start(waits_for_ever)
    lasting = await outlive.start(waits_for_ever, parent_close="abandon")
    if number < 2:
        await outlive.continue_as_new(number + 1)
    return [value, ending.id, lasting.id]


async def test_children(url: str) -> None:
    """One that goes on as new is awaited to its last end; each generation has children of its own."""
    async with Outlive(url, include=[parent, child, waits_for_ever]) as app:
        value, ending, lasting = await (await app.start(parent, 1, id="run")).result(timeout=LIMIT_S)
        assert value == 30
        assert executed == [f"child {number}" for _ in range(2) for number in (1, 2, 3)]
        sleepers = [info async for info in app.runs(workflow="waits_for_ever")]
        assert len({info.id for info in sleepers}) == 4
        assert {ending, lasting} <= {info.id for info in sleepers}
        cancelled = 0
        async with asyncio.timeout(LIMIT_S):
            while cancelled < 2:
                await asyncio.sleep(0.02)
                statuses = [(await (await app.get(info.id)).status()) for info in sleepers]
                cancelled = statuses.count(Status.CANCELLED)
        assert len([status for status in statuses if not status.final]) == 2
        for info in sleepers:
            await (await app.get(info.id)).cancel()


@workflow
async def for_ever(number: int = 0) -> None:
    await note("turn")
    await outlive.continue_as_new(number + 1)


async def test_it_can_be_paused_and_cancelled_whenever_it_goes_on(url: str) -> None:
    async with Outlive(url, include=[for_ever]) as app:
        run = await app.start(for_ever, id="run")
        async with asyncio.timeout(LIMIT_S):
            await run.pause("for a while")
            while await run.status() != Status.PAUSED:
                await asyncio.sleep(0.01)
            turns = len(executed)
            assert await run.resume()
            while len(executed) < turns + 5:
                await asyncio.sleep(0.01)
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=LIMIT_S)


@pytest.mark.parametrize("asked", ["pause", "cancel"])
async def test_what_is_heard_while_a_generation_is_written_is_for_the_next(
    url: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Outlive(url, include=[for_ever]) as app:
        store, executions = app._engine().store, app._engine().roster.executions
        list_requests = store.list_requests

        async def list_late(fence: Any) -> list[Any]:
            return [one for one in await list_requests(fence) if one.row in executions and executions[one.row].closed]

        monkeypatch.setattr(store, "list_requests", list_late)
        run = await app.start(for_ever, id="run")
        await (run.pause("enough") if asked == "pause" else run.cancel("enough"))
        async with asyncio.timeout(LIMIT_S):
            while await run.status() not in (Status.PAUSED, Status.CANCELLED):
                await asyncio.sleep(0.01)


@step
async def stubborn() -> str:
    executed.append("stubborn")
    try:
        await asyncio.sleep(LIMIT_S)
    except asyncio.CancelledError:
        return "done all the same"
    return "never cancelled"


@workflow
async def goes_on_stubbornly() -> None:
    await stubborn()
    await outlive.continue_as_new()


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
async def test_a_cancellation_that_the_body_never_felt_ends_the_run(url: str, ending: str) -> None:
    """The step has a value after all, and behind it nothing is awaited any more."""
    async with Outlive(url) as app:
        run = await app.start(goes_on_stubbornly, deadline=0.3 if ending == "deadline" else None)
        while not executed:
            await asyncio.sleep(0.01)
        if ending == "cancel":
            await run.cancel("enough")
        with pytest.raises(RunCancelled if ending == "cancel" else outlive.DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert (await run.info()).generation == 0


async def test_a_deadline_counts_from_the_first_start(url: str) -> None:
    async with Outlive(url, include=[for_ever]) as app:
        run = await app.start(for_ever, deadline=0.5)
        with pytest.raises(outlive.DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        assert (await run.info()).generation > 0


@workflow(name="plan", version="1")
async def first_code(number: int) -> str:
    await outlive.sleep(0.3)
    await outlive.continue_as_new(number + 1)


@workflow(name="plan", version="2")
async def second_code(number: int) -> str:
    if number == 0:
        await outlive.sleep(0.3)
        await outlive.continue_as_new(number + 1)
    return await note(f"second code, {number}")


async def test_it_moves_the_run_to_the_code_that_executes_it(url: str) -> None:
    async with Outlive(url, include=[first_code]) as app:
        run = await app.start(first_code, 0, id="run")
        assert (await run.info()).version == "1"
    async with Outlive(url, include=[second_code]) as app:
        run = await app.get("run")
        assert await run.result(timeout=LIMIT_S) == "second code, 1"
        assert (await run.info()).version == "2"


@workflow
async def bulky(text: str) -> int:
    await note(text[:3])
    if text[0] == "a":
        await outlive.continue_as_new("b" + text[1:])
    return len(text)


async def test_large_arguments(url: str) -> None:
    async with Outlive(url, include=[bulky]) as app:
        assert await (await app.start(bulky, "a" * 200_000)).result(timeout=LIMIT_S) == 200_000
    assert executed == ["aaa", "baa"]


# -- bad input --------------------------------------------------------------------
@workflow
async def in_a_branch() -> None:
    await outlive.gather(outlive.continue_as_new(), note("beside"))


@workflow
async def wrong_arguments() -> None:
    await outlive.continue_as_new("one too many")


@workflow
async def unstorable(value: Any = None) -> None:
    await outlive.continue_as_new(float("nan"))


@workflow
async def wrong_keywords() -> None:
    await outlive.continue_as_new(kwargs="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (in_a_branch, UsageError, "not in a branch"),
        (wrong_arguments, TypeError, "too many positional arguments"),
        (unstorable, EncodeFailed, "nan"),
        (wrong_keywords, UsageError, "kwargs=… is a mapping"),
    ],
)
async def test_what_cannot_go_on_fails_and_keeps_its_journal(url: str, code: Any, error: Any, text: str) -> None:
    async with Outlive(url, include=[code]) as app:
        run = await app.start(code)
        with pytest.raises(error, match=text):
            await run.result(timeout=LIMIT_S)
        assert (await run.info()).generation == 0


async def test_outside_a_run_it_says_so() -> None:
    with pytest.raises(UsageError, match=r"outlive\.continue_as_new is for workflow bodies"):
        await outlive.continue_as_new()


# -- many ---------------------------------------------------------------------------
@pytest.mark.timeout(pick(small=120, full=1_800))
async def test_memory_and_tables_stay_as_they_are(url: str) -> None:
    last = pick(small=150, full=10_000)
    async with Outlive(url, include=[count]) as app:
        run = await app.start(count, 1, 20)
        await run.result(timeout=LIMIT_S)
        gc.collect()
        before = len(gc.get_objects())
        run = await app.start(count, 1, last, id="long")
        assert await run.result(timeout=1_500) == last * (last + 1) // 2
        del run
        gc.collect()
        grown = len(gc.get_objects()) - before
        assert grown < last * 5 + 2_000, f"{grown} objects more after {last} generations"
        assert len(app._engine().roster.executions) == 0
        store = app._engine().store
        found = await store.find_run("long")
        assert found is not None
        past = [await store.list_past(found.row, generation) for generation in range(last - 10, last - 1)]
        assert sum(map(len, past)) == GENERATIONS_KEPT


# -- beside everything else ---------------------------------------------------------
@workflow
async def reads(got: list[str]) -> list[str]:
    """One message, one promise and one published value for each generation."""
    got = [*got, await outlive.receive("text", as_type=str)]
    await outlive.publish("got", got)
    await outlive.emit("got", got[-1])
    promise = await outlive.promise(as_type=str)
    await outlive.publish("token", promise.token)
    got = [*got, await promise]
    if len(got) < 6:
        await outlive.continue_as_new(got)
    return got


async def test_messages_streams_and_promises(url: str) -> None:
    """What was not received stays, in its order; each generation waits for promises of its own."""
    async with Outlive(url, include=[reads]) as app:
        run = await app.start(reads, [], id="run")
        for text in ("one", "two", "three"):
            await run.send("text", text, key=text)
        tokens: list[str] = []
        async with asyncio.timeout(LIMIT_S):
            while len(tokens) < 3:
                token = await run.value("token", wait=LIMIT_S)
                if token in tokens:
                    await asyncio.sleep(0.01)
                    continue
                tokens.append(token)
                await app.settle(token, f"settled {len(tokens)}")
        assert await run.result(timeout=LIMIT_S) == ["one", "settled 1", "two", "settled 2", "three", "settled 3"]
        assert [item.value async for item in run.stream("got")] == ["one", "two", "three"]
    reports = await asyncio.to_thread(replay, await journals_of(url), include=[reads])
    assert [report.verdict for report in reports] == ["fits"]


async def journals_of(url: str) -> list[FrozenJournal]:
    async with Outlive(url, worker=False, include=[]) as client:
        return [journal async for journal in client.journals()]


@workflow
async def fails_late(number: int) -> str:
    await note(f"{number}")
    if number < 2:
        await outlive.continue_as_new(number + 1)
    if executed.count("mended") == 0:
        raise LookupError("not yet")
    return await note("end")


async def test_a_later_generation_is_retried_rewound_and_forked(url: str) -> None:
    async with Outlive(url, include=[fails_late]) as app:
        run = await app.start(fails_late, 0, id="run")
        with pytest.raises(LookupError):
            await run.result(timeout=LIMIT_S)
        executed.append("mended")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "end"
        await run.rewind(to="~2/note#1")
        assert await run.result(timeout=LIMIT_S) == "end"
        fork = await run.fork(at="~2/note#2")
        assert await fork.result(timeout=LIMIT_S) == "end"
    assert executed == ["0", "1", "2", "mended", "end", "2", "end", "end"]
    reports = await asyncio.to_thread(replay, await journals_of(url), include=[fails_late])
    assert [report.verdict for report in reports] == ["fits", "fits"], reports


@workflow(name="tied", version="1", pin=True)
async def tied(number: int = 0) -> int:
    await outlive.sleep(0.2)
    if number < 2:
        await outlive.continue_as_new(number + 1)
    return number


@workflow(name="tied", version="2", pin=True)
async def tied_later(number: int = 0) -> int:
    return -1


async def test_a_pinned_run_stays_with_its_version(url: str) -> None:
    async with Outlive(url, include=[tied]) as app:
        await app.start(tied, id="run")
        await asyncio.sleep(0.3)
    async with Outlive(url, include=[tied_later]) as later, Outlive(url, include=[tied]) as app:
        assert await (await later.get("run")).result(timeout=LIMIT_S) == 2
        assert (await (await app.get("run")).info()).version == "1"
