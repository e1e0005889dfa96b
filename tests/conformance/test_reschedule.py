"""Another start for runs that wait for theirs: in the lines of queues, outside of them; and who is past that."""

from __future__ import annotations

import asyncio

import pytest

from outlive.model.writes import Batch, Note, Terms
from tests.conformance.records import claim_all, finish, new_run, register, release, start, start_owned, status
from tests.conformance.test_queues import admit, end, limit

HOUR_S = 3_600.0


async def starts_in(store, run_id: str) -> float:
    run = await store.find_run(run_id)
    assert run is not None and run.start_at is not None
    return float(run.start_at - await store.now())


async def test_a_delayed_run_outside_queues(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", delay_s=HOUR_S)
        assert await store.reschedule("a", delay_s=2 * HOUR_S)
        assert await status(store, "a") == "scheduled"
        assert HOUR_S < await starts_in(store, "a") <= 2 * HOUR_S
        at = float(int(await store.now()) + 60)
        assert await store.reschedule("a", at=at)
        assert abs(await store.next_due() - at) < 0.001
        assert await claim_all(store, fence) == []
        assert await store.reschedule("a", delay_s=0.0)
        assert await status(store, "a") == "queued"
        assert await claim_all(store, fence) == ["a"]


async def test_a_run_that_waits_to_be_claimed_is_delayed(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", "b")
        assert await store.reschedule("a", delay_s=HOUR_S)
        assert await claim_all(store, fence) == ["b"]


async def test_an_instant_in_the_past_is_now_and_nobody_is_passed(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "first", "second")
        await start(store, "one", "other", queue="q")
        await start(store, "late", delay_s=HOUR_S)
        await start(store, "late in line", queue="q", delay_s=HOUR_S)
        for run_id in ("second", "late", "other", "late in line"):
            assert await store.reschedule(run_id, at=1_000.0)
        assert await claim_all(store, fence) == ["first", "second", "late"]
        assert await admit(store, fence) == ["one", "other", "late in line"]


async def test_a_run_in_line_goes_back_and_joins_it_at_once(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", "b", queue="q")
        assert await store.reschedule("a", delay_s=HOUR_S)
        assert await status(store, "a") == "scheduled"
        (queue,) = await store.list_queues("q")
        assert (queue.delayed, queue.waiting) == (1, 1)
        found = await store.claim_line(fence, ["ship"], None, 5, "")
        assert [run.id for run in found.claimed] == ["b"]
        assert abs(found.next_at - (await store.now() + HOUR_S)) < 60
        assert await store.reschedule("a", delay_s=0.0)
        (queue,) = await store.list_queues("q")
        assert (queue.delayed, queue.waiting) == (0, 1)
        assert await admit(store, fence) == ["a"]


async def test_a_new_time_gives_up_the_place_in_line_and_another_priority_keeps_it(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, *"abcd", queue="q", priority=5)
        assert await store.reschedule("a", delay_s=0.0)
        assert await store.reschedule("d", priority=1)
        assert await store.reschedule("c", priority=-7)
        assert await store.reschedule("c", priority=5)
        for run_id, priority in (("d", 1), ("c", 5)):
            run = await store.find_run(run_id)
            assert run is not None and (run.priority, run.status) == (priority, "queued")
        assert await admit(store, fence) == ["d", "a", "b", "c"]


async def test_priority_outside_queues(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", "b")
        assert await store.reschedule("b", priority=-1)
        assert await claim_all(store, fence) == ["b", "a"]


async def test_a_deadline_stays(database):
    async with database.open() as store:
        await start(store, "plain", deadline_s=60.0, delay_s=5.0)
        await start(store, "lined", deadline_s=60.0, delay_s=5.0, queue="q")
        for run_id in ("plain", "lined"):
            before = await store.find_run(run_id)
            assert await store.reschedule(run_id, delay_s=HOUR_S)
            after = await store.find_run(run_id)
            assert before.deadline_at == after.deadline_at == after.wake_at
        assert await starts_in(store, "lined") > HOUR_S / 2


async def test_the_cap_of_a_debounced_run_stays(database):
    async with database.open() as store:
        fence = await register(store)
        await store.start_alone(new_run("a", key="k"), Terms("debounce", wait_s=5.0, cap_s=60.0), "{}")
        assert await store.reschedule("a", delay_s=HOUR_S)
        run = await store.find_run("a")
        assert (run.line, run.line_at, run.once) == ("delayed", run.cap_at, "debounce")
        assert await store.reschedule("a", delay_s=0.0)
        assert await admit(store, fence) == ["a"]


async def test_who_replaces_another_still_waits_for_its_end(database):
    async with database.open() as store:
        fence = await register(store)
        terms = Terms("singleton", replaces=True)
        old, new = new_run("old", key="k", queue="q"), new_run("new", key="k", queue="q")
        await store.start_alone(old, terms, "{}")
        assert await admit(store, fence) == ["old"]
        await store.start_alone(new, terms, "{}")
        assert await store.reschedule("new", delay_s=0.0)
        assert await admit(store, fence) == []
        await end(store, fence, old)
        assert await admit(store, fence) == ["new"]


async def test_the_only_one_goes_back_and_forth(database):
    async with database.open() as store:
        fence = await register(store)
        await store.start_alone(new_run("only", key="k", queue="q"), Terms("singleton"), "{}")
        for delay_s, found in ((HOUR_S, "scheduled"), (0.0, "queued")):
            assert await store.reschedule("only", delay_s=delay_s)
            assert await status(store, "only") == found
        assert await admit(store, fence) == ["only"]


async def test_a_paused_run_keeps_its_new_time(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start(store, "a", queue="q")
        await store.add_request("a", "pause", None)
        (claimed,) = await store.claim(fence, ["ship"], None, 5)
        assert claimed.ending
        assert not await store.reschedule("a", delay_s=HOUR_S)  # owned, to be held
        await store.commit(Batch(releases=[release(run.row, hold="paused", hold_reason="{}")]), fence)
        assert await store.reschedule("a", delay_s=HOUR_S)
        assert await status(store, "a") == "paused"
        assert await store.resume("a")
        assert await status(store, "a") == "scheduled"
        assert await claim_all(store, fence) == await admit(store, fence) == []


async def test_who_is_past_it(database):
    note = Note(1, "ann", "reschedule", "run", "gone")
    async with database.open() as store:
        fence = await register(store)
        _, waits, gone = await start_owned(store, fence, "owned", "waits", "gone")
        await store.commit(Batch(releases=[release(waits.row)], finishes=[finish(gone.row)]), fence)
        await start(store, "admitted", queue="q")
        assert await admit(store, fence) == ["admitted"]
        await start(store, "unwanted", delay_s=HOUR_S)
        await store.add_request("unwanted", "cancel", None)
        for run_id in ("owned", "waits", "gone", "admitted", "unwanted"):
            before = await store.find_run(run_id)
            assert not await store.reschedule(run_id, delay_s=HOUR_S, priority=3, note=note)
            assert await store.find_run(run_id) == before
        with pytest.raises(KeyError):
            await store.reschedule("never", delay_s=0.0, note=note)
        assert await store.list_audit(None, 10, None) == []
        assert await claim_all(store, fence) == ["unwanted"]


async def test_it_is_noted_in_the_same_transaction(database):
    async with database.open() as store:
        await start(store, "a")
        assert await store.reschedule("a", delay_s=1.0, note=Note(7, "ann", "reschedule", "run", "a", "later"))
        (row,) = await store.list_audit("a", 10, None)
        assert (row.who, row.action, row.reason) == ("ann", "reschedule", "later")


@pytest.mark.parametrize("queue", ["", "q"])
async def test_between_a_claim_and_another_start_there_is_one_winner(database, queue):
    async with database.open() as one:
        fence = await register(one)
        await limit(one, "q", concurrency=50)
        ids = [f"r{number:02}" for number in range(20)]
        await start(one, *ids, queue=queue)

        async def take() -> list[str]:
            return await admit(one, fence, 3) if queue else [r.id for r in await one.claim(fence, ["ship"], None, 3)]

        taken: list[str] = []
        moved = {}
        for at in range(0, 20, 2):
            here = ids[at : at + 2]
            found, *asked = await asyncio.gather(
                take(), *(one.reschedule(run_id, delay_s=HOUR_S) for run_id in reversed(here))
            )
            taken += found
            moved |= dict(zip(reversed(here), asked, strict=True))
        while found := await take():
            taken += found
        assert sorted(taken) == [run_id for run_id in ids if not moved[run_id]]
        for run_id in ids:
            assert await status(one, run_id) == ("scheduled" if moved[run_id] else "running")
