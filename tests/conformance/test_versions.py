"""Versions: a pinned run is claimed under its name and version only; unfinished runs are counted by version."""

from __future__ import annotations

import time

import pytest

from outlive.model.reads import VersionRow
from outlive.model.writes import Batch, Fence, claim_name
from outlive.store.refusals import FenceLost
from tests.conformance.records import finish, new_entry, new_run, register, release, start, start_owned

ONE, TWO = claim_name("ship", "1"), claim_name("ship", "2")


async def claim(store, fence, *workflows, suspect=False):
    return [
        (run.id, run.workflow, run.version) for run in await store.claim(fence, workflows, None, 9, suspect=suspect)
    ]


async def test_a_pinned_run_is_claimed_by_its_version_alone(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "pinned", version="1", pinned=True)
        await start(store, "free", version="1")
        assert await claim(store, fence, "ship", TWO) == [("free", "ship", "1")]
        assert await claim(store, fence, TWO) == []
        assert await claim(store, fence, "ship", ONE) == [("pinned", "ship", "1")]


async def test_it_stays_pinned_wherever_it_goes(database):
    """Released, taken over from the dead, a suspect, held and cancelled: always for its version only."""
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "pinned", version="1", pinned=True)
        await store.commit(Batch(releases=[release(run.row, wake_at=time.time())]), fence)
        for number in range(3):
            assert await claim(store, fence, "ship", TWO, suspect=number == 2) == []
            found = await claim(store, fence, ONE, suspect=number == 2)
            assert found == [("pinned", "ship", "1")]
            await store.take_over([fence.worker])
            fence = await register(store)
        await store.claim(fence, [ONE], None, 1, suspect=True)
        await store.commit(Batch(releases=[release(run.row, 5, hold="paused", hold_reason="{}")]), fence)
        await store.add_request("pinned", "cancel", None)
        assert await claim(store, fence, "ship", TWO, suspect=True) == []
        assert await claim(store, fence, ONE, suspect=True) == [("pinned", "ship", "1")]


async def test_a_child_is_pinned_with_its_entry(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = new_run("child", version="2", pinned=True, parent=parent.row, parent_key="/pay#1")
        await store.commit(Batch(starts=[child], entries=[new_entry(parent.row, outcome="started")]), fence)
        assert await claim(store, fence, "ship", ONE) == []
        assert await claim(store, fence, TWO) == [("child", "ship", "2")]


async def test_pin_ties_a_run_that_was_started_by_name(database):
    async with database.open() as store:
        fence = await register(store)
        run, other = await start(store, "by-name", "other")
        assert await claim(store, fence, "ship") == [("by-name", "ship", None), ("other", "ship", None)]
        for _ in range(2):  # the second is what is sent when the reply was lost
            await store.pin(fence, {run.row: "1"})
        ends = [release(row, wake_at=time.time()) for row in (run.row, other.row)]
        await store.commit(Batch(releases=ends), fence)
        assert await claim(store, fence, "ship", TWO) == [("other", "ship", None)]
        assert await claim(store, fence, ONE) == [("by-name", "ship", "1")]


async def test_only_the_owner_pins(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        (run,) = await start(store, "by-name")
        await store.claim(fence, ["ship"], None, 1)
        await store.pin(peer, {run.row: "1"})
        with pytest.raises(FenceLost):
            await store.pin(Fence(fence.worker, fence.epoch + 1), {run.row: "1"})
        await store.commit(Batch(releases=[release(run.row, wake_at=time.time())]), fence)
        assert await claim(store, fence, "ship") == [("by-name", "ship", None)]


async def test_unfinished_runs_are_counted_by_version_and_status(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "a", "b", version="1", pinned=True)
        (done,) = await start_owned(store, fence, "done", version="1", pinned=True)
        await store.commit(Batch(finishes=[finish(done.row)]), fence)
        await start(store, "later", version="2", delay_s=60)
        await start(store, "now", version="2")
        _, held, waits = await start_owned(store, fence, "owned", "held", "waits", version="2")
        ends = [release(held.row, hold="paused", hold_reason="{}"), release(waits.row)]
        await store.commit(Batch(releases=ends), fence)
        await start(store, "named", workflow="print")
        old = [VersionRow("ship", "1", True, "queued", 2)]
        statuses = ["paused", "queued", "running", "scheduled", "suspended"]
        new = [VersionRow("ship", "2", False, status, 1) for status in statuses]
        named = [VersionRow("print", None, False, "queued", 1)]
        counted = await store.count_versions("ship")
        assert counted[0] == old[0]  # the oldest first
        assert sorted(counted[1:], key=lambda each: each.status) == new
        assert len(await store.count_versions(None)) == 7
        assert await store.count_versions("print") == named
        assert await store.count_versions("nothing") == []


async def test_a_start_in_a_transaction_of_the_user_is_pinned_too(database):
    async with database.open() as store:
        fence = await register(store)
        (owner,) = await start_owned(store, fence, "owner")
        tx = await store.begin(5.0)
        await store.start_in(tx, new_run("joined", version="1", pinned=True))
        await tx.commit(fence, new_entry(owner.row))
        assert await claim(store, fence, "ship", TWO) == []
        assert await claim(store, fence, ONE) == [("joined", "ship", "1")]
