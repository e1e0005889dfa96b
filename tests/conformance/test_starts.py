"""Starting runs: what is stored, ids and row numbers that are taken, children."""

from __future__ import annotations

import pytest

from outlive.model.reads import RunQuery
from outlive.model.writes import Batch, ExistingRun
from outlive.store.refusals import RowTaken, WriteRefused
from tests.conformance.records import (
    claim_all,
    finish,
    new_entry,
    new_run,
    register,
    start,
    start_owned,
    status,
)


async def test_a_started_run_is_stored_with_all_its_facts(database):
    async with database.open() as store:
        before = await store.now()
        run = new_run(
            "order-1",
            version="v1",
            queue="mail",
            priority=3,
            key="tenant-1",
            attributes='{"a": 1}',
            codec="json/1",
            deadline_at=2_000_000_000.5,
        )
        assert not (await store.commit(Batch(starts=[run]), None)).existing
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.row, found.id, found.workflow, found.input) == (run.row, "order-1", "ship", "[]")
        assert (found.version, found.queue, found.priority, found.key) == ("v1", "mail", 3, "tenant-1")
        assert (found.attributes, found.codec, found.status) == ('{"a": 1}', "json/1", "queued")
        assert (found.parent_id, found.output, found.error, found.worker, found.crashes) == (None, None, None, None, 0)
        assert (found.started_at, found.finished_at, found.hold_reason) == (None, None, None)
        assert before - 0.001 <= found.created_at <= await store.now()
        fence = await register(store)
        (claimed,) = (await store.claim_line(fence, ["ship"], None, 10, "")).claimed
        assert claimed.deadline_at == 2_000_000_000.5


async def test_a_delayed_run_is_scheduled_and_not_due(database):
    async with database.open() as store:
        before = await store.now()
        await start(store, "later", delay_s=500.0)
        assert await status(store, "later") == "scheduled"
        assert await claim_all(store, await register(store)) == []
        due_at = await store.next_due()
        assert due_at is not None
        assert before + 499 < due_at < await store.now() + 501


async def test_an_owned_run_is_running_from_the_start(database):
    async with database.open() as store:
        fence, peer = await register(store), await register(store)
        (run,) = await start_owned(store, fence, "mine")
        found = await store.find_run("mine")
        assert found is not None
        assert (found.status, found.worker) == ("running", fence.worker)
        assert found.started_at is not None
        assert await claim_all(store, peer) == []
        await store.commit(Batch(finishes=[finish(run.row, claim=1)]), fence)
        assert await status(store, "mine") == "succeeded"


async def test_a_used_id_gives_the_existing_run_and_changes_nothing(database):
    async with database.open() as store:
        (first,) = await start(store, "order-1")
        second, other = new_run("order-1", workflow="refund"), new_run("order-2")
        committed = await store.commit(Batch(starts=[second, other]), None)
        assert committed.existing == {second.row: ExistingRun(first.row, "order-1", "ship")}
        found = await store.find_run("order-1")
        assert found is not None
        assert (found.row, found.workflow) == (first.row, "ship")
        assert await status(store, "order-2") == "queued"


async def test_the_same_start_sent_twice_is_one_run(database):
    async with database.open() as store:
        batch = Batch(starts=[new_run("order-1"), new_run("order-2")])
        for _ in range(2):
            assert not (await store.commit(batch, None)).existing
        assert [run.id for run in await store.list_runs(RunQuery())] == ["order-2", "order-1"]
        assert sorted(await claim_all(store, await register(store))) == ["order-1", "order-2"]


async def test_a_start_sent_again_does_not_raise_the_dead(database):
    async with database.open() as store:
        fence = await register(store)
        batch = Batch(starts=[new_run("order-1", owned=True)])
        await store.commit(batch, fence)
        await store.commit(Batch(finishes=[finish(batch.starts[0].row)]), fence)
        assert not (await store.commit(batch, fence)).existing
        assert await status(store, "order-1") == "succeeded"
        assert await claim_all(store, fence) == []


