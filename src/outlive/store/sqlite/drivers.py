"""One connection, the same face for the standard library's sqlite3 and for apsw.

Knows how each driver executes, counts and guards; knows no SQL of Outlive.
While a `Guard` is set, the raw connection is in the hands of a user: SQLite
itself then refuses to begin, commit or roll back, and a check goes before each
statement. Without a guard the raw connection refuses to be used from outside.
The callbacks are set once: to set one takes SQLite's mutex with the GIL held,
a deadlock where another thread is within a statement.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, wraps
from typing import Any, Protocol

from outlive.errors import UsageError

Parameters = Sequence[Any] | dict[str, Any]

_CACHED_STATEMENTS = 256  # all blocks, each in a few lengths, and those of a user
_TRANSACTION_ACTION = 22  # SQLITE_TRANSACTION of the authorizer: BEGIN, COMMIT or ROLLBACK
_DENY, _OK = 1, 0


class Guard(Protocol):
    """What the raw connection asks while a user's transaction is open."""

    @property
    def statement(self) -> AbstractContextManager[object]:
        """Hold it during a statement, so that the writer's thread executes none at the same time."""

    def check(self) -> None:
        """Raise UsageError if the transaction has ended."""

    def refuse(self, what: str) -> UsageError:
        """Doom the transaction, because the user tried to end it; give the error to raise."""


