"""A SQLAlchemy session on a connection of the user's own engine, ended by a journal entry.

The same statements as transaction.py, sent over the session's connection, so
any driver will do: async ones on the loop, blocking ones in a few threads.
Knows nothing of the body. Invariant: nothing is committed on a connection that
does not lead to the app's own database, or whose transaction is another one
than it was at the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from outlive import hooks
from outlive.errors import UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.postgres.connect import IDLE
from outlive.store.postgres.endings import (
    check_settled,
    ends_transaction,
    explain_statement,
    explaining_commit,
    sqlstate,
    values_to_settle,
)
from outlive.store.postgres.statements import named_block
from outlive.store.sessions import GuardedSession

if TYPE_CHECKING:
    from sqlalchemy import TextClause

    from outlive.store.postgres.connect import Address

T = TypeVar("T")

log = logging.getLogger("outlive.store")

_SITE = hooks.declare_site("session")


class Room:
    """How many sessions may be open at a time, and the threads for those that block."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = asyncio.Semaphore(size)
        self.threads = ThreadPoolExecutor(size, thread_name_prefix="outlive-session")


class PostgresSession:
    """See `outlive.store.interface.OpenSession`."""

    def __init__(self, address: Address, room: Room, maker: Any, timeout_s: float) -> None:
        self._address = address
        self._room = room
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._deadline = float("inf")
        self._token = secrets.token_hex(8)
        self._guarded = GuardedSession(maker, self._explain, ends_transaction)
        self._is_async = self._guarded.face is not self._guarded.session
        self._connection: Any = None
        self._ended = False
        self.place: str | None = None

    async def open(self) -> None:
        """Begin; `place` is then where the connection leads to."""
        hooks.point("session.before")
        self._check_engine()
        await self._room.free.acquire()
        await self._do_ours(self._open)
        hooks.point("session.begun")
        self._deadline = self._loop.time() + self._timeout_s

    def _check_engine(self) -> None:
        from sqlalchemy.engine import Engine

        engine = self._guarded.bind
        if not isinstance(engine, Engine) or engine.dialect.name != "postgresql":
            raise UsageError(
                f"the sessionmaker is bound to {engine!r}: bind it to an engine of the app's own PostgreSQL database "
                f"({self._address.url})"
            )

    def _open(self) -> None:
        self._connection = self._guarded.connect(self._guarded.bind)
        millis = max(1, int(self._timeout_s * 1000))
        limits = {"millis": str(millis), "lock_millis": str(max(1, millis // 2)), "token": self._token}
        self._connection.execute(_text("mark_session"), limits)
        token, self.place = self._connection.execute(_text("find_place")).one()
        if token != self._token:
            raise UsageError("the session's engine is in AUTOCOMMIT, so nothing of a transaction would be one")

    async def _do(self, work: Callable[[], T]) -> T:
        """Execute what speaks to the database: on the loop if the driver can, else in a thread."""
        if self._is_async:
            return await self._guarded.face.run_sync(lambda _: work())  # type: ignore[no-any-return]

        def alone() -> T:
            with self._guarded.in_use:
                return work()

        return await self._loop.run_in_executor(self._room.threads, alone)

    def enclose(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give the body with its session."""
        return self._guarded.enclose(function, is_async=self._is_async)

    # -- the end ----------------------------------------------------------------
    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the fence check and the entry as the last statement, then COMMIT."""
        await self._do_ours(partial(self._settle, fence, entry))
        hooks.point("session.entry_written")
        try:
            with explaining_commit(self._address):
                async with asyncio.timeout(self._timeout_s):
                    await self._do(partial(self._guarded.commit, self._connection))
        finally:
            await self.rollback()
        hooks.point("session.after")

    def _settle(self, fence: Fence, entry: EntryWrite) -> None:
        self._guarded.check()
        values = values_to_settle(entry, fence, self._token)
        check_settled(self._connection.execute(_text("settle_entry"), values).mappings().one(), fence)

    async def rollback(self) -> None:
        """Undo what is not committed; does nothing if it has ended. A body that was given up ends it when it can."""
        if self._ended:
            return
        self._ended = True
        self._guarded.doom("this transaction has ended: it was rolled back, or took longer than its timeout")
        is_busy = self._guarded.in_use.locked()
        closing = asyncio.ensure_future(self._do(self._guarded.close))
        closing.add_done_callback(self._closed)
        if not is_busy:
            await asyncio.wait([closing], timeout=self._timeout_s)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._room.free.release()
        if not closing.cancelled() and closing.exception() is not None:
            log.debug("a session could not be closed, the server will roll it back: %r", closing.exception())

    # -- what errors mean ---------------------------------------------------------
    async def _do_ours(self, work: Callable[[], None]) -> None:
        """Execute what is none of the user's statements; an error ends the transaction."""
        from sqlalchemy import exc

        try:
            await self._do(work)
        except BaseException as error:
            await self.rollback()
            if sqlstate(error)[:2] in ("28", "3D", "42"):
                raise UsageError(
                    f"the session's engine cannot write the journal in {self._address.url}: {error}; let it connect as "
                    "the app's user, or as one who has its rights on schema outlive"
                ) from error
            # no server answers, or the engine's pool has no connection left
            meaning = self._explain(error, OSError, exc.OperationalError, exc.TimeoutError)
            if meaning is None:
                raise
            raise meaning from error

    def _explain(self, error: BaseException, *losses: type[Exception]) -> Exception | None:
        """Give what an error means for the transaction, None if it is the user's own; `losses` are none of his."""
        is_lost = (
            sqlstate(error) == IDLE or getattr(error, "connection_invalidated", False) or isinstance(error, losses)
        )
        open_s = self._loop.time() - self._deadline + self._timeout_s
        return explain_statement(
            self._address, error, is_lost=is_lost, open_s=open_s, waited_s=open_s, timeout_s=self._timeout_s
        )


@cache
def _text(name: str) -> TextClause:
    from sqlalchemy import text

    return text(named_block(name))
