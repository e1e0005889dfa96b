"""The user's own transactions: their writes and the journal entry stand or fall together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from outlive.errors import UsageError
from outlive.model.writes import Batch, EntryWrite, Fence
from outlive.store.refusals import EntrySettled, FenceLost, WriteRefused
from tests.conformance.records import LEASE_S, new_entry, new_run, register, start_owned

TABLE = "create table accounts (name text primary key, cents integer)"


class Till:
    """A store with a table of the user's and one run that is owned."""

    def __init__(self, store, fence: Fence, entry: EntryWrite) -> None:
        self.store = store
        self.fence = fence
        self.entry = entry

    async def accounts(self) -> dict[str, int]:
        tx = await self.store.begin(5.0)
        rows = await tx.fetch("select name, cents from accounts order by name")
        await tx.rollback()
        return {row["name"]: row["cents"] for row in rows}

    async def journal(self) -> list[str]:
        return [entry.key for entry in await self.store.list_entries("order-1")]


@asynccontextmanager
async def open_till(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute(TABLE)
        await tx.commit(fence, new_entry(run.row, "/create#1"))
        yield Till(store, fence, new_entry(run.row, "/book#1", seq=2, kind="transaction"))


async def test_writes_and_entry_are_committed_together(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        assert await tx.execute("insert into accounts values ($1, $2)", "ann", 7) == 1
        assert await till.journal() == ["/create#1"] if database.kind != "sqlite-memory" else True
        await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {"ann": 7}
        assert await till.journal() == ["/create#1", "/book#1"]


async def test_a_rollback_leaves_nothing(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        await tx.rollback()
        await tx.rollback()
        assert await till.accounts() == {}
        assert await till.journal() == ["/create#1"]


async def test_queries_give_rows_by_name_and_by_position(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        insert = "insert into accounts (name, cents) values ($1, $2)"
        assert await tx.executemany(insert, [("ann", 1), ("bob", 2), ("cid", 3)]) == 3
        rows = await tx.fetch("select name, cents as c from accounts where cents >= $1 order by name", 2)
        assert [(row["name"], row["c"], row[0], row[1]) for row in rows] == [("bob", 2, "bob", 2), ("cid", 3, "cid", 3)]
        assert list(rows[0].keys()) == ["name", "c"]
        row = await tx.fetchrow("select cents from accounts where name = $1", "ann")
        assert row is not None
        assert row[0] == 1
        with pytest.raises(KeyError):
            row["nothing"]
        assert await tx.fetchrow("select 1 from accounts where name = $1", "zoe") is None
        assert await tx.fetchval("select count(*) from accounts") == 3
        assert await tx.fetchval("select name from accounts where name = $1", "zoe") is None
        assert await tx.execute("update accounts set cents = cents + $1 where cents > $2", 10, 1) == 2
        assert await tx.execute("delete from accounts where name = $1", "zoe") == 0
        await tx.rollback()


async def test_only_real_parameters_are_parameters(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        sql = """select '$1' as "$2", cast($1 as text) as a, /* $3 */ cast($2 as integer) as b, $1 as again -- $4
        """
        await tx.execute("insert into accounts values ($1, $2)", "x", 1)
        row = await tx.fetchrow(sql, "one", 2)
        assert row is not None
        assert (row["$2"], row["a"], row["b"], row["again"]) == ("$1", "one", 2, "one")
        with pytest.raises(Exception, match=r"(?i)bind|argument"):
            await tx.fetch("select cents from accounts where name = $1", "x", "too many")
        await tx.rollback()


async def test_a_statement_that_fails_is_the_users_to_handle(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        await tx.execute("savepoint try_it")
        with pytest.raises(Exception, match=r"(?i)unique|duplicate") as caught:
            await tx.execute("insert into accounts values ('ann', 8)")
        assert not isinstance(caught.value, WriteRefused)
        await tx.execute("rollback to savepoint try_it")
        await tx.execute("release savepoint try_it")
        await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {"ann": 7}


@pytest.mark.parametrize(
    "ending",
    ["commit", "COMMIT;", "  /* x */ Rollback", "-- y\nend", "begin", "commit and chain", "abort"],
)
async def test_the_users_statements_may_not_end_it(database, ending):
    if database.kind != "postgres" and ending in ("commit and chain", "abort"):
        ending = "end transaction"  # what SQLite has no word for
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        with pytest.raises(UsageError):
            await tx.execute(ending)
        with pytest.raises(UsageError):
            await tx.execute("insert into accounts values ('bob', 8)")
        with pytest.raises(UsageError):
            await tx.commit(till.fence, till.entry)
        await tx.rollback()
        assert await till.accounts() == {}
        assert await till.journal() == ["/create#1"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_after_the_end_every_method_says_so(database, end):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await (tx.commit(till.fence, till.entry) if end == "commit" else tx.rollback())
        calls = [
            lambda: tx.execute("select 1"),
            lambda: tx.fetch("select 1"),
            lambda: tx.fetchrow("select 1"),
            lambda: tx.fetchval("select 1"),
            lambda: tx.executemany("select $1", [(1,)]),
            lambda: tx.commit(till.fence, till.entry),
        ]
        for call in calls:
            with pytest.raises(UsageError):
                await call()
        with pytest.raises(UsageError):
            tx.raw  # noqa: B018 - a property
        await tx.rollback()


async def test_a_fence_that_is_lost_takes_the_writes_with_it(database):
    async with open_till(database) as till:
        stale = Fence(till.fence.worker, till.fence.epoch + 1)
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        with pytest.raises(FenceLost):
            await tx.commit(stale, till.entry)
        assert await till.accounts() == {}
        assert await till.journal() == ["/create#1"]


@pytest.mark.parametrize("value", ['"paid"', '"other"'])
async def test_an_entry_that_is_settled_takes_the_writes_with_it(database, value):
    async with open_till(database) as till:
        await till.store.commit(Batch(entries=[till.entry]), till.fence)
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        again = new_entry(till.entry.row, till.entry.key, seq=2, kind="transaction", value=value)
        with pytest.raises(EntrySettled):
            await tx.commit(till.fence, again)
        assert await till.accounts() == {}


async def test_a_started_entry_is_settled_by_the_transaction(database):
    async with open_till(database) as till:
        started = new_entry(till.entry.row, till.entry.key, outcome="started")
        await till.store.commit(Batch(entries=[started]), till.fence)
        tx = await till.store.begin(5.0)
        await tx.commit(till.fence, till.entry)
        entries = await till.store.list_entries("order-1")
        assert [(entry.key, entry.outcome) for entry in entries] == [("/create#1", "ok"), ("/book#1", "ok")]


async def test_an_entry_that_cannot_be_stored_takes_the_writes_with_it(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        with pytest.raises(WriteRefused):
            await tx.commit(till.fence, new_entry(till.entry.row, "/book#1", value="\ud800"))
        assert await till.accounts() == {}
        assert await till.journal() == ["/create#1"]


async def test_it_is_rolled_back_when_it_takes_too_long(database):
    async with open_till(database) as till:
        tx = await till.store.begin(0.1)
        await tx.execute("insert into accounts values ('ann', 7)")
        assert await till.accounts() == {}, "waits for the timeout, or sees nothing yet"
        await _until_ended(tx)
        with pytest.raises(UsageError, match=r"timeout of 0\.1 s"):
            await tx.execute("insert into accounts values ('bob', 8)")
        with pytest.raises(UsageError, match=r"timeout of 0\.1 s"):
            await tx.commit(till.fence, till.entry)
        await tx.rollback()
        assert await till.accounts() == {}
        assert await till.journal() == ["/create#1"]


async def _until_ended(tx) -> None:
    while True:
        try:
            await tx.fetchval("select 1")
        except UsageError:
            return
        await asyncio.sleep(0.01)


async def test_a_beat_outlives_an_open_transaction(database):
    async with open_till(database) as till:
        channel = await till.store.side_channel()
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        beat = asyncio.create_task(channel.beat(till.fence, LEASE_S))
        await tx.fetchval("select 1")
        await tx.commit(till.fence, till.entry)
        assert await beat > 0
        await channel.close()


async def test_others_write_while_it_is_open_or_after_it(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        others = [asyncio.create_task(till.store.commit(Batch(starts=[new_run(f"o-{n}")]), None)) for n in range(5)]
        second = asyncio.create_task(till.store.begin(5.0))
        await tx.commit(till.fence, till.entry)
        await asyncio.gather(*others)
        tx = await second
        assert await tx.fetchval("select count(*) from accounts") == 1
        await tx.rollback()


async def test_a_task_cancelled_while_it_begins_leaves_none_open(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        waiting = asyncio.create_task(till.store.begin(60.0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await tx.execute("insert into accounts values ('ann', 7)")
        await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {"ann": 7}


async def test_what_the_users_session_changes_ends_with_it(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("create temporary table scratch (n integer)")
        await tx.execute("insert into scratch values (1)")
        await tx.rollback()
        await till.store.commit(Batch(starts=[new_run("o-1")]), till.fence)
        assert await till.accounts() == {}
