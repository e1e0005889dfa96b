"""Entries: stored once, settled once, read in the order of delivery."""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from outlive.model.writes import Batch
from tests.conformance.records import finish, mark, new_entry, register, release, start_owned, status


async def test_an_entry_comes_back_as_it_was_given(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        entry = new_entry(run.row, value='{"text": "žluťoučký 😀"}', attempts=3, noted_version="v2")
        failed = new_entry(run.row, "/pay#2", seq=2, outcome="error", value=None, error='{"type": "E"}', digest=None)
        await store.commit(Batch(entries=[entry, failed]), fence)
        rows = await store.list_entries("order-1")
        for row, given in zip(rows, [entry, failed], strict=True):
            assert asdict(row) == {
                name: value for name, value in msgspec.structs.asdict(given).items() if name != "row"
            }


async def test_entries_are_read_by_seq_and_started_ones_last(database):
    async with database.open() as store:
        fence = await register(store)
        one, two = await start_owned(store, fence, "order-1", "order-2")
        entries = [
            new_entry(one.row, "/a#1", seq=3),
            new_entry(one.row, "/b#1", outcome="started", started_at=2.0),
            new_entry(one.row, "/c#1", seq=1),
            new_entry(one.row, "/d#1", outcome="started", started_at=1.0),
            new_entry(two.row, "/a#1", seq=1),
            new_entry(one.row, "/e#1", seq=2),
        ]
        await store.commit(Batch(entries=entries), fence)
        loaded = await store.load_entries([two.row, one.row, 5])
        assert {row: [entry.key for entry in entries] for row, entries in loaded.items()} == {
            one.row: ["/c#1", "/e#1", "/a#1", "/d#1", "/b#1"],
            two.row: ["/a#1"],
            5: [],
        }
        assert [entry.key for entry in await store.list_entries("order-1")] == [e.key for e in loaded[one.row]]
        assert await store.list_entries("unknown") == []
        assert await store.load_entries([]) == {}


async def test_a_started_entry_is_settled_once(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await store.commit(Batch(entries=[new_entry(run.row, outcome="started")]), fence)
        (entry,) = await store.list_entries("order-1")
        assert (entry.outcome, entry.seq, entry.finished_at) == ("started", None, None)
        settled = new_entry(run.row, seq=7, value="42", attempts=2)
        assert not (await store.commit(Batch(entries=[settled]), fence)).refused
        (entry,) = await store.list_entries("order-1")
        assert (entry.outcome, entry.seq, entry.value, entry.attempts) == ("ok", 7, "42", 2)
        assert (await store.commit(Batch(entries=[new_entry(run.row, seq=7, value="43")]), fence)).refused == {run.row}
        (entry,) = await store.list_entries("order-1")
        assert entry.value == "42"


async def test_a_started_entry_may_be_noted_again(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        for attempts in (1, 2):
            entry = new_entry(run.row, outcome="started", attempts=attempts)
            assert not (await store.commit(Batch(entries=[entry]), fence)).refused
        (entry,) = await store.list_entries("order-1")
        assert entry.attempts == 2


async def test_a_refused_run_keeps_its_state_and_others_are_written(database):
    async with database.open() as store:
        fence = await register(store)
        bad, good = await start_owned(store, fence, "bad", "good")
        await store.commit(Batch(entries=[new_entry(bad.row, value="1")]), fence)
        batch = Batch(
            entries=[new_entry(bad.row, value="2"), new_entry(good.row)],
            finishes=[finish(bad.row), finish(good.row)],
        )
        assert (await store.commit(batch, fence)).refused == {bad.row}
        assert (await status(store, "bad"), await status(store, "good")) == ("running", "succeeded")
        batch = Batch(entries=[new_entry(bad.row, value="2")], releases=[release(bad.row)])
        assert (await store.commit(batch, fence)).refused == {bad.row}
        assert await status(store, "bad") == "running"


async def test_a_batch_sent_again_is_its_own(database):
    async with database.open() as store:
        fence = await register(store)
        one, two, three = await start_owned(store, fence, "one", "two", "three")
        await store.commit(Batch(entries=[new_entry(two.row, "/wait#1", outcome="started")]), fence)
        batch = Batch(
            entries=[
                new_entry(one.row),
                new_entry(two.row, "/wait#1", seq=1, digest=None),
                new_entry(three.row, outcome="error", value=None, error="{}"),
                new_entry(three.row, "/wait#1", outcome="started"),
            ],
            finishes=[finish(one.row)],
            releases=[release(two.row, wake_at=None)],
            marks=[mark(three.row, in_user_code=False)],
        )
        pictures = []
        for _ in range(2):
            committed = await store.commit(batch, fence)
            assert (committed.existing, committed.refused) == ({}, set())
            runs = [await store.find_run(run_id) for run_id in ("one", "two", "three")]
            pictures.append((runs, await store.load_entries([one.row, two.row, three.row])))
        assert pictures[0] == pictures[1]


async def test_many_entries_new_and_settled_in_one_batch(database):
    async with database.open() as store:
        fence = await register(store)
        runs = await start_owned(store, fence, *(f"order-{number}" for number in range(30)))
        started = [new_entry(run.row, f"/w#{n}", outcome="started") for run in runs for n in range(10)]
        await store.commit(Batch(entries=started), fence)
        entries = [new_entry(run.row, f"/w#{n}", seq=n) for run in runs for n in range(40)]
        assert not (await store.commit(Batch(entries=entries), fence)).refused
        loaded = await store.load_entries([run.row for run in runs])
        assert all([entry.seq for entry in rows] == list(range(40)) for rows in loaded.values())
