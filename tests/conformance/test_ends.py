"""How a run leaves its owner: finished, released, held; only under the claim that owns it."""

from __future__ import annotations

import pytest

from outlive.model.reads import GONE
from outlive.model.writes import Batch, Note
from tests.conformance.records import (
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


async def test_a_finished_run_has_its_value_and_nothing_else(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        assert await store.add_request("order-1", "pause", None)
        done = finish(run.row, status="failed", output=None, error='{"type": "E"}', started_at=1_700_000_000.5)
        await store.commit(Batch(finishes=[done]), fence)
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.status, found.output, found.error) == ("failed", None, '{"type": "E"}')
        assert found.started_at == 1_700_000_000.5
        assert found.finished_at is not None
        assert found.finished_at >= found.created_at
        assert (found.worker, found.wake_at, found.crashes) == (None, None, 0)
        assert await store.list_requests(fence) == []
        assert await claim_all(store, fence) == []
        assert await store.next_due() is None


@pytest.mark.parametrize("claim", [0, 2])
async def test_an_end_under_another_claim_does_nothing(database, claim):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await store.commit(Batch(finishes=[finish(run.row, claim)], releases=[release(run.row, claim)]), fence)
        await store.commit(Batch(finishes=[finish(run.row)], releases=[release(run.row)]), peer)
        assert await status(store, "order-1") == "running"
        await store.commit(Batch(finishes=[finish(run.row)]), fence)
        assert await status(store, "order-1") == "succeeded"


async def test_a_released_run_belongs_to_its_next_claimer(database):
    async with database.open() as store:
        first, second = await register(store), await register(store)
        (run,) = await start_owned(store, first, "order-1")
        await store.commit(Batch(releases=[release(run.row, wake_at=await store.now())]), first)
        (claimed,) = await store.claim(second, ["ship"], None, 1)
        assert (claimed.claim, claimed.fresh) == (2, False)
        await store.commit(Batch(finishes=[finish(run.row, claim=1)]), first)
        await store.commit(Batch(releases=[release(run.row, claim=1)]), first)
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.status, found.worker) == ("running", second.worker)


async def test_a_run_that_waits_is_suspended_until_its_time(database):
    async with database.open() as store:
        fence = await register(store)
        timed, endless = await start_owned(store, fence, "timed", "endless")
        later = await store.now() + 500
        await store.commit(Batch(releases=[release(timed.row, wake_at=later), release(endless.row)]), fence)
        assert (await status(store, "timed"), await status(store, "endless")) == ("suspended", "suspended")
        assert await claim_all(store, fence) == []
        assert await store.next_due() == pytest.approx(later, abs=1e-3)


async def test_a_held_run_waits_for_a_person(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        held = release(run.row, wake_at=await store.now(), hold="paused", hold_reason='{"type": "JournalMismatch"}')
        await store.commit(Batch(releases=[held]), fence)
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.status, found.hold_reason) == ("paused", '{"type": "JournalMismatch"}')
        assert await claim_all(store, fence) == []
        await store.wake([run.row])
        assert await claim_all(store, fence) == []
        assert await store.next_due() is None


async def test_ends_and_holds_are_told_to_those_who_wait(database):
    async with database.open() as store:
        fence = await register(store)
        done, failed, held, live = await start_owned(store, fence, "done", "failed", "held", "live")
        batch = Batch(
            finishes=[finish(done.row, output='"v"'), finish(failed.row, status="failed", output=None, error="{}")],
            releases=[release(held.row, hold="paused", hold_reason='{"type": "X"}')],
        )
        await store.commit(batch, fence)
        ended = await store.list_ended([live.row, held.row, failed.row, done.row, 99])
        assert {(run.row, run.id, run.status, run.output, run.error) for run in ended} == {
            (done.row, "done", "succeeded", '"v"', None),
            (failed.row, "failed", "failed", None, "{}"),
            (held.row, "held", "paused", None, '{"type": "X"}'),
            (99, "", GONE, None, None),
        }
        assert {(run.workflow, run.codec) for run in ended if run.status != GONE} == {("ship", "json/1")}
        assert await store.list_ended([]) == []


async def test_who_waits_for_runs_is_told_which_are_not_there(database):
    async with database.open() as store:
        fence = await register(store)
        done, live = await start_owned(store, fence, "done", "live")
        await store.commit(Batch(finishes=[finish(done.row)]), fence)
        assert await store.delete_runs([done.row], Note(1, "ann", "delete", "run", "done")) == ([], [])
        ended = await store.list_ended([live.row, done.row, 99])
        assert {(run.row, run.status, run.output, run.error) for run in ended} == {
            (done.row, GONE, None, None),
            (99, GONE, None, None),
        }
        wanted = [(live.row, "log", 0), (done.row, "log", 0), (99, "log", 0)]
        assert await store.list_items(wanted, 10) == {}


async def test_many_ends_in_one_batch(database):
    async with database.open() as store:
        fence = await register(store)
        await start(store, *(f"order-{number}" for number in range(200)))
        claimed = await store.claim(fence, ["ship"], None, 200)
        assert len(claimed) == 200
        finishes = [finish(run.row, run.claim) for run in claimed[:120]]
        releases = [release(run.row, run.claim) for run in claimed[120:]]
        await store.commit(Batch(finishes=finishes, releases=releases), fence)
        assert len(await store.list_ended([run.row for run in claimed])) == 120


@pytest.mark.parametrize("together", [True, False])
async def test_the_end_of_a_parent_asks_its_children_to_end(database, together):
    async with database.open() as store:
        fence = await register(store)
        parent, stranger = await start_owned(store, fence, "parent", "stranger")
        closes = {"doomed": "cancel", "spared": "abandon", "over": "cancel"}
        children = {
            name: new_run(name, parent=parent.row, parent_key=name, parent_close=how, owned=True)
            for name, how in closes.items()
        }
        entries = [new_entry(parent.row, key=name, outcome="started") for name in children]
        await store.commit(Batch(starts=list(children.values()), entries=entries), fence)
        if not together:
            await store.commit(Batch(finishes=[finish(children["over"].row)]), fence)
        ends = Batch(
            finishes=[
                finish(parent.row, close_reason='"over and out"'),
                finish(stranger.row),
                *([finish(children["over"].row, close_reason='"never read"')] if together else []),
            ]
        )
        await store.commit(ends, fence)
        (asked,) = await store.list_requests(fence)
        assert (asked.row, asked.kind, asked.payload) == (children["doomed"].row, "cancel", '"over and out"')
        await store.commit(Batch(handled_requests=[asked.request]), fence)
        await store.commit(ends, fence)  # its reply was lost
        assert await store.list_requests(fence) == []
