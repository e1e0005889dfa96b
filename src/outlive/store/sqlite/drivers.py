"""One connection, the same for the standard library's sqlite3 and for apsw, and what a user sees of it.

Knows how the drivers execute and count; knows no SQL of Outlive. While a
transaction of the user is open, `guard` is set: SQLite itself then refuses to
begin, commit or roll back, and stops a statement when the transaction is over.
The callbacks are set once: to set one takes SQLite's mutex with the GIL held,
a deadlock where another thread is within a statement.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import WeakSet

from outlive.errors import UsageError

Parameters = Sequence[Any] | dict[str, Any]

_CACHED_STATEMENTS = 256  # all blocks, each in a few lengths, and those of a user
_TRANSACTION_ACTION = 22  # SQLITE_TRANSACTION of the authorizer: BEGIN, COMMIT or ROLLBACK
_DENY, _OK = 1, 0
_STEPS_BETWEEN_LOOKS = 1_000_000  # of SQLite's machine, some 15 ms: each look waits for the GIL
_ENDINGS = ("commit", "rollback", "executescript", "__enter__")
_SETTINGS = {"row_factory": None, "text_factory": str, "row_trace": None, "exec_trace": None}


class Guard(Protocol):
    """What a connection asks while a user's transaction is open."""

    cursors: WeakSet[Any]  # the driver's, that the user got

    @property
    def raw(self) -> Any: ...
    @property
    def statement(self) -> AbstractContextManager[object]:
        """Hold it during a statement, so that no other thread executes one at the same time."""

    def is_over(self) -> bool: ...
    def check(self) -> None:
        """Raise UsageError if the transaction is over."""

    def refuse(self, what: str) -> UsageError:
        """Doom the transaction, because the user tried to end it; give the error to raise."""


class Connection:
    """A connection in autocommit mode."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.guard: Guard | None = None
        self.engines: dict[Any, Any] = {}  # of SQLAlchemy, see session.py
        self._cursor = raw.cursor()  # not the user's row factory
        raw.set_authorizer(self._authorize)
        raw.set_progress_handler(self._is_over, _STEPS_BETWEEN_LOOKS)

    def _authorize(self, action: int, operation: Any, *_: Any) -> int:
        if self.guard is None or action != _TRANSACTION_ACTION:
            return _OK
        self.guard.refuse(str(operation))
        return _DENY

    def _is_over(self) -> bool:
        return self.guard is not None and self.guard.is_over()

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.in_transaction)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Execute a query; give its rows as tuples."""
        return list(self._cursor.execute(sql, parameters))

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute a statement without a result; give how many rows it changed."""
        before = self._changed()
        self._cursor.execute(sql, parameters)
        return self._changed() - before

    def many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Execute a statement for each row of parameters; give how many rows were changed."""
        before = self._changed()
        self._cursor.executemany(sql, rows)
        return self._changed() - before

    def query(self, sql: str, parameters: Parameters) -> tuple[tuple[str, ...], list[Any], int]:
        """Execute any statement; give column names, rows and how many rows it changed, not counting triggers."""
        before = self._changed()
        names: tuple[str, ...] = ()
        rows = []
        for row in self._cursor.execute(sql, parameters):
            names = names or tuple(column[0] for column in self._cursor.description)
            rows.append(row)
        changed = 0 if self._changed() == before else self.rows("SELECT changes()")[0][0]
        return names, rows, changed

    def _changed(self) -> int:
        total = self.raw.total_changes
        return int(total() if callable(total) else total)

    def take_back(self) -> None:
        """End what `guard` began, and undo what the user has set or left: an unfinished query keeps its snapshot."""
        guard, self.guard = self.guard, None
        force = () if isinstance(self.raw, sqlite3.Connection) else (True,)
        for cursor in list(guard.cursors) if guard is not None else ():
            cursor.close(*force)
        for name, value in _SETTINGS.items():
            if hasattr(self.raw, name):
                setattr(self.raw, name, value)

    def close(self) -> None:
        if isinstance(self.raw, sqlite3.Connection):
            self.raw.close()
        else:
            self.raw.close(True)  # its cursors too


def connect_stdlib(path: str) -> Connection:
    raw = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=_CACHED_STATEMENTS
    )
    return Connection(raw)


def connect_apsw(path: str) -> Connection:
    import apsw

    return Connection(apsw.Connection(path, statementcachesize=_CACHED_STATEMENTS))


class Guarded:
    """The driver's connection, or a cursor of it, in the hands of a user: each call first asks the guard.

    So nothing is written after the end of the transaction, be it the deadline or SQLite that ended it, and two
    threads are never within one statement, which crashes the process.
    """

    def __init__(self, target: Any, guard: Guard) -> None:
        vars(self).update(_target=target, _guard=guard)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What isinstance sees."""
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not inspect.isroutine(value):
            return self._guarded(value)

        def call(*args: Any, **settings: Any) -> Any:
            with self._guard.statement:
                if name == "close" and self._guard.is_over():
                    return None
                self._guard.check()
                if name in _ENDINGS or (name == "close" and hasattr(self._target, "cursor")):
                    raise self._guard.refuse(f"{name}()")
                return self._guarded(value(*args, **settings))

        return call

    def _guarded(self, value: Any) -> Any:
        if not hasattr(value, "execute"):
            return value
        if not hasattr(value, "cursor"):
            self._guard.cursors.add(value)
        return Guarded(value, self._guard)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("autocommit", "isolation_level"):  # to set it would commit
            raise UsageError(f"the transaction is Outlive's; its {name} cannot be changed")
        setattr(self._target, name, value)

    def __iter__(self) -> Guarded:
        return self

    def __next__(self) -> Any:
        return self.__getattr__("__next__")()

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, *_: object) -> None: ...
