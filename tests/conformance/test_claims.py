"""Claims: which runs, in which order, to whom, and never to two."""

from __future__ import annotations

import asyncio

import pytest

from outlive.model.writes import Batch
from outlive.store.refusals import FenceLost
from tests.conformance.records import (
    LEASE_S,
    claim_all,
    new_run,
    register,
    release,
    start,
    start_owned,
    status,
)


async def crash(store, *run_ids: str, times: int = 1) -> None:
    """Let workers die while these runs are in user code."""
    for _ in range(times):
        fence = await register(store)
        for _ in run_ids:
            await store.claim(fence, ["ship"], None, 100)
            await store.claim(fence, ["ship"], None, 1, suspect=True)
        await store.take_over([fence.worker])


async def test_by_priority_then_due_time(database):
    async with database.open() as store:
        fence = await register(store)
        now = await store.now()
        waiting = await start_owned(store, fence, "old", "older", "oldest")
        times = [now - 10, now - 20, now - 30]
        releases = [release(run.row, wake_at=at) for run, at in zip(waiting, times, strict=True)]
        await store.commit(Batch(releases=releases), fence)
        await start(store, "urgent", priority=-5)
        await start(store, "lazy", priority=5)
        assert await claim_all(store, fence) == ["urgent", "oldest", "older", "old", "lazy"]


async def test_the_order_holds_across_queues(database):
    async with database.open() as store:
        fence = await register(store)
        now, runs = await store.now(), []
        for number, queue in enumerate(["b", "a", "", "c", "a"]):
            runs += await start_owned(store, fence, f"r{number}", queue=queue)
        runs += await start_owned(store, fence, "first", queue="z", priority=-1)
        woken = [release(run.row, wake_at=now - 10 + place) for place, run in enumerate(runs)]
        await store.commit(Batch(releases=woken), fence)
        assert await claim_all(store, fence) == ["first", "r0", "r1", "r2", "r3", "r4"]


async def test_no_more_than_asked_for(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, *(f"r{number}" for number in range(7)))
        assert [run.id for run in await store.claim(fence, ["ship"], None, 3)] == ["r0", "r1", "r2"]
        assert await store.claim(fence, ["ship"], None, 0) == []
        assert [run.id for run in await store.claim(fence, ["ship"], None, 9)] == ["r3", "r4", "r5", "r6"]


async def test_only_known_workflows_and_served_queues(database):
    async with database.open() as store:
        fence = await register(store)
        runs = await start_owned(store, fence, "a", workflow="ship", queue="mail")
        runs += await start_owned(store, fence, "b", workflow="refund", queue="mail")
        due = [release(run.row, wake_at=run.started_at - place) for place, run in zip((1, 2), runs, strict=True)]
        await store.commit(Batch(releases=due), fence)
        await start(store, "c", workflow="ship", queue="")
        await start(store, "d", workflow="unknown")
        assert await store.claim(fence, [], None, 10) == []
        assert await store.claim(fence, ["ship"], [], 10) == []
        assert await store.claim(fence, ["ship"], ["other"], 10) == []
        assert [run.id for run in await store.claim(fence, ["ship"], ["mail", "other"], 10)] == ["a"]
        assert [run.id for run in await store.claim(fence, ["ship", "refund"], None, 10)] == ["b", "c"]
        assert await status(store, "d") == "queued"


async def test_a_claim_gives_all_that_execution_needs(database):
    async with database.open() as store:
        first, second = await register(store), await register(store)
        run = new_run("order-1", version="v1", priority=2, key="k", attributes="{}", deadline_at=2_000_000_000.0)
        await store.commit(Batch(starts=[run]), None)
        (claimed,) = await store.claim(first, ["ship"], None, 10)
        assert (claimed.row, claimed.id, claimed.workflow, claimed.version) == (run.row, "order-1", "ship", "v1")
        assert (claimed.input, claimed.codec, claimed.deadline_at) == ("[]", "json/1", 2_000_000_000.0)
        assert (claimed.queue, claimed.priority, claimed.key, claimed.attributes) == ("", 2, "k", "{}")
        assert (claimed.claim, claimed.crashes, claimed.fresh, claimed.alone) == (1, 0, True, False)
        assert (claimed.parent, claimed.parent_key) == (None, None)
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.status, found.worker, found.started_at) == ("running", first.worker, claimed.started_at)
        await store.commit(Batch(releases=[release(run.row, wake_at=await store.now() - 1)]), first)
        (again,) = await store.claim(second, ["ship"], None, 10)
        assert (again.claim, again.fresh, again.started_at) == (2, False, claimed.started_at)


async def test_a_child_knows_its_parent(database):
    async with database.open() as store:
        from tests.conformance.records import new_entry

        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = new_run("child", parent=parent.row, parent_key="/c#1")
        await store.commit(Batch(starts=[child], entries=[new_entry(parent.row, "/c#1", outcome="started")]), fence)
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert (claimed.id, claimed.parent, claimed.parent_key) == ("child", parent.row, "/c#1")


