"""Races that only PostgreSQL has: a stale worker's batch or transaction against a takeover, sender against sleeper."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from outlive.clock import SystemClock
from outlive.errors import StoreUnavailable
from outlive.model.writes import Batch, Fence
from outlive.store.interface import Store
from outlive.store.postgres import PostgresStore
from outlive.store.postgres.commit import compose
from outlive.store.postgres.statements import number_parameters, statement
from outlive.store.refusals import FenceLost, RolledBack
from tests.conformance.records import (
    EXPIRED_S,
    claim_all,
    finish,
    new_entry,
    new_run,
    register,
    release,
    start,
    start_owned,
    status,
)
from tests.support.postgres import shared_server

HELD_BACK_S = 0.15  # what has not answered by then waits for a lock


@pytest.fixture
def url() -> Iterator[str]:
    url = shared_server().migrated_database()
    yield url
    shared_server().take_back(url)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random(), **settings)
    await store.open(migrate=True)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def send_batch(connection: Any, batch: Batch, fence: Fence) -> Any:
    """Send a batch as the store does, but within a transaction that the test holds open."""
    made, arguments = compose(batch, fence)
    return await connection.fetchrow(made.text, *arguments)


async def held_back(work: asyncio.Task[Any]) -> bool:
    done, _ = await asyncio.wait({work}, timeout=HELD_BACK_S)
    return not done


async def take_over_all(store: Store) -> list[int]:
    return (await store.take_over([])).workers


async def test_a_hold_that_is_being_written_is_resumed_when_it_stands(url):
    async with opened(url) as store, raw(url) as owner:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        hold = await _paused(store, fence, run.row)
        transaction = owner.transaction()
        await transaction.start()
        await send_batch(owner, hold, fence)
        resuming = asyncio.create_task(store.resume("one"))
        assert await held_back(resuming)
        await transaction.commit()
        assert await resuming
        assert await status(store, "one") == "suspended"
        assert await claim_all(store, fence) == ["one"]
        assert await store.list_requests(fence) == []


async def test_a_pause_that_is_being_withdrawn_holds_nothing(url):
    async with opened(url) as store, raw(url) as operator:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        hold = await _paused(store, fence, run.row)
        transaction = operator.transaction()
        await transaction.start()
        await operator.execute(statement("withdraw_pause").text, "one")
        holding = asyncio.create_task(store.commit(hold, fence))
        assert await held_back(holding)
        await transaction.commit()
        await holding
        assert await status(store, "one") == "suspended"
        assert await claim_all(store, fence) == ["one"]


async def _paused(store: Store, fence: Fence, row: int) -> Batch:
    """Ask for a pause, and give the batch of the owner that has heard it."""
    await store.add_request("one", "pause", None)
    (request,) = await store.list_requests(fence)
    held = release(row, wake_at=await store.now(), hold="paused", hold_reason="{}", request=request.request)
    return Batch(releases=[held])


async def test_takeover_waits_for_a_batch_under_way_and_releases_what_it_wrote(url):
    async with opened(url) as store, raw(url) as zombie:
        fence = await register(store, EXPIRED_S)
        late = new_run("late", owned=True)
        transaction = zombie.transaction()
        await transaction.start()
        assert (await send_batch(zombie, Batch(starts=[late]), fence))["fenced"]
        takeover = asyncio.create_task(store.take_over([]))
        assert await held_back(takeover)
        await transaction.commit()
        taken = await takeover
        assert (taken.workers, taken.released) == ([fence.worker], 1)
        assert await claim_all(store, await register(store)) == ["late"]


async def test_a_batch_that_comes_during_a_takeover_writes_nothing(url):
    async with opened(url) as store, raw(url) as peer:
        fence = await register(store, EXPIRED_S)
        (run,) = await start_owned(store, fence, "order-1")
        transaction = peer.transaction()
        await transaction.start()
        assert await peer.fetchval("select workers from outlive.take_over('{}')") == [fence.worker]
        batch = Batch(starts=[new_run("order-2")], entries=[new_entry(run.row)], finishes=[finish(run.row)])
        zombie = asyncio.create_task(store.commit(batch, fence))
        assert await held_back(zombie)
        await transaction.commit()
        with pytest.raises(FenceLost):
            await zombie
        assert await store.list_entries("order-1") == []
        assert await store.find_run("order-2") is None
        assert await status(store, "order-1") == "suspended"


async def test_a_claim_that_comes_during_a_takeover_takes_nothing(url):
    async with opened(url) as store, raw(url) as peer:
        fence = await register(store, EXPIRED_S)
        await start(store, "order-1")
        transaction = peer.transaction()
        await transaction.start()
        await peer.fetchval("select workers from outlive.take_over('{}')")
        claim = asyncio.create_task(claim_all(store, fence))
        assert await held_back(claim)
        await transaction.commit()
        with pytest.raises(FenceLost):
            await claim
        assert await claim_all(store, await register(store)) == ["order-1"]


async def test_a_beat_that_comes_during_a_takeover_finds_the_lease_lost(url):
    async with opened(url) as store, raw(url) as peer:
        fence = await register(store, EXPIRED_S)
        side = await store.side_channel()
        transaction = peer.transaction()
        await transaction.start()
        await peer.fetchval("select workers from outlive.take_over('{}')")
        beat = asyncio.create_task(side.beat(fence, 60.0))
        assert await held_back(beat)
        await transaction.commit()
        with pytest.raises(FenceLost):
            await beat
        await side.close()


async def test_a_takeover_that_comes_during_a_beat_leaves_the_worker(url):
    async with opened(url) as store, raw(url) as worker:
        fence = await register(store, EXPIRED_S)
        transaction = worker.transaction()
        await transaction.start()
        await worker.execute("update outlive.worker_beats set expires_at = now() + interval '1 minute'")
        takeover = asyncio.create_task(store.take_over([]))
        assert await held_back(takeover)
        await transaction.commit()
        assert (await takeover).workers == []
        await store.commit(Batch(starts=[new_run("order-1")]), fence)


async def test_a_frozen_transaction_holds_up_only_its_own_takeover(url):
    async with opened(url) as store, raw(url) as frozen:
        stuck, dead = await register(store, EXPIRED_S), await register(store, EXPIRED_S)
        await start_owned(store, stuck, "of-stuck")
        await start_owned(store, dead, "of-dead")
        transaction = frozen.transaction()
        await transaction.start()
        await frozen.execute("set local idle_in_transaction_session_timeout = '2s'")
        await frozen.fetch("select 1 from outlive.workers where worker = $1 for key share", stuck.worker)
        assert await take_over_all(store) == [dead.worker]
        assert (await status(store, "of-stuck"), await status(store, "of-dead")) == ("running", "suspended")
        async with asyncio.timeout(20):
            taken: list[int] = []
            for _ in range(20):  # the server ends the frozen session; until then each call waits for a second
                taken += await take_over_all(store)
                if taken:
                    break
        assert taken == [stuck.worker]
        assert await status(store, "of-stuck") == "suspended"


async def test_beats_and_batches_go_on_beside_a_transaction_that_holds_the_fence(url):
    async with opened(url) as store, raw(url) as user:
        fence = await register(store)
        side = await store.side_channel()
        async with user.transaction():
            await user.fetch("select 1 from outlive.workers where worker = $1 for key share", fence.worker)
            async with asyncio.timeout(2):
                await side.beat(fence, 60.0)
                await store.commit(Batch(starts=[new_run("order-1", owned=True)]), fence)
        await side.close()


async def test_two_takeovers_take_each_worker_once(url):
    async with opened(url) as store, opened(url) as other:
        fences = [await register(store, EXPIRED_S) for _ in range(20)]
        for number, fence in enumerate(fences):
            await start_owned(store, fence, f"order-{number}")
        taken = await asyncio.gather(*(each.take_over([]) for each in (store, other) * 3))
        assert sorted(worker for one in taken for worker in one.workers) == sorted(f.worker for f in fences)
        assert sum(one.released for one in taken) == 20


async def test_a_transaction_of_a_stale_worker_does_not_commit(url):
    async with opened(url) as store:
        fence = await register(store, EXPIRED_S)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute("create table bookings (id text)")
        assert await take_over_all(store) == [fence.worker]
        with pytest.raises(FenceLost):
            await tx.commit(fence, new_entry(run.row))
        assert await store.list_entries("order-1") == []
        tx = await store.begin(5.0)
        assert await tx.fetchval("select to_regclass('bookings')") is None
        await tx.rollback()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_stale_transaction_with_an_old_snapshot_does_not_commit(url, level):
    async with opened(url) as store:
        fence = await register(store, EXPIRED_S)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute(f"set transaction isolation level {level}")
        assert await tx.fetchval("show transaction_isolation") == level
        assert await tx.fetchval("select count(*) from outlive.runs") == 1  # the snapshot is taken
        assert await take_over_all(store) == [fence.worker]
        with pytest.raises((RolledBack, FenceLost)):
            await tx.commit(fence, new_entry(run.row))
        tx = await store.begin(5.0)
        with pytest.raises(FenceLost):
            await tx.commit(fence, new_entry(run.row))
        assert await store.list_entries("order-1") == []


async def test_an_old_snapshot_lives_through_heartbeats(url):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        side = await store.side_channel()
        tx = await store.begin(5.0)
        await tx.execute("set transaction isolation level serializable")
        await tx.fetchval("select count(*) from outlive.runs")
        await side.beat(fence, 60.0)
        await tx.commit(fence, new_entry(run.row))
        assert len(await store.list_entries("order-1")) == 1
        await side.close()


async def test_the_same_batch_sent_twice_at_once_is_written_once(url):
    async with opened(url) as store, raw(url) as first:
        fence = await register(store)
        parent, other = await start_owned(store, fence, "parent", "other")
        child = new_run("child", parent=parent.row, parent_key="/ship#1")
        batch = Batch(
            starts=[new_run("order-1", owned=True), child],
            entries=[new_entry(parent.row, "/ship#1", outcome="started"), new_entry(other.row)],
            finishes=[finish(other.row)],
        )
        transaction = first.transaction()
        await transaction.start()
        await send_batch(first, batch, fence)
        again = asyncio.create_task(store.commit(batch, fence))
        assert await held_back(again)
        await transaction.commit()
        committed = await again
        assert (committed.existing, committed.refused) == ({}, set())
        assert await status(store, "other") == "succeeded"
        assert [run.id for run in await store.list_children(parent.row, unfinished=True)] == ["child"]


async def test_starts_with_one_id_from_many_processes_make_one_run(url):
    async with opened(url) as store, opened(url) as other:
        for number in range(20):
            runs = [new_run(f"order-{number}") for _ in range(8)]
            sent = [each.commit(Batch(starts=[run]), None) for each, run in zip([store, other] * 4, runs, strict=True)]
            committed = await asyncio.gather(*sent)
            won = [run for run, one in zip(runs, committed, strict=True) if not one.existing]
            assert len(won) == 1
            existing = {one.existing[run.row].row for run, one in zip(runs, committed, strict=True) if one.existing}
            assert existing == {won[0].row}


async def test_batches_that_start_the_same_ids_do_not_deadlock(url):
    async with opened(url) as store:
        names = [f"order-{number}" for number in range(60)]
        batches = []
        for _ in range(12):
            random.shuffle(names)
            batches.append(Batch(starts=[new_run(name) for name in names]))
        committed = await asyncio.gather(*(store.commit(batch, None) for batch in batches))
        assert sum(60 - len(one.existing) for one in committed) == 60


# -- wake-ups -----------------------------------------------------------------


async def family(store: Store, fence: Fence) -> tuple[int, int]:
    """Start a parent that has noted that it awaits its child, both owned."""
    (parent,) = await start_owned(store, fence, "parent")
    child = new_run("child", parent=parent.row, parent_key="/ship#1", owned=True)
    note = new_entry(parent.row, "/ship#1", outcome="started", kind="child")
    await store.commit(Batch(starts=[child], entries=[note]), fence)
    return parent.row, child.row


async def test_a_child_that_ends_while_its_parent_falls_asleep_wakes_it(url):
    async with opened(url) as store, raw(url) as owner:
        fence, owner_fence = await register(store), await register(store)
        parent, child = await family(store, fence)
        await owner.execute("update outlive.live set owner = $1 where row = $2", owner_fence.worker, child)
        transaction = owner.transaction()
        await transaction.start()
        await send_batch(owner, Batch(finishes=[finish(child)]), owner_fence)
        async with asyncio.timeout(2):  # the batch of the child waits for no row of the parent, nor the other way
            await store.commit(Batch(releases=[release(parent)]), fence)
        assert await store.list_ended([child]) == []  # the look after falling asleep comes too early
        await transaction.commit()
        await store.wake([parent])  # the child's owner, in a second statement
        assert await claim_all(store, fence) == ["parent"]


async def test_a_parent_that_falls_asleep_too_late_for_the_wake_sees_the_end_itself(url):
    async with opened(url) as store:
        fence = await register(store)
        parent, child = await family(store, fence)
        await store.commit(Batch(finishes=[finish(child)]), fence)
        await store.wake([parent])
        await store.commit(Batch(releases=[release(parent)]), fence)
        assert [run.row for run in await store.list_ended([child])] == [child]
        assert await claim_all(store, fence) == []
        assert await store.sweep() == 1  # had its owner died instead of looking
        assert await claim_all(store, fence) == ["parent"]
        assert await store.sweep() == 0


async def test_a_batch_waits_for_no_other_run_s_hot_row(url):
    async with opened(url) as store, raw(url) as peer:
        fence = await register(store)
        parent, child = await family(store, fence)
        async with peer.transaction():
            await peer.execute("update outlive.live set crashes = crashes where row = $1", parent)
            async with asyncio.timeout(2):
                await store.commit(Batch(entries=[new_entry(child)], finishes=[finish(child)]), fence)


async def test_claims_wakes_sweeps_and_requests_at_once_lose_nothing(url):
    async with opened(url, pool_size=8) as store, opened(url, pool_size=8) as other:
        fences = [await register(store), await register(other)]
        runs = await start(store, *(f"order-{number}" for number in range(120)))
        rows = [run.row for run in runs]
        ended: set[int] = set()
        claims: dict[int, int] = {}

        async def work(each: Store, fence: Fence) -> None:
            chance = random.Random(fence.worker)
            while len(ended) < len(rows):
                claimed = await each.claim(fence, ["ship"], None, 10)
                for run in claimed:
                    claims[run.row] = claims.get(run.row, 0) + 1
                    assert run.claim == claims[run.row], "two workers hold one run"
                done = [run for run in claimed if run.claim > 2]
                asleep = [run for run in claimed if run.claim <= 2]
                batch = Batch(
                    finishes=[finish(run.row, run.claim) for run in done],
                    releases=[release(run.row, run.claim) for run in asleep],
                )
                await each.commit(batch, fence)
                ended.update(run.row for run in done)
                await each.wake(chance.sample(rows, 40))

        async def disturb(each: Store) -> None:
            while len(ended) < len(rows):
                await each.sweep()
                await each.add_request(random.choice(runs).id, "cancel", None)
                await asyncio.sleep(0)

        async with asyncio.timeout(50):
            await asyncio.gather(
                *(work(each, fence) for each, fence in zip([store, other], fences, strict=True) for _ in range(2)),
                disturb(store),
                disturb(other),
            )
        assert {await status(store, run.id) for run in runs} == {"succeeded"}
        await store.sweep()
        assert await store.list_requests(fences[0]) == []


async def test_who_stood_in_the_way_of_a_start_and_is_deleted_holds_up_no_other_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url) as store:
        there, late, other = new_run("a"), new_run("a"), new_run("b")
        await store.commit(Batch(starts=[there]), None)
        find_taken = store._find_taken

        async def deleted_before(starts: Any) -> Any:
            return [row for row in await find_taken(starts) if row["row"] != there.row]

        monkeypatch.setattr(store, "_find_taken", deleted_before)
        committed = await store.commit(Batch(starts=[late, other]), None)
        assert (committed.deferred, committed.existing) == ({late.row}, {})
        assert await status(store, "b") == "queued"


async def test_a_process_that_stands_still_in_a_transaction_is_hung_up_on(url: str) -> None:
    async with opened(url) as store:
        with pytest.raises(StoreUnavailable):
            async with store._transaction() as send:
                ((timeout,),) = await send(number_parameters("show idle_in_transaction_session_timeout"))
                await send(number_parameters("set local idle_in_transaction_session_timeout = '50ms'"))
                await asyncio.sleep(0.3)
                await send("put_account", account="team", changed=None, stopped=True)
        assert timeout == "3s"
        assert await store.now() > 0
        assert await store.list_accounts("team", None, 1, "") == []
