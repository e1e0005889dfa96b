"""Users' transactions on PostgreSQL: what ends them, what they leave behind; starts on any connection of the user."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from outlive.clock import SystemClock
from outlive.errors import SchemaMismatch, StoreUnavailable, UsageError
from outlive.model.writes import ExistingRun
from outlive.store.postgres import PostgresStore
from outlive.store.refusals import RolledBack, RowTaken, WriteRefused
from tests.conformance.records import new_entry, new_run, register, start, start_owned
from tests.support.postgres import shared_server


@pytest.fixture
def url() -> Iterator[str]:
    url = shared_server().migrated_database()
    yield url
    shared_server().take_back(url)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random(), **settings)
    await store.open(migrate=True)
    try:
        yield store
    finally:
        await store.close()


async def seats(url: str) -> int | None:
    """Give how many seats are booked, None if the table was rolled back."""
    connection = await asyncpg.connect(url)
    try:
        there = await connection.fetchval("select to_regclass('seats') is not null")
        return await connection.fetchval("select count(*) from seats") if there else None
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "commit",
        "COMMIT AND CHAIN",
        "  end;",
        "-- a comment\n/* another /* nested */ */ rollback",
        "begin",
        "start transaction",
        "abort",
        "prepare transaction 'x'",
        "rollback work",
        ";commit",
    ],
)
async def test_statements_that_end_it_are_refused_and_roll_it_back(url, sql):
    async with opened(url) as store:
        tx = await store.begin(5.0)
        await tx.execute("create table seats (seat int)")
        with pytest.raises(UsageError, match="may not end itself"):
            await tx.execute(sql)
        with pytest.raises(UsageError):
            await tx.execute("select 1")
        await tx.rollback()
    assert await seats(url) is None


async def test_several_statements_in_one_text_are_refused(url):
    async with opened(url) as store:
        for method in ("execute", "fetch"):
            tx = await store.begin(5.0)
            with pytest.raises(asyncpg.PostgresSyntaxError):
                await getattr(tx, method)("select 1; commit")
            await tx.rollback()


async def test_savepoints_are_fine(url):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute("create table seats (seat int primary key)")
        assert await tx.executemany("insert into seats values ($1)", [(1,), (2,)]) == 2
        await tx.execute("savepoint here")
        with pytest.raises(asyncpg.UniqueViolationError):
            await tx.execute("insert into seats values ($1)", 1)
        await tx.execute("rollback to savepoint here")
        await tx.execute("rollback transaction to here")
        await tx.execute("release savepoint here")
        assert await tx.execute("update seats set seat = seat + 10") == 2
        await tx.commit(fence, new_entry(run.row))
    assert await seats(url) == 2


@pytest.mark.parametrize("sql", ["commit", "rollback", "commit; begin", "rollback; begin", "commit and chain"])
async def test_ending_it_through_the_driver_is_found_out(url, sql):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.raw.execute(sql)
        with pytest.raises(UsageError, match=r"ended through tx\.raw"):
            await tx.commit(fence, new_entry(run.row))
        assert await store.list_entries("order-1") == []


async def test_a_swallowed_error_is_told(url):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        with pytest.raises(asyncpg.UndefinedTableError):
            await tx.execute("insert into nowhere values (1)")
        with pytest.raises(UsageError, match="swallowed"):
            await tx.commit(fence, new_entry(run.row))
        assert await store.list_entries("order-1") == []


async def test_a_constraint_checked_at_commit_is_the_user_s_error(url):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute("create table seats (seat int unique deferrable initially deferred)")
        await tx.execute("insert into seats values (1), (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await tx.commit(fence, new_entry(run.row))
        assert await store.list_entries("order-1") == []
    assert await seats(url) is None


async def test_a_serialization_failure_asks_for_another_run(url):
    async with opened(url) as store:
        fence = await register(store)
        runs = await start_owned(store, fence, "order-1", "order-2")
        setup = await store.begin(5.0)
        await setup.execute("create table seats (seat int)")
        await setup.commit(fence, new_entry(runs[0].row, "/setup#1"))
        first, second = await store.begin(5.0), await store.begin(5.0)
        outcomes = []
        for tx in (first, second):
            await tx.execute("set transaction isolation level serializable")
            await tx.fetchval("select count(*) from seats")
            await tx.execute("insert into seats values ($1)", 1)
        for tx, run in zip((first, second), runs, strict=True):
            try:
                outcomes.append(await tx.commit(fence, new_entry(run.row)))
            except RolledBack:
                outcomes.append("again")
        assert sorted(map(str, outcomes)) == ["None", "again"]
    assert await seats(url) == 1


async def test_a_deadlock_asks_for_another_run(url):
    async with opened(url) as store:
        admin = await asyncpg.connect(url)
        await admin.execute("create table seats (seat int); insert into seats values (1), (2)")
        first, second = await store.begin(20.0), await store.begin(20.0)
        await first.execute("update seats set seat = seat where seat = $1", 1)
        await second.execute("update seats set seat = seat where seat = $1", 2)
        crossed = await asyncio.gather(
            first.execute("update seats set seat = seat where seat = $1", 2),
            second.execute("update seats set seat = seat where seat = $1", 1),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in crossed) == ["RolledBack", "int"]
        await first.rollback()
        await second.rollback()
        await admin.close()


@pytest.mark.parametrize("busy", [True, False])
async def test_it_ends_at_its_timeout(url, busy):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(0.3)
        await tx.execute("create table seats (seat int)")
        if busy:
            with pytest.raises(UsageError, match=r"0\.3 s"):
                await tx.fetchval("select pg_sleep(30)")
        else:
            await asyncio.sleep(0.5)
        for call in (tx.fetchval("select 1"), tx.commit(fence, new_entry(run.row))):
            with pytest.raises(UsageError, match=r"0\.3 s"):
                await call
        with pytest.raises(UsageError):
            _ = tx.raw
        await tx.rollback()
        assert await store.list_entries("order-1") == []
    assert await seats(url) is None


async def test_a_lock_that_somebody_keeps_is_waited_for_outside(url):
    """The store gives up in time for another try: whoever holds the lock may stand still."""
    async with opened(url) as store:
        holder = await asyncpg.connect(url)
        try:
            await holder.execute("create table seats (number int); insert into seats values (1)")
            async with holder.transaction():
                await holder.execute("update seats set number = 2")
                tx = await store.begin(0.5)
                with pytest.raises(StoreUnavailable, match="holds a lock") as caught:
                    await tx.execute("update seats set number = 3")
                assert not caught.value.outcome_unknown
                await tx.rollback()
                impatient = await store.begin(0.5)
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await impatient.fetch("select number from seats for update nowait")
                await impatient.rollback()
            tx = await store.begin(0.5)
            assert await tx.execute("update seats set number = 3") == 1
            await tx.rollback()
        finally:
            await holder.close()


async def test_a_lock_that_the_user_does_not_wait_for_is_his_error(url):
    async with opened(url) as store:
        holder, tx = await store.begin(5.0), await store.begin(1.0)
        await holder.execute("select pg_advisory_xact_lock(7)")
        await asyncio.sleep(0.5)
        await tx.execute("set local lock_timeout = 1")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await tx.execute("select pg_advisory_xact_lock(7)")
        await tx.rollback()
        await holder.rollback()


async def test_a_statement_that_nobody_awaits_is_told(url):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        forgotten = asyncio.create_task(tx.fetch("select pg_sleep(0.2)"))
        await asyncio.sleep(0.05)
        with pytest.raises(UsageError, match="await each"):
            await tx.commit(fence, new_entry(run.row, "/book#1"))
        await asyncio.gather(forgotten, return_exceptions=True)
        assert await store.list_entries("order-1") == []


async def test_a_statement_timeout_of_the_user_s_own_is_his_error(url):
    async with opened(url) as store:
        tx = await store.begin(5.0)
        await tx.execute("set local statement_timeout = '50ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await tx.fetchval("select pg_sleep(5)")
        await tx.rollback()


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_it_leaves_nothing_in_the_session(url, end):
    async with opened(url, pool_size=1) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        pid = await tx.fetchval("select pg_backend_pid()")
        await tx.raw.execute(
            "set search_path to nowhere; set statement_timeout = '7s'; select pg_advisory_lock(7);"
            "set synchronous_commit = off; declare c cursor with hold for select 1; listen gossip"
        )
        if end == "commit":
            await tx.commit(fence, new_entry(run.row))
        else:
            await tx.rollback()
        connection = await store._pool.take()
        assert await connection.fetchval("select pg_backend_pid()") == pid
        shown = [
            await connection.fetchval(f"show {name}")
            for name in ("search_path", "statement_timeout", "synchronous_commit", "default_transaction_isolation")
        ]
        assert shown == ['"$user", public', "0", "on", "read committed"]
        assert await connection.fetchval("select count(*) from pg_cursors where name = 'c'") == 0
        assert await connection.fetchval("select count(*) from pg_listening_channels()") == 0
        assert await connection.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        store._pool.give(connection)


async def test_rows_are_read_by_name_and_place(url):
    async with opened(url) as store:
        tx = await store.begin(5.0)
        row = await tx.fetchrow("select 1 as one, $1::text as two", "b")
        assert row is not None
        assert (row["one"], row[1], list(row.keys())) == (1, "b", ["one", "two"])
        assert await tx.fetchrow("select 1 where false") is None
        assert await tx.fetchval("select 1 where false") is None
        assert [found[0] for found in await tx.fetch("select * from generate_series(1, $1::int)", 3)] == [1, 2, 3]
        assert await tx.execute("select 1") == 0
        await tx.rollback()


# -- starts on the user's connection ------------------------------------------------

Work = Callable[[Any], Awaitable[None]]


async def through_asyncpg(url: str, work: Work, commit: bool) -> None:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await work(connection)
    await (transaction.commit() if commit else transaction.rollback())
    await connection.close()


async def through_asyncpg_pool(url: str, work: Work, commit: bool) -> None:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await work(connection)
        await (transaction.commit() if commit else transaction.rollback())


async def through_psycopg(url: str, work: Work, commit: bool) -> None:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        await work(connection)
        await (connection.commit() if commit else connection.rollback())


async def through_sync_psycopg(url: str, work: Work, commit: bool) -> None:
    with psycopg.connect(url) as connection:
        await work(connection)
        (connection.commit if commit else connection.rollback)()


def _dialect(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://")


def _through_async_engine(driver: str, session: bool) -> Callable[[str, Work, bool], Awaitable[None]]:
    async def through(url: str, work: Work, commit: bool) -> None:
        engine = create_async_engine(_dialect(url, driver), poolclass=NullPool)
        async with AsyncSession(engine) if session else engine.connect() as connection:
            await work(connection)
            await (connection.commit() if commit else connection.rollback())
        await engine.dispose()

    return through


def _through_engine(session: bool) -> Callable[[str, Work, bool], Awaitable[None]]:
    async def through(url: str, work: Work, commit: bool) -> None:
        engine = sqlalchemy.create_engine(_dialect(url, "psycopg"), poolclass=NullPool)
        with Session(engine) if session else engine.connect() as connection:
            await work(connection)
            (connection.commit if commit else connection.rollback)()
        engine.dispose()

    return through


WAYS = {
    "asyncpg": through_asyncpg,
    "asyncpg pool": through_asyncpg_pool,
    "psycopg": through_psycopg,
    "psycopg sync": through_sync_psycopg,
    "sqlalchemy asyncpg session": _through_async_engine("asyncpg", session=True),
    "sqlalchemy asyncpg connection": _through_async_engine("asyncpg", session=False),
    "sqlalchemy psycopg session": _through_async_engine("psycopg", session=True),
    "sqlalchemy sync session": _through_engine(session=True),
    "sqlalchemy sync connection": _through_engine(session=False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("commit", [True, False])
async def test_a_run_starts_with_the_user_s_commit(url, way, commit):
    async with opened(url) as store:
        (taken,) = await start(store, "taken")
        run = new_run("order-1", row=2**62, delay_s=0.0, attributes='{"a": "%s :x ž"}', deadline_at=2e9, key="k")

        async def work(connection: Any) -> None:
            assert await store.start_in(connection, run) is None
            assert await store.start_in(connection, run) is None  # again is the same
            existing = await store.start_in(connection, new_run("taken", workflow="bill"))
            assert existing == ExistingRun(taken.row, "taken", "ship")
            with pytest.raises(RowTaken):
                await store.start_in(connection, new_run("other", row=taken.row))
            assert await store.find_run("order-1") is None

        await WAYS[way](url, work, commit)
        found = await store.find_run("order-1")
        assert (found is not None) == commit
        if found is not None:
            assert (found.row, found.status, found.attributes) == (2**62, "queued", '{"a": "%s :x ž"}')
            fence = await register(store)
            claimed = await store.claim(fence, ["ship"], None, 10)
            assert sorted(each.id for each in claimed) == ["order-1", "taken"]


@pytest.mark.parametrize("commit", [True, False])
async def test_a_run_starts_with_a_transaction_step(url, commit):
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        assert await store.start_in(tx, new_run("order-2")) is None
        if commit:
            await tx.commit(fence, new_entry(run.row))
        else:
            await tx.rollback()
        assert (await store.find_run("order-2") is not None) == commit


async def test_a_start_on_what_is_no_connection(url):
    async with opened(url) as store:
        with pytest.raises(UsageError, match="tx= cannot be a dict"):
            await store.start_in({}, new_run("order-1"))


async def test_a_start_on_a_connection_to_another_database(url):
    elsewhere = shared_server().fresh_database()
    async with opened(url) as store:
        connection = await asyncpg.connect(elsewhere)
        with pytest.raises(SchemaMismatch, match="does not use"):
            await store.start_in(connection, new_run("order-1"))
        await connection.close()
    shared_server().take_back(elsewhere)


@pytest.mark.parametrize("way", ["asyncpg", "psycopg", "sqlalchemy asyncpg session", "sqlalchemy sync session"])
async def test_a_start_with_text_that_cannot_be_stored(url, way):
    async with opened(url) as store:

        async def work(connection: Any) -> None:
            with pytest.raises(WriteRefused):
                await store.start_in(connection, new_run("order-1", key="a\x00b"))

        await WAYS[way](url, work, False)
