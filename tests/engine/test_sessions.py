"""Transactions that write through a session of SQLAlchemy: rows and entry together, whatever the body does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, ForeignKey, create_engine, func, insert, inspect, literal, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import NullPool

import outlive
from outlive import Outlive, UsageError, step, transaction, workflow
from tests.support.postgres import shared_server

LIMIT_S = 20.0


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))
    text: Mapped[str]


plain = sessionmaker()
asynchronous = async_sessionmaker()
bodies: list[Any] = []
apps: dict[str, Outlive] = {}


@pytest.fixture(params=["sqlite", "postgres-plain", "postgres-async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def place(kind: str, tmp_path: Any) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    url = shared_server().migrated_database()
    yield url
    shared_server().take_back(url)


@asynccontextmanager
async def opened(kind: str, url: str, *, grace: float = 10.0, **options: Any) -> AsyncIterator[Outlive]:
    """Open an app, with the user's tables, and sessions that lead to its database."""
    bodies.clear()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), **options)
    async_engine = None
    Base.metadata.create_all(engine)
    plain.configure(bind=engine)
    if kind == "postgres-async":
        async_engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), **options)
        asynchronous.configure(bind=async_engine)
    try:
        async with Outlive(url, grace=grace) as app:
            apps["app"] = app
            yield app
    finally:
        deadline = time.monotonic() + 5
        while any(used.pool.checkedout() for used in (engine, async_engine) if used is not None):
            assert time.monotonic() < deadline, "a connection was never given back"
            await asyncio.sleep(0.01)
        engine.dispose()
        if async_engine is not None:
            await async_engine.dispose()


def names() -> list[str]:
    with plain() as session:
        return list(session.scalars(select(Account.name).order_by(Account.name)))


def refused(act: Any, swallow: bool) -> None:
    try:
        act()
    except UsageError:
        if not swallow:
            raise


@transaction(session=plain)
def book(session: Session, name: str, then: str, swallow: bool = False) -> int:
    bodies.append(name)
    session.add(Account(name=name, cents=5, lines=[Line(text="opened")]))
    session.flush()
    match then:
        case "raise":
            raise ValueError("no booking today")
        case "commit" | "rollback" | "close" | "begin" | "reset" | "invalidate":
            refused(getattr(session, then), swallow)
        case "with":
            with contextlib.suppress(UsageError) if swallow else contextlib.nullcontext(), session:
                pass
        case "COMMIT" | "/* x */ rollback":
            refused(lambda: session.execute(text(then)), swallow)
        case "connection commit":
            refused(session.connection().commit, swallow)
        case "connection rollback":
            session.connection().rollback()
        case "savepoint":
            with contextlib.suppress(IntegrityError), session.begin_nested():
                session.add(Account(name=name, cents=6))
                session.flush()
            with session.begin_nested():
                session.add(Account(name=name + "-nested", cents=7))
        case "flush" | "flush swallowed":
            session.expunge_all()
            session.add(Account(name=name, cents=6))
            with contextlib.suppress(IntegrityError) if "swallowed" in then else contextlib.nullcontext():
                session.flush()
        case "late flush":
            session.expunge_all()
            session.add(Account(name=name, cents=6))
            return 0
    return session.scalar(select(func.count()).select_from(Account)) or 0


@transaction(session=asynchronous)
async def async_book(session: AsyncSession, name: str, then: str, swallow: bool = False) -> int:
    bodies.append(name)
    session.add(Account(name=name, cents=5, lines=[Line(text="opened")]))
    await session.flush()
    shown = contextlib.suppress(UsageError) if swallow else contextlib.nullcontext()
    match then:
        case "raise":
            raise ValueError("no booking today")
        case "commit" | "rollback" | "close" | "reset" | "invalidate":
            with shown:
                await getattr(session, then)()
        case "begin":
            with shown:
                async with session.begin():
                    pass
        case "with":
            with shown:
                async with session:
                    pass
        case "COMMIT" | "/* x */ rollback":
            with shown:
                await session.execute(text(then))
        case "connection commit":
            with shown:
                await (await session.connection()).commit()
        case "connection rollback":
            await (await session.connection()).rollback()
        case "savepoint":
            with contextlib.suppress(IntegrityError):
                async with session.begin_nested():
                    session.add(Account(name=name, cents=6))
                    await session.flush()
            async with session.begin_nested():
                session.add(Account(name=name + "-nested", cents=7))
        case "flush" | "flush swallowed":
            session.expunge_all()
            session.add(Account(name=name, cents=6))
            with contextlib.suppress(IntegrityError) if "swallowed" in then else contextlib.nullcontext():
                await session.flush()
        case "late flush":
            session.expunge_all()
            session.add(Account(name=name, cents=6))
            return 0
    return await session.scalar(select(func.count()).select_from(Account)) or 0


