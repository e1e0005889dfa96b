"""One connection and the one thread that uses it: jobs in, results back to whichever loop asked.

A job is a function of the connection. Its result costs one call_soon_threadsafe;
a job that finds the database locked is repeated as a whole after a short random
pause, since SQLite's own waiting starves one of two processes. Knows nothing of
what jobs write. Invariant: jobs run one after the other, in the order given.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from outlive.errors import UsageError
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.failures import BUSY_SNAPSHOT, extended_code, is_busy, translate

log = logging.getLogger("outlive.store")

T = TypeVar("T")
Job = Callable[[Connection], T]
Item = Callable[[], None]

# A driver keeps prepared statements by their text, and one that is kept is not authorized again: a user's COMMIT must
# not have the text of ours.
BEGIN, COMMIT, ROLLBACK = "BEGIN IMMEDIATE -- ours", "COMMIT -- ours", "ROLLBACK -- ours"

LOCK_WAIT_S = 10.0  # then the writer that holds the lock is taken for stuck
_PAUSE_MIN_S, _PAUSE_FIRST_S, _PAUSE_MAX_S, _PAUSE_GROWTH = 0.000_1, 0.000_6, 0.005, 1.3


def write(db: Connection, body: Callable[[], T], where: str, committing: Callable[[], None] | None = None) -> T:
    """Execute `body` in a transaction that has the write lock from the start; all of it or nothing."""
    db.run(BEGIN)
    try:
        result = body()
        if committing is not None:
            committing()
        try:
            db.run(COMMIT)
        except Exception as error:
            raise translate(error, where, committing=True) from error
    except BaseException:
        roll_back(db)
        raise
    return result


def roll_back(db: Connection) -> None:
    """End the transaction if there is one: some errors make SQLite end it by itself."""
    if db.in_transaction:
        db.run(ROLLBACK)


class Watch(Protocol):
    """Something that looks at the connection now and then, between jobs."""

    def pause_s(self) -> float:
        """Give how long until the next look, 0 or less if it is due."""

    def look(self, db: Connection) -> None: ...


class Lane:
    """What both kinds of lane share: patience with locks, and translated errors."""

    def __init__(
        self, name: str, where: str, connect: Callable[[], Connection], chance: random.Random, patience_s: float
    ) -> None:
        self._name = name
        self._where = where
        self._connect = connect
        self._chance = chance
        self._patience_s = patience_s
        self._connection: Connection | None = None

    @property
    def where(self) -> str:
        """The database as errors name it."""
        return self._where

    async def run(self, job: Job[T]) -> T:
        """Execute a job in its turn; give its result."""
        raise NotImplementedError

    def submit(self, item: Item) -> None:
        """Execute, in its turn, a function that never raises and reports by itself."""
        raise NotImplementedError

    def watch(self, watch: Watch) -> None:
        """Let `watch` look at the connection between jobs from now on."""
        raise NotImplementedError

    def patiently(self, job: Job[T]) -> T:
        """Execute a job now, again and again while the database is locked."""
        waited_s, ceiling_s = 0.0, _PAUSE_FIRST_S
        while True:
            try:
                return job(self._db())
            except Exception as error:
                self._check_connection(error)
                if waited_s >= self._patience_s or not is_busy(error):
                    translated = translate(error, self._where)
                    if translated is error:
                        raise
                    raise translated from error
            pause_s = self._chance.uniform(_PAUSE_MIN_S, ceiling_s)
            ceiling_s = min(ceiling_s * _PAUSE_GROWTH, _PAUSE_MAX_S)
            time.sleep(pause_s)
            waited_s += pause_s

    def _not_open(self) -> UsageError:
        return UsageError(f"{self._where} is not open in this process")

    def _db(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _check_connection(self, error: Exception) -> None:
        """Give up a connection that cannot roll back, or that a forgotten statement pins to an old snapshot."""
        stuck = self._connection is not None and self._connection.in_transaction
        if stuck or extended_code(error) == BUSY_SNAPSHOT:
            self.disconnect()

    def drop_connection(self) -> None:
        """Let the connection go without closing it: another thread may still be within it. It ends with its users."""
        self._connection = None

    def disconnect(self) -> None:
        """Close the connection; the next job opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # noqa: BLE001 - it is given up, whatever its driver says
                log.warning("%s: a connection could not be closed: %s", self._where, error)


