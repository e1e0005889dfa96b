"""Queues: who is admitted from a line, in which order, within which limits; and what becomes of a run that waits."""

from __future__ import annotations

import json

import pytest

from outlive.model.line import QueueLimits, decode_limits
from outlive.model.reads import LineRow
from outlive.model.writes import Batch, Terms
from outlive.store.refusals import FenceLost
from tests.conformance.records import EXPIRED_S, claim_all, finish, new_run, register, release, start, status


async def admit(store, fence, limit: int = 100, *, queues=None, after: str = "") -> list[str]:
    return [run.id for run in (await store.claim_line(fence, ["ship"], queues, limit, after)).claimed]


async def limit(store, queue: str, **limits) -> None:
    await store.put_queue(queue, declared=json.dumps(limits))


async def end(store, fence, *runs) -> None:
    await store.commit(Batch(finishes=[finish(run.row) for run in runs]), fence)


async def test_a_run_of_a_queue_is_admitted_and_by_nobody_else(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start(store, "a", queue="mail", key="k", priority=3)
        assert await status(store, "a") == "queued"
        assert await claim_all(store, fence) == []
        found = await store.claim_line(fence, ["ship"], None, 5, "")
        (claimed,) = found.claimed
        assert (claimed.row, claimed.id, claimed.claim, claimed.fresh) == (run.row, "a", 1, True)
        assert (claimed.lined, claimed.ending, claimed.asked) == (True, False, False)
        assert (claimed.queue, claimed.key, claimed.priority) == ("mail", "k", 3)
        assert (found.waiting, found.next_at) == (False, None)
        info = await store.find_run("a")
        assert info is not None
        assert (info.status, info.worker, info.started_at) == ("running", fence.worker, claimed.started_at)
        assert await admit(store, fence) == []


async def test_the_fence_is_checked(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", queue="mail")
        await store.take_over([fence.worker])
        with pytest.raises(FenceLost):
            await store.claim_line(fence, ["ship"], None, 5, "")
        assert await status(store, "a") == "queued"


@pytest.mark.parametrize("limits", [{"concurrency": 2}, {"per_worker": 2}, {"per_key": 2}])
async def test_no_more_than_the_limit_and_more_when_one_has_ended(database, limits):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", **limits)
        runs = await start(store, *"abcde", queue="q", key="k")
        assert await admit(store, fence) == ["a", "b"]
        found = await store.claim_line(fence, ["ship"], None, 5, "")
        assert (found.claimed, found.waiting, found.next_at) == ([], True, None)
        await end(store, fence, runs[0])
        assert await admit(store, fence) == ["c"]
        await end(store, fence, runs[1], runs[2])
        assert await admit(store, fence) == ["d", "e"]


async def test_per_worker_is_counted_for_each_worker(database):
    async with database.open() as store:
        one, other = await register(store), await register(store)
        await limit(store, "q", per_worker=2, concurrency=3)
        await start(store, *"abcde", queue="q")
        assert await admit(store, one) == ["a", "b"]
        assert await admit(store, other) == ["c"]


async def test_per_worker_holds_for_woken_and_taken_over_runs(database):
    async with database.open() as store:
        one, other = await register(store), await register(store)
        await limit(store, "q", per_worker=2)
        runs = await start(store, *"abcd", queue="q")
        assert await admit(store, one) == ["a", "b"]
        assert await admit(store, other) == ["c", "d"]
        now = await store.now()
        await store.commit(Batch(releases=[release(run.row, wake_at=now - 1) for run in runs[:2]]), one)
        await start(store, "plain")
        assert await claim_all(store, other) == ["plain"]
        await end(store, other, runs[2])
        assert await claim_all(store, other) == ["a"]
        await store.take_over([one.worker])
        assert await claim_all(store, other) == []
        third = await register(store)
        assert await claim_all(store, third) == ["b"]


async def test_a_slot_is_kept_until_the_end(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", concurrency=1)
        (run, _) = await start(store, "a", "b", queue="q")
        assert await admit(store, fence) == ["a"]
        await store.commit(Batch(releases=[release(run.row)]), fence)
        assert await status(store, "a") == "suspended"
        assert await admit(store, fence) == []
        await store.wake([run.row])
        assert await claim_all(store, fence) == ["a"]
        await store.commit(Batch(releases=[release(run.row, claim=2, hold="paused", hold_reason="{}")]), fence)
        assert await admit(store, fence) == []
        assert await store.resume("a")
        await store.claim(fence, ["ship"], None, 1)
        await store.commit(Batch(finishes=[finish(run.row, claim=3)]), fence)
        assert await admit(store, fence) == ["b"]


async def test_by_priority_then_keys_by_turns_then_by_time(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "x1", "x2", "x3", queue="q", key="x")
        await start(store, "y1", "y2", queue="q", key="y")
        await start(store, "n1", "n2", queue="q")
        await start(store, "late", queue="q", priority=1)
        await start(store, "early", queue="q", priority=-1, key="z")
        assert await admit(store, fence, 2) == ["early", "n1"]  # behind z: the key '' is the first one
        assert await admit(store, fence, 4) == ["x1", "y1", "n2", "x2"]
        assert await admit(store, fence) == ["y2", "x3", "late"]


async def test_a_key_that_is_full_is_passed_over(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", per_key=1, concurrency=3)
        runs = await start(store, *(f"x{number}" for number in range(30)), queue="q", key="x")
        await start(store, "y", queue="q", key="y")
        await start(store, "z1", "z2", queue="q", key="z", priority=5)
        assert await admit(store, fence) == ["x0", "y", "z1"]
        await end(store, fence, runs[0])
        assert await admit(store, fence) == ["x1"]


async def test_a_rate_holds_in_any_window(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", rate=[2, 600])
        await limit(store, "k", rate_per_key=[1, 600])
        runs = await start(store, *"abc", queue="q")
        await start(store, "x1", "x2", queue="k", key="x")
        await start(store, "y1", queue="k", key="y")
        before = await store.now()
        assert await admit(store, fence, queues=["q"]) == ["a", "b"]
        assert await admit(store, fence, queues=["k"]) == ["x1", "y1"]
        await end(store, fence, *runs[:2])
        for queue in ("q", "k"):
            found = await store.claim_line(fence, ["ship"], [queue], 9, "")
            assert (found.claimed, found.waiting) == ([], True)
            assert found.next_at is not None and before + 599 < found.next_at < before + 660
        await store.put_queue("q", changed='{"rate": [2, 0.000001]}')
        assert await admit(store, fence, queues=["q"]) == ["c"]


async def test_each_limit_of_several_holds(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", concurrency=4, per_worker=3, per_key=1, rate=[3, 600])
        await start(store, "x1", "x2", queue="q", key="x")
        runs = await start(store, "y1", queue="q", key="y")
        assert await admit(store, fence) == ["x1", "y1"]
        await end(store, fence, *runs)
        await start(store, "z1", "z2", queue="q", key="z")
        await start(store, "w", queue="q", key="w")
        assert await admit(store, fence) == ["z1"]  # behind y; the rate allows one more


async def test_a_delayed_run_joins_the_line_when_it_is_due(database):
    async with database.open() as store:
        fence = await register(store)
        before = await store.now()
        await start(store, "late", queue="q", delay_s=500.0)
        await start(store, "soon", queue="q", delay_s=0.000001)
        await start(store, "now", queue="q")
        assert await status(store, "late") == "scheduled"
        found = await store.claim_line(fence, ["ship"], None, 9, "")
        assert [run.id for run in found.claimed] == ["soon", "now"]
        assert found.next_at is not None and before + 499 < found.next_at < before + 560
        assert not found.waiting


async def test_a_paused_queue_admits_nothing(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", queue="q")
        await store.put_queue("q", paused=True)
        found = await store.claim_line(fence, ["ship"], None, 9, "")
        assert (found.claimed, found.waiting) == ([], False)
        await store.put_queue("q", paused=False)
        assert await admit(store, fence) == ["a"]


async def test_known_workflows_and_served_queues_only(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "other", queue="q", workflow="refund")
        await start(store, "a", queue="q")
        await start(store, "b", queue="p")
        assert await admit(store, fence, queues=["nobody"]) == []
        assert await admit(store, fence, queues=["q"]) == ["a"]
        assert await admit(store, fence) == ["b"]
        assert await status(store, "other") == "queued"


async def test_queues_are_served_by_turns(database):
    async with database.open() as store:
        fence = await register(store)
        for queue in "abc":
            await start(store, *(f"{queue}{number}" for number in range(3)), queue=queue)
        order, last = [], ""
        for _ in range(5):
            found = await store.claim_line(fence, ["ship"], None, 2, last)
            order += [run.id for run in found.claimed]
            last = found.last_queue
        assert order == ["a0", "a1", "b0", "b1", "c0", "c1", "a2", "b2", "c2"]


async def test_changed_limits_win_until_they_are_reset(database):
    async with database.open() as store:
        await limit(store, "q", concurrency=2, per_key=1)
        await store.put_queue("q", changed='{"concurrency": 5}')
        await store.put_queue("q", changed='{"rate": [1, 2]}')
        await limit(store, "q", concurrency=3, per_key=1)
        (row,) = await store.list_queues()
        assert json.loads(row.limits) == {"concurrency": 5, "per_key": 1, "rate": [1, 2]}
        assert json.loads(row.changed) == {"concurrency": 5, "rate": [1, 2]}
        await store.put_queue("q", changed='{"concurrency": null}')
        assert json.loads((await store.list_queues("q"))[0].limits)["concurrency"] is None
        await store.put_queue("q", reset=True)
        (row,) = await store.list_queues("q")
        assert (json.loads(row.limits), row.changed) == ({"concurrency": 3, "per_key": 1}, "{}")


async def test_a_queue_says_how_many_stand_where(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", concurrency=1)
        await start(store, "a", "b", "c", queue="q")
        await start(store, "d", queue="q", delay_s=100.0)
        await start(store, "e", queue="undeclared")
        await admit(store, fence, queues=["q"])
        rows = {row.queue: (row.delayed, row.waiting, row.running, row.paused) for row in await store.list_queues()}
        assert rows == {"q": (1, 2, 1, False), "undeclared": (0, 1, 0, False)}


# -- what becomes of a run that waits ------------------------------------------
async def test_what_is_asked_of_a_waiting_run_is_claimed_without_a_slot(database):
    async with database.open() as store:
        fence = await register(store)
        await limit(store, "q", concurrency=1)
        await start(store, "a", "b", "c", queue="q")
        await admit(store, fence)
        assert await store.add_request("b", "pause", None)
        (claimed,) = await store.claim(fence, ["ship"], None, 9)
        assert (claimed.id, claimed.ending, claimed.lined, claimed.asked) == ("b", True, True, True)
        found = await store.find_run("b")
        assert found is not None and found.started_at is None
        await store.commit(Batch(releases=[release(claimed.row, hold="paused", hold_reason="{}")]), fence)
        assert await store.resume("b")
        assert await status(store, "b") == "queued"
        assert await claim_all(store, fence) == []
        (row,) = await store.list_queues("q")
        assert (row.waiting, row.running) == (2, 1)


async def test_a_worker_that_dies_while_it_ends_a_waiting_run_leaves_it_in_line(database):
    async with database.open() as store:
        fence, other = await register(store), await register(store)
        (run,) = await start(store, "a", queue="q")
        await store.add_request("a", "pause", None)
        await store.claim(fence, ["ship"], None, 9)
        await store.take_over([fence.worker])
        (claimed,) = await store.claim(other, ["ship"], None, 9)
        assert (claimed.ending, claimed.crashes) == (True, 0)
        await store.commit(Batch(releases=[release(run.row, claim=2)]), other)
        (again,) = (await store.claim_line(other, ["ship"], None, 9, "")).claimed
        assert (again.id, again.fresh, again.claim) == ("a", True, 3)


async def test_a_taken_over_run_keeps_its_slot(database):
    async with database.open() as store:
        fence, other = await register(store), await register(store)
        await limit(store, "q", concurrency=1)
        await start(store, "a", "b", queue="q")
        await admit(store, fence)
        await store.take_over([fence.worker])
        assert await admit(store, other) == []
        (claimed,) = await store.claim(other, ["ship"], None, 9)
        assert (claimed.id, claimed.ending, claimed.lined) == ("a", False, True)


async def test_one_unfinished_run_for_each_dedupe(database):
    async with database.open() as store:
        from tests.conformance.records import new_run

        fence = await register(store)
        (first,) = await start(store, "a", queue="q", dedupe="once")
        again = [
            new_run("b", queue="q", dedupe="once"),
            new_run("c", queue="p", dedupe="once"),
            new_run("d", queue="q"),
        ]
        committed = await store.commit(Batch(starts=again), None)
        assert {row: found.id for row, found in committed.existing.items()} == {again[0].row: "a"}
        assert not (await store.commit(Batch(starts=[first]), None)).existing  # its own earlier send
        assert await admit(store, fence) == ["c", "a", "d"]
        await end(store, fence, first)
        await start(store, "e", queue="q", dedupe="once")
        twins = [new_run("f", dedupe="two"), new_run("g", dedupe="two")]
        committed = await store.commit(Batch(starts=twins), None)
        assert {row: found.id for row, found in committed.existing.items()} == {twins[1].row: "f"}


async def test_what_is_retried_or_forked_goes_back_in_line(database):
    async with database.open() as store:
        from outlive.model.writes import Fork, Note, Reopening
        from tests.conformance.records import new_entry

        fence = await register(store)
        await limit(store, "q", concurrency=1)
        (run,) = await start(store, "a", queue="q", key="k", dedupe="once")
        (claimed,) = (await store.claim_line(fence, ["ship"], None, 9, "")).claimed
        failed = finish(run.row, status="failed", started_at=claimed.started_at)
        await store.commit(Batch(entries=[new_entry(run.row)], finishes=[failed]), fence)
        (other,) = await start(store, "b", queue="q", dedupe="once")
        await admit(store, fence)
        note = Note(1, "me", "retry", "run", "a", None, None)
        ended = await store.find_run("a")
        assert await store.reopen([Reopening(run.row, ended.generation, ended.claim, "retry")], note)
        note = Note(2, "me", "fork", "run", "a", None, None)
        assert await store.fork(Fork(7, "c", run.row, 1, ["/pay#1"], {}), note) is None
        assert [await status(store, name) for name in "abc"] == ["queued", "running", "queued"]
        assert await claim_all(store, fence) == [] == await admit(store, fence)
        await end(store, fence, other)
        (again,) = (await store.claim_line(fence, ["ship"], None, 9, "")).claimed
        assert (again.id, again.fresh, again.started_at) == ("a", False, claimed.started_at)
        ended = finish(run.row, claim=again.claim, started_at=again.started_at)
        await store.commit(Batch(finishes=[ended]), fence)
        (forked,) = (await store.claim_line(fence, ["ship"], None, 9, "")).claimed
        assert (forked.id, forked.fresh, forked.started_at) == ("c", False, claimed.started_at)


async def test_what_stands_in_front_of_a_run(database):
    async with database.open() as store:
        fence = await register(store)
        limits = {"concurrency": 3, "rate": [2, 50.0], "rate_per_key": [1, 70.0]}
        await limit(store, "q", **limits)
        held = decode_limits(json.dumps(limits))
        await start(store, "first", "second", queue="q", key="ada", priority=2)
        await start(store, "elsewhere", queue="other", key="ada", priority=-9)
        (run,) = await start(store, "asked", queue="q", key="ada", priority=5)
        assert await store.read_line(run.row, held) == LineRow(2, 0, None, 0, None, None, None, 0, None)
        await limit(store, "q")
        assert await admit(store, fence, 2, queues=["q"]) == ["first", "second"]
        found = await store.read_line(run.row, QueueLimits())
        assert found == LineRow(0, 0, "first", 2, "first", None, None, 2, None)
        await start(store, "smaller", queue="q", key="bob", priority=1)
        await start(store, "larger", queue="q", key="ada", priority=6)
        await start(store, "later", queue="q", key="ada", priority=5)
        await start(store, "delayed", queue="q", key="ada", priority=1, delay_s=60.0)
        await start(store, "beside 1", "beside 2", queue="q", key="bob", priority=5)
        await register(store)  # another worker, which owns nothing
        await register(store, EXPIRED_S)
        found = await store.read_line(run.row, QueueLimits())
        assert (found.ahead, found.beside, found.least_owned) == (1, 2, 0)
        await limit(store, "q", rate=[5, 50.0], rate_per_key=[1, 70.0])
        assert await admit(store, fence, 1, queues=["q"]) == ["smaller"]
        now = await store.now()
        held = QueueLimits(rate=(1, 50.0), rate_per_key=(1, 70.0))
        found = await store.read_line(run.row, held)
        assert (found.ahead, found.of_key, found.oldest_of_key) == (0, 2, "first")
        assert found.rate_at == pytest.approx(now + 50, abs=20)
        assert found.key_rate_at is None  # when others of this key were admitted, the queue had no rate
        assert (await store.read_line(run.row, QueueLimits(rate=(2, 50.0)))).rate_at is None
        assert await store.read_line(12345, held) is None


async def test_whose_end_a_singleton_waits_for(database):
    async with database.open() as store:
        fence = await register(store)
        terms = Terms("singleton", replaces=True)
        runs = [new_run(run_id, key="k", queue="q") for run_id in ("old", "new", "newest")]
        await store.start_alone(new_run("other", key="other", queue="q"), terms, "{}")
        for run in runs:
            await store.start_alone(run, terms, "{}")
            if run.id == "old":
                assert (await store.read_line(run.row, QueueLimits())).replaced is None
                assert sorted(await admit(store, fence)) == ["old", "other"]
        for run in runs[1:]:
            assert (await store.read_line(run.row, QueueLimits())).replaced == "old"
