"""SQLAlchemy sessions in the place of `tx`: what both stores need of them.

Takes a session from the user's maker, keeps it on one connection, and shuts its
doors: the body may use savepoints, but not end the transaction. Knows no SQL
and no journal. SQLAlchemy is an extra, imported where a session is asked for.
Invariant: a session whose transaction was ended, in whatever way, is doomed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from outlive.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

Explain = Callable[[Exception], Exception | None]

_DOORS = ("begin", "close", "commit", "invalidate", "prepare", "reset", "rollback")


def check_maker(maker: Any, name: str, *, is_async: bool) -> None:
    """Refuse what cannot make the sessions of this transaction, when it is declared."""
    try:
        from sqlalchemy.ext.asyncio import async_sessionmaker
        from sqlalchemy.orm import sessionmaker
    except ImportError:
        raise UsageError("session=… needs SQLAlchemy 2: pip install 'outlive[sqlalchemy]'") from None
    if not isinstance(maker, sessionmaker | async_sessionmaker):
        raise UsageError(f"session=… of {name} is a sessionmaker or async_sessionmaker, not {maker!r}")
    if isinstance(maker, async_sessionmaker) is not is_async:
        fitting = "async_sessionmaker" if is_async else "sessionmaker"
        kind = "an async" if is_async else "a plain"
        raise UsageError(f"{name} is {kind} function, so session=… is a {fitting}, not {maker!r}")


class GuardedSession:
    """One session for one transaction. `face` is what the body gets, `session` the plain one within it.

    `explain` gives what an error that leaves the body means for the transaction, None if it is the body's own;
    `ends` says whether a statement would end the transaction.
    """

    def __init__(self, maker: Any, explain: Explain, ends: Callable[[str], bool] = lambda _: False) -> None:
        self.face = maker()
        self.session = getattr(self.face, "sync_session", self.face)
        self.bind: Any = self.session.bind
        self._explain = explain
        self._ends = ends
        self._doomed: str | None = None
        self._committing = False
        self._torn: Connection | None = None  # SQLAlchemy takes its transaction for committed, and it is not
        self.in_use = threading.Lock()  # by the body of a plain function, which goes on in its thread when given up
        for door in _DOORS:
            setattr(self.session, door, self._shut(door, getattr(self.session, door)))

    def _shut(self, door: str, method: Any) -> Callable[..., Any]:
        def refuse(nested: bool = False) -> Any:
            if door == "begin" and nested:  # begin_nested()
                return method(nested=True)
            raise self._refuse(f"{door}()")

        return refuse

    # -- the connection -------------------------------------------------------
    def connect(self, engine: Engine) -> Connection:
        """Begin on a connection of this engine; nothing that the session does goes anywhere else."""
        from sqlalchemy import event
        from sqlalchemy.exc import UnboundExecutionError

        choose, session = self.session.get_bind, self.session

        def get_bind(*args: Any, **options: Any) -> Engine:
            try:
                bind = choose(*args, **options)
            except UnboundExecutionError:
                bind = None
            if bind is not self.bind:
                raise UsageError(f"a transaction writes to one database; its session is also bound to {bind!r}")
            return engine

        session.get_bind = get_bind
        session.twophase = False  # there is one database
        type(session).begin(session)
        connection: Connection = session.connection()
        event.listen(connection, "before_cursor_execute", self._before_statement)
        event.listen(connection, "commit", self._before_commit)
        event.listen(connection, "rollback", self._before_rollback)
        return connection

    def _before_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.check()
        if self._ends(statement):
            raise self._refuse(repr(statement.strip()[:40]))

    def _before_commit(self, connection: Connection) -> None:
        if not self._committing:
            self._torn = connection
            raise self._refuse("commit()")

    def _before_rollback(self, _connection: Any) -> None:
        self.doom(
            "the session was rolled back, by a flush that failed or through its connection, so nothing of this "
            "transaction is committed; put what may fail into session.begin_nested()"
        )

    def check(self) -> None:
        """Raise UsageError if the transaction cannot be committed any more."""
        if self._doomed is not None:
            raise UsageError(self._doomed)

    def doom(self, why: str) -> None:
        """Let nothing more be done with the session; the first reason counts."""
        self._doomed = self._doomed or why

    def _refuse(self, what: str) -> UsageError:
        self.doom(
            f"{what} is not allowed in a transaction: Outlive commits it together with the journal entry when the "
            "function returns, and rolls it back when it raises; nothing of it is committed now"
        )
        return UsageError(self._doomed or "")

    # -- the body -------------------------------------------------------------
    def enclose(self, function: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        """Give the function without its first parameter; it writes out what it has left in the session."""

        async def body(*args: Any, **kwargs: Any) -> Any:
            with self._inside():
                value = await function(self.face, *args, **kwargs)
                self.check()
                await self.face.flush()
                return value

        def plain_body(*args: Any, **kwargs: Any) -> Any:
            with self.in_use, self._inside():
                value = function(self.face, *args, **kwargs)
                self.check()
                self.face.flush()
                return value

        return body if is_async else plain_body

    @contextmanager
    def _inside(self) -> Iterator[None]:
        from sqlalchemy.exc import InvalidRequestError

        self.check()
        try:
            yield
        except Exception as error:
            meaning = self._explain(error)
            if meaning is None and self._doomed is not None and isinstance(error, InvalidRequestError):
                meaning = UsageError(self._doomed)  # the session can only say that it is of no more use
            if meaning is None:
                raise
            raise meaning from error

    # -- the end --------------------------------------------------------------
    def commit(self, connection: Connection) -> None:
        """Commit on the connection itself; the session has nothing left to write."""
        self._committing = True
        connection.commit()

    def close(self) -> None:
        """Roll back what is not committed, and let the connection go."""
        if self._torn is not None:
            self._torn.invalidate()  # else it would go back to the pool with the transaction open
        type(self.session).close(self.session)
