"""The fence: who has been taken over writes nothing any more, nowhere."""

from __future__ import annotations

import pytest

from outlive.model.writes import Batch, Fence
from outlive.store.refusals import FenceLost, WriteRefused
from tests.conformance.records import (
    EXPIRED_S,
    LEASE_S,
    finish,
    new_entry,
    new_run,
    new_worker,
    register,
    start,
    start_owned,
    status,
)


async def test_a_worker_that_was_taken_over_writes_nothing(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await start(store, "order-2")
        await store.take_over([fence.worker])
        batches = [
            Batch(starts=[new_run("order-3")]),
            Batch(entries=[new_entry(run.row)]),
            Batch(finishes=[finish(run.row)]),
            Batch(),
        ]
        for batch in batches:
            with pytest.raises(FenceLost):
                await store.commit(batch, fence)
        assert await store.find_run("order-3") is None
        assert await store.list_entries("order-1") == []
        assert await status(store, "order-1") == "suspended"


async def test_every_door_checks_the_fence(database):
    async with database.open() as store:
        fence = await register(store)
        await store.take_over([fence.worker])
        channel = await store.side_channel()
        with pytest.raises(FenceLost):
            await channel.beat(fence, LEASE_S)
        await channel.close()
        with pytest.raises(FenceLost):
            await store.claim(fence, ["ship"], None, 1)
        await start(store, "order-1")
        with pytest.raises(FenceLost):
            await store.claim(fence, ["ship"], None, 1)
        with pytest.raises(FenceLost):
            await store.list_requests(fence)
        with pytest.raises(FenceLost):
            await store.unregister(fence)
        assert await status(store, "order-1") == "queued"


@pytest.mark.parametrize("wrong", ["epoch", "worker"])
async def test_a_fence_that_never_was(database, wrong):
    async with database.open() as store:
        fence = await register(store)
        other = Fence(fence.worker, fence.epoch + 1) if wrong == "epoch" else Fence(fence.worker + 10**9, fence.epoch)
        with pytest.raises(FenceLost):
            await store.commit(Batch(starts=[new_run("order-1")]), other)
        with pytest.raises(FenceLost):
            await store.claim(other, ["ship"], None, 1)


async def test_a_beat_renews_the_lease(database):
    async with database.open() as store:
        fence = await register(store, EXPIRED_S)
        channel = await store.side_channel()
        now = await channel.beat(fence, LEASE_S)
        await channel.close()
        assert now == pytest.approx(await store.now(), abs=5)
        (worker,) = await store.list_workers()
        assert worker.expires_at == pytest.approx(now + LEASE_S, abs=1)
        assert (await store.take_over([])).workers == []


async def test_a_worker_is_listed_while_it_lives(database):
    async with database.open() as store:
        given = new_worker(host="h1", pid=17, name="shop", lock_path="/run/x.lock", epoch=4)
        fence = await store.register(given, LEASE_S)
        assert fence == Fence(given.worker, 4)
        (listed,) = await store.list_workers()
        assert (listed.worker, listed.epoch, listed.host, listed.pid) == (given.worker, 4, "h1", 17)
        assert (listed.name, listed.lock_path) == ("shop", "/run/x.lock")
        await store.unregister(fence)
        assert await store.list_workers() == []
        with pytest.raises(FenceLost):
            await store.commit(Batch(), fence)


async def test_a_registration_sent_again_is_its_own_and_another_is_refused(database):
    async with database.open() as store:
        worker = new_worker()
        assert await store.register(worker, LEASE_S) == await store.register(worker, LEASE_S)
        with pytest.raises(WriteRefused):
            await store.register(new_worker(worker=worker.worker, host="elsewhere"), LEASE_S)
        assert [listed.host for listed in await store.list_workers()] == ["here"]


async def test_who_leaves_in_good_order_releases_without_a_crash(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        await start_owned(store, fence, "order-1")
        await store.unregister(fence)
        (claimed,) = await store.claim(peer, ["ship"], None, 10)
        assert (claimed.id, claimed.crashes, claimed.fresh, claimed.claim) == ("order-1", 0, False, 2)
