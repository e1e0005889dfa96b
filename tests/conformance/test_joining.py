"""Starting a run inside the user's own transaction, through his own connection."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import ExistingRun
from outlive.store.refusals import RowTaken, WriteRefused
from tests.conformance.records import claim_all, new_entry, new_run, register, start, status
from tests.conformance.test_transactions import open_till


async def test_a_run_starts_with_the_transaction_of_a_step(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.execute("insert into accounts values ('ann', 7)")
        run = new_run("order-2", queue="mail", priority=4, delay_s=100.0, attributes="{}", key="k", version="v")
        assert await till.store.start_in(tx, run) is None
        assert await till.store.start_in(tx, run) is None
        await tx.commit(till.fence, till.entry)
        found = await till.store.find_run("order-2")
        assert found is not None
        assert (found.status, found.queue, found.priority, found.key) == ("scheduled", "mail", 4, "k")
        assert (found.attributes, found.version, found.input, found.row) == ("{}", "v", "[]", run.row)


async def test_a_run_vanishes_with_the_transaction(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await till.store.start_in(tx, new_run("order-2"))
        await tx.rollback()
        assert await till.store.find_run("order-2") is None
        assert await till.store.next_due() is None


async def test_a_used_id_or_row_number_is_told(database):
    async with open_till(database) as till:
        (other,) = await start(till.store, "order-2", workflow="refund")
        tx = await till.store.begin(5.0)
        existing = await till.store.start_in(tx, new_run("order-2"))
        assert existing == ExistingRun(other.row, "order-2", "refund")
        await tx.rollback()
        tx = await till.store.begin(5.0)
        with pytest.raises(RowTaken) as caught:
            await till.store.start_in(tx, new_run("order-3", row=other.row))
        assert caught.value.rows == {other.row}
        await tx.rollback()


async def test_an_ended_transaction_starts_nothing(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        await tx.rollback()
        with pytest.raises(UsageError):
            await till.store.start_in(tx, new_run("order-2"))


@pytest.mark.parametrize("what", [None, 5, "postgresql://", object()])
async def test_what_is_no_connection_is_refused(database, what):
    async with database.open() as store:
        with pytest.raises(UsageError):
            await store.start_in(what, new_run("order-2"))


# -- connections of SQLite ----------------------------------------------------------


def file_of(database) -> str:
    return database.url.removeprefix("sqlite:///").partition("?")[0]


@pytest.mark.parametrize("isolation_level", ["", "IMMEDIATE", None])
async def test_a_connection_of_the_standard_library(sqlite_file, isolation_level):
    async with sqlite_file.open() as store:
        connection = sqlite3.connect(file_of(sqlite_file), isolation_level=isolation_level)
        connection.row_factory = lambda *_: {"surprise": True}
        connection.execute("create table accounts (name text)")
        if isolation_level is None:
            connection.execute("begin immediate")
        assert await store.start_in(connection, new_run("gone")) is None
        connection.rollback()
        if isolation_level is None:
            connection.execute("begin immediate")
        connection.execute("insert into accounts values ('ann')")
        assert await store.start_in(connection, new_run("order-1")) is None
        assert await store.find_run("order-1") is None
        connection.commit()
        connection.close()
        assert await store.find_run("gone") is None
        assert await status(store, "order-1") == "queued"
        assert await claim_all(store, await register(store)) == ["order-1"]


async def test_a_connection_of_apsw(apsw_file):
    async with apsw_file.open() as store:
        connection = apsw.Connection(file_of(apsw_file))
        with connection:
            assert await store.start_in(connection, new_run("order-1")) is None
        connection.close()
        assert await status(store, "order-1") == "queued"


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_connection_or_session_of_sqlalchemy(sqlite_file, kind):
    async with sqlite_file.open() as store:
        engine = sqlalchemy.create_engine(f"sqlite:///{file_of(sqlite_file)}")
        with Session(engine) if kind == "session" else engine.connect() as connection:
            connection.execute(sqlalchemy.text("create table accounts (name text)"))
            assert await store.start_in(connection, new_run("order-1")) is None
            connection.commit()
            assert await store.start_in(connection, new_run("gone")) is None
            connection.rollback()
        engine.dispose()
        assert await status(store, "order-1") == "queued"
        assert await store.find_run("gone") is None


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_an_async_connection_or_session_of_sqlalchemy(sqlite_file, kind):
    async with sqlite_file.open() as store:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file_of(sqlite_file)}")
        async with AsyncSession(engine) if kind == "session" else engine.connect() as connection:
            await connection.execute(sqlalchemy.text("create table accounts (name text)"))
            assert await store.start_in(connection, new_run("order-1")) is None
            await connection.commit()
            assert await store.start_in(connection, new_run("gone")) is None
            await connection.rollback()
        await engine.dispose()
        assert await status(store, "order-1") == "queued"
        assert await store.find_run("gone") is None


async def test_what_else_is_asynchronous_is_refused(sqlite_file):
    class Connection:
        async def execute(self, *_):
            """Never called."""

    async with sqlite_file.open() as store:
        with pytest.raises(UsageError, match="asynchronous"):
            await store.start_in(Connection(), new_run("order-1"))
        assert await store.find_run("order-1") is None


async def test_outside_of_a_transaction_it_is_refused(sqlite_file, apsw_file):
    async with sqlite_file.open() as store:
        connection = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        with pytest.raises(UsageError, match="BEGIN"):
            await store.start_in(connection, new_run("order-1"))
        connection.close()
        assert await store.find_run("order-1") is None
    async with apsw_file.open() as store:
        other = apsw.Connection(file_of(apsw_file))
        with pytest.raises(UsageError, match="BEGIN"):
            await store.start_in(other, new_run("order-1"))
        other.close()


async def test_another_database_is_refused(sqlite_file, tmp_path: Path):
    async with sqlite_file.open() as store:
        for name in (":memory:", str(tmp_path / "other.db")):
            connection = sqlite3.connect(name)
            with pytest.raises(UsageError, match="own database"):
                await store.start_in(connection, new_run("order-1"))
            connection.close()


async def test_the_other_library_is_refused(sqlite_file, apsw_file):
    async with sqlite_file.open() as store:
        connection = apsw.Connection(":memory:")
        connection.execute("begin")
        with pytest.raises(UsageError, match="driver=apsw"):
            await store.start_in(connection, new_run("order-1"))
        connection.close()


async def test_a_locked_database_is_unavailable(sqlite_file):
    async with sqlite_file.open() as store:
        holder = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        holder.execute("begin immediate")
        connection = sqlite3.connect(file_of(sqlite_file), timeout=0)
        with pytest.raises(StoreUnavailable, match="lock"):
            await store.start_in(connection, new_run("order-1"))
        connection.close()
        holder.close()


async def test_a_child_or_owned_run_is_refused(sqlite_file):
    async with open_till(sqlite_file) as till:
        tx = await till.store.begin(5.0)
        with pytest.raises(WriteRefused):
            await till.store.start_in(tx, new_run("order-2", owned=True))
        with pytest.raises(WriteRefused):
            await till.store.start_in(tx, new_run("order-2", parent=1, parent_key="/c#1"))
        await tx.rollback()
        assert new_entry(1).row == 1
