"""Data that a database refuses harms nobody else, and a closed store says so."""

from __future__ import annotations

import pytest

from outlive.errors import OutliveError, SchemaMismatch
from outlive.model.writes import Batch
from outlive.store.refusals import WriteRefused
from tests.conformance.records import finish, new_entry, new_run, register, start, start_owned, status

UNMIGRATED = True  # its databases have no schema yet
LONE_SURROGATE = "\ud800"


async def test_text_that_cannot_be_encoded_refuses_the_batch(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        batch = Batch(
            starts=[new_run("two")],
            entries=[new_entry(run.row), new_entry(run.row, "/b#1", value=f'"{LONE_SURROGATE}"')],
            finishes=[finish(run.row)],
        )
        with pytest.raises(WriteRefused):
            await store.commit(batch, fence)
        assert await store.find_run("two") is None
        assert await store.list_entries("one") == []
        assert await status(store, "one") == "running"
        await store.commit(Batch(entries=[new_entry(run.row)]), fence)


@pytest.mark.parametrize("number", [2**63, -(2**70)])
async def test_a_number_that_does_not_fit_refuses_the_batch(database, number):
    async with database.open() as store:
        with pytest.raises(WriteRefused):
            await store.commit(Batch(starts=[new_run("one"), new_run("two", priority=number)]), None)
        assert await store.find_run("one") is None


async def test_a_missing_value_refuses_the_batch(database):
    async with database.open() as store:
        run = new_run("one")
        run.workflow = None  # type: ignore[assignment]
        with pytest.raises(WriteRefused):
            await store.commit(Batch(starts=[new_run("two"), run]), None)
        assert await store.find_run("two") is None
        await start(store, "two")


async def test_quotes_and_statements_are_only_text(database):
    async with database.open() as store:
        nasty = "'); drop table ol_runs; --\"$1 ?1 :x %s \\ \t\u2028 é😀"
        fence = await register(store)
        (run,) = await start_owned(store, fence, nasty)
        await store.commit(Batch(entries=[new_entry(run.row, key=nasty, value=nasty)]), fence)
        (entry,) = await store.list_entries(nasty)
        assert (entry.key, entry.value) == (nasty, nasty)


async def test_large_payloads_come_back_whole(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "one")
        large = '"' + "x" * 3_000_000 + '"'
        await store.commit(Batch(entries=[new_entry(run.row, value=large)]), fence)
        (entry,) = await store.list_entries("one")
        assert entry.value == large


async def test_a_store_that_is_not_open_says_so(database):
    if database.kind == "sqlite-memory":
        return  # without a thread there is nothing to be missing
    store = database.make()
    with pytest.raises(OutliveError):
        await store.find_run("one")
    await store.open(migrate=True)
    await store.close()
    with pytest.raises(OutliveError):
        await store.find_run("one")
    await store.close()


async def test_an_empty_database_is_refused_unless_it_may_be_migrated(database):
    store = database.make()
    with pytest.raises(SchemaMismatch, match="outlive db migrate"):
        await store.open(migrate=False)
    await store.close()