async def test_one_id_twice_in_a_batch_is_one_run(database):
    async with database.open() as store:
        first, second = new_run("order-1"), new_run("order-1")
        committed = await store.commit(Batch(starts=[first, second]), None)
        assert committed.existing == {second.row: ExistingRun(first.row, "order-1", "ship")}


async def test_a_row_number_of_another_run_refuses_the_whole_batch(database):
    async with database.open() as store:
        (first,) = await start(store, "order-1")
        with pytest.raises(RowTaken) as caught:
            await store.commit(Batch(starts=[new_run("order-3"), new_run("order-2", row=first.row)]), None)
        assert caught.value.rows == {first.row}
        assert await store.find_run("order-2") is None
        assert await store.find_run("order-3") is None
        assert await claim_all(store, await register(store)) == ["order-1"]


async def test_a_used_id_goes_before_a_used_row_number(database):
    async with database.open() as store:
        first, second = await start(store, "order-1", "order-2")
        committed = await store.commit(Batch(starts=[new_run("order-1", row=second.row)]), None)
        assert committed.existing == {second.row: ExistingRun(first.row, "order-1", "ship")}


async def test_a_child_starts_with_the_entry_of_its_parent(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = new_run("child", parent=parent.row, parent_key="/start#1", parent_close="cancel", owned=True)
        batch = Batch(starts=[child], entries=[new_entry(parent.row, "/start#1", outcome="started")])
        for _ in range(2):
            committed = await store.commit(batch, fence)
            assert (committed.existing, committed.refused) == ({}, set())
        found = await store.find_run("child")
        assert found is not None
        assert (found.parent_id, found.parent_close, found.status) == ("parent", "cancel", "running")
        assert [run.id for run in await store.list_children(parent.row, unfinished=True)] == ["child"]


async def test_no_new_entry_no_child(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = new_run("child", parent=parent.row, parent_key="/start#1")
        await store.commit(Batch(starts=[child]), fence)
        assert await store.find_run("child") is None
        await store.commit(Batch(entries=[new_entry(parent.row, "/start#1", value="1")]), fence)
        late = Batch(starts=[child], entries=[new_entry(parent.row, "/start#1", value="2")])
        assert (await store.commit(late, fence)).refused == {parent.row}
        assert await store.find_run("child") is None


async def test_a_child_whose_id_is_taken_is_reported(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        (other,) = await start(store, "child")
        child = new_run("child", parent=parent.row, parent_key="/start#1")
        batch = Batch(starts=[child], entries=[new_entry(parent.row, "/start#1", outcome="started")])
        for _ in range(2):
            committed = await store.commit(batch, fence)
            assert committed.existing == {child.row: ExistingRun(other.row, "child", "ship")}


@pytest.mark.parametrize(
    "batch",
    [
        Batch(starts=[new_run("order-1", owned=True)]),
        Batch(entries=[new_entry(1)]),
        Batch(starts=[new_run("order-1")], handled_requests=[1]),
    ],
    ids=["owned", "entry", "request"],
)
async def test_without_a_fence_only_starts(database, batch):
    async with database.open() as store:
        with pytest.raises(WriteRefused):
            await store.commit(batch, None)
        assert await store.list_runs(RunQuery()) == []


async def test_a_batch_of_many_starts(database):
    async with database.open() as store:
        runs = [new_run(f"order-{number}") for number in range(700)]
        assert not (await store.commit(Batch(starts=runs), None)).existing
        more = [new_run(f"order-{number}") for number in range(600, 900)]
        committed = await store.commit(Batch(starts=more), None)
        assert set(committed.existing) == {run.row for run in more[:100]}
        assert len(await store.list_runs(RunQuery(limit=2_000))) == 900


async def test_an_empty_batch_is_fine(database):
    async with database.open() as store:
        committed = await store.commit(Batch(), await register(store))
        assert (committed.existing, committed.refused) == ({}, set())
