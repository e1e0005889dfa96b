"""Transactions that write through a session of SQLAlchemy: rows and entry together, whatever the body does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from outlive import Outlive, Retry, Status, UsageError, step, transaction, workflow
from outlive.errors import StoreUnavailable
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
def place(kind: str, tmp_path: Any) -> str:
    """The URL of an empty database."""
    return f"sqlite:///{tmp_path / 'test.db'}" if kind == "sqlite" else shared_server().fresh_database()


@asynccontextmanager
async def opened(kind: str, url: str, **options: Any) -> AsyncIterator[Outlive]:
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
        async with Outlive(url) as app:
            apps["app"] = app
            yield app
    finally:
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
        assert "IntegrityError" in said
        assert "UsageError" not in said
        assert names() == []
        assert await app.run(books, kind, "bob", "") == 1


async def test_a_flush_that_failed_and_was_swallowed_commits_nothing(kind: str, place: str) -> None:
    async with opened(kind, place) as app:
        said = await app.run(books, kind, "ann", "flush swallowed")
        assert said.startswith("UsageError: the session was rolled back, by a flush that failed"), said
        assert names() == []
