"""Starts that may be taken for another run: dedupe, debounce, singleton; and full queues."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import outlive
from outlive import (
    Debounce,
    DuplicateRun,
    Outlive,
    QueueFull,
    Run,
    RunCancelled,
    RunExists,
    RunRefused,
    Status,
    UsageError,
    step,
    workflow,
)

order: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_runs() -> None:
    order.clear()


@step
async def work(name: str) -> str:
    order.append(name)
    return name[:20]


@workflow
async def single_job(name: str) -> str:
    return await work(name)


@workflow
async def single_rest(name: str) -> str:
    order.append(name)
    try:
        await outlive.sleep(60)
    finally:
        await work(f"{name} tidied up")
    return name


@workflow
async def single_wait(name: str) -> str:
    await work(name)
    await outlive.receive("go")
    return name


@workflow
async def single_other(name: str) -> str:
    return name


# -- dedupe --------------------------------------------------------------------
async def test_a_duplicate_is_refused_or_attached_until_the_first_has_ended(url: str) -> None:
    async with Outlive(url, include=[single_rest, single_other]) as app:
        first = await app.start(single_rest, "first", queue="q", dedupe="d")
        with pytest.raises(DuplicateRun, match="on_duplicate='attach'") as caught:
            await app.start(single_rest, "second", queue="q", dedupe="d")
        assert (caught.value.run_id, caught.value.dedupe) == (first.id, "d")
        attached = await app.start(single_rest, "third", queue="q", dedupe="d", on_duplicate="attach")
        assert (attached.id, attached.created) == (first.id, False)
        with pytest.raises(RunExists, match="single_rest"):
            await app.start(single_other, "fourth", queue="q", dedupe="d", on_duplicate="attach")
        assert (await app.start(single_rest, "fifth", id=first.id, queue="q", dedupe="d")).id == first.id
        elsewhere = await app.start(single_other, "elsewhere", dedupe="d")
        assert await elsewhere.result(timeout=10) == "elsewhere"
        await first.cancel()
        with pytest.raises(RunCancelled):
            await first.result(timeout=10)
        assert (await app.start(single_other, "again", queue="q", dedupe="d")).created


async def test_many_starts_at_once_are_one_run(url: str) -> None:
    async with Outlive(url, include=[single_job]) as app:
        await app.pause_queue("q")
        starts = [app.start(single_job, f"{n}", queue="q", dedupe=f"{n % 3}", on_duplicate="attach") for n in range(30)]
        runs = await asyncio.gather(*starts)
        assert len({run.id for run in runs}) == 3
        assert sum(run.created for run in runs) == 3
        await app.resume_queue("q")
        await asyncio.gather(*(run.result(timeout=10) for run in runs))
    assert len(order) == 3


# -- debounce ------------------------------------------------------------------
async def test_the_last_arguments_win(url: str) -> None:
    async with Outlive(url, include=[single_job]) as app:
        debounce = Debounce(wait=0.3, cap=60)
        runs = [await app.start(single_job, name, key="k", debounce=debounce) for name in ("a", "b", "x" * 70_000)]
        assert [run.created for run in runs] == [True, False, False]
        assert len({run.id for run in runs}) == 1
        assert await runs[0].status() == Status.SCHEDULED
        another = await app.start(single_job, "c", key="other", debounce=debounce)
        assert await runs[0].result(timeout=10) == "x" * 20
        assert await another.result(timeout=10) == "c"
        assert (await app.start(single_job, "next", key="k", debounce=Debounce(0))).created
        info = await runs[0].info()
        assert info.started_at is not None and info.started_at - info.created_at >= timedelta(seconds=0.3)
        await app.drain_queue("q")


async def test_calls_without_end_delay_no_longer_than_the_cap(url: str) -> None:
    async with Outlive(url, include=[single_job]) as app:
        run = await app.start(single_job, "first", key="k", queue="q", debounce=Debounce(wait=30, cap=30.2))
        before = (await run.info()).created_at
        async with asyncio.timeout(20):
            again = await app.start(single_job, "last", key="k", queue="q", debounce=Debounce(wait=50, cap=60))
        assert not again.created
        row = await app._engine().store.find_run(run.id)
        assert row is not None
        found = await app._engine().store.claim_line(app._engine().fence(), ["single_job"], None, 1, "")
        assert found.next_at is not None
        assert found.next_at == pytest.approx(before.timestamp() + 30.2, abs=0.1)


async def test_what_has_begun_is_debounced_no_more(url: str) -> None:
    async with Outlive(url, include=[single_rest]) as app:
        first = await app.start(single_rest, "first", key="k", debounce=Debounce(0.01, 0.02))
        async with asyncio.timeout(10):
            while "first" not in order:
                await asyncio.sleep(0.01)
        assert (await app.start(single_rest, "second", key="k", debounce=Debounce(5))).created
        await first.cancel()


# -- singleton -----------------------------------------------------------------
async def test_a_singleton_is_skipped_while_there_is_one(url: str) -> None:
    async with Outlive(url, include=[single_rest]) as app:
        first = await app.start(single_rest, "first", key="k", singleton="skip")
        second = await app.start(single_rest, "second", key="k", singleton="skip")
        assert (second.id, second.created) == (first.id, False)
        assert (await app.start(single_rest, "elsewhere", key="other", singleton="skip")).created
        await first.cancel()
        with pytest.raises(RunCancelled):
            await first.result(timeout=10)
        assert (await app.start(single_rest, "third", key="k", singleton="skip")).created


@pytest.mark.parametrize("queue", [None, "q"])
async def test_a_singleton_takes_the_place_of_the_one_that_runs(url: str, queue: str | None) -> None:
    async with Outlive(url, include=[single_rest, single_job]) as app:
        first = await app.start(single_rest, "first", key="k", queue=queue, singleton="replace")
        async with asyncio.timeout(10):
            while "first" not in order:
                await asyncio.sleep(0.01)
        second = await app.start(single_rest, "second", key="k", queue=queue, singleton="replace")
        third = await app.start(single_rest, "third", key="k", queue=queue, singleton="replace")
        assert second.created and third.created
        for run in (first, second):
            with pytest.raises(RunCancelled, match="takes its place"):
                await run.result(timeout=10)
        async with asyncio.timeout(10):
            while "third" not in order:
                await asyncio.sleep(0.01)
        begun = [name for name in order if name in ("first", "first tidied up", "second", "third")]
        assert begun in (["first", "first tidied up", "third"], ["first", "first tidied up", "second", "third"])


@pytest.mark.parametrize("again", ["retry", "rewind", "fork"])
async def test_a_singleton_that_ended_does_not_come_back_beside_another(url: str, again: str) -> None:
    async def come_back(run: Run) -> None:
        await {"retry": run.retry, "rewind": lambda: run.rewind("work#1"), "fork": lambda: run.fork("work#1")}[again]()

    async with Outlive(url, include=[single_wait]) as app:
        ended = await app.start(single_wait, "ended", key="k", singleton="skip")
        async with asyncio.timeout(10):
            while "ended" not in order:
                await asyncio.sleep(0.01)
        await ended.cancel()
        with pytest.raises(RunCancelled):
            await ended.result(timeout=10)
        other = await app.start(single_wait, "other", id="other", key="k", singleton="skip")
        before = await app.audit()
        with pytest.raises(RunRefused, match="singleton and run 'other' of its key has not ended"):
            await come_back(ended)
        assert (await ended.status(), await app.count("all"), await app.audit()) == (Status.CANCELLED, 2, before)
        await other.cancel()
        with pytest.raises(RunCancelled):
            await other.result(timeout=10)
        await come_back(ended)
        assert not (await app.start(single_wait, "late", key="k", singleton="skip")).created
        with pytest.raises(RunRefused):
            await other.retry()
        assert await app.retry("status:cancelled") == 0
        newest = await app.start(single_wait, "newest", key="k", singleton="replace")
        async with asyncio.timeout(10):
            while "newest" not in order:
                await asyncio.sleep(0.01)
        assert [run.id async for run in app.runs("-status:cancelled")] == [newest.id]


async def test_of_a_retry_and_a_start_at_once_one_is_refused(url: str) -> None:
    async with Outlive(url, include=[single_rest]) as app:
        runs = [await app.start(single_rest, f"{n}", key=f"{n}", singleton="skip") for n in range(10)]
        for run in runs:
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result(timeout=10)
        starts = [app.start(single_rest, "new", key=f"{n}", singleton="skip") for n in range(10)]
        retries = [run.retry() for run in runs]
        pairs = [coroutine for pair in zip(starts, retries, strict=True) for coroutine in pair]
        done = await asyncio.gather(*pairs, return_exceptions=True)
        for run, started, retried in zip(runs, done[::2], done[1::2], strict=True):
            assert isinstance(started, Run)
            assert (started.id == run.id) == (retried is None)
            assert started.created == isinstance(retried, RunRefused)


async def test_an_unfinished_singleton_is_rewound_and_not_forked(url: str) -> None:
    async with Outlive(url, include=[single_wait]) as app:
        resting = await app.start(single_wait, "r", id="r", key="k", singleton="skip")
        async with asyncio.timeout(10):
            while not await resting.entries():
                await asyncio.sleep(0.01)
        with pytest.raises(RunRefused, match="run 'r' of its key has not ended"):
            await resting.fork("work#1")
        await resting.rewind("work#1")
        await resting.send("go", 1)
        assert await resting.result(timeout=10) == "r"


# -- backlog -------------------------------------------------------------------
async def test_a_full_queue_refuses_and_writes_nothing(url: str) -> None:
    app = Outlive(url, include=[single_job])
    app.queue("q", backlog=3)
    async with app:
        await app.pause_queue("q")
        runs = [
            await app.start(single_job, f"{n}", queue="q", id=f"r{n}", delay=1000 if n == 1 else None) for n in range(3)
        ]
        with pytest.raises(QueueFull, match="3 runs wait") as caught:
            await app.start(single_job, "more", queue="q", id="more")
        assert (caught.value.queue, caught.value.backlog) == ("q", 3)
        assert not (await app.start(single_job, "same", queue="q", id="r0")).created
        with pytest.raises(outlive.RunNotFound):
            await app.get("more")
        await app.resume_queue("q")
        assert await runs[0].result(timeout=10) == "0"
        assert await runs[2].result(timeout=10) == "2"
        assert await (await app.start(single_job, "more", queue="q")).result(timeout=10) == "more"


async def test_a_full_queue_drops_who_has_waited_longest(url: str) -> None:
    app = Outlive(url, include=[single_job])
    app.queue("q", backlog=2, on_full="drop_oldest")
    async with app:
        await app.pause_queue("q")
        runs = [await app.start(single_job, f"{n}", queue="q", priority=-n) for n in range(4)]
        for run in runs[:2]:
            with pytest.raises(RunCancelled, match="its queue was full"):
                await run.result(timeout=10)
            assert (await run.info()).started_at is None
        await app.resume_queue("q")
        assert [await run.result(timeout=10) for run in runs[2:]] == ["2", "3"]
    assert order == ["3", "2"]


async def test_many_starts_at_once_do_not_overfill(url: str) -> None:
    app = Outlive(url, include=[single_job])
    app.queue("q", backlog=5)
    async with app:
        await app.pause_queue("q")
        starts = [app.start(single_job, f"{n}", queue="q") for n in range(20)]
        made = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(isinstance(one, QueueFull) for one in made) == 15
        (info,) = await app.queues()
        assert info.waiting == 5


# -- bad input -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"debounce": Debounce(1)}, "needs key"),
        ({"debounce": 1.0, "key": "k"}, "Debounce"),
        ({"debounce": Debounce(-1), "key": "k"}, "wait"),
        ({"debounce": Debounce(2, 1), "key": "k"}, "longer than its cap"),
        ({"debounce": Debounce(1), "key": "k", "delay": 1}, "leave out delay"),
        ({"debounce": Debounce(1), "key": "k", "singleton": "skip"}, "exclude"),
        ({"debounce": Debounce(1), "key": "k", "dedupe": "d"}, "exclude"),
        ({"singleton": "stop"}, "'skip' or 'replace'"),
        ({"dedupe": ""}, "dedupe"),
        ({"dedupe": 3}, "dedupe"),
        ({"dedupe": "d", "on_duplicate": "ignore"}, "'reject' or 'attach'"),
        ({"on_duplicate": "attach"}, "needs dedupe"),
        ({"queue": "a\n"}, "queue"),
        ({"queue": ""}, "leave it out, or say None"),
        ({"tx": object(), "dedupe": "d"}, "without tx"),
        ({"tx": object(), "singleton": "skip"}, "without tx"),
    ],
)
async def test_wrong_terms_are_refused(url: str, options: dict[str, object], told: str) -> None:
    async with Outlive(url, include=[single_job]) as app:
        with pytest.raises(UsageError, match=told):
            await app.start(single_job, "never", **options)  # type: ignore[arg-type]
        assert (await app.runs()).items == []
