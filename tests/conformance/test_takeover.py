"""Takeover: the runs of the dead go on, crashes are counted, poison is quarantined."""

from __future__ import annotations

import asyncio
import json

import pytest

from outlive.limits import QUARANTINE_CRASHES, SUSPECT_CRASHES
from outlive.model.writes import Batch
from tests.conformance.records import (
    EXPIRED_S,
    claim_all,
    mark,
    register,
    start,
    start_owned,
    status,
)


async def test_an_expired_worker_loses_its_runs(database):
    async with database.open() as store:
        dead, live = await register(store, EXPIRED_S), await register(store)
        await start_owned(store, dead, "a", "b")
        await start_owned(store, live, "c")
        taken = await store.take_over([])
        assert (taken.workers, taken.released, taken.quarantined) == ([dead.worker], 2, [])
        assert [worker.worker for worker in await store.list_workers()] == [live.worker]
        assert sorted(await claim_all(store, live)) == ["a", "b"]
        assert await status(store, "c") == "running"
        again = await store.take_over([dead.worker])
        assert (again.workers, again.released) == ([], 0)


async def test_a_worker_known_to_be_dead_is_taken_over_before_its_lease_ends(database):
    async with database.open() as store:
        dead, live = await register(store), await register(store)
        await start_owned(store, dead, "a")
        taken = await store.take_over([dead.worker, 99])
        assert taken.workers == [dead.worker]
        (claimed,) = await store.claim(live, ["ship"], None, 10)
        assert (claimed.id, claimed.crashes, claimed.fresh, claimed.claim) == ("a", 1, False, 2)


async def test_only_runs_in_user_code_have_crashed(database):
    async with database.open() as store:
        dead, live = await register(store), await register(store)
        waiting, busy = await start_owned(store, dead, "waiting", "busy")
        await store.commit(Batch(marks=[mark(waiting.row, in_user_code=False), mark(busy.row, claim=5)]), dead)
        await store.take_over([dead.worker])
        claimed = await store.claim(live, ["ship"], None, 10)
        assert {run.id: run.crashes for run in claimed} == {"waiting": 0, "busy": 1}


async def test_progress_clears_the_crashes(database):
    async with database.open() as store:
        await start(store, "run")
        for number in range(3):
            fence = await register(store)
            (claimed,) = await store.claim(fence, ["ship"], None, 10)
            assert claimed.crashes == min(number, 1)
            await store.commit(Batch(marks=[mark(claimed.row, claimed.claim, clear_crashes=True)]), fence)
            await store.take_over([fence.worker])


async def test_who_dies_alone_as_a_suspect_is_quarantined(database):
    async with database.open() as store:
        await start(store, "poison")
        for number in range(QUARANTINE_CRASHES - 1):
            fence = await register(store)
            assert await claim_all(store, fence, suspect=number >= SUSPECT_CRASHES) == ["poison"]
            assert (await store.take_over([fence.worker])).quarantined == []
        last = await register(store)
        await start_owned(store, last, "bystander")
        assert await claim_all(store, last) == []
        assert await claim_all(store, last, suspect=True) == ["poison"]
        taken = await store.take_over([last.worker])
        assert (taken.workers, taken.released, taken.quarantined) == ([last.worker], 1, ["poison"])
        found = await store.find_run("poison")
        assert found is not None
        assert (found.status, found.crashes, found.worker) == ("quarantined", QUARANTINE_CRASHES, None)
        assert found.hold_reason is not None
        reason = json.loads(found.hold_reason)
        assert reason["type"] == "Quarantined"
        assert str(QUARANTINE_CRASHES) in reason["text"]
        live = await register(store)
        assert await claim_all(store, live) == ["bystander"]
        assert await claim_all(store, live, suspect=True) == []


async def test_a_suspect_that_has_made_progress_is_none_any_more(database):
    async with database.open() as store:
        await start(store, "shaky")
        for _ in range(2):
            fence = await register(store)
            assert await claim_all(store, fence) == ["shaky"]
            await store.take_over([fence.worker])
        fence = await register(store)
        (claimed,) = await store.claim(fence, ["ship"], None, 1, suspect=True)
        await store.commit(Batch(marks=[mark(claimed.row, claimed.claim, clear_crashes=True)]), fence)
        assert (await store.take_over([fence.worker])).quarantined == []
        (again,) = await store.claim(await register(store), ["ship"], None, 1)
        assert (again.id, again.crashes, again.alone) == ("shaky", 1, False)


async def test_a_quarantined_run_goes_on_when_a_person_says_so(database):
    async with database.open() as store:
        await start(store, "poison")
        for number in range(QUARANTINE_CRASHES):
            fence = await register(store)
            assert await claim_all(store, fence, suspect=number >= SUSPECT_CRASHES) == ["poison"]
            await store.take_over([fence.worker])
        assert await status(store, "poison") == "quarantined"
        assert await store.resume("poison")
        (claimed,) = await store.claim(await register(store), ["ship"], None, 10)
        assert (claimed.crashes, claimed.alone) == (0, False)


async def test_a_quarantined_run_can_be_cancelled_by_a_claimer_of_suspects(database):
    async with database.open() as store:
        await start(store, "poison")
        for number in range(QUARANTINE_CRASHES):
            fence = await register(store)
            assert await claim_all(store, fence, suspect=number >= SUSPECT_CRASHES) == ["poison"]
            await store.take_over([fence.worker])
        assert await store.add_request("poison", "cancel", None)
        fence = await register(store)
        assert await claim_all(store, fence) == []
        assert await claim_all(store, fence, suspect=True) == ["poison"]


async def test_several_take_over_the_same_dead_worker_once(shared):
    async with shared.open() as one, shared.open() as two:
        dead = await register(one, EXPIRED_S)
        await start_owned(one, dead, *(f"r{number}" for number in range(20)))
        results = await asyncio.gather(*(store.take_over([dead.worker]) for store in (one, two) * 4))
        assert [taken.workers for taken in results if taken.workers] == [[dead.worker]]
        assert sum(taken.released for taken in results) == 20
        claimed = await one.claim(await register(one), ["ship"], None, 100)
        assert {run.crashes for run in claimed} == {1}


@pytest.mark.parametrize("dead", [[], [5]])
async def test_nobody_is_dead(database, dead):
    async with database.open() as store:
        live = await register(store)
        await start_owned(store, live, "a")
        taken = await store.take_over(dead)
        assert (taken.workers, taken.released, taken.quarantined) == ([], 0, [])
        assert await status(store, "a") == "running"
