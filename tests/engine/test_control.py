"""Retry, rewind, fork and delete: what is kept, what is executed again, what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlive
from outlive import Outlive, RunCancelled, RunNotFound, RunRefused, Status, step, workflow
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


@step
async def do(what: str) -> str:
    done.append(what)
    if what in broken:
        raise LookupError(f"{what} is broken")
    return f"{what} done"


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
async def three() -> list[str]:
    return [await do("first"), await do("second"), await do("third")]


async def recorded(run: outlive.Run, key: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while key not in keys([entry for entry in await run.entries() if entry.seq]):
            await asyncio.sleep(0.001)


async def fail(run: outlive.Run) -> None:
    with pytest.raises(LookupError, match="broken"):
        await run.result(timeout=LIMIT_S)


def keys(entries: list[outlive.Entry]) -> list[str]:
    return [entry.key for entry in entries]


# -- retry ------------------------------------------------------------------------
async def test_a_retried_run_goes_on_from_where_it_failed(url: str) -> None:
    broken.add("second")
    async with Outlive(url) as app:
        run = await app.start(three, id="r")
        await fail(run)
        before = await run.entries()
        broken.clear()
        await run.retry(reason="mended", by="ada")
        assert await run.result(timeout=LIMIT_S) == ["first done", "second done", "third done"]
        assert done == ["first", "second", "second", "third"]
        info = await run.info()
        assert (info.id, info.generation, info.status) == ("r", 1, Status.SUCCEEDED)
        assert keys(await run.entries()) == ["do#1", "do#2", "do#3"]
        assert await run.entries(generation=0) == before
        assert await run.entries(generation=1) == await run.entries()
        (entry,) = await app.audit("r")
        assert (entry.action, entry.by, entry.reason) == ("retry", "ada", "mended")


async def test_a_run_may_be_retried_again_and_again(url: str) -> None:
    broken.add("third")
    async with Outlive(url) as app:
        run = await app.start(three)
        for generation in range(3):
            await fail(run)
            assert (await run.info()).generation == generation
            await run.retry()
        await fail(run)
        broken.clear()
        await run.retry()
        assert len(await run.result(timeout=LIMIT_S)) == 3
        assert done == ["first", "second", *["third"] * 5]
        for generation in range(4):
            assert [entry.outcome for entry in await run.entries(generation=generation)] == ["ok", "ok", "error"]


@workflow
async def cancelled_in_the_middle() -> list[str]:
    before = await do("before")
    try:
        await wait_at("middle")
    except asyncio.CancelledError:
        await do("tidy up")
        raise
    return [before, await do("after")]


async def test_a_cancelled_run_goes_on_as_if_it_had_not_been(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancelled_in_the_middle)
        await reached("at middle")
        await run.cancel("a mistake")
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        gates.clear()
        await run.retry()
        await reached("at middle", 2)
        gates["middle"].set()
        assert await run.result(timeout=LIMIT_S) == ["before done", "after done"]
        assert done == ["before", "at middle", "tidy up", "at middle", "after"]
        assert keys(await run.entries()) == ["do#1", "wait_at#1", "do#2"]
        assert keys(await run.entries(generation=0)) == ["do#1", "cancel#1", "wait_at#1", "do#2"]


@workflow
async def sleeps_until_it_is_late() -> str:
    await do("early")
    await outlive.sleep(0.7)
    return await do("late")


async def test_a_run_that_was_late_gets_the_time_it_needs(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sleeps_until_it_is_late, deadline=0.4)
        with pytest.raises(outlive.DeadlineExceeded):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "late done"
        assert (await run.info()).deadline is None
        assert done == ["early", "late"]


mended = False


@workflow(version="1")
async def fails_by_itself() -> str:
    value = await do("work")
    if not mended:
        raise ValueError("a bug")
    return value


async def test_a_bug_of_the_body_is_mended_by_other_code(url: str) -> None:
    global mended
    async with Outlive(url) as app:
        run = await app.start(fails_by_itself)
        for _ in range(2):
            with pytest.raises(ValueError, match="a bug"):
                await run.result(timeout=LIMIT_S)
            await run.retry()
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="a bug"):
            await run.result(timeout=LIMIT_S)
        mended = True
        try:
            await run.retry()
            assert await run.result(timeout=LIMIT_S) == "work done"
        finally:
            mended = False
        assert done == ["work"]
        assert await run.entries(generation=0) == await run.entries()


@workflow
async def handles_one_and_fails_of_another() -> list[str]:
    handled = []
    for what in ("handled", "fatal"):
        try:
            handled.append(await do(what))
        except LookupError as error:
            handled.append(str(error))
            if what == "fatal":
                raise RuntimeError("given up") from error
    return handled


async def test_what_the_body_had_handled_stays(url: str) -> None:
    broken.update(("handled", "fatal"))
    async with Outlive(url) as app:
        run = await app.start(handles_one_and_fails_of_another)
        with pytest.raises(RuntimeError, match="given up"):
            await run.result(timeout=LIMIT_S)
        broken.clear()
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["handled is broken", "fatal done"]
        assert done == ["handled", "fatal", "fatal"]


@workflow
async def side_by_side() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(do(what)) for what in ("one", "two", "three")]
        tasks.append(group.create_task(wait_at("four")))
    return [task.result() for task in tasks]


async def test_of_several_errors_all_are_tried_again(url: str) -> None:
    broken.update(("two", "three"))
    async with Outlive(url) as app:
        run = await app.start(side_by_side)
        with pytest.raises(ExceptionGroup):
            await run.result(timeout=LIMIT_S)
        broken.clear()
        gates["four"] = asyncio.Event()
        gates["four"].set()
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["one done", "two done", "three done", "four"]
        assert done.count("one") == 1
        assert (done.count("two"), done.count("three")) == (2, 2)


@workflow
async def grandchild() -> str:
    await do("grandchild begins")
    return await do("grandchild ends")


@workflow
async def child(what: str) -> str:
    return f"{await do(what)}, {await grandchild()}"


@workflow
async def family() -> list[str]:
    return [await do("before"), await child("work"), await do("after")]


async def test_a_failed_child_is_retried_with_its_parent(url: str) -> None:
    broken.add("grandchild ends")
    async with Outlive(url) as app:
        run = await app.start(family, id="f")
        await fail(run)
        broken.clear()
        await run.retry()
        result = await run.result(timeout=LIMIT_S)
        assert result == ["before done", "work done, grandchild ends done", "after done"]
        assert done == ["before", "work", "grandchild begins", "grandchild ends", "grandchild ends", "after"]
        ids = [info.id async for info in app.runs()]
        assert sorted(ids) == ["f", "f/child#1", "f/child#1/grandchild#1"]
        assert [(await (await app.get(one)).info()).generation for one in ids] == [1, 1, 1]
        assert [entry.target for entry in await app.audit()] == ["f"]


async def test_a_child_that_was_mended_alone_gives_its_result_to_the_retried_parent(url: str) -> None:
    broken.add("grandchild ends")
    async with Outlive(url) as app:
        run = await app.start(family, id="f")
        await fail(run)
        broken.clear()
        alone = await app.get("f/child#1/grandchild#1")
        await alone.retry()
        assert await alone.result(timeout=LIMIT_S) == "grandchild ends done"
        await run.retry()
        assert len(await run.result(timeout=LIMIT_S)) == 3
        assert done.count("grandchild ends") == 2


@workflow
async def siblings() -> list[Any]:
    return await outlive.gather(child("good"), slow_child())


@workflow
async def slow_child() -> str:
    return await wait_at("slow")


async def test_a_sibling_that_was_cancelled_goes_on_too(url: str) -> None:
    broken.add("good")
    async with Outlive(url) as app:
        run = await app.start(siblings, id="s")
        await fail(run)
        await until(await app.get("s/2/slow_child#1"), Status.CANCELLED)
        broken.clear()
        gates["slow"] = asyncio.Event()
        gates["slow"].set()
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["good done, grandchild ends done", "slow"]


async def test_what_has_not_failed_is_not_retried(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(three)
        await run.result(timeout=LIMIT_S)
        with pytest.raises(RunRefused, match="succeeded, and only a failed or cancelled run can be retried") as refused:
            await run.retry()
        assert refused.value.run_id == run.id
        waiting = await app.start(cancelled_in_the_middle)
        await reached("at middle")
        with pytest.raises(RunRefused, match="running"):
            await waiting.retry()
        gates["middle"].set()
        await waiting.result(timeout=LIMIT_S)
        assert await app.audit() == []
        assert (await run.info()).generation == 0
        with pytest.raises(outlive.UsageError, match="generations 0 to 0"):
            await run.entries(generation=1)


async def test_two_who_retry_at_once_retry_once(url: str) -> None:
    broken.add("second")
    async with Outlive(url) as app:
        run = await app.start(three)
        await fail(run)
        broken.clear()
        outcomes = await asyncio.gather(run.retry(), run.retry(), run.retry(), return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, RunRefused) for outcome in outcomes) == 2
        assert len(await run.result(timeout=LIMIT_S)) == 3
        assert len(await app.audit()) == 1


# -- rewind -----------------------------------------------------------------------
async def test_a_finished_run_is_rewound(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(three, id="r")
        await run.result(timeout=LIMIT_S)
        await run.rewind("do#2", reason="once more")
        assert await run.result(timeout=LIMIT_S) == ["first done", "second done", "third done"]
        assert done == ["first", "second", "third", "second", "third"]
        assert (await run.info()).generation == 1
        (entry,) = await app.audit("r")
        assert (entry.action, entry.facts, entry.reason) == ("rewind", {"to": "do#2"}, "once more")


async def test_a_run_in_memory_is_taken_out_rewound_and_goes_on(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancelled_in_the_middle)
        await reached("at middle")
        await run.rewind("do#1")
        await reached("at middle", 2)
        gates["middle"].set()
        assert await run.result(timeout=LIMIT_S) == ["before done", "after done"]
        assert done.count("before") == 2 and "tidy up" not in done
        assert [entry.action for entry in await app.audit()] == ["rewind"]


@workflow
async def rests() -> str:
    await do("begin")
    await outlive.sleep(100_000)
    return "rested"


async def test_a_run_that_was_held_stays_held(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(rests)
        await until(run, Status.SUSPENDED)
        await run.pause()
        await until(run, Status.PAUSED)
        await run.rewind("do#1")
        assert await run.status() == Status.PAUSED
        assert done == ["begin"]
        assert await run.entries() == []
        await run.resume()
        await reached("begin", 2)


async def test_a_sleeping_run_is_rewound_by_a_client(url: str) -> None:
    async with Outlive(url, worker=False) as client, Outlive(url) as app:
        run = await app.start(rests, id="r")
        await until(run, Status.SUSPENDED)
        await (await client.get("r")).rewind("do#1")
        await reached("begin", 2)
        await until(run, Status.SUSPENDED)


async def test_a_child_started_after_the_point_is_cancelled_and_another_one_started(url: str) -> None:
    @workflow(name="waits_for_a_child")
    async def waits_for_a_child() -> str:
        await do("before the child")
        return await slow_child()

    async with Outlive(url, include=[waits_for_a_child, slow_child]) as app:
        run = await app.start(waits_for_a_child, id="p")
        await reached("at slow")
        await run.rewind("do#1")
        await reached("at slow", 2)
        await until(await app.get("p/slow_child#1"), Status.CANCELLED)
        gates["slow"].set()
        assert await run.result(timeout=LIMIT_S) == "slow"
        assert await (await app.get("p/slow_child#1@1")).status() == Status.SUCCEEDED


async def test_a_child_started_before_the_point_is_the_same_one(url: str) -> None:
    @workflow(name="beside_a_child")
    async def beside_a_child() -> str:
        waiting = asyncio.create_task(slow_child())
        await asyncio.sleep(0.01)
        await do("beside")
        return await waiting

    async with Outlive(url, include=[beside_a_child, slow_child]) as app:
        run = await app.start(beside_a_child, id="p")
        await recorded(run, "do#1")
        await reached("at slow")
        await run.rewind("do#1")
        await reached("beside", 2)
        gates["slow"].set()
        assert await run.result(timeout=LIMIT_S) == "slow"
        assert done.count("at slow") == 1


@pytest.mark.parametrize("ask", ["rewind", "fork"])
async def test_an_unknown_key_changes_nothing(url: str, ask: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancelled_in_the_middle)
        await reached("at middle")
        for key in ("do#9", "", "nonsense"):
            with pytest.raises(RunRefused, match=r"no entry .*run.entries\(\) lists the keys"):
                await getattr(run, ask)(key)
        gates["middle"].set()
        assert await run.result(timeout=LIMIT_S) == ["before done", "after done"]
        assert done == ["before", "at middle", "after"]
        assert await app.audit() == []
        assert len([info async for info in app.runs()]) == 1


@workflow
async def hears() -> list[str]:
    return [await outlive.receive("news", as_type=str), await do("between"), await outlive.receive("news", as_type=str)]


async def test_a_message_that_was_received_after_the_point_is_received_again(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(hears)
        for word in ("one", "two"):
            await run.send("news", word)
        assert await run.result(timeout=LIMIT_S) == ["one", "between done", "two"]
        await run.rewind("do#1")
        assert await run.result(timeout=LIMIT_S) == ["one", "between done", "two"]


@workflow
async def hears_in_time() -> str:
    await do("before")
    try:
        return str(await outlive.receive("news", timeout=0.05))
    except TimeoutError:
        return f"{await outlive.receive('news')}, too late"


async def test_a_wait_that_timed_out_takes_what_has_come_since(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(hears_in_time)
        await recorded(run, "receive:news#1")
        await run.send("news", "the news")
        assert await run.result(timeout=LIMIT_S) == "the news, too late"
        await run.rewind("receive:news#1")
        assert await run.result(timeout=LIMIT_S) == "the news"
        assert done.count("before") == 1


async def test_a_wait_that_was_cancelled_waits_again(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(hears)
        async with asyncio.timeout(LIMIT_S):
            while not await run.entries():
                await asyncio.sleep(0.001)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        fork = await run.fork("receive:news#1")
        await run.rewind("receive:news#1")
        for again in (run, fork):
            for word in ("one", "two"):
                await again.send("news", word)
            assert await again.result(timeout=LIMIT_S) == ["one", "between done", "two"]


@workflow
async def asks() -> str:
    promise = await outlive.promise(as_type=str)
    done.append(promise.token)
    await do("asked")
    return str(await promise)


async def test_a_promise_that_was_made_after_the_point_is_made_again(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks)
        await recorded(run, "do#1")
        await run.rewind((await run.entries())[0].key)
        await reached("asked", 2)
        first, _, second, _ = done
        assert first != second
        await app.settle(second, value="yes")
        assert await run.result(timeout=LIMIT_S) == "yes"


# -- fork -------------------------------------------------------------------------
async def test_a_fork_is_a_run_of_its_own(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(three, id="r", attributes={"customer": "ada"})
        await run.result(timeout=LIMIT_S)
        fork = await run.fork("do#3", {"do#1": "patched"}, id="f", reason="what if")
        assert fork.created and fork.id == "f"
        assert await fork.result(timeout=LIMIT_S) == ["patched", "second done", "third done"]
        assert done == ["first", "second", "third", "third"]
        info = await fork.info()
        assert (info.forked_from, info.generation, info.parent, info.attributes) == ("r", 0, None, {"customer": "ada"})
        assert await run.result() == ["first done", "second done", "third done"]
        assert (await run.fork("do#3", id="f")).created is False
        with pytest.raises(RunRefused, match="no fork of it"):
            await fork.fork("do#3", id="r")
        assert [(entry.target, entry.facts["fork"]) for entry in await app.audit()] == [("r", "f")]


async def test_a_run_is_forked_while_it_works(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancelled_in_the_middle)
        await reached("at middle")
        await recorded(run, "do#1")
        fork = await run.fork("do#1")
        await reached("at middle", 2)
        gates["middle"].set()
        for one in (run, fork):
            assert await one.result(timeout=LIMIT_S) == ["before done", "after done"]
        assert done.count("before") == 2


@workflow
async def sets() -> list[str]:
    tasks = {asyncio.create_task(do(name), name=name) for name in "abcdefgh"}
    order = [task.get_name() for task in tasks]
    await asyncio.wait(tasks)
    await do("between")
    return [*order, *[task.get_name() for task in {*tasks}]]


async def test_a_fork_has_the_order_of_sets(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(sets)
        first = await run.result(timeout=LIMIT_S)
        for _ in range(2):  # a fork of a fork too
            run = await run.fork("do#1")
            assert await run.result(timeout=LIMIT_S) == first
        assert done.count("a") == 1 and done.count("between") == 3


LARGE = "large " * 20_000


@step
async def grow() -> str:
    return LARGE


@workflow
async def bulky(text: str) -> int:
    return len(text) + len(await grow()) + len(await do("small"))


async def test_a_fork_has_its_own_large_payloads(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(bulky, LARGE, id="r")
        whole = await run.result(timeout=LIMIT_S)
        fork = await run.fork("do#1", id="f")
        assert await fork.result(timeout=LIMIT_S) == whole
        patched = await run.fork("do#1", {"grow#1": LARGE * 2}, id="g")
        assert await patched.result(timeout=LIMIT_S) == whole + len(LARGE)
        await run.delete()
        assert [entry.value for entry in await fork.entries() if entry.key == "grow#1"] == [LARGE]


async def test_what_cannot_be_patched(url: str) -> None:
    broken.add("handled")
    async with Outlive(url) as app:
        run = await app.start(handles_one_and_fails_of_another, id="r")
        await run.result(timeout=LIMIT_S)
        for patch in ({"do#2": 1}, {"do#1": 1}, {"do#7": 1}):  # later, an error, unknown
            with pytest.raises(RunRefused, match="cannot be patched"):
                await run.fork("do#2", patch)
        other = await app.start(three)
        await other.result(timeout=LIMIT_S)
        with pytest.raises(outlive.EncodeFailed, match="patch of do#1"):
            await other.fork("do#2", {"do#1": object()})
        with pytest.raises(outlive.UsageError, match="patch"):
            await other.fork("do#2", ["do#1"])  # type: ignore[arg-type]
        assert len([info async for info in app.runs()]) == 2
        assert await app.audit() == []


# -- delete -----------------------------------------------------------------------
async def test_a_deleted_run_leaves_nothing_but_the_audit(url: str) -> None:
    broken.add("second")
    async with Outlive(url) as app:
        run = await app.start(three, id="r")
        await fail(run)
        broken.clear()
        await run.retry()
        await run.result(timeout=LIMIT_S)
        await run.delete(reason="asked for by the customer", by="ada")
        for read in (run.status, run.info, run.entries, run.delete, run.retry):
            with pytest.raises(RunNotFound):
                await read()  # type: ignore[operator]
        assert [entry.action for entry in await app.audit("r")] == ["delete", "retry"]
        again = await app.start(three, id="r")
        assert again.created
        assert await again.result(timeout=LIMIT_S) == ["first done", "second done", "third done"]
        assert (await again.info()).generation == 0


async def test_an_unfinished_run_is_not_deleted(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(cancelled_in_the_middle, id="r")
        await reached("at middle")
        with pytest.raises(RunRefused, match="not ended yet: r"):
            await run.delete()
        gates["middle"].set()
        await run.result(timeout=LIMIT_S)
        assert await app.audit() == []


async def test_children_go_along_if_all_have_ended(url: str) -> None:
    @workflow(name="leaves_a_child")
    async def leaves_a_child() -> str:
        await outlive.start(slow_child, parent_close="abandon")
        return await child("own")

    async with Outlive(url, include=[leaves_a_child, slow_child, child, grandchild]) as app:
        run = await app.start(leaves_a_child, id="p")
        await run.result(timeout=LIMIT_S)
        await reached("at slow")
        with pytest.raises(RunRefused, match="not ended yet: p/slow_child#1"):
            await run.delete(children=True)
        assert len([info async for info in app.runs()]) == 4
        gates["slow"].set()
        await (await app.get("p/slow_child#1")).result(timeout=LIMIT_S)
        await run.delete(children=True)
        assert [info async for info in app.runs()] == []


async def test_children_stay_if_nobody_asks_for_them(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(family, id="f")
        await run.result(timeout=LIMIT_S)
        await run.delete()
        assert sorted([info.id async for info in app.runs()]) == ["f/child#1", "f/child#1/grandchild#1"]


async def test_children_started_while_a_family_is_read_go_along(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is read when it has no child yet, and has ended when it is to be deleted."""

    @workflow(name="starts_late")
    async def starts_late() -> str:
        await wait_at("middle")
        return await child("own")

    async with Outlive(url, include=[starts_late, child, grandchild]) as app:
        run = await app.start(starts_late, id="p")
        await reached("at middle")
        store = app._engine().store
        list_descendants = store.list_descendants

        async def list_before_it_goes_on(row: int) -> list[int]:
            found = await list_descendants(row)
            if not gates["middle"].is_set():
                gates["middle"].set()
                await run.result(timeout=LIMIT_S)
            return found

        monkeypatch.setattr(store, "list_descendants", list_before_it_goes_on)
        await run.delete(children=True)
        assert await app.count() == 0
