"""A transaction of the user on the writer's own connection, between two batches.

While it is open the writer serves nothing else, so there is never a second
writer to wait for; a deadline ends it and stops its statement. Attempts to end
it, from `tx` or through `tx.raw`, are refused and doom it. Invariant: the entry
is written by the very transaction that holds the user's writes, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from outlive import hooks
from outlive.clock import Clock
from outlive.errors import StoreReadOnly, StoreUnavailable, UsageError
from outlive.model.writes import Committed, EntryWrite, Fence
from outlive.store.refusals import EntrySettled
from outlive.store.sqlite.batch import check_fence, current_entries, find_outcome, write_entries
from outlive.store.sqlite.drivers import Connection, Guarded
from outlive.store.sqlite.failures import extended_code, translate, translated
from outlive.store.sqlite.statements import Record, arrange
from outlive.store.sqlite.writer import BEGIN, COMMIT, Lane, roll_back

T = TypeVar("T")

log = logging.getLogger("outlive.store")

_SITE = hooks.declare_site("transaction")


class SqliteTransaction:
    """An OpenTransaction of the seam; holds the lane while it is open, and guards its raw connection."""

    def __init__(self, lane: Lane, clock: Clock, timeout_s: float) -> None:
        self._lane = lane
        self._clock = clock
        self._timeout_s = timeout_s
        self._deadline = float("inf")
        self._over: str | None = None  # why nothing more can be done in it
        self.loop = asyncio.get_running_loop()
        self.connection: Connection | None = None  # while it is open
        self.statement = threading.RLock()
        self.cursors: WeakSet[Any] = WeakSet()

    # -- its life: all but `begin` on the lane's thread ---------------------------
    async def begin(self) -> SqliteTransaction:
        """Wait for the writer and begin."""
        hooks.point("transaction.before")
        try:
            await self._lane.run(self._open)
        except asyncio.CancelledError:
            self._over = "this transaction was rolled back: its task was cancelled"
            self._lane.submit(partial(self.end, self._over), by=self)
            raise
        return self

    def _open(self, db: Connection) -> None:
        if self._over is not None:
            raise UsageError(self._over)
        db.run(BEGIN)
        try:
            hooks.point("transaction.begun")
            self._deadline = self._clock.steady() + self._timeout_s
            self._lane.hold(self)
        except BaseException:
            roll_back(db)
            raise
        self.connection, db.guard = db, self

    def _perform(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.statement:
                self.check()
                assert self.connection is not None, "used before it had begun"
                return work(self.connection)
        except Exception as error:
            shown = self.explain(error)
            if self._over is not None:
                self.end(self._over)
            if shown is error:
                raise
            raise shown from error

    def explain(self, error: Exception) -> Exception:
        """Give what the user is to see of an error."""
        if self.connection is None:
            return error
        if self.is_over():
            return UsageError(self._over)
        if extended_code(error) is not None:
            translated = translate(error, self._lane.where)
            if isinstance(translated, StoreUnavailable | StoreReadOnly):
                return translated
        return error  # the user's own: a constraint, a misspelt table

    def _commit(self, db: Connection, fence: Fence, entry: EntryWrite) -> None:
        db.take_back()  # the last statements are short, and the user's are over
        try:
            with translated(self._lane.where, committing=True):
                check_fence(db, fence)
                if find_outcome(db, entry) not in (None, "started") or not current_entries(db, [entry]):
                    raise EntrySettled(f"entry {entry.key!r} of run row {entry.row} is settled already")
                write_entries(db, [entry], Committed())
                hooks.point("transaction.entry_written")
                db.run(COMMIT)
        except BaseException:
            self.end("this transaction has been rolled back")
            raise
        self.end("this transaction has been committed")
        hooks.point("transaction.after")

    def end(self, reason: str) -> None:
        """Roll back what is still open and let the lane go on; the first reason counts."""
        self._over = self._over or reason  # it stops another thread that is within a statement
        db = self.connection
        if db is None:
            return
        with self.statement:
            self.connection = None
            try:
                db.take_back()
                roll_back(db)
            except Exception as error:  # noqa: BLE001 - whatever it is, this connection is of no more use
                log.warning("a transaction could not be rolled back, its connection is given up: %s", error)
                self._lane.drop_connection()
        self._lane.let_go()

    # -- its deadline: the lane looks ---------------------------------------------
    def pause_s(self) -> float:
        return max(0.0, self._deadline - self._clock.steady())

    def look(self, _: Connection) -> None:
        self.end(self._overdue())

    def _overdue(self) -> str:
        return (
            f"this transaction was open for longer than the transaction_timeout of {self._timeout_s:g} s and was "
            "rolled back; do slow work before it begins"
        )

    # -- the guard of the raw connection ------------------------------------------
    def is_over(self) -> bool:
        if self._over is None and self._clock.steady() >= self._deadline:
            self._over = self._overdue()
        return self._over is not None

    def check(self) -> None:
        if not self.is_over() and self.connection is not None and not self.connection.in_transaction:
            self._over = "SQLite rolled this transaction back after an error; let the step raise it"
        if self._over is not None:
            raise UsageError(self._over)

    def refuse(self, what: str) -> UsageError:
        self._over = self._over or (
            f"{what} is not allowed in a transaction: Outlive commits it together with the journal entry when "
            "the function returns, and rolls it back when it raises; it has been rolled back now"
        )
        return UsageError(self._over)

    # -- what users call ----------------------------------------------------------
    @property
    def raw(self) -> Any:
        """The driver's connection."""
        if self.connection is None:
            raise UsageError(self._over)
        return Guarded(self.connection.raw, self)

    async def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; give the number of rows it changed."""
        _, _, changed = await self._query(sql, args)
        return changed

    async def fetch(self, sql: str, *args: Any) -> Sequence[Record]:
        """Give all rows of a query."""
        names, rows, _ = await self._query(sql, args)
        return [Record.of(names, row) for row in rows]

    async def fetchrow(self, sql: str, *args: Any) -> Record | None:
        """Give the first row of a query."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """Give the first value of the first row."""
        row = await self.fetchrow(sql, *args)
        return None if row is None else row[0]

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of parameters; give the number of rows changed."""
        arranged = [arrange(sql, args) for args in rows]
        return await self.within(lambda db: db.many(sql, arranged))

    async def _query(self, sql: str, args: tuple[Any, ...]) -> tuple[tuple[str, ...], list[Any], int]:
        arranged = arrange(sql, args)
        return await self.within(lambda db: db.query(sql, arranged))

    async def within(self, work: Callable[[Connection], T]) -> T:
        """Execute work within the transaction."""
        if self.connection is None:
            raise UsageError(self._over)
        return await self._lane.call(partial(self._perform, work), by=self)

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the entry as the last statement, then COMMIT."""
        await self.within(lambda db: self._commit(db, fence, entry))

    async def rollback(self) -> None:
        """Give up what the transaction has written; nothing to do if it has ended."""
        if self.connection is not None:
            with suppress(UsageError):  # the lane is being closed, which ends it too
                await self._lane.call(partial(self.end, "this transaction has been rolled back"), by=self)
