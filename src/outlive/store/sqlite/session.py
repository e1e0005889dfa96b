"""A SQLAlchemy session on the writer's own connection, so that no second connection writes the file.

The transaction is that of transaction.py; the session only speaks through its
raw connection, whose guard stays in force. The user's engine is never
connected: it tells which file it means. Invariant: SQLAlchemy never sends a
COMMIT or ROLLBACK to the writer's connection, and never closes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outlive import hooks
from outlive.errors import UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.sessions import GuardedSession
from outlive.store.sqlite.connect import Location
from outlive.store.sqlite.transaction import SqliteTransaction

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_SITE = hooks.declare_site("session")


class SqliteSession:
    """See `outlive.store.interface.OpenSession`."""

    def __init__(self, tx: SqliteTransaction, guarded: GuardedSession) -> None:
        self._tx = tx
        self._guarded = guarded

    @classmethod
    async def begin(cls, place: Location, tx: SqliteTransaction, maker: Any) -> SqliteSession:
        """Begin the transaction, and put the session on its connection."""

        def explain(error: Exception) -> Exception | None:
            origin = getattr(error, "orig", None) or error
            shown = tx.explain(origin)
            return None if shown is origin else shown

        hooks.point("session.before")
        guarded = GuardedSession(maker, explain)
        _check_place(place, guarded)
        await tx.begin()
        try:
            with tx.statement:  # a connection of SQLAlchemy sets callbacks; see drivers.py
                guarded.connect(_engine_of(tx, guarded.bind))
        except BaseException:
            await tx.rollback()
            raise
        return cls(tx, guarded)

    def enclose(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give the body with its session."""
        return self._guarded.enclose(function, is_async=False)

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the entry as the last statement, then COMMIT."""
        try:
            self._guarded.close()
        except BaseException:
            await self._tx.rollback()
            raise
        await self._tx.commit(fence, entry)
        hooks.point("session.after")

    async def rollback(self) -> None:
        """Give up what was written; nothing to do if it has ended."""
        self._guarded.doom("this transaction has been rolled back")
        try:
            if not self._guarded.in_use.locked():
                self._guarded.close()
        finally:
            await self._tx.rollback()


def _check_place(place: Location, guarded: GuardedSession) -> None:
    if guarded.face is not guarded.session:
        raise UsageError(
            "an async session cannot use the one connection that writes a SQLite file: make the transaction a plain "
            "function with session=sessionmaker(…), and call it with asyncio.to_thread"
        )
    if place.driver != "stdlib":
        raise UsageError("SQLAlchemy has no dialect for apsw: take ?driver=apsw out of the app's URL, or write with tx")
    bind = guarded.bind
    if bind is None:
        return
    if bind.dialect.name != "sqlite" or not place.is_at(bind.url.database):
        raise UsageError(
            f"the session is bound to {bind.url!r}, the app's database is {place.path or 'private, in memory'}: bind "
            "the sessionmaker to an engine of the app's own database, or to none"
        )


def _engine_of(tx: SqliteTransaction, bind: Any) -> Engine:
    """Give the engine that knows this connection alone; it is kept with it, because it keeps compiled statements."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    db = tx.connection
    assert db is not None
    engine: Engine | None = db.engines.get(bind)
    if engine is None:
        options = {}
        for name in ("json_serializer", "json_deserializer"):
            if (function := getattr(getattr(bind, "dialect", None), f"_{name}", None)) is not None:
                options[name] = function
        engine = create_engine(
            "sqlite://",
            creator=lambda: db.guard and db.guard.raw,
            poolclass=NullPool,
            pool_reset_on_return=None,
            **options,
        )
        for ending in ("do_commit", "do_rollback", "do_close"):
            setattr(engine.dialect, ending, _leave_to_outlive)
        db.engines[bind] = engine
    return engine


def _leave_to_outlive(_connection: Any) -> None:
    """Stand in for what only the transaction itself may do."""
