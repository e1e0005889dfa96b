"""The store of one SQLite file: batches and transactions; its parent classes have the other methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from outlive import hooks
from outlive.model.writes import Batch, Committed, ExistingRun, Fence, NewRun
from outlive.store.blobs import Blobs
from outlive.store.sqlite import foreign
from outlive.store.sqlite.batch import write_batch
from outlive.store.sqlite.control import Control
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.ledger import Ledger
from outlive.store.sqlite.mail import Mail
from outlive.store.sqlite.memos import Memos
from outlive.store.sqlite.ownership import Ownership
from outlive.store.sqlite.queues import Queues
from outlive.store.sqlite.reading import Reading
from outlive.store.sqlite.retention import Retention
from outlive.store.sqlite.schedules import Schedules
from outlive.store.sqlite.search import Search
from outlive.store.sqlite.session import SqliteSession
from outlive.store.sqlite.starting import Starting
from outlive.store.sqlite.transaction import SqliteTransaction
from outlive.store.sqlite.versions import Versions
from outlive.store.sqlite.writer import write

_COMMIT = hooks.declare_site("commit")


class SqliteStore(
    Ownership, Control, Ledger, Mail, Memos, Queues, Reading, Search, Retention, Schedules, Starting, Versions
):
    """See `outlive.store.interface.Store` for what each method promises, and `Database` for the settings."""

    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        def job(db: Connection) -> Committed:
            blobs = Blobs()
            rows = blobs.move_out_of(batch) if batch.large else batch

            def body() -> Committed:
                committed = write_batch(db, rows, fence, self._wall(), blobs)
                if batch.continues:
                    hooks.point("generation.ending")
                hooks.point("commit.before")
                return committed

            committed = write(db, body, self._place.where)
            if batch.continues:
                hooks.point("generation.ended")
            hooks.point("commit.after")
            return committed

        return await self._writer.run(job)

    async def begin(self, timeout_s: float) -> SqliteTransaction:
        """Begin a transaction of the user; the writer serves nothing else until it has ended."""
        return await SqliteTransaction(self._writer, self._clock, timeout_s).begin()

    async def begin_session(self, maker: Any, timeout_s: float) -> SqliteSession:
        tx = SqliteTransaction(self._writer, self._clock, timeout_s)
        return await SqliteSession.begin(self._place, tx, maker)

    @hooks.commit_site("start_in")
    async def start_in(self, connection: Any, run: NewRun) -> ExistingRun | None:
        if isinstance(connection, SqliteTransaction):
            return await connection.within(lambda db: foreign.start_run(db.rows, run, self._wall()))
        if callable(getattr(connection, "run_sync", None)):  # asynchronous, of SQLAlchemy
            return await connection.run_sync(foreign.start_in, run, self._wall(), self._place)  # type: ignore[no-any-return]
        return foreign.start_in(connection, run, self._wall(), self._place)

    async def side_channel(self) -> BeatChannel:
        return BeatChannel(self)


class BeatChannel:
    """A SideChannel: its beats are jobs of the writer thread, asked for from any loop."""

    def __init__(self, store: SqliteStore) -> None:
        self.beat: Callable[[Fence, float], Any] = store.beat

    async def close(self) -> None:
        """Nothing to close: the connection is the store's."""
