"""A session on the user's own engine, as the store sees it: lost replies, lost connections, fence, server errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import Fence
from outlive.store.refusals import EntrySettled, FenceLost, RolledBack
from tests.conformance.records import new_entry, register, start_owned
from tests.conformance.test_postgres_outage import opened, server, url
from tests.support.wire import Wire, mentions

__all__ = ["server", "url"]  # fixtures

TABLE = """
    create table bookings (id text, twin text);
    alter table bookings add constraint alone unique (id) deferrable initially deferred
"""


@pytest.fixture(params=["psycopg", "psycopg-async", "asyncpg"])
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


class Desk:
    """A store, a maker of sessions on the same database, and a way to use one within a session's body."""

    def __init__(self, store: Any, maker: Any, fence: Fence, row: int) -> None:
        self.store = store
        self.maker = maker
        self.fence = fence
        self.row = row
        self.is_async = isinstance(maker, async_sessionmaker)

    async def begin(self, timeout_s: float = 5.0) -> Any:
        return await self.store.begin_session(self.maker, timeout_s)

    async def execute(self, session: Any, *statements: str) -> Any:
        """Run a body that executes statements; give the first value of the last one, if it has any."""

        async def body(orm: Any) -> Any:
            for statement in statements:
                result = await orm.execute(text(statement))
            return result.scalar() if result.returns_rows else None

        def plain_body(orm: Any) -> Any:
            for statement in statements:
                result = orm.execute(text(statement))
            return result.scalar() if result.returns_rows else None

        if self.is_async:
            return await session.enclose(body)()
        return await asyncio.to_thread(session.enclose(plain_body))

    async def count(self) -> int:
        tx = await self.store.begin(5.0)
        count = await tx.fetchval("select count(*) from bookings")
        await tx.rollback()
        return int(count)

    async def keys(self) -> list[str]:
        return [entry.key for entry in await self.store.list_entries("order-1")]


@asynccontextmanager
async def open_desk(url: str, driver: str, through: str | None = None) -> AsyncIterator[Desk]:
    name = driver.partition("-")[0]
    target = (through or url).replace("postgresql:", f"postgresql+{name}:").partition("?")[0]
    settings = {"ssl": False} if name == "asyncpg" else {"sslmode": "disable"}
    maker: Any
    if driver == "psycopg":
        maker = sessionmaker(create_engine(target, connect_args=settings))
    else:
        maker = async_sessionmaker(create_async_engine(target, connect_args=settings))
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        for statement in TABLE.split(";"):
            await tx.execute(statement)
        await tx.commit(fence, new_entry(run.row, "/table#1"))
        desk = Desk(store, maker, fence, run.row)
        try:
            yield desk
        finally:
            assert maker.kw["bind"].pool.checkedout() == 0
            if desk.is_async:
                await maker.kw["bind"].dispose()
            else:
                maker.kw["bind"].dispose()


def entry(desk: Desk) -> Any:
    return new_entry(desk.row, "/book#1", seq=2, kind="transaction")


async def test_a_lost_reply_to_the_commit_is_told(url, driver):
    with Wire(url) as wire:
        async with open_desk(url, driver, wire.url) as desk:
            session = await desk.begin()
            await desk.execute(session, "insert into bookings values ('one')")
            wire.lose(mentions("COMMIT"))
            with pytest.raises(StoreUnavailable) as lost:
                await session.commit(desk.fence, entry(desk))
            assert lost.value.outcome_unknown
            assert await desk.count() == 1
            assert await desk.keys() == ["/table#1", "/book#1"]
            session = await desk.begin()
            with pytest.raises(EntrySettled):
                await session.commit(desk.fence, entry(desk))


async def test_a_commit_without_any_reply_is_given_up(url, driver):
    with Wire(url) as wire:
        async with open_desk(url, driver, wire.url) as desk:
            session = await desk.begin(1.0)
            await desk.execute(session, "insert into bookings values ('one')")
            wire.lose(mentions("COMMIT"), silently=True)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable) as lost:
                await session.commit(desk.fence, entry(desk))
            assert lost.value.outcome_unknown
            assert 0.9 < time.monotonic() - began < 15  # psycopg waits for five seconds before it hangs up
            assert await desk.count() == 1
            wire.hang_up()  # a driver that blocks waits until the connection breaks, in its thread
            while desk.maker.kw["bind"].pool.checkedout():
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("when", ["in the body", "before the entry", "before the commit"])
async def test_a_connection_that_is_lost_undoes_it(url, driver, when, monkeypatch):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()
        pid = await desk.execute(session, "insert into bookings values ('one')", "select pg_backend_pid()")
        if when == "before the commit":
            settle = session._settle

            def settle_and_cut(*args: Any) -> None:
                settle(*args)
                terminate(url, pid)

            monkeypatch.setattr(session, "_settle", settle_and_cut)
        else:
            await asyncio.to_thread(terminate, url, pid)
        with pytest.raises(StoreUnavailable) as lost:
            if when == "in the body":
                await desk.execute(session, "select 1")
            await session.commit(desk.fence, entry(desk))
        assert lost.value.outcome_unknown is (when == "before the commit")
        await session.rollback()
        assert await desk.count() == 0
        assert await desk.keys() == ["/table#1"]


def terminate(url: str, pid: int) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s)", [pid])
        while connection.execute("select 1 from pg_stat_activity where pid = %s", [pid]).fetchone():
            time.sleep(0.01)


async def test_a_server_that_is_down_is_unavailable(server, driver):
    async with open_desk(server.fresh_database(), driver) as desk:
        session = await desk.begin()
        await session.rollback()
        await asyncio.to_thread(server.stop)
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as down:
                await desk.begin()
            assert not down.value.outcome_unknown
        await asyncio.to_thread(server.start)
        session = await desk.begin()  # another start of the server is still the same place
        assert await desk.execute(session, "select count(*) from bookings") == 0
        await session.commit(desk.fence, entry(desk))


