"""Wake-ups: the second statement after a commit, and the sweep for those that were lost."""

from __future__ import annotations

from outlive.model.writes import Batch
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


async def test_waking_makes_waiting_runs_due(database):
    async with database.open() as store:
        fence = await register(store)
        endless, timed, still = await start_owned(store, fence, "endless", "timed", "still")
        later = await store.now() + 500
        batch = Batch(releases=[release(endless.row), release(timed.row, wake_at=later), release(still.row)])
        await store.commit(batch, fence)
        await store.wake([endless.row, timed.row, 99])
        await store.wake([])
        assert sorted(await claim_all(store, fence)) == ["endless", "timed"]
        assert await status(store, "still") == "suspended"


async def test_waking_leaves_everybody_else_alone(database):
    async with database.open() as store:
        fence = await register(store)
        owned, held, done = await start_owned(store, fence, "owned", "held", "done")
        (delayed,) = await start(store, "delayed", delay_s=500.0)
        (due,) = await start(store, "due")
        due_at = await store.next_due()
        await store.commit(Batch(releases=[release(held.row, hold="paused")], finishes=[finish(done.row)]), fence)
        await store.wake([owned.row, held.row, done.row, delayed.row, due.row])
        states = [await status(store, run_id) for run_id in ("owned", "held", "done", "delayed", "due")]
        assert states == ["running", "paused", "succeeded", "scheduled", "queued"]
        assert await store.next_due() == due_at


async def _parent_with_child(store, fence, name: str):
    """Give rows of a suspended parent and its running child."""
    (parent,) = await start_owned(store, fence, name)
    child = new_run(f"{name}-child", parent=parent.row, parent_key="/c#1", owned=True)
    entry = new_entry(parent.row, "/c#1", outcome="started")
    await store.commit(Batch(starts=[child], entries=[entry]), fence)
    await store.commit(Batch(releases=[release(parent.row)]), fence)
    return parent, child


async def test_the_sweep_finds_an_ended_child(database):
    async with database.open() as store:
        fence = await register(store)
        _, first = await _parent_with_child(store, fence, "first")
        await _parent_with_child(store, fence, "second")
        assert await store.sweep() == 0
        await store.commit(Batch(finishes=[finish(first.row)]), fence)
        assert await store.sweep() == 1
        assert await store.sweep() == 0
        assert await claim_all(store, fence) == ["first"]


async def test_the_sweep_finds_an_old_child_of_a_late_sleeper(database):
    async with database.open() as store:
        fence = await register(store)
        parent, child = await _parent_with_child(store, fence, "order")
        await store.commit(Batch(finishes=[finish(child.row)]), fence)
        assert await store.sweep() == 1
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        await store.commit(Batch(releases=[release(parent.row, claimed.claim)]), fence)
        assert await store.sweep() == 1, "it went to sleep again without having seen it"


async def test_the_sweep_leaves_a_child_that_was_heard(database):
    async with database.open() as store:
        fence = await register(store)
        parent, child = await _parent_with_child(store, fence, "order")
        await store.commit(Batch(finishes=[finish(child.row)]), fence)
        await store.sweep()
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        heard = new_entry(parent.row, "/c#1", seq=1)
        await store.commit(Batch(entries=[heard], releases=[release(parent.row, claimed.claim)]), fence)
        assert await store.sweep() == 0
        assert await status(store, "order") == "suspended"


async def test_the_sweep_finds_a_request_that_came_before_the_sleep(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order")
        await store.add_request("order", "cancel", None)
        await store.commit(Batch(releases=[release(run.row)]), fence)
        assert await store.sweep() == 1
        assert await claim_all(store, fence) == ["order"]


async def test_the_sweep_leaves_held_and_due_runs(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "held")
        await store.commit(Batch(releases=[release(run.row, hold="paused")]), fence)
        await store.add_request("held", "pause", None)
        await start(store, "due")
        await store.add_request("due", "cancel", None)
        assert await store.sweep() == 0
        assert await status(store, "held") == "paused"
