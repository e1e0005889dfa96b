"""Large payloads: out of the rows, whole for every reader, gone with their run, and never half there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outlive.limits import BLOB_THRESHOLD_CHARS
from outlive.model.reads import RunQuery
from outlive.model.writes import Batch, Fence
from outlive.store.refusals import FenceLost, RowTaken
from tests.conformance.records import finish, new_entry, new_run, register, start, start_owned

LARGE = json.dumps("x" * 1_000_000)
ALSO_LARGE = json.dumps("é\N{GRINNING FACE}" * 200_000, ensure_ascii=False)
LIMIT = "y" * BLOB_THRESHOLD_CHARS


def tables(database: Any) -> dict[str, str]:
    names = ("runs", "entries", "blobs")
    return {name: f"outlive.{name}" if database.kind == "postgres" else f"ol_{name}" for name in names}


async def query(store: Any, sql: str) -> list[tuple[Any, ...]]:
    """Read the tables as they are, without what resolves references."""
    tx = await store.begin(5.0)
    rows = [tuple(row[place] for place in range(len(list(row.keys())))) for row in await tx.fetch(sql)]
    await tx.rollback()
    return rows


async def count_blobs(database: Any, store: Any) -> int:
    return int((await query(store, f"select count(*) from {tables(database)['blobs']}"))[0][0])


async def test_every_read_gives_the_whole_payload(database):
    async with database.open() as store:
        fence = await register(store)
        await store.commit(Batch(starts=[new_run("order-1", input=LARGE)], large=True), None)
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        assert claimed.input == LARGE
        entry = new_entry(claimed.row, value=ALSO_LARGE)
        end = finish(claimed.row, output=LARGE)
        await store.commit(Batch(entries=[entry], large=True), fence)
        await store.commit(Batch(finishes=[end], large=True), fence)
        assert (entry.value, end.output) == (ALSO_LARGE, LARGE)  # the records given are those that are delivered

        names = tables(database)
        ((kept_input, kept_output),) = await query(store, f"select input, output from {names['runs']}")
        ((kept_value,),) = await query(store, f"select value from {names['entries']}")
        assert {len(kept_input), len(kept_output), len(kept_value)} == {38}
        assert kept_input.startswith("@blob:")
        assert await count_blobs(database, store) == 2, "equal payloads of a run are one blob"

        run = await store.find_run("order-1")
        assert (run.input, run.output) == (LARGE, LARGE)
        (listed,) = await store.list_runs(RunQuery(statuses=("succeeded",)))
        assert (listed.input, listed.output) == (LARGE, LARGE)
        assert [one.value for one in await store.list_entries("order-1")] == [ALSO_LARGE]
        assert [one.value for one in (await store.load_entries([claimed.row]))[claimed.row]] == [ALSO_LARGE]
        assert [one.output for one in await store.list_ended([claimed.row])] == [LARGE]
        prefix = "outlive." if database.kind == "postgres" else ""
        assert await query(store, f"select input, output from {prefix}outlive_runs") == [(LARGE, LARGE)]
        assert await query(store, f"select value from {prefix}outlive_entries") == [(ALSO_LARGE,)]


@pytest.mark.parametrize(("text", "blobs"), [(LIMIT, 0), (LIMIT + "y", 1)])
async def test_the_threshold(database, text: str, blobs: int):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        batch = Batch(entries=[new_entry(run.row, value=text)], large=True)
        await store.commit(batch, fence)
        await store.commit(batch, fence)
        assert await count_blobs(database, store) == blobs
        assert [entry.value for entry in await store.list_entries("order-1")] == [text]


async def test_what_is_not_called_large_stays_in_its_row(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await store.commit(Batch(entries=[new_entry(run.row, value=LARGE)]), fence)
        assert await count_blobs(database, store) == 0
        assert [entry.value for entry in await store.list_entries("order-1")] == [LARGE]


@pytest.mark.parametrize("text", ["@blob:", "@blob:" + "0" * 32, "z" * 38])
async def test_a_text_that_looks_like_a_reference_is_itself(database, text: str):
    async with database.open() as store:
        fence = await register(store)
        await start(store, "order-1", codec="odd/1")
        (claimed,) = await store.claim(fence, ["ship"], None, 10)
        await store.commit(Batch(entries=[new_entry(claimed.row, value=text)]), fence)
        assert [entry.value for entry in await store.list_entries("order-1")] == [text]


async def test_a_batch_with_blobs_may_be_sent_again(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        child = new_run("child", input=LARGE, parent=run.row, parent_key="/pay#1")
        batch = Batch(starts=[child], entries=[new_entry(run.row, value=LARGE)], large=True)
        for _ in range(3):
            committed = await store.commit(batch, fence)
            assert not committed.refused
            assert not committed.existing
        assert await count_blobs(database, store) == 2, "one for each run"
        end = Batch(finishes=[finish(run.row, output=ALSO_LARGE)], large=True)
        await store.commit(end, fence)
        await store.commit(end, fence)
        assert await count_blobs(database, store) == 3
        assert (await store.find_run("child")).input == LARGE


async def test_what_is_refused_leaves_no_blob(database):
    async with database.open() as store:
        fence = await register(store)
        (first, second) = await start_owned(store, fence, "order-1", "order-2")
        refused = await store.commit(Batch(starts=[new_run("order-1", input=LARGE)], large=True), fence)
        assert [one.row for one in refused.existing.values()] == [first.row]
        with pytest.raises(RowTaken):
            await store.commit(Batch(starts=[new_run("order-3", first.row, input=LARGE)], large=True), fence)
        with pytest.raises(FenceLost):
            batch = Batch(entries=[new_entry(second.row, value=LARGE)], large=True)
            await store.commit(batch, Fence(fence.worker, fence.epoch + 1))
        # a child whose parent's entry was written before, by another batch
        await store.commit(Batch(entries=[new_entry(first.row, value="1")]), fence)
        child = new_run("child", input=LARGE, parent=first.row, parent_key="/pay#1")
        again = Batch(starts=[child], entries=[new_entry(first.row, value="2")], large=True)
        assert (await store.commit(again, fence)).refused == {first.row}
        assert await count_blobs(database, store) == 0


async def test_blobs_die_with_their_run(database):
    async with database.open() as store:
        fence = await register(store)
        runs = await start_owned(store, fence, "order-1", "order-2")
        entries = [new_entry(run.row, f"/pay#{number}", value=LARGE) for run in runs for number in (1, 2)]
        await store.commit(Batch(entries=entries, large=True), fence)
        assert await count_blobs(database, store) == 2
        tx = await store.begin(5.0)
        await tx.execute(f"delete from {tables(database)['runs']} where id = 'order-1'")
        await tx.commit(fence, new_entry(runs[1].row, "/other#1"))
        assert await query(store, f"select row from {tables(database)['blobs']}") == [(runs[1].row,)]


async def test_a_start_in_a_transaction_of_the_user(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        assert await store.start_in(tx, new_run("order-2", input=LARGE)) is None
        assert (await store.start_in(tx, new_run("order-2", input=LARGE))).id == "order-2"
        await tx.commit(fence, new_entry(run.row, "/book#1", value=ALSO_LARGE))
        assert await count_blobs(database, store) == 1
        assert (await store.find_run("order-2")).input == LARGE
        assert [entry.value for entry in await store.list_entries("order-1")] == [ALSO_LARGE]
        tx = await store.begin(5.0)
        await store.start_in(tx, new_run("order-3", input=LARGE))
        await tx.rollback()
        assert await count_blobs(database, store) == 1
