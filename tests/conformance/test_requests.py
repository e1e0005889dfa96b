"""Requests of operators and other runs, and letting held runs go on."""

from __future__ import annotations

import pytest

from outlive.model.writes import Batch
from tests.conformance.records import claim_all, finish, register, release, start, start_owned, status


async def test_the_owner_reads_requests_for_its_runs(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        one, two = await start_owned(store, fence, "one", "two")
        await start_owned(store, peer, "theirs")
        assert await store.add_request("two", "pause", None)
        assert await store.add_request("one", "cancel", '{"reason": "late"}')
        assert await store.add_request("theirs", "cancel", None)
        requests = await store.list_requests(fence)
        assert [(request.row, request.kind, request.payload) for request in requests] == [
            (two.row, "pause", None),
            (one.row, "cancel", '{"reason": "late"}'),
        ]
        assert len(await store.list_requests(peer)) == 1


async def test_asking_twice_is_asking_once(database):
    async with database.open() as store:
        fence = await register(store)
        await start_owned(store, fence, "one")
        assert await store.add_request("one", "cancel", '"first"')
        assert await store.add_request("one", "cancel", '"second"')
        (request,) = await store.list_requests(fence)
        assert request.payload == '"first"'


async def test_a_handled_request_is_gone_and_may_be_asked_again(database):
    async with database.open() as store:
        fence = await register(store)
        await start_owned(store, fence, "one")
        await store.add_request("one", "pause", None)
        (request,) = await store.list_requests(fence)
        batch = Batch(handled_requests=[request.request])
        for _ in range(2):
            await store.commit(batch, fence)
            assert await store.list_requests(fence) == []
        await store.add_request("one", "pause", None)
        (again,) = await store.list_requests(fence)
        assert again.request != request.request


async def test_a_run_that_has_ended_or_never_was(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await store.commit(Batch(finishes=[finish(run.row)]), fence)
        assert not await store.add_request("one", "cancel", None)
        assert not await store.resume("one")
        with pytest.raises(KeyError):
            await store.add_request("never", "cancel", None)
        with pytest.raises(KeyError):
            await store.resume("never")


async def test_a_request_wakes_who_waits(database):
    async with database.open() as store:
        fence = await register(store)
        endless, timed = await start_owned(store, fence, "endless", "timed")
        later = await store.now() + 500
        await store.commit(Batch(releases=[release(endless.row), release(timed.row, wake_at=later)]), fence)
        await start(store, "delayed", delay_s=500.0)
        for run_id in ("endless", "timed", "delayed"):
            assert await store.add_request(run_id, "cancel", None)
        assert sorted(await claim_all(store, fence)) == ["delayed", "endless", "timed"]
        assert len(await store.list_requests(fence)) == 3


async def test_a_paused_run_is_resumed_once(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        assert not await store.resume("one")
        await store.add_request("one", "pause", None)
        await store.commit(Batch(releases=[release(run.row, hold="paused", hold_reason="{}")]), fence)
        assert await store.resume("one")
        assert not await store.resume("one")
        found = await store.find_run("one")
        assert found is not None
        assert (found.status, found.hold_reason) == ("suspended", None)
        assert await claim_all(store, fence) == ["one"]
        assert await store.list_requests(fence) == [], "the pause before the resume is over"


async def test_a_waiting_run_is_not_resumed(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        await store.commit(Batch(releases=[release(run.row)]), fence)
        assert not await store.resume("one")
        assert await status(store, "one") == "suspended"
        assert await claim_all(store, fence) == []


async def test_a_claim_says_which_runs_have_been_asked_for_something(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "one", "two")
        assert await store.add_request("two", "cancel", None)
        claimed = await store.claim(fence, ["ship"], None, 10)
        assert {run.id: run.asked for run in claimed} == {"one": False, "two": True}
