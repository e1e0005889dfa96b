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
from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.interface import RolledBack
from outlive.store.postgres import transaction
from outlive.store.postgres.statements import named_block, statement
from outlive.store.postgres.transaction import check_settled, describe_swallowed, ends_transaction
from outlive.store.sessions import GuardedSession

if TYPE_CHECKING:
    from sqlalchemy import TextClause

    from outlive.store.postgres.connect import Address

T = TypeVar("T")

log = logging.getLogger("outlive.store")

_SITE = hooks.declare_site("session")
_IDLE = "25P03"  # the server hung up, because this process stood still within the transaction


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

    async def open(self) -> str:
        """Begin; give the place that the connection leads to."""
        hooks.point("session.before")
        self._check_engine()
        await self._room.free.acquire()
        try:
            place = await self._do(self._open)
        except BaseException as error:
            await self.rollback()
            explained = self._explain_ours(error)
            if explained is None:
                raise
            raise explained from error
        hooks.point("session.begun")
        self._deadline = self._loop.time() + self._timeout_s
        return place

    def _check_engine(self) -> None:
        from sqlalchemy.engine import Engine

        engine = self._guarded.bind
        if not isinstance(engine, Engine) or engine.dialect.name != "postgresql":
            raise UsageError(
                f"the sessionmaker is bound to {engine!r}: bind it to an engine of the app's own PostgreSQL database "
                f"({self._address.url})"
            )

    def _open(self) -> str:
        self._connection = self._guarded.connect(self._guarded.bind)
        millis = max(1, int(self._timeout_s * 1000))
        limits = {"millis": str(millis), "lock_millis": str(max(1, millis // 2)), "token": self._token}
        self._connection.execute(_text("mark_session"), limits)
        token, place = self._connection.execute(_text("find_place")).one()
        if token != self._token:
            raise UsageError("the session's engine is in AUTOCOMMIT, so nothing of a transaction would be one")
        return str(place)

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
        try:
            await self._do(partial(self._settle, fence, entry))
        except BaseException as error:
            await self.rollback()
            explained = self._explain_ours(error)
            if explained is None:
                raise
            raise explained from error
        hooks.point("session.entry_written")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._do(partial(self._guarded.commit, self._connection))
        except Exception as error:
            meaning = self._explain_commit(error)
            if meaning is None:
                raise
            raise meaning from error
        finally:
            await self.rollback()
        hooks.point("session.after")

    def _settle(self, fence: Fence, entry: EntryWrite) -> None:
        self._guarded.check()
        query = statement("settle_entry")
        values = {name: getattr(entry, name, None) for name in query.names}
        values |= {"token": self._token, "worker": fence.worker, "epoch": fence.epoch}
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
    def _explain(self, error: BaseException, *losses: type[Exception]) -> Exception | None:
        """Give what an error means for the transaction, None if it is the user's own; `losses` are none of his."""
        state = _sqlstate(error)
        is_lost = state == _IDLE or getattr(error, "connection_invalidated", False) or isinstance(error, losses)
        is_late = self._loop.time() > self._deadline - 0.05
        if is_late and (is_lost or state == transaction.CANCELLED):
            return UsageError(
                f"this transaction was open for longer than its timeout of {self._timeout_s:g} s and was rolled back; "
                "do slow work before it begins"
            )
        if state in transaction.RETRY:
            return RolledBack(str(error))
        if state == transaction.LOCKED and self._loop.time() > self._deadline - 0.6 * self._timeout_s:
            return StoreUnavailable(f"another session of {self._address.url} holds a lock that is needed: {error}")
        if is_lost:
            return self._lost(error)
        if state == transaction.ABORTED:
            return describe_swallowed()
        return None

    def _explain_ours(self, error: BaseException) -> Exception | None:
        """The same for what was none of the user's statements."""
        from sqlalchemy import exc

        if _sqlstate(error)[:2] in ("28", "3D", "42"):
            return UsageError(
                f"the session's engine cannot write the journal in {self._address.url}: {error}; let it connect as the "
                "app's user, or as one who has its rights on schema outlive"
            )
        # no server answers, or the engine's pool has no connection left
        return self._explain(error, OSError, exc.OperationalError, exc.TimeoutError)

    def _explain_commit(self, error: Exception) -> Exception | None:
        state = _sqlstate(error)
        if state in transaction.RETRY:
            return RolledBack(str(error))
        if state and state[:2] not in ("08", "57") and state != _IDLE:
            return None  # a deferred constraint, or a trigger, of the user's own
        return self._lost(error, outcome_unknown=True)

    def _lost(self, error: BaseException, *, outcome_unknown: bool = False) -> StoreUnavailable:
        text = str(error) or type(error).__name__
        return StoreUnavailable(f"lost {self._address.url} in a session: {text}", outcome_unknown=outcome_unknown)


@cache
def _text(name: str) -> TextClause:
    from sqlalchemy import text

    return text(named_block(name))


def _sqlstate(error: BaseException) -> str:
    """Give the server's code for an error, as every driver has it somewhere."""
    origin = getattr(error, "orig", None)
    return getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or ""