class Call:
    """Something to execute on the thread, and its result on the way back."""

    __slots__ = ("_execute", "_future")

    def __init__(self, execute: Callable[[], T], future: asyncio.Future[T]) -> None:
        self._execute = execute
        self._future: asyncio.Future[Any] = future

    def __call__(self) -> None:
        if self._future.cancelled():
            return
        result, error = None, None
        try:
            result = self._execute()
        except BaseException as raised:  # noqa: BLE001 - whoever asked gets it
            error = raised
        deliver(self._future, result, error)

    def refuse(self, error: Exception) -> None:
        """Give the asker an error instead."""
        deliver(self._future, None, error)


def deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Settle a future of another thread's loop, unless the asker has gone away."""
    try:
        future.get_loop().call_soon_threadsafe(_settle, future, result, error)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Settle a future of this loop, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class ThreadLane(Lane):
    """A lane with a thread of its own; it opens the connection, uses it and closes it."""

    def __init__(
        self, name: str, where: str, connect: Callable[[], Connection], chance: random.Random, patience_s: float
    ) -> None:
        super().__init__(name, where, connect, chance, patience_s)
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._watch: Watch | None = None
        self._closed = True

    async def run(self, job: Job[T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(Call(partial(self.patiently, job), future))
        return await future

    def submit(self, item: Item) -> None:
        if self._closed:
            raise self._not_open()
        self._items.put(item)

    def watch(self, watch: Watch) -> None:
        """Let `watch` look at the connection between jobs from now on."""
        self._watch = watch
        self._items.put(_nothing)

    def start(self) -> None:
        """Start the thread; the connection is opened by the first job."""
        self._closed = False
        self._thread.start()

    async def stop(self) -> None:
        """Execute what was submitted, close the connection and end the thread."""
        if self._closed:
            return
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(Call(self._close, closed))
        await closed
        self._thread.join()

    def _close(self) -> None:
        self._closed = True
        self.disconnect()
        self._items.put(None)

    def _work(self) -> None:
        while (item := self._next()) is not None:
            item()
        while not self._items.empty():  # submitted by another thread while the lane was closed
            late = self._items.get()
            if isinstance(late, Call):
                late.refuse(self._not_open())

    def _next(self) -> Item | None:
        while self._watch is not None and self._connection is not None:
            pause_s = self._watch.pause_s()
            if pause_s <= 0:
                self._look(self._watch, self._connection)
                continue
            try:
                return self._items.get(timeout=pause_s)
            except queue.Empty:
                continue
        return self._items.get()

    def _look(self, watch: Watch, connection: Connection) -> None:
        try:
            watch.look(connection)
        except Exception as error:  # noqa: BLE001 - the next job meets it again, and tells whoever asked
            log.debug("%s: a look at it failed: %s", self._where, error)


class InlineLane(Lane):
    """A lane without a thread: jobs run where they are asked for, or after the open transaction."""

    def __init__(
        self, name: str, where: str, connect: Callable[[], Connection], chance: random.Random, patience_s: float
    ) -> None:
        super().__init__(name, where, connect, chance, patience_s)
        self._waiting: deque[Item] = deque()
        self._held = False

    async def run(self, job: Job[T]) -> T:
        if not self._held:
            return self.patiently(job)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(Call(partial(self.patiently, job), future))
        return await future

    def submit(self, item: Item) -> None:
        if self._held:
            self._waiting.append(item)
        else:
            item()

    def hold(self) -> None:
        """Let everything wait: a transaction is open."""
        self._held = True

    def let_go(self) -> None:
        """Execute what waits, until one of them holds the lane again."""
        self._held = False
        while self._waiting and not self._held:
            self._waiting.popleft()()

    def watch(self, watch: Watch) -> None:
        """Never looks."""

    def start(self) -> None:
        """Nothing to start: the first job opens the connection."""

    async def stop(self) -> None:
        """Close the connection."""
        self.disconnect()


def _nothing() -> None:
    """Wake the thread."""