@workflow
async def books(kind: str, name: str, then: str, swallow: bool = False) -> Any:
    try:
        if kind == "postgres-async":
            return await async_book(name, then, swallow)
        return await asyncio.to_thread(book, name, then, swallow)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def test_rows_and_entry_are_committed_together(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        run = await app.start(books, kind, "ann", "")
        assert await run.result(timeout=LIMIT_S) == 1
        (entry,) = await run.entries()
        assert (entry.kind, entry.outcome, entry.value) == ("transaction", "ok", 1)
        assert await app.run(books, kind, "bob", "") == 2
        assert names() == ["ann", "bob"]


async def test_an_error_of_the_body_leaves_nothing(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        run = await app.start(books, kind, "ann", "raise")
        assert await run.result(timeout=LIMIT_S) == "ValueError: no booking today"
        (entry,) = await run.entries()
        assert (entry.kind, entry.outcome) == ("transaction", "error")
        assert names() == []


ENDINGS = [
    "commit", "rollback", "close", "begin", "reset", "invalidate", "with", "COMMIT", "/* x */ rollback",
    "connection commit",
]  # fmt: skip


@pytest.mark.parametrize("swallow", [False, True], ids=["raised", "swallowed"])
@pytest.mark.parametrize("then", ENDINGS)
async def test_a_body_may_not_end_its_transaction(kind: str, place: str, then: str, swallow: bool) -> None:
    async with opened(kind, place) as app:
        said = await (await app.start(books, kind, "ann", then, swallow)).result(timeout=LIMIT_S)
        assert said.startswith("UsageError: "), said
        assert "not allowed in a transaction" in said
        assert names() == []
        assert await app.run(books, kind, "bob", "") == 1  # the connection is sound


async def test_a_rollback_of_the_connection_is_noticed(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        said = await app.run(books, kind, "ann", "connection rollback")
        assert said.startswith("UsageError: the session was rolled back"), said
        assert names() == []
        assert await app.run(books, kind, "bob", "") == 1


async def test_savepoints_work(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        assert await app.run(books, kind, "ann", "savepoint") == 2
        assert names() == ["ann", "ann-nested"]


@pytest.mark.parametrize("then", ["flush", "late flush"])
async def test_an_error_of_a_flush_is_the_users(kind: str, place: str, then: str) -> None:
    async with opened(kind, place) as app:
        said = await app.run(books, kind, "ann", then)
        assert said.startswith("StepFailed: sqlalchemy.exc.IntegrityError"), said
        assert names() == []
        assert await app.run(books, kind, "bob", "") == 1


async def test_a_flush_that_failed_and_was_swallowed_commits_nothing(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        said = await app.run(books, kind, "ann", "flush swallowed")
        assert said.startswith("UsageError: the session was rolled back, by a flush that failed"), said
        assert names() == []


def test_only_a_fitting_maker_is_taken() -> None:
    with pytest.raises(UsageError, match="async function, so session=… is a async_sessionmaker"):

        @transaction(session=plain)
        async def one(session: Any) -> None: ...

    with pytest.raises(UsageError, match="plain function, so session=… is a sessionmaker"):

        @transaction(session=asynchronous)
        def two(session: Any) -> None: ...

    for maker in (Session, scoped_session(plain), lambda: None):
        with pytest.raises(UsageError, match="is a sessionmaker or async_sessionmaker"):
            transaction(session=maker)(books)


def test_without_sqlalchemy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy.orm", None)
    with pytest.raises(UsageError, match=r"outlive\[sqlalchemy\]"):
        transaction(session=plain)(books)


# -- the wrong database --------------------------------------------------------------------------------
other = sessionmaker()
async_other = async_sessionmaker()


@transaction(session=other)
def book_elsewhere(session: Session) -> None:
    bodies.append("elsewhere")
    session.execute(text("create table strays (name text)"))


@transaction(session=async_other)
async def async_book_elsewhere(session: AsyncSession) -> None:
    bodies.append("elsewhere")
    await session.execute(text("create table strays (name text)"))


@workflow
async def books_elsewhere(kind: str) -> str:
    try:
        if kind == "postgres-async":
            await async_book_elsewhere()
        else:
            await asyncio.to_thread(book_elsewhere)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was wrong"


@pytest.mark.parametrize("migrated", [False, True], ids=["bare", "with a schema"])
async def test_another_database_is_refused(kind: str, place: str, tmp_path: Path, migrated: bool) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}" if kind == "sqlite" else shared_server().fresh_database()
    if migrated:
        async with Outlive(url):
            pass
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    async_engine = None
    other.configure(bind=engine)
    if kind == "postgres-async":
        async_engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        async_other.configure(bind=async_engine)
    async with opened(kind, place) as app:
        said = await app.run(books_elsewhere, kind)
        assert said.startswith("UsageError: "), said
        assert "database" in said
        assert bodies == []
    if async_engine is not None:
        await async_engine.dispose()
    with engine.connect() as connection:
        assert not inspect(connection).has_table("strays")
    engine.dispose()


async def test_an_engine_that_does_not_fit_is_refused(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        maker: Any = async_other if kind == "postgres-async" else other
        bound = (asynchronous if kind == "postgres-async" else plain).kw["bind"]
        elsewhere = create_engine("sqlite://")

        async def said_with(bind: Any, **more: Any) -> str:
            maker.configure(bind=bind, **more)
            return str(await app.run(books_elsewhere, kind))

        try:
            if kind == "sqlite":
                assert "is bound to sqlite://" in await said_with(elsewhere)
            else:
                assert "bind it to an engine" in await said_with(None)
                assert "AUTOCOMMIT" in await said_with(bound.execution_options(isolation_level="AUTOCOMMIT"))
            if kind == "postgres-plain":
                assert "bind it to an engine" in await said_with(elsewhere)
                with bound.connect() as connection:
                    assert "bind it to an engine" in await said_with(connection)
            assert bodies == []
            if kind != "postgres-async":
                assert "also bound to" in await app.run(writes_to_two, elsewhere is not None)
        finally:
            maker.configure(bind=None)
            elsewhere.dispose()
        assert names() == []


torn = sessionmaker(binds={Line: create_engine("sqlite://", poolclass=NullPool)})


@transaction(session=torn)
def write_to_two(session: Session) -> None:
    session.execute(insert(Account), [{"name": "ann", "cents": 1}])
    session.execute(insert(Line), [{"account": "ann", "text": "opened"}])


@workflow
async def writes_to_two(_: bool) -> str:
    torn.configure(bind=plain.kw["bind"])
    try:
        await asyncio.to_thread(write_to_two)
    except UsageError as error:
        return str(error)
    return "nothing was wrong"


async def test_an_async_session_on_sqlite_is_refused(tmp_path: Path) -> None:
    async with Outlive(f"sqlite:///{tmp_path / 'test.db'}") as app:
        said = await app.run(books, "postgres-async", "ann", "")
        assert said.startswith("UsageError: an async session cannot"), said
        assert "plain function with session=sessionmaker(…)" in said


async def test_a_private_database_takes_a_maker_without_engine() -> None:
    plain.configure(bind=None)
    async with Outlive("sqlite://") as app:
        await app.run(makes_tables)
        assert await app.run(books, "sqlite", "ann", "") == 1
        assert await app.run(books, "sqlite", "bob", "savepoint") == 3


@transaction(session=plain)
def make_tables(session: Session) -> None:
    Base.metadata.create_all(session.connection())


@workflow
async def makes_tables() -> None:
    await asyncio.to_thread(make_tables)


async def test_apsw_is_refused(tmp_path: Path) -> None:
    plain.configure(bind=None)
    async with Outlive(f"sqlite:///{tmp_path / 'test.db'}?driver=apsw") as app:
        assert "driver=apsw" in await app.run(books, "sqlite", "ann", "")


# -- what is run again ---------------------------------------------------------------------------------
meet: Any = None
strict = sessionmaker()
async_strict = async_sessionmaker()


@transaction(session=strict)
def add_one(session: Session, name: str) -> int:
    bodies.append(name)
    account = session.get_one(Account, "shared")
    if meet is not None:
        meet.wait(5)
    account.cents += 1
    session.flush()
    return account.cents


@transaction(session=async_strict)
async def async_add_one(session: AsyncSession, name: str) -> int:
    bodies.append(name)
    account = await session.get_one(Account, "shared")
    if meet is not None:
        await asyncio.to_thread(meet.wait, 5)
    account.cents += 1
    return account.cents


@workflow
async def adds(kind: str, name: str) -> int:
    return await (async_add_one(name) if kind == "postgres-async" else asyncio.to_thread(add_one, name))


class Meeting:
    """Lets the first two who come go on together, and later ones at once."""

    def __init__(self) -> None:
        self._here = 0
        self._lock = threading.Lock()
        self._complete = threading.Event()

    def wait(self, timeout: float) -> None:
        with self._lock:
            self._here += 1
            if self._here >= 2:
                self._complete.set()
        self._complete.wait(timeout)


async def test_a_transaction_that_the_database_aborts_is_run_again(kind: str, place: str) -> None:
    global meet
    async with opened(kind, place) as app:
        with plain() as session:
            session.add(Account(name="shared", cents=0))
            session.commit()
        level = "REPEATABLE READ" if kind != "sqlite" else "SERIALIZABLE"
        strict.configure(bind=plain.kw["bind"].execution_options(isolation_level=level))
        if kind == "postgres-async":
            async_strict.configure(bind=asynchronous.kw["bind"].execution_options(isolation_level=level))
        meet = Meeting() if kind != "sqlite" else None  # SQLite has one writer: they never meet
        try:
            runs = [await app.start(adds, kind, name) for name in ("one", "two")]
            assert sorted([await run.result(timeout=LIMIT_S) for run in runs]) == [1, 2]
        finally:
            meet = None
        assert len(bodies) == (2 if kind == "sqlite" else 3)
        for run in runs:
            (entry,) = await run.entries()
            assert (entry.outcome, entry.attempts) == ("ok", 1)


@transaction(session=plain, timeout=0.3)
def too_long(session: Session, wait_s: float) -> None:
    session.add(Account(name="late", cents=1))
    session.flush()
    time.sleep(wait_s)
    session.add(Account(name="later", cents=1))
    try:
        session.flush()
    finally:
        bodies.append("went on")


@transaction(session=asynchronous, timeout=0.3)
async def async_too_long(session: AsyncSession, wait_s: float) -> None:
    session.add(Account(name="late", cents=1))
    await session.flush()
    if kind_of_wait == "statement":
        await session.execute(text("select pg_sleep(30)"))
    await asyncio.sleep(wait_s)


kind_of_wait = ""


@workflow
async def takes_too_long(kind: str, wait_s: float) -> str:
    try:
        await (async_too_long(wait_s) if kind == "postgres-async" else asyncio.to_thread(too_long, wait_s))
    except UsageError as error:
        return str(error)
    return "nothing was wrong"


async def test_a_session_that_is_open_too_long_is_rolled_back(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        began = time.monotonic()
        said = await app.run(takes_too_long, kind, 1.0)
        assert "0.3 s" in said, said
        assert time.monotonic() - began < 2.9, "three attempts of 0.3 s do not wait for their bodies"
        assert names() == []
        assert await app.run(books, kind, "bob", "") == 1
        if kind == "postgres-async":
            return
        while bodies.count("went on") < 3:  # the threads of bodies that were given up
            await asyncio.sleep(0.05)
        assert names() == ["bob"]


async def test_a_statement_that_takes_too_long_is_stopped() -> None:
    global kind_of_wait
    kind_of_wait = "statement"
    try:
        async with opened("postgres-async", shared_server().fresh_database()) as app:
            said = await app.run(takes_too_long, "postgres-async", 0)
            assert "0.3 s" in said, said
            assert names() == []
            assert asynchronous.kw["bind"].pool.checkedout() == 0
    finally:
        kind_of_wait = ""


# -- what becomes of runs ------------------------------------------------------------------------------
@step
async def pause() -> None:
    bodies.append("pause")


@workflow
async def books_twice(kind: str) -> list[Any]:
    first = await books.spec.function(kind, "ann", "")
    await pause()
    await outlive.sleep(0.4)
    return [first, await books.spec.function(kind, "bob", "")]


async def test_replay_does_not_execute_the_body_again(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        run = await app.start(books_twice, kind, id="twice")
        while "pause" not in bodies:
            await asyncio.sleep(0.01)
        await app.close()
        assert bodies == ["ann", "pause"]
        async with Outlive(place) as app:
            run = await app.get("twice")
            assert await run.result(timeout=LIMIT_S) == [1, 2]
            assert bodies == ["ann", "pause", "bob"]
            assert [entry.kind for entry in await run.entries()] == ["transaction", "step", "timer", "transaction"]
            assert names() == ["ann", "bob"]
        await apps["app"].open()


@transaction(session=asynchronous)
async def book_and_start(session: AsyncSession, name: str, fail: bool) -> bool:
    session.add(Account(name=name, cents=1))
    run = await apps["app"].start(after, 41, id=f"after-{name}", tx=session)
    if fail:
        raise ValueError("not today")
    return run.created


@workflow
async def after(value: int) -> int:
    return value + 1


@workflow
async def books_and_starts(name: str, fail: bool) -> bool:
    return await book_and_start(name, fail)


async def test_a_run_started_with_the_session_exists_if_it_commits() -> None:
    async with opened("postgres-async", shared_server().fresh_database()) as app:
        assert await app.run(books_and_starts, "a", False) is True
        assert await (await app.get("after-a")).result(timeout=LIMIT_S) == 42
        with pytest.raises(ValueError, match="not today"):
            await app.run(books_and_starts, "b", True)
        with pytest.raises(outlive.RunNotFound):
            await app.get("after-b")
        assert names() == ["a"]


async def test_a_run_starts_in_the_callers_own_session(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        if kind == "postgres-async":
            async with asynchronous.begin() as session:
                session.add(Account(name="ann", cents=1))
                await app.start(after, 1, id="one", tx=session)
        else:
            with plain.begin() as session:
                session.add(Account(name="ann", cents=1))
                await app.start(after, 1, id="one", tx=session)
            with plain() as session:
                await app.start(after, 1, id="two", tx=session)
                session.rollback()
        assert await (await app.get("one")).result(timeout=LIMIT_S) == 2
        with pytest.raises(outlive.RunNotFound):
            await app.get("two")
        assert names() == ["ann"]


@transaction(session=plain)
def wait_in_session(session: Session) -> None:
    session.add(Account(name="ann", cents=1))
    session.flush()
    bodies.append("waits")
    time.sleep(0.5)


@transaction(session=asynchronous)
async def async_wait_in_session(session: AsyncSession) -> None:
    session.add(Account(name="ann", cents=1))
    await session.flush()
    bodies.append("waits")
    await asyncio.sleep(0.5)


@workflow
async def waits(kind: str) -> None:
    await (async_wait_in_session() if kind == "postgres-async" else asyncio.to_thread(wait_in_session))


# SQLite writes neither a request nor a takeover while a transaction holds its writer.
on_postgres = pytest.mark.parametrize("kind", ["postgres-plain", "postgres-async"])


@on_postgres
async def test_a_cancelled_run_leaves_nothing_of_its_session(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        run = await app.start(waits, kind)
        while not bodies:
            await asyncio.sleep(0.01)
        await run.cancel("not wanted")
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert await app.run(books, kind, "bob", "") == 1
        await asyncio.sleep(0.6)  # a thread that was given up goes on
        assert names() == ["bob"]


@on_postgres
async def test_a_worker_that_lost_its_lease_commits_nothing(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        run = await app.start(waits, kind)
        while not bodies:
            await asyncio.sleep(0.01)
        with plain.kw["bind"].begin() as connection:
            connection.execute(text("update outlive.workers set epoch = epoch + 1"))
        with pytest.raises(outlive.LeaseLost):
            await run.result(timeout=LIMIT_S)
        await asyncio.sleep(0.6)
        assert names() == []


async def test_an_app_that_closes_gives_its_sessions_up(kind: str, place: str) -> None:
    async with opened(kind, place, grace=0.1) as app:
        await app.start(waits, kind, id="waits")
        while not bodies:
            await asyncio.sleep(0.01)
        await app.close()
        assert names() == []
        await asyncio.sleep(0.6)  # a thread that was given up goes on
        assert names() == []
        async with Outlive(place, include=[waits]) as second:
            await (await second.get("waits")).result(timeout=LIMIT_S)
        assert names() == ["ann"]
        await app.open()


@transaction(session=plain)
def return_account(session: Session) -> Any:
    session.add(account := Account(name="ann", cents=1))
    return account


@workflow
async def returns_account() -> None:
    await asyncio.to_thread(return_account)


@workflow
def plainly_books(name: str) -> int:
    return book(name, "")  # type: ignore[call-arg,arg-type]


async def test_a_plain_workflow_calls_it_directly(url: str) -> None:
    async with opened("any", url) as app:
        assert await app.run(plainly_books, "ann") == 1


@transaction(session=plain)
def read_json(session: Session) -> Any:
    return session.scalar(select(literal({"a": 1}, JSON)))


@workflow
async def reads_json() -> Any:
    return await asyncio.to_thread(read_json)


async def test_json_is_written_as_the_users_engine_would(url: str) -> None:
    async with opened("any", url, json_serializer=lambda value: f'"marked {len(value)}"') as app:
        assert await app.run(reads_json) == "marked 1"


async def test_an_object_of_the_session_is_no_result(url: str) -> None:
    async with opened("any", url) as app:
        with pytest.raises(outlive.EncodeFailed, match="result of transaction return_account"):
            await app.run(returns_account)
        assert names() == []


async def test_outside_a_run_the_caller_commits(url: str) -> None:
    async with opened("any", url):
        with plain.begin() as session:
            assert book(session, "ann", "") == 1  # type: ignore[call-arg,arg-type]
        assert names() == ["ann"]


@pytest.mark.parametrize("setting", ["autobegin", "twophase", "autoflush", "binds"])
async def test_settings_of_the_maker_do_not_matter(kind: str, place: str, setting: str) -> None:
    values: dict[str, Any] = {"autobegin": False, "twophase": True, "autoflush": False}
    async with opened(kind, place) as app:
        maker: Any = asynchronous if kind == "postgres-async" else plain
        before = dict(maker.kw)
        maker.configure(**{setting: values.get(setting, {Account: maker.kw["bind"], Line: maker.kw["bind"]})})
        try:
            assert await app.run(books, kind, "ann", "savepoint") == 2
        finally:
            maker.kw = before
        assert names() == ["ann", "ann-nested"]


# -- what one would write ------------------------------------------------------------------------------
@transaction(session=plain)
def import_accounts(session: Session, rows: list[tuple[str, int]]) -> int:
    session.execute(insert(Account), [{"name": name, "cents": cents} for name, cents in rows])
    return session.scalar(select(func.sum(Account.cents))) or 0


@transaction(session=asynchronous)
async def async_import_accounts(session: AsyncSession, rows: list[tuple[str, int]]) -> int:
    await session.execute(insert(Account), [{"name": name, "cents": cents} for name, cents in rows])
    return await session.scalar(select(func.sum(Account.cents))) or 0


@workflow
async def imports(kind: str, count: int) -> int:
    rows = [(f"account {number}", number) for number in range(count)]
    return await (async_import_accounts(rows) if kind == "postgres-async" else asyncio.to_thread(import_accounts, rows))


async def test_rows_in_bulk(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        assert await app.run(imports, kind, 2_000) == 1_999_000
        assert len(names()) == 2_000


async def test_many_at_once_share_few_connections(kind: str, place: str) -> None:
    options = {} if kind == "sqlite" else {"pool_size": 2, "max_overflow": 0}
    async with opened(kind, place, **options) as app:
        runs = [await app.start(books, kind, f"name {number}", "") for number in range(60)]
        for run in runs:
            assert isinstance(await run.result(timeout=LIMIT_S), int)
        assert len(names()) == 60
        pool = (asynchronous if kind == "postgres-async" else plain).kw["bind"].pool
        assert kind == "sqlite" or pool.checkedout() == 0