async def test_fence_and_entry_are_checked(url, driver):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()
        await desk.execute(session, "insert into bookings values ('one')")
        with pytest.raises(FenceLost):
            await session.commit(Fence(desk.fence.worker, desk.fence.epoch + 1), entry(desk))
        assert (await desk.count(), await desk.keys()) == (0, ["/table#1"])
        session = await desk.begin()
        await desk.execute(session, "insert into bookings values ('one')")
        with pytest.raises(EntrySettled):
            await session.commit(desk.fence, new_entry(desk.row, "/table#1"))
        assert await desk.count() == 0


async def test_a_deferred_constraint_is_the_users(url, driver):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()
        await desk.execute(session, "insert into bookings values ('one'), ('one')")
        with pytest.raises(IntegrityError, match="alone"):
            await session.commit(desk.fence, entry(desk))
        assert (await desk.count(), await desk.keys()) == (0, ["/table#1"])


async def test_an_error_that_was_swallowed_commits_nothing(url, driver):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()
        with pytest.raises(Exception, match="nowhere"):
            await desk.execute(session, "insert into bookings values ('one')", "select * from nowhere")
        with pytest.raises(UsageError, match="swallowed"):
            await session.commit(desk.fence, entry(desk))
        assert (await desk.count(), await desk.keys()) == (0, ["/table#1"])


async def test_a_deadlock_is_to_be_run_again(url, driver):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()
        await desk.execute(session, "insert into bookings values ('one'), ('two')")
        await session.commit(desk.fence, entry(desk))
        sessions = [await desk.begin(20.0), await desk.begin(20.0)]
        updates = [f"update bookings set twin = 'x' where id = '{name}'" for name in ("one", "two")]
        for session, update in zip(sessions, updates, strict=True):
            await desk.execute(session, update)
        outcomes = await asyncio.gather(
            *(desk.execute(session, update) for session, update in zip(sessions, reversed(updates), strict=True)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [RolledBack]
        for session in sessions:
            await session.rollback()


async def test_a_lock_that_is_held_too_long_is_waited_for(url, driver):
    async with open_desk(url, driver) as desk:
        holder = await desk.store.begin(5.0)
        await holder.execute("lock table bookings in exclusive mode")
        session = await desk.begin(0.6)
        with pytest.raises(StoreUnavailable, match="lock"):
            await desk.execute(session, "insert into bookings values ('one')")
        await session.rollback()
        await holder.rollback()


async def test_a_commit_through_the_driver_is_noticed(url, driver):
    async with open_desk(url, driver) as desk:
        session = await desk.begin()

        async def end(orm: Any) -> None:
            connection = await (await orm.connection()).get_raw_connection()
            await connection.driver_connection.execute("commit")

        def plain_end(orm: Any) -> None:
            orm.connection().connection.driver_connection.execute("commit")

        body: Callable[[], Awaitable[None]] = session.enclose(end if desk.is_async else plain_end)
        await (body() if desk.is_async else asyncio.to_thread(body))
        with pytest.raises(UsageError, match="session's own connection"):
            await session.commit(desk.fence, entry(desk))
        assert await desk.keys() == ["/table#1"]


async def test_settings_end_with_the_session(url, driver):
    async with open_desk(url, driver) as desk:
        maker = desk.maker
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "outlive.transaction")
        session = await desk.begin()
        assert await desk.execute(session, "select current_setting('lock_timeout')") == "2500ms"
        await session.commit(desk.fence, entry(desk))
        statement = "select " + ", ".join(f"current_setting('{name}', true)" for name in names)
        if desk.is_async:
            async with maker() as orm:
                row = (await orm.execute(text(statement))).one()
        else:
            with maker() as orm:
                row = orm.execute(text(statement)).one()
        assert [value or "0" for value in row] == ["0"] * 4


async def test_a_user_without_rights_on_the_journal_is_told(url, driver):
    async with open_desk(url, driver) as desk:
        tx = await desk.store.begin(5.0)
        role = f"web_{desk.row}"
        await tx.execute(f"create role {role}")
        session = await desk.begin()
        await tx.commit(desk.fence, entry(desk))
        await desk.execute(session, "insert into bookings values ('one')", f"set local role {role}")
        with pytest.raises(UsageError, match="rights on schema outlive"):
            await session.commit(desk.fence, new_entry(desk.row, "/other#1", seq=3))
        assert await desk.count() == 0
        tx = await desk.store.begin(5.0)
        for statement in (f"drop owned by {role}", f"drop role {role}"):
            await tx.execute(statement)
        await tx.commit(desk.fence, new_entry(desk.row, "/dropped#1", seq=4))


@pytest.mark.parametrize("before", ["_settle", "commit"])
async def test_a_process_that_stood_still_before_the_end_runs_it_again(url, driver, before, monkeypatch):
    async with open_desk(url, driver) as desk:
        session = await desk.begin(0.3)
        await desk.execute(session, "insert into bookings values ('one')")
        place = session if before == "_settle" else session._guarded
        ending = getattr(place, before)

        def stand_still(*args: Any) -> None:
            time.sleep(0.6)
            ending(*args)

        monkeypatch.setattr(session, "_timeout_s", 5.0)
        monkeypatch.setattr(place, before, stand_still)
        with pytest.raises((StoreUnavailable, UsageError), match=r"lost|longer than"):
            await session.commit(desk.fence, entry(desk))
        assert (await desk.count(), await desk.keys()) == (0, ["/table#1"])
