"""`tx.raw`: the driver's own connection, and attempts to end the transaction through it."""

from __future__ import annotations

import asyncio
import random
import sqlite3

import pytest

from outlive.errors import UsageError
from outlive.model.writes import Batch
from tests.conformance.records import new_entry
from tests.conformance.test_transactions import open_till

SQLITE = ("sqlite", "sqlite-memory", "sqlite-apsw")


async def _write(database, raw) -> None:
    if database.kind == "postgres":
        await raw.execute("insert into accounts values ('ann', 7)")
    else:
        raw.execute("insert into accounts values ('ann', 7)")


async def test_writes_through_the_driver_belong_to_the_transaction(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await _write(database, tx.raw)
        assert await tx.fetchval("select count(*) from accounts") == 1
        await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {"ann": 7}


async def test_the_driver_may_not_end_it_unnoticed(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await _write(database, tx.raw)
        try:
            if database.kind == "postgres":
                await tx.raw.execute("commit; begin")
            else:
                tx.raw.execute("commit")
        except Exception:
            pass  # a user who swallows it
        with pytest.raises(UsageError):
            await tx.commit(till.fence, till.entry)
        assert await till.journal() == ["/create#1"]


def _statements(*texts: str):
    def attempt(raw) -> None:
        for text in texts:
            list(raw.execute(text))

    return attempt


def _with_block(raw) -> None:
    with raw:
        raw.execute("insert into accounts values ('bob', 8)")


STDLIB_ATTEMPTS = {
    "commit": lambda raw: raw.commit(),
    "rollback": lambda raw: raw.rollback(),
    "executescript": lambda raw: raw.executescript("insert into accounts values ('bob', 8);"),
    "cursor script": lambda raw: raw.cursor().executescript("select 1;"),
    "commit and begin": _statements("commit", "begin immediate"),
    "rollback and begin": _statements("rollback", "begin immediate"),
    "with": _with_block,
    "isolation level": lambda raw: setattr(raw, "isolation_level", None),
    "the base class": lambda raw: sqlite3.Connection.commit(raw),
    "a plain cursor": lambda raw: sqlite3.Cursor(raw).execute("commit"),
    "close": lambda raw: raw.close(),
}
APSW_ATTEMPTS = {
    "commit": _statements("commit"),
    "a script": _statements("select 1; commit; begin immediate"),
    "a cursor": lambda raw: raw.cursor().execute("rollback"),
    "close": lambda raw: raw.close(),
}


HARMLESS = ("isolation level", "the base class", "a plain cursor")  # they never reach the driver


@pytest.mark.parametrize("swallowed", [True, False])
@pytest.mark.parametrize("name", STDLIB_ATTEMPTS)
async def test_every_way_of_the_standard_library(sqlite_file, name, swallowed):
    await _attempt(sqlite_file, STDLIB_ATTEMPTS[name], swallowed, refused=name not in HARMLESS)


@pytest.mark.parametrize("swallowed", [True, False])
@pytest.mark.parametrize("name", APSW_ATTEMPTS)
async def test_every_way_of_apsw(apsw_file, name, swallowed):
    await _attempt(apsw_file, APSW_ATTEMPTS[name], swallowed, refused=True)


async def _attempt(database, attempt, swallowed: bool, *, refused: bool) -> None:
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        tx.raw.execute("insert into accounts values ('ann', 7)")
        caught: Exception | None = None
        try:
            attempt(tx.raw)
        except Exception as error:
            caught = error
        if not refused:
            assert isinstance(caught, UsageError | TypeError)
            await tx.rollback()
            assert await till.accounts() == {}, "nothing was committed on the way"
            return
        if swallowed:
            with pytest.raises(UsageError):
                await tx.commit(till.fence, till.entry)
        else:
            await tx.rollback()
        assert await till.accounts() == {}, "nothing was committed on the way"
        assert await till.journal() == ["/create#1"]


@pytest.mark.parametrize("through", ["tx", "raw"])
async def test_sqlite_itself_may_roll_back(any_sqlite, through):
    async with open_till(any_sqlite) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        clash = "insert or rollback into accounts values ('ann', 8)"
        with pytest.raises(Exception, match="UNIQUE"):
            await tx.execute(clash) if through == "tx" else tx.raw.execute(clash)
        with pytest.raises(UsageError):
            tx.raw.execute("insert into accounts values ('bob', 8)")
        with pytest.raises(UsageError):
            await tx.execute("insert into accounts values ('bob', 8)")
        with pytest.raises(UsageError):
            await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {}


async def test_the_driver_is_closed_to_those_who_keep_it(any_sqlite):
    async with open_till(any_sqlite) as till:
        tx = await till.store.begin(5.0)
        raw = tx.raw
        await tx.commit(till.fence, till.entry)
        with pytest.raises(UsageError, match="has been committed"):
            raw.execute("insert into accounts values ('bob', 8)")
        tx = await till.store.begin(5.0)
        with pytest.raises(UsageError, match="has been committed"):
            raw.cursor()
        await tx.rollback()
        assert await till.accounts() == {}


async def test_an_unfinished_query_does_not_pin_the_writer(sqlite_file):
    async with open_till(sqlite_file) as till, sqlite_file.open() as peer:
        tx = await till.store.begin(5.0)
        await tx.executemany("insert into accounts values ($1, $2)", [(f"a{n}", n) for n in range(500)])
        cursor = tx.raw.execute("select * from accounts")
        cursor.fetchone()
        await tx.commit(till.fence, till.entry)
        await (await peer.begin(5.0)).rollback()
        peer_tx = await peer.begin(5.0)
        await peer_tx.execute("insert into accounts values ('peer', 1)")
        await peer_tx.commit(till.fence, new_entry(till.entry.row, "/peer#1"))
        tx = await till.store.begin(5.0)
        assert await tx.fetchval("select count(*) from accounts") == 501
        await tx.rollback()


async def test_an_unfinished_query_does_not_outlive_its_transaction(any_sqlite):
    async with open_till(any_sqlite) as till:
        left = []
        for number in range(2):  # a function that is there already is made anew only where no query executes
            tx = await till.store.begin(5.0)
            if any_sqlite.kind == "sqlite-apsw":
                tx.raw.create_scalar_function("twice", lambda value: 2 * value, 1)
            else:
                tx.raw.create_function("twice", 1, lambda value: 2 * value)
            await tx.executemany("insert into accounts values ($1, twice($2))", [(f"{number}-{n}", n) for n in (1, 2)])
            cursor = tx.raw.cursor()
            cursor.execute("select * from accounts")
            left += [cursor, cursor.fetchone(), tx.raw.execute("select * from accounts")]
            await (tx.commit(till.fence, till.entry) if number == 0 else tx.rollback())
        assert len(await till.accounts()) == 2


@pytest.mark.parametrize("kind", ["sqlite", "sqlite-apsw"])
async def test_a_long_statement_is_stopped_at_the_deadline(kind, sqlite_file, apsw_file):
    async with open_till(sqlite_file if kind == "sqlite" else apsw_file) as till:
        tx = await till.store.begin(0.2)
        endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
        with pytest.raises(UsageError, match="transaction_timeout"):
            await tx.fetch(endless)
        assert await till.accounts() == {}


async def test_a_long_statement_in_a_thread_is_stopped_at_the_deadline(sqlite_file):
    async with open_till(sqlite_file) as till:
        tx = await till.store.begin(0.2)
        endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
        raw = tx.raw
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await asyncio.to_thread(lambda: raw.execute(endless).fetchall())
        with pytest.raises(UsageError, match="transaction_timeout"):
            await tx.commit(till.fence, till.entry)
        assert await till.accounts() == {}


@pytest.mark.parametrize("kind", ["sqlite", "sqlite-apsw"])
async def test_threads_within_a_transaction_whose_deadline_passes(kind, sqlite_file, apsw_file):
    chance = random.Random(11)
    slow = "select count(*) from accounts a, accounts b where a.cents > ?"
    async with open_till(sqlite_file if kind == "sqlite" else apsw_file) as till:
        committed = set()
        for number in range(40):
            tx = await till.store.begin(chance.choice([0.002, 0.01, 0.03, 1.0]))
            texts = [f"{number}-{n}" for n in range(chance.randrange(1, 400))]

            def in_a_thread(tx=tx, number=number, texts=texts) -> None:
                raw = tx.raw
                for text in texts:
                    raw.execute("insert into accounts values (?, ?)", (text, number))
                raw.execute("select * from accounts").fetchone()
                list(raw.execute(slow, (number,)))

            beside = tx.fetch(slow.replace("?", "$1"), number)
            results = await asyncio.gather(asyncio.to_thread(in_a_thread), beside, return_exceptions=True)
            try:
                assert not any(isinstance(result, Exception) for result in results)
                await tx.commit(till.fence, new_entry(till.entry.row, f"/t#{number}"))
                committed.add(number)
            except (AssertionError, UsageError):
                await tx.rollback()
            await till.store.commit(Batch(entries=[new_entry(till.entry.row, f"/n#{number}")]), till.fence)
        assert set((await till.accounts()).values()) == committed
        journal = await till.journal()
        assert {key for key in journal if key.startswith("/t#")} == {f"/t#{number}" for number in committed}
        assert len([key for key in journal if key.startswith("/n#")]) == 40


async def test_what_a_user_sets_on_the_driver_ends_with_the_transaction(sqlite_file):
    async with open_till(sqlite_file) as till:
        tx = await till.store.begin(5.0)
        tx.raw.row_factory = sqlite3.Row
        tx.raw.text_factory = bytes
        assert tx.raw.execute("select 'x' as a").fetchone()["a"] == b"x"
        await tx.commit(till.fence, till.entry)
        assert await till.journal() == ["/create#1", "/book#1"]
        tx = await till.store.begin(5.0)
        assert await tx.fetchval("select 'x'") == "x"
        await tx.rollback()
        (worker,) = await till.store.list_workers()
        assert worker.name == "shop"


async def test_what_a_user_sets_on_the_driver_is_undone_before_the_entry_is_written(any_sqlite):
    async with open_till(any_sqlite) as till:
        started = new_entry(till.entry.row, till.entry.key, outcome="started")
        await till.store.commit(Batch(entries=[started]), till.fence)
        tx = await till.store.begin(5.0)
        if any_sqlite.kind == "sqlite-apsw":
            tx.raw.row_trace = lambda _, row: {"row": row}
        else:
            tx.raw.text_factory = bytes
        await tx.commit(till.fence, till.entry)
        entries = await till.store.list_entries("order-1")
        assert [(entry.key, entry.outcome) for entry in entries] == [("/create#1", "ok"), ("/book#1", "ok")]


async def test_closing_the_store_ends_an_open_transaction(sqlite_file):
    async with open_till(sqlite_file) as till:
        tx = await till.store.begin(60.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        await till.store.close()
        with pytest.raises(UsageError, match="closed"):
            await tx.execute("insert into accounts values ('bob', 7)")
    async with sqlite_file.open() as store:
        tx = await store.begin(5.0)
        assert await tx.fetchval("select count(*) from accounts") == 0
        await tx.rollback()
