"""A transaction of the user on the writer's own connection, between two batches.

While it is open the writer serves nothing else, so there is never a second
writer to wait for; a deadline ends it and interrupts its statement. SQLite's
authorizer refuses every attempt to end it, from `tx` or through `tx.raw`, and
a savepoint set first and released last proves that it is still the same one.
Invariant: the entry is written by the very transaction that holds the user's
writes, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from outlive import hooks
from outlive.clock import Clock
from outlive.errors import StoreReadOnly, StoreUnavailable, UsageError
from outlive.model.writes import Committed, EntryWrite, Fence
from outlive.store.interface import EntrySettled
from outlive.store.sqlite.batch import check_fence, find_outcome, write_entries
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.failures import extended_code, translate
from outlive.store.sqlite.statements import Record, convert
from outlive.store.sqlite.writer import BEGIN, COMMIT, Call, InlineLane, ThreadLane, deliver, roll_back

T = TypeVar("T")

log = logging.getLogger("outlive.store")

_SITE = hooks.declare_site("transaction")
_INTERRUPT_S = 0.01  # between two attempts to stop a statement
_ROLLBACK_TRIES = 50


class SqliteTransaction:
    """See the module's text; an OpenTransaction of the seam, and the guard of its raw connection."""

    def __init__(self, lane: ThreadLane | InlineLane, clock: Clock, timeout_s: float) -> None:
        self._lane = lane
        self._clock = clock
        self._timeout_s = timeout_s
        self._deadline = float("inf")
        self._connection: Connection | None = None
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ending = threading.Lock()  # taken to send a call, to interrupt, and to note the end
        self.statement = threading.RLock()
        self._ended: str | None = None
        self._doomed: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- opening and serving --------------------------------------------------
    async def begin(self) -> SqliteTransaction:
        """Wait for the writer and begin."""
        hooks.point("transaction.before")
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lane.submit(partial(self._serve, begun))
        try:
            await begun
        except asyncio.CancelledError:
            self.abandon("its task was cancelled")
            raise
        return self

    def _serve(self, begun: asyncio.Future[None]) -> None:
        """Hold the lane until the transaction has ended; runs on the lane's thread."""
        if begun.cancelled():
            return
        try:
            if self._ended is not None:
                raise UsageError(self._ended)
            self._lane.patiently(self._open)
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            deliver(begun, None, error)
            return
        if isinstance(self._lane, InlineLane):
            self._lane.hold()
            self._timer = begun.get_loop().call_later(self._timeout_s, self._expire)
            begun.set_result(None)
            return
        deliver(begun, None, None)
        while self._ended is None:
            try:
                self._calls.get(timeout=self._left_s())()
            except queue.Empty:
                self._expire()
        while not self._calls.empty():
            self._calls.get()()

    def _open(self, db: Connection) -> None:
        db.run(BEGIN)
        try:
            db.run("SAVEPOINT outlive_transaction")
            hooks.point("transaction.begun")
            self._deadline = self._clock.steady() + self._timeout_s
            self._connection = db
            db.guard(self)
        except BaseException:
            db.guard(None)
            roll_back(db)
            raise

    async def _do(self, work: Callable[[Connection], T]) -> T:
        """Execute work within the transaction."""
        return await self._send(partial(self._perform, work))

    async def _send(self, execute: Callable[[], T]) -> T:
        if isinstance(self._lane, InlineLane):
            return execute()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._ending:
            if self._ended is not None:
                raise UsageError(self._ended)
            self._calls.put(Call(execute, future))
        timer: asyncio.TimerHandle

        def stop_overdue() -> None:  # again and again: a statement that has not begun yet is not stopped
            nonlocal timer
            if self.expired():
                self._interrupt()
            timer = loop.call_later(_INTERRUPT_S, stop_overdue)

        timer = loop.call_later(self._left_s(), stop_overdue)
        try:
            return await future
        finally:
            timer.cancel()

    def _left_s(self) -> float:
        return max(0.0, self._deadline - self._clock.steady())

    def _interrupt(self) -> None:
        """Stop the statement that is running; never one of the writer's own that come after."""
        with self._ending:
            if self._ended is None and self._connection is not None:
                self._connection.raw.interrupt()

    def _perform(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.statement:
                self.check()
                return work(self._db())
        except Exception as error:
            shown = self._judge(error)
            if shown is error:
                raise
            raise shown from error

    def _judge(self, error: Exception) -> Exception:
        """Decide what an error means for the transaction; give what the user is to see."""
        shown = self.explain(error)
        if self._ended is None and self._doomed is not None:
            self._end(self._doomed)
        return shown

    def explain(self, error: Exception) -> Exception:
        """Give what the user is to see of an error."""
        if self._ended is not None:
            return error
        if self._doomed is None and self.expired():
            self._doomed = self._overdue()
        if self._doomed is not None:
            return UsageError(self._doomed)
        if extended_code(error) is not None:
            translated = translate(error, self._lane.where)
            if isinstance(translated, StoreUnavailable | StoreReadOnly):
                return translated
        return error  # the user's own: a constraint, a misspelt table

    # -- ending ---------------------------------------------------------------
    def _end(self, reason: str) -> None:
        """Roll back what is still open and let the lane go on."""
        if self._ended is not None:
            return
        self._doomed = self._doomed or reason
        while not self.statement.acquire(timeout=_INTERRUPT_S):
            self._interrupt()  # another thread is within a statement of the raw connection
        db = self._db()
        try:
            db.guard(None)
            self._roll_back(db)
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is of no more use
            log.warning("a transaction could not be rolled back, its connection is given up: %s", error)
            self._lane.drop_connection()
            self._connection = None
        finally:
            del db
            self.statement.release()
            with self._ending:
                self._ended = reason
            if self._timer is not None:
                self._timer.cancel()
        if isinstance(self._lane, InlineLane):
            self._lane.let_go()

    def _roll_back(self, db: Connection) -> None:
        """Roll back, and again while a statement that another thread is about to drop is in the way."""
        for _ in range(_ROLLBACK_TRIES):
            try:
                return roll_back(db)
            except Exception as error:  # noqa: BLE001 - the last attempt raises it
                log.debug("a transaction is not rolled back yet: %s", error)
                time.sleep(_INTERRUPT_S)
        return roll_back(db)

    def _expire(self) -> None:
        self._end(self._overdue())

    def _overdue(self) -> str:
        return (
            f"this transaction was open for longer than the transaction_timeout of {self._timeout_s:g} s and was "
            "rolled back; do slow work before it begins"
        )

    def abandon(self, why: str) -> None:
        """Roll back without waiting for it."""
        reason = f"this transaction was rolled back: {why}"
        if not isinstance(self._lane, InlineLane):
            self._calls.put(partial(self._end, reason))
        elif self._connection is not None:
            self._end(reason)
        else:
            self._ended = reason  # it waits for another one

    # -- the guard of the raw connection ------------------------------------------
    def check(self) -> None:
        if self._ended is None and self._doomed is None and self.expired():
            self._doomed = self._overdue()
        if self._ended is not None or self._doomed is not None:
            raise UsageError(self._ended or self._doomed)
        if not self._db().in_transaction:
            self._doomed = "SQLite rolled this transaction back after an error; let the step raise it"
            raise UsageError(self._doomed)

    def refuse(self, what: str) -> UsageError:
        if self._doomed is None:
            self._doomed = (
                f"{what} is not allowed in a transaction: Outlive commits it together with the journal entry when "
                "the function returns, and rolls it back when it raises; it has been rolled back now"
            )
        return UsageError(self._doomed)

    def expired(self) -> bool:
        return self._clock.steady() >= self._deadline

    def _db(self) -> Connection:
        assert self._connection is not None, "used before it had begun"
        return self._connection

    # -- what users call ----------------------------------------------------------
    @property
    def raw(self) -> Any:
        """The driver's connection."""
        if self._ended is not None:
            raise UsageError(self._ended)
        return self._db().raw

    async def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; give the number of rows it changed."""
        _, _, changed = await self._query(sql, args)
        return changed

    async def fetch(self, sql: str, *args: Any) -> Sequence[Record]:
        """Give all rows of a query."""
        names, rows, _ = await self._query(sql, args)
        return [Record(names, row) for row in rows]

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
        statement = convert(sql)
        arranged = [statement.arrange(args) for args in rows]
        return await self._do(lambda db: db.many(statement.sql, arranged))

    async def _query(self, sql: str, args: tuple[Any, ...]) -> tuple[tuple[str, ...], list[Any], int]:
        statement = convert(sql)
        arranged = statement.arrange(args)
        return await self._do(lambda db: db.query(statement.sql, arranged))

    async def within(self, work: Callable[[Connection], T]) -> T:
        """Execute work of the store itself within the transaction."""
        return await self._do(work)

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the entry as the last statement, then COMMIT."""
        await self._do(lambda db: self._commit(db, fence, entry))

    async def rollback(self) -> None:
        """Give up what the transaction has written; nothing to do if it has ended."""
        try:
            await self._send(partial(self._end, "this transaction has been rolled back"))
        except UsageError:
            pass  # it has

    def _commit(self, db: Connection, fence: Fence, entry: EntryWrite) -> None:
        self._deadline = float("inf")  # the last statements are short, and the user's are over
        db.guard(None)
        try:
            self._release_savepoint(db)
            check_fence(db, fence)
            if find_outcome(db, entry) not in (None, "started"):
                raise EntrySettled(f"entry {entry.key!r} of run row {entry.row} is settled already")
            write_entries(db, [entry], Committed())
            hooks.point("transaction.entry_written")
            db.run(COMMIT)
        except BaseException as error:
            self._end("this transaction has been rolled back")
            shown = translate(error, self._lane.where, committing=True) if isinstance(error, Exception) else error
            if shown is error:
                raise
            raise shown from error
        self._end("this transaction has been committed")
        hooks.point("transaction.after")

    def _release_savepoint(self, db: Connection) -> None:
        try:
            db.run("RELEASE outlive_transaction")
        except Exception as error:
            raise self.refuse("ending it through the raw connection") from error