async def test_no_run_goes_to_two_claimers(shared):
    async with shared.open() as one, shared.open() as two:
        fences = [await register(one), await register(two)]
        await start(one, *(f"r{number}" for number in range(300)))
        taken: list[list[str]] = [[], []]

        async def take(store, fence, mine) -> None:
            while claimed := await store.claim(fence, ["ship"], None, 7):
                mine += [run.id for run in claimed]

        await asyncio.gather(take(one, fences[0], taken[0]), take(two, fences[1], taken[1]))
        assert sorted(taken[0] + taken[1]) == sorted(f"r{number}" for number in range(300))


async def test_suspects_are_claimed_only_if_asked_and_with_their_like(database):
    async with database.open() as store:
        await start(store, "bad-1", "bad-2")
        await crash(store, "bad-1", "bad-2", times=2)
        await start(store, "good")
        fence = await register(store)
        assert await claim_all(store, fence) == ["good"]
        (suspect,) = await store.claim(fence, ["ship"], None, 1, suspect=True)
        assert (suspect.crashes, suspect.alone) == (2, True)
        assert suspect.id in ("bad-1", "bad-2")
        (other,) = await store.claim(fence, ["ship"], None, 100, suspect=True)
        assert {suspect.id, other.id} == {"bad-1", "bad-2"}
        assert await store.claim(fence, ["other"], None, 1, suspect=True) == []
        assert await store.claim(fence, ["ship"], ["other"], 1, suspect=True) == []


@pytest.mark.parametrize(("crashes", "group"), [(2, 19), (3, 8), (4, 1)])
async def test_the_oftener_suspects_have_crashed_the_fewer_are_claimed_together(database, crashes, group):
    async with database.open() as store:
        names = [f"bad-{number}" for number in range(20)]
        await start(store, *names)
        await crash(store, *names, times=crashes)
        fence = await register(store)
        (worse,) = await store.claim(fence, ["ship"], None, 1, suspect=True)
        await store.take_over([fence.worker])
        fence = await register(store)
        claimed = await store.claim(fence, ["ship"], None, 100, suspect=True)
        assert {run.crashes for run in claimed} == {crashes} and len(claimed) == group
        assert all(run.alone for run in claimed) and worse.id not in {run.id for run in claimed}


async def test_without_suspects_asking_for_them_gives_nothing(database):
    async with database.open() as store:
        await start(store, "good")
        fence = await register(store)
        assert await claim_all(store, fence, suspect=True) == []
        assert await claim_all(store, fence) == ["good"]


async def test_a_held_run_is_claimed_to_be_cancelled(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two")
        held = [release(run.row, hold="paused", hold_reason="{}") for run in (one, two)]
        await store.commit(Batch(releases=held), fence)
        assert await store.add_request("one", "cancel", '"enough"')
        assert await store.add_request("two", "pause", None)
        assert await store.claim(fence, ["other"], None, 10) == []
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert (claimed.id, claimed.claim, claimed.fresh) == ("one", 2, False)
        (request,) = await store.list_requests(fence)
        assert (request.row, request.kind, request.payload) == (one.row, "cancel", '"enough"')
        found = await store.find_run("one")
        assert found is not None
        assert (found.status, found.hold_reason) == ("running", None)
        assert await status(store, "two") == "paused"


async def test_strays_are_let_go(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        kept, *_ = await start_owned(store, fence, "kept", "stray-1", "stray-2")
        await start_owned(store, peer, "theirs")
        assert await store.release_strays(fence, [kept.row]) == 2
        assert await store.release_strays(fence, [kept.row]) == 0
        claimed = await store.claim(peer, ["ship"], None, 10)
        assert {run.id: (run.crashes, run.fresh) for run in claimed} == {"stray-1": (0, False), "stray-2": (0, False)}
        assert await store.release_strays(fence, []) == 1
        await store.take_over([fence.worker])
        with pytest.raises(FenceLost):
            await store.release_strays(fence, [])


async def test_next_due_is_the_earliest_of_all(database):
    async with database.open() as store:
        assert await store.next_due() is None
        now = await store.now()
        await start(store, "b", delay_s=50.0, priority=9)
        await start(store, "a", delay_s=70.0)
        due_at = await store.next_due()
        assert due_at is not None
        assert now + 49 < due_at < now + 55
        await start(store, "c")
        due_at = await store.next_due()
        assert due_at is not None
        assert due_at <= await store.now()


async def test_next_due_knows_suspects(database):
    async with database.open() as store:
        await start(store, "bad")
        await crash(store, "bad", times=2)
        due_at = await store.next_due()
        assert due_at is not None
        assert due_at <= await store.now()


async def test_an_expired_lease_may_still_claim_until_it_is_taken_over(database):
    async with database.open() as store:
        fence = await register(store, lease_s=-1.0)
        await start(store, "order-1")
        assert await claim_all(store, fence) == ["order-1"]
        assert LEASE_S > 0
