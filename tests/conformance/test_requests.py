"""Requests of operators and other runs, and letting held runs go on."""

from __future__ import annotations

import itertools

import pytest

from outlive.model.writes import Batch, Note
from tests.conformance.records import claim_all, finish, register, release, start, start_owned, status

_numbers = itertools.count(1)


def note(action: str) -> Note:
    return Note(next(_numbers), "ann", action, "run", "one")


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


async def test_resuming_withdraws_a_pause_that_was_not_carried_out_yet(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "one", "two")
        await store.commit(Batch(releases=[release(two.row)]), fence)
        for run in (one, two):
            assert await store.add_request(run.id, "pause", None)
            assert await store.add_request(run.id, "cancel", None)
            assert await store.resume(run.id, Note(run.row, "ann", "resume", "run", run.id))
            assert not await store.resume(run.id, Note(run.row + 1, "ann", "resume", "run", run.id))
            assert [entry.action for entry in await store.list_audit(run.id, 10, None)] == ["resume"]
        assert await claim_all(store, fence) == ["two"]
        assert [request.kind for request in await store.list_requests(fence)] == ["cancel", "cancel"]


async def test_who_has_heard_a_pause_holds_the_run_only_while_it_stands(database):
    async with database.open() as store:
        fence = await register(store)
        withdrawn, stands, again = await start_owned(store, fence, "withdrawn", "stands", "again")
        await store.commit(Batch(releases=[release(again.row)]), fence)
        for run_id in ("withdrawn", "stands", "again"):
            assert await store.add_request(run_id, "pause", None)
        assert await claim_all(store, fence) == ["again"]
        requests = {request.row: request.request for request in await store.list_requests(fence)}
        assert await store.resume("withdrawn")
        assert await store.resume("again")
        assert await store.add_request("again", "pause", None)
        now = await store.now()
        holds = [
            release(run.row, claim, wake_at=now, hold="paused", hold_reason="{}", request=requests[run.row])
            for run, claim in ((withdrawn, 1), (stands, 1), (again, 2))
        ]
        await store.commit(Batch(releases=holds), fence)
        found = {run_id: await store.find_run(run_id) for run_id in ("withdrawn", "stands", "again")}
        assert {run_id: (run.status, run.hold_reason, run.wake_at) for run_id, run in found.items()} == {
            "withdrawn": ("suspended", None, now),
            "stands": ("paused", "{}", None),
            "again": ("suspended", None, now),
        }
        assert sorted(await claim_all(store, fence)) == ["again", "withdrawn"]
        (asked,) = await store.list_requests(fence)
        assert (asked.row, asked.kind) == (again.row, "pause"), "the second pause is still to be heard"
        assert await store.resume("stands")
        await store.commit(Batch(releases=holds), fence)  # sent again, late: another claim has the run by now
        assert await status(store, "stands") == "suspended"


async def test_a_run_is_resumed_with_a_decision_if_nobody_has_owned_it_since(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        decided = {"decision": '{"key": "pay#1"}', "claim": 1}
        assert not await store.resume("one", note("resolve"), **decided), "it is owned"
        await store.commit(Batch(releases=[release(run.row, hold="paused", hold_reason="{}")]), fence)
        await store.add_request("one", "pause", None)
        assert not await store.resume("one", note("resolve"), **{**decided, "claim": 2})
        assert await status(store, "one") == "paused"
        assert await store.list_audit("one", 10, None) == []
        assert await store.resume("one", note("resolve"), **decided)
        assert not await store.resume("one", note("resolve"), **decided)
        assert len(await store.list_audit("one", 10, None)) == 1
        assert await claim_all(store, fence) == ["one"]
        requests = [(request.kind, request.payload) for request in await store.list_requests(fence)]
        assert requests == [("pause", None), ("resolve", '{"key": "pay#1"}')], "a pause stays"
        with pytest.raises(KeyError):
            await store.resume("never", note("resolve"), **decided)


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