class Connection(Protocol):
    """What the store needs of a connection."""

    @property
    def raw(self) -> Any: ...
    @property
    def in_transaction(self) -> bool: ...
    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Execute a query; give its rows as tuples."""

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute a statement without a result; give how many rows it changed."""

    def many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Execute a statement for each row of parameters; give how many rows were changed."""

    def query(self, sql: str, parameters: Parameters) -> tuple[tuple[str, ...], list[Any], int]:
        """Execute any statement; give column names, rows and how many rows it changed."""

    def guard(self, guard: Guard | None) -> None:
        """Hand the raw connection to a user, or take it back."""

    def close(self) -> None: ...


class StdlibConnection:
    """A connection of the standard library, in autocommit mode."""

    def __init__(self, path: str) -> None:
        self.raw = _GuardedStdlib(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=_CACHED_STATEMENTS
        )
        self.raw.set_authorizer(self.raw.authorize)
        self._cursor = sqlite3.Cursor(self.raw)  # not the user's row factory, not his guard

    @property
    def in_transaction(self) -> bool:
        return self.raw.in_transaction

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        return self._cursor.execute(sql, parameters).fetchall()

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        return max(self._cursor.execute(sql, parameters).rowcount, 0)

    def many(self, sql: str, rows: Iterable[Parameters]) -> int:
        return max(self._cursor.executemany(sql, rows).rowcount, 0)

    def query(self, sql: str, parameters: Parameters) -> tuple[tuple[str, ...], list[Any], int]:
        cursor = self._cursor.execute(sql, parameters)
        names = tuple(column[0] for column in cursor.description or ())
        rows = cursor.fetchall()
        return names, rows, max(cursor.rowcount, 0)

    def guard(self, guard: Guard | None) -> None:
        self.raw.guarded_by = guard
        if guard is None:
            self.raw.forget_cursors()

    def close(self) -> None:
        self._cursor.close()
        sqlite3.Connection.close(self.raw)


class _GuardedStdlib(sqlite3.Connection):
    """The connection as a user sees it in `tx.raw`."""

    guarded_by: Guard | None = None

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def isolation_level(self) -> None:
        """Always autocommit: to assign it would commit."""

    @isolation_level.setter
    def isolation_level(self, _: object) -> None:
        raise UsageError("the transaction is Outlive's; its isolation_level cannot be changed")

    def authorize(self, action: int, operation: Any, *_: Any) -> int:
        return _authorize(self.guarded_by, action, operation)

    def cursor(self, factory: Any = None) -> Any:
        with _hold(self):
            made = (factory or _guarded_stdlib_cursor())(self)
            if self.row_factory is not None:
                made.row_factory = self.row_factory
            self._cursors.add(made)
            return made

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def commit(self) -> None:
        raise _guard_of(self).refuse("commit()")

    def rollback(self) -> None:
        raise _guard_of(self).refuse("rollback()")

    def close(self) -> None:
        raise _guard_of(self).refuse("close()")

    def forget_cursors(self) -> None:
        """Undo what a user may leave behind: an unfinished SELECT would pin the writer to an old snapshot."""
        for cursor in list(self._cursors):
            sqlite3.Cursor.close(cursor)
        self._cursors.clear()
        self.row_factory = None
        self.text_factory = str


class ApswConnection:
    """A connection of apsw, which carries a SQLite of its own."""

    def __init__(self, path: str) -> None:
        import apsw

        self.raw = _guarded_apsw()(path, statementcachesize=_CACHED_STATEMENTS)
        raw = self.raw
        raw.guarded_by, self._cursors = None, weakref.WeakSet[Any]()
        raw.cursor_factory = self._make_cursor
        raw.set_authorizer(lambda action, operation, *_: _authorize(raw.guarded_by, action, operation))
        raw.set_commit_hook(lambda: raw.guarded_by is not None)  # what a user commits is rolled back
        self._cursor = apsw.Cursor(raw)
        self._plain_close = apsw.Cursor.close

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.in_transaction)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        return list(self._cursor.execute(sql, parameters))

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        before = self.raw.total_changes()
        self._cursor.execute(sql, parameters)
        changed: int = self.raw.total_changes() - before
        return changed

    def many(self, sql: str, rows: Iterable[Parameters]) -> int:
        before = self.raw.total_changes()
        self._cursor.executemany(sql, rows)
        changed: int = self.raw.total_changes() - before
        return changed

    def query(self, sql: str, parameters: Parameters) -> tuple[tuple[str, ...], list[Any], int]:
        before = self.raw.total_changes()
        names: tuple[str, ...] = ()
        rows = []
        for row in self._cursor.execute(sql, parameters):
            if not names:
                names = tuple(column[0] for column in self._cursor.get_description())
            rows.append(row)
        return names, rows, self.raw.changes() if self.raw.total_changes() != before else 0

    def guard(self, guard: Guard | None) -> None:
        self.raw.guarded_by = guard
        if guard is None:
            for cursor in list(self._cursors):
                self._plain_close(cursor, True)
            self._cursors.clear()
            self.raw.row_trace = self.raw.exec_trace = None

    def _make_cursor(self, raw: Any) -> Any:
        with _hold(raw):
            made = _guarded_apsw_cursor()(raw)
            self._cursors.add(made)
            return made

    def close(self) -> None:
        import apsw

        self._cursor.close(True)
        apsw.Connection.close(self.raw, True)


@cache
def _guarded_apsw() -> type[Any]:
    """Give the class of a connection as a user sees it in `tx.raw`; apsw is an extra, so it is made when needed."""
    import apsw

    class GuardedApsw(apsw.Connection):
        def close(self, _: bool = False) -> None:
            raise _guard_of(self).refuse("close()")

    return GuardedApsw


@cache
def _guarded_stdlib_cursor() -> type[Any]:
    class GuardedCursor(sqlite3.Cursor):
        def executescript(self, _: str, /) -> sqlite3.Cursor:
            raise _guard_of(self.connection).refuse("executescript(), which commits first")

    _guard_methods(GuardedCursor, "execute", "executemany", "fetchone", "fetchmany", "fetchall", "__next__", "close")
    return GuardedCursor


@cache
def _guarded_apsw_cursor() -> type[Any]:
    import apsw

    class GuardedCursor(apsw.Cursor):
        pass

    _guard_methods(GuardedCursor, "execute", "executemany", "fetchone", "fetchall", "__next__", "close")
    return GuardedCursor


def _guard_methods(cursor_class: type[Any], *names: str) -> None:
    """Let every method that steps through a statement hold the guard's lock.

    Two threads in one cursor crash the process; and after SQLite itself has
    rolled back, the next statement would commit by itself.
    """
    for name in names:
        setattr(cursor_class, name, _guarded_method(getattr(cursor_class, name)))


def _guarded_method(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def method(cursor: Any, *args: Any, **settings: Any) -> Any:
        if plain.__name__ == "close" and cursor.connection.guarded_by is None:
            return None  # the end of the transaction has closed it
        with _hold(cursor.connection):
            return plain(cursor, *args, **settings)

    return method


@contextmanager
def _hold(raw: Any) -> Iterator[None]:
    """Keep the writer's thread away from a raw connection whose transaction is open; UsageError if it is not."""
    guard = _guard_of(raw)
    with guard.statement:
        guard.check()
        yield


def _guard_of(raw: Any) -> Guard:
    guard: Guard | None = raw.guarded_by
    if guard is None:
        raise UsageError("this connection belongs to a transaction that has ended; use the `tx` of the open one")
    return guard


def _authorize(guard: Guard | None, action: int, operation: Any) -> int:
    if guard is None or action != _TRANSACTION_ACTION:
        return _OK
    guard.refuse(str(operation))
    return _DENY
