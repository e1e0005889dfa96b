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
from outlive.store.sqlite.failures import BUSY_SNAPSHOT, extended_code, is_busy, translated

log = logging.getLogger("outlive.store")

T = TypeVar("T")
Job = Callable[[Connection], T]
Item = Callable[[], None]

# A driver keeps prepared statements by their text, and one that is kept is not authorized again: a user's COMMIT must
# not have the text of ours.
BEGIN, COMMIT, ROLLBACK = "BEGIN IMMEDIATE -- ours", "COMMIT -- ours", "ROLLBACK -- ours"

LOCK_WAIT_S = 10.0  # then the writer that holds the lock is taken for stuck
_PAUSE_MIN_S, _PAUSE_FIRST_S, _PAUSE_MAX_S, _PAUSE_GROWTH = 0.000_1, 0.000_6, 0.005, 1.3


def write(db: Connection, body: Callable[[], T], where: str) -> T:
    """Execute `body` in a transaction that has the write lock from the start; all of it or nothing."""
    db.run(BEGIN)
    try:
        result = body()
        with translated(where, committing=True):
            db.run(COMMIT)
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


class Holder(Watch, Protocol):
    """A transaction that is open over several jobs, all of them its own; `look` ends it, at its deadline."""

    loop: asyncio.AbstractEventLoop

    def end(self, reason: str) -> None: ...


class Lane:
    """A lane without a thread: jobs run where they are asked for, or after the transaction that is open."""

    def __init__(
        self, name: str, where: str, connect: Callable[[], Connection], chance: random.Random, patience_s: float
    ) -> None:
        self.name = name
        self.where = where  # the database as errors name it
        self.check_file: Callable[[], None] = _nothing  # called before each job; it may raise
        self._connect = connect
        self._chance = chance
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._holder: Holder | None = None
        self._waiting: deque[Item] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = True
        self._door = threading.Lock()  # taken to give an item, and to close

    def start(self) -> None:
        """Take jobs; the first one opens the connection."""
        self._closed = False

    async def stop(self) -> None:
        """Execute what was submitted, and close the connection."""
        self._close()

    async def run(self, job: Job[T]) -> T:
        """Execute a job in its turn, and again while the database is locked; give its result."""
        return await self.call(partial(self.patiently, job))

    async def call(self, execute: Callable[[], T], by: Holder | None = None) -> T:
        """Execute a function in its turn; give its result. UsageError once the lane is closed."""
        if self._closed:
            raise self._not_open()
        if self._holder in (None, by):
            try:
                return execute()
            finally:
                self._go_on()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Call(execute, future))
        return await future

    def submit(self, item: Item, by: Holder) -> None:
        """Execute in its turn a function that never raises."""
        self._take(item, by)

    def watch(self, watch: Watch) -> None:
        """Let `watch` look at the connection between jobs from now on; without a thread nobody looks."""

    def hold(self, holder: Holder) -> None:
        """Let all jobs but the holder's wait."""
        if self._closed:
            raise self._not_open()
        self._holder = holder
        self._set_alarm(holder)

    def _set_alarm(self, holder: Holder) -> None:
        self._timer = holder.loop.call_later(holder.pause_s(), self._take, partial(holder.look, self._db()), holder)

    def let_go(self) -> None:
        """Let the jobs that wait have their turn."""
        self._holder = None
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, item: Item, by: object) -> None:
        if self._holder is None or by in (self._holder, self):
            item()
            self._go_on()
        else:
            self._waiting.append(item)

    def _go_on(self) -> None:
        while self._waiting and self._holder is None:
            self._waiting.popleft()()

    def _close(self) -> None:
        self._closed = True
        if self._holder is not None:
            self._holder.end("this transaction was rolled back: the store was closed")
        self._go_on()
        self.disconnect()

    def patiently(self, job: Job[T]) -> T:
        """Execute a job now, again and again while the database is locked."""
        waited_s, ceiling_s = 0.0, _PAUSE_FIRST_S
        while True:
            with translated(self.where):
                try:
                    return job(self._db())
                except Exception as error:
                    self._check_connection(error)
                    if waited_s >= self._patience_s or not is_busy(error):
                        raise
            pause_s = self._chance.uniform(_PAUSE_MIN_S, ceiling_s)
            ceiling_s = min(ceiling_s * _PAUSE_GROWTH, _PAUSE_MAX_S)
            time.sleep(pause_s)
            waited_s += pause_s

    def _not_open(self) -> UsageError:
        return UsageError(f"{self.where} is not open in this process")

    def _db(self) -> Connection:
        self.check_file()
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
                log.warning("%s: a connection could not be closed: %s", self.where, error)


class Call:
    """Something to execute on the thread, and its result on the way back."""

    __slots__ = ("_execute", "_future")

    def __init__(self, execute: Callable[[], T], future: asyncio.Future[T]) -> None:
        self._execute = execute
        self._future: asyncio.Future[Any] = future

    def __call__(self) -> None:
        if self._future.cancelled():
            return
        try:
            result = self._execute()
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            self.deliver(None, error)
        else:
            self.deliver(result, None)

    def deliver(self, result: Any, error: BaseException | None) -> None:
        """Settle the future of another thread's loop, unless the asker has gone away."""
        try:
            self._future.get_loop().call_soon_threadsafe(_settle, self._future, result, error)
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
    """A lane with a thread of its own; it opens the connection, uses it and closes it.

    Items come from several threads; once the lane is closed none is taken, so the one that closes it is the last.
    """

    def start(self) -> None:
        self._items: queue.SimpleQueue[tuple[Item, object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._watch: Watch | None = None
        super().start()
        self._thread.start()

    async def stop(self) -> None:
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._put(Call(self._close, closed), self, last=True):
            await asyncio.shield(closed)  # an item whose asker has gone away is not executed
            self._thread.join()

    async def call(self, execute: Callable[[], T], by: Holder | None = None) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._put(Call(execute, future), by):
            raise self._not_open()
        return await future

    def submit(self, item: Item, by: Holder) -> None:
        self._put(item, by)  # a lane that closes ends the transaction by itself

    def watch(self, watch: Watch) -> None:
        self._watch = watch
        self._put(_nothing, None)

    def _put(self, item: Item, by: object, *, last: bool = False) -> bool:
        with self._door:
            if self._closed:
                return False
            self._closed = last
            self._items.put((item, by))
            return True

    def _set_alarm(self, holder: Holder) -> None:
        """The thread has its own, since the holder's loop may be blocked."""

    def _close(self) -> None:
        super()._close()
        self._items.put(None)

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            self._take(*taken)

    def _next(self) -> tuple[Item, object] | None:
        while (watch := self._holder or self._watch) is not None and self._connection is not None:
            pause_s = watch.pause_s()
            if pause_s <= 0:
                self._look(watch, self._connection)
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
            log.debug("%s: a look at it failed: %s", self.where, error)
        self._go_on()


def _nothing() -> None:
    """Do nothing; as an item it wakes the thread."""
