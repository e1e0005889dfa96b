"""The store of one SQLite file: what the engine calls, given to the writer or to the reader.

Writes go to the one writer thread, each in a transaction of its own; reads of a
file go to a reader with its own thread and connection, so that they do not
queue behind a commit. The database's clock is this host's wall clock. Knows the
seam; what statements do is known to the modules beside it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from outlive import hooks
from outlive.clock import Clock
from outlive.errors import StoreUnavailable
from outlive.hooks import commit_site
from outlive.model.reads import Claimed, EndedRun, EntryRow, RequestRow, RunQuery, RunRow, TakenOver, WorkerRow
from outlive.model.writes import Batch, Committed, ExistingRun, Fence, NewRun
from outlive.store.blobs import Blobs
from outlive.store.sqlite import foreign, ownership, reading, schema
from outlive.store.sqlite.batch import write_batch
from outlive.store.sqlite.connect import (
    FIRST_SAFE_LIBRARY,
    check_file,
    connect,
    enter_file,
    identify_file,
    leave_file,
    library_version,
    parse_url,
)
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.hints import Hints
from outlive.store.sqlite.session import SqliteSession
from outlive.store.sqlite.transaction import SqliteTransaction
from outlive.store.sqlite.writer import LOCK_WAIT_S, InlineLane, ThreadLane, write

log = logging.getLogger("outlive.store")

T = TypeVar("T")
Writing = Callable[[Connection, float], T]

_COMMIT = hooks.declare_site("commit")
_SWEEP_OVERLAP_S = 60.0  # children that ended so long before the last sweep are looked at again
_SWEEPS_PER_FULL = 60  # every so many, all waiting runs are looked at


class SqliteStore:
    """See the module's text; a Store of the seam.

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
        lane = InlineLane if inline else ThreadLane
        patience_s = 0.0 if inline else LOCK_WAIT_S
        self._writer = lane("outlive-writer", place.where, partial(connect, place), chance, patience_s)
        self._reader = self._writer
        if place.path is not None:
            read = partial(connect, place, reader=True)
            self._reader = lane("outlive-reader", place.where, read, chance, patience_s)
        self._hints = None if place.path is None or inline else Hints(place.path, chance)
        self._transactions: weakref.WeakSet[SqliteTransaction] = weakref.WeakSet()
        self._file: tuple[int, int] | None = None
        self._sweeps = 0
        self._swept_at = 0.0
        self._warned = False
        self._opened = False

    @property
    def url(self) -> str:
        """The URL as it was given: it holds no secret."""
        return self._place.url

    # -- life -----------------------------------------------------------------
    async def open(self, *, migrate: bool) -> float:
        """Connect, check or migrate the schema; give the database's time."""
        check_file(self._place)
        enter_file(self._place)
        self._opened = True
        for lane in self._lanes():
            lane.start()
        try:
            where = self._place.where
            if migrate and not await self._writer.run(lambda db: schema.is_current(db, where)):
                await self._migrate()
            await self._writer.run(lambda db: schema.check(db, where))
            self._file = identify_file(self._place)
            return await self._reader.run(lambda _: self._wall())
        except BaseException:
            await self.close()
            raise

    @commit_site("migrate")
    async def _migrate(self) -> None:
        await self._write(lambda db, now: schema.migrate(db, self._place.where, now))

    async def close(self) -> None:
        """Execute what was asked for, roll back an open transaction, and close the file."""
        if not self._opened:
            return
        self._opened = False
        if self._hints is not None:
            self._hints.close()
        for transaction in list(self._transactions):
            transaction.abandon("the store was closed")
        for lane in reversed(self._lanes()):
            await lane.stop()
        leave_file(self._place)

    def _lanes(self) -> list[ThreadLane | InlineLane]:
        return [self._writer] if self._reader is self._writer else [self._writer, self._reader]

    async def now(self) -> float:
        """Give the database's time."""
        return self._wall()

    async def side_channel(self) -> BeatChannel:
        """Open a way for beats, which go to the writer thread like all writes."""
        return BeatChannel(self)

    # -- writing --------------------------------------------------------------
    async def _write(self, body: Writing[T], committing: Callable[[], None] | None = None) -> T:
        """Execute `body(db, now)` in a transaction of its own."""
        where, wall = self._place.where, self._wall
        return await self._writer.run(lambda db: write(db, lambda: body(db, wall()), where, committing))

    async def _read(self, body: Writing[T]) -> T:
        wall = self._wall
        return await self._reader.run(lambda db: body(db, wall()))

    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        """Write a batch in one transaction."""
        where, wall = self._place.where, self._wall

        def job(db: Connection) -> Committed:
            blobs = Blobs()
            rows = blobs.move_out_of(batch) if batch.large else batch
            committed = write(db, lambda: write_batch(db, rows, fence, wall(), blobs), where, _before_commit)
            hooks.point("commit.after")
            return committed

        return await self._writer.run(job)

    async def begin(self, timeout_s: float) -> SqliteTransaction:
        """Begin a transaction of the user; the writer serves nothing else until it has ended."""
        return await self._make_transaction(timeout_s).begin()

    async def begin_session(self, maker: Any, timeout_s: float) -> SqliteSession:
        """Begin a transaction of the user, with a session of SQLAlchemy on the writer's connection."""
        return await SqliteSession.begin(self._place, self._make_transaction(timeout_s), maker)

    def _make_transaction(self, timeout_s: float) -> SqliteTransaction:
        transaction = SqliteTransaction(self._writer, self._clock, timeout_s)
        self._transactions.add(transaction)
        return transaction

    @commit_site("start_in")
    async def start_in(self, connection: Any, run: NewRun) -> ExistingRun | None:
        """Insert a run through the user's own connection."""
        if isinstance(connection, SqliteTransaction):
            return await connection.within(lambda db: foreign.start_run(db.rows, run, self._wall()))
        return foreign.start_in(connection, run, self._wall(), self._place)

    # -- ownership ------------------------------------------------------------
    @commit_site("register")
    async def register(self, worker: WorkerRow, lease_s: float) -> Fence:
        """Insert the worker's fence row and its first beat."""
        self._warn_of_old_library(await self._read(reading.count_other_processes))
        return await self._write(lambda db, now: ownership.register(db, worker, lease_s, now))

    @commit_site("beat")
    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew a lease; give the database's time."""
        if identify_file(self._place) != self._file:
            raise StoreUnavailable(
                f"{self._place.where} was deleted or replaced while it was open: what this process writes is lost to "
                "all others; restart it"
            )
        return await self._write(lambda db, now: ownership.beat(db, fence, lease_s, now))

    @commit_site("unregister")
    async def unregister(self, fence: Fence) -> None:
        """Delete the worker's beat and fence rows; runs that it still owns are released."""
        await self._write(lambda db, now: ownership.unregister(db, fence, now))

    @commit_site("release_strays")
    async def release_strays(self, fence: Fence, kept: Sequence[int]) -> int:
        """Let go of the runs that a worker owns but does not keep in memory; give how many."""
        return await self._write(lambda db, now: ownership.release_strays(db, fence, kept, now))

    @commit_site("take_over")
    async def take_over(self, dead: Sequence[int]) -> TakenOver:
        """Fence out workers that are dead and release their runs."""
        if not await self._read(lambda db, now: ownership.list_dead(db, dead, now)):
            return TakenOver([], 0, [])
        return await self._write(lambda db, now: ownership.take_over(db, dead, now))

    @commit_site("claim")
    async def claim(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool = False
    ) -> list[Claimed]:
        """Take due runs; where there are none the file is not locked."""
        choice = ownership.Choice(workflows, queues, limit, suspect=suspect)
        where, wall = self._place.where, self._wall

        def job(db: Connection) -> list[Claimed]:
            if not ownership.has_choice(db, fence, choice, wall()):
                return []
            return write(db, lambda: ownership.claim(db, fence, choice, wall()), where)

        return await self._writer.run(job)

    # -- requests, wake-ups ---------------------------------------------------
    @commit_site("add_request")
    async def add_request(self, run_id: str, kind: str, payload: str | None) -> bool:
        """Record a request for an unfinished run; False if it has ended."""
        return await self._write(lambda db, now: ownership.add_request(db, run_id, kind, payload, now))

    @commit_site("resume")
    async def resume(self, run_id: str) -> bool:
        """Make a held run claimable; False if it is not held."""
        return await self._write(lambda db, now: ownership.resume(db, run_id, now))

    @commit_site("wake")
    async def wake(self, rows: Sequence[int]) -> None:
        """Make these runs due now where nobody owns them and they wait."""
        await self._write(lambda db, now: ownership.wake(db, rows, now))

    @commit_site("sweep")
    async def sweep(self) -> int:
        """Make due what waits for something that has happened; give how many."""
        full = self._sweeps % _SWEEPS_PER_FULL == 0
        since, swept_at = None if full else self._swept_at - _SWEEP_OVERLAP_S, self._wall()
        rows = await self._read(lambda db, now: ownership.list_forgotten(db, now, since))
        woken = await self._write(lambda db, now: ownership.wake_requested(db, rows, now)) if rows else 0
        self._sweeps, self._swept_at = self._sweeps + 1, swept_at
        return woken

    # -- reading --------------------------------------------------------------
    async def list_workers(self) -> list[WorkerRow]:
        """Read the live workers."""
        return await self._read(lambda db, _: reading.list_workers(db))

    async def has_suspects(self) -> bool:
        """Say whether a suspect is due that nobody owns."""
        return await self._read(reading.has_suspects)

    async def next_due(self) -> float | None:
        """Give when the next run that nobody owns is due."""
        return await self._read(lambda db, _: reading.next_due(db))

    async def load_entries(self, rows: Sequence[int]) -> Mapping[int, list[EntryRow]]:
        """Read the journals of these runs."""
        return await self._read(lambda db, _: reading.load_entries(db, rows))

    async def list_requests(self, fence: Fence) -> list[RequestRow]:
        """Read the open requests for this worker's runs."""
        return await self._read(lambda db, _: reading.list_requests(db, fence))

    async def find_run(self, run_id: str) -> RunRow | None:
        """Read one run."""
        return await self._read(lambda db, now: reading.find_run(db, run_id, now))

    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        """Read a page of runs, newest first."""
        return await self._read(lambda db, now: reading.list_runs(db, query, now))

    async def list_entries(self, run_id: str) -> list[EntryRow]:
        """Read one journal."""
        return await self._read(lambda db, _: reading.list_entries(db, run_id))

    async def list_ended(self, rows: Sequence[int]) -> list[EndedRun]:
        """Read those of these runs that have ended or are held."""
        return await self._read(lambda db, _: reading.list_ended(db, rows))

    async def list_children(self, row: int, *, unfinished: bool) -> list[RunRow]:
        """Read the children of a run."""
        return await self._read(lambda db, now: reading.list_children(db, row, unfinished, now))

    # -- hints ----------------------------------------------------------------
    async def notify(self) -> None:
        """Tell the other processes that use this file."""
        if self._hints is not None:
            self._hints.tell()

    async def wait_hint(self, timeout_s: float) -> bool:
        """Return at a hint of another process (True) or after the timeout (False)."""
        if self._hints is None:
            await asyncio.sleep(timeout_s)
            return False
        if not self._hints.listening:
            self._hints.listen()
            self._writer.watch(self._hints)
        return await self._hints.wait(timeout_s)

    def _warn_of_old_library(self, others: int) -> None:
        version = library_version(self._place.driver)
        if self._warned or not others or version >= FIRST_SAFE_LIBRARY:
            return
        self._warned = True
        log.warning(
            "other processes (%d) use %s, and the SQLite library of this one is %s: before %s two processes that write "
            "at the same moment may damage the file; pip install 'outlive[apsw]' and add ?driver=apsw to the URL",
            others, self._place.where, ".".join(map(str, version)), ".".join(map(str, FIRST_SAFE_LIBRARY)),
        )  # fmt: skip


class BeatChannel:
    """A SideChannel: its beats are jobs of the writer thread, asked for from any loop."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew the lease; give the database's time."""
        return await self._store.beat(fence, lease_s)

    async def close(self) -> None:
        """Nothing to close: the connection is the store's."""


def _before_commit() -> None:
    hooks.point("commit.before")
