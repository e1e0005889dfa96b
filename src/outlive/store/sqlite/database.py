"""One database as the store's methods see it: opened and closed; a writer, a reader, a clock, hints.

Writes go to the one writer thread, each in a transaction of its own; reads of a
file go to a reader with its own thread and connection, so that they do not
queue behind a commit. `reading` and `writing` make a method of the store from
one that is given the connection. The database's clock is this host's wall clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from outlive.clock import Clock
from outlive.errors import StoreUnavailable
from outlive.hooks import commit_site
from outlive.store.sqlite import schema
from outlive.store.sqlite.connect import check_file, connect, enter_file, leave_file, parse_url
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.hints import Hints
from outlive.store.sqlite.writer import LOCK_WAIT_S, Lane, ThreadLane, write

D = TypeVar("D", bound="Database")
P = ParamSpec("P")
T = TypeVar("T")
Body = Callable[Concatenate[D, Connection, P], T]
Method = Callable[Concatenate[D, P], Coroutine[Any, Any, T]]


def reading(body: Body[D, P, T]) -> Method[D, P, T]:
    """Execute `body(store, db, …)` on the reader."""

    @wraps(body)
    async def method(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._reader.run(lambda db: body(self, db, *args, **kwargs))

    return method


def writing(body: Body[D, P, T]) -> Method[D, P, T]:
    """Execute `body(store, db, …)` on the writer, in a transaction that has the write lock from the start."""

    @wraps(body)
    async def method(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        where = self._place.where
        return await self._writer.run(lambda db: write(db, lambda: body(self, db, *args, **kwargs), where))

    return method


class Database:
    """See the module's text.

    `wall` is the database's clock. `inline` executes everything on the calling
    thread, at once, and never waits for a lock: for simulators, and for one
    process with a database in memory.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        chance: random.Random,
        inline: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._place = place = parse_url(url)
        self._clock = clock
        self._wall = wall
        lane = Lane if inline else ThreadLane
        patience_s = 0.0 if inline else LOCK_WAIT_S
        self._writer = lane("outlive-writer", place.where, partial(connect, place), chance, patience_s)
        self._lanes = [self._writer]
        if place.path is not None:
            read = partial(connect, place, reader=True)
            self._lanes.append(lane("outlive-reader", place.where, read, chance, patience_s))
        self._reader = self._lanes[-1]
        self._hints = None if place.path is None or inline else Hints(place.path, chance)
        self._file: tuple[int, int] | None = None
        self._opened = False

    @property
    def url(self) -> str:
        """The URL as it was given: it holds no secret."""
        return self._place.url

    async def open(self, *, migrate: bool) -> float:
        check_file(self._place)
        enter_file(self._place)
        self._opened = True
        for lane in self._lanes:
            lane.start()
        try:
            where = self._place.where
            if not await self._writer.run(lambda db: schema.is_current(db, where, migrate=migrate)):
                await self._migrate()
            self._file = self._place.identify()
            for lane in self._lanes:
                lane.check_file = self._check_file
            return await self._reader.run(lambda _: self._wall())
        except BaseException:
            await self.close()
            raise

    def _check_file(self) -> None:
        """Refuse a file whose name has gone: what is written to it would be lost, and its locks bind nobody else."""
        if self._place.identify() != self._file:
            raise StoreUnavailable(
                f"{self._place.where} was deleted or replaced while it was open: nothing more is written; put it back, "
                "or restart this process"
            )

    @commit_site("migrate")
    @writing
    def _migrate(self, db: Connection) -> None:
        schema.migrate(db, self._place.where, self._wall())

    async def close(self) -> None:
        """Execute what was asked for, roll back an open transaction, and close the file."""
        if not self._opened:
            return
        self._opened = False
        if self._hints is not None:
            self._hints.close()
        for lane in reversed(self._lanes):
            await lane.stop()
        leave_file(self._place)

    async def now(self) -> float:
        return self._wall()

    async def notify(self) -> None:
        if self._hints is not None:
            self._hints.tell()

    async def wait_hint(self, timeout_s: float) -> bool:
        if self._hints is None:
            await asyncio.sleep(timeout_s)
            return False
        if self._hints.listen():
            self._writer.watch(self._hints)
        return await self._hints.wait(timeout_s)
