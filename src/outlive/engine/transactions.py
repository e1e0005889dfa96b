"""Transactional steps: the user's writes and the journal entry in one database transaction.

The body gets `tx`; when it has returned, the transaction asks its execution for
its turn, writes fence and entry as the last statement and commits. A reply lost
after COMMIT is resolved by reading the entry. Invariant: the entry of a
transaction is written by its own transaction or, if that was rolled back, by the committer.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from outlive.codec.payload import round_trip
from outlive.engine.calls import StepCall
from outlive.engine.roles import Host
from outlive.errors import StoreUnavailable, UsageError
from outlive.limits import STORE_AGAIN_S, TRANSACTION_TIMEOUT_S
from outlive.model.definition import StepSpec
from outlive.model.writes import EntryWrite, Fence
from outlive.store.interface import OpenSession, OpenTransaction
from outlive.store.refusals import EntrySettled, FenceLost, RolledBack

log = logging.getLogger("outlive.transaction")

_SERIALIZATION_TRIES = 10
_OVERDUE_TRIES = 3
Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]

# The transaction whose body executes here: what it asks of the engine would wait for a writer that it holds.
current_transaction: contextvars.ContextVar[str | None] = contextvars.ContextVar("outlive_transaction", default=None)


class Undone(Exception):
    """What a body raises to have its rows rolled back, and `value` recorded as its outcome all the same."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


class Transactions:
    """Executes transactional steps for one process."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine

    async def execute(self, call: StepCall, run: Run) -> None:
        """Run the body in a transaction until it has committed once; errors of the body roll it back and are raised.

        A database that does not answer is no error of the body: it is waited for, as the committer does.
        """
        tried = overdue = 0
        clock = self._engine.clock
        # On SQLite no beat of this process gets through while a transaction is open.
        limit_s = min(call.spec.timeout_s or TRANSACTION_TIMEOUT_S, self._engine.lease_s / 3)
        while True:
            began = clock.steady()
            try:
                return await self._once(call, run, limit_s)
            except UsageError:
                overdue += 1  # perhaps not the body is slow: this process may have stood still
                if clock.steady() - began < limit_s or overdue == _OVERDUE_TRIES:
                    raise
            except RolledBack:
                tried += 1
                if tried == _SERIALIZATION_TRIES:
                    raise
                await asyncio.sleep(0.002 * 2**tried)
            except StoreUnavailable as error:
                log.warning("transaction %s of run %r waits for the store: %s", call.key, call.execution.id, error)
                await self._engine.bodies.rest(STORE_AGAIN_S)

    async def _once(self, call: StepCall, run: Run, limit_s: float) -> None:
        execution, spec = call.execution, call.spec
        tx, body = await self._begin(spec, limit_s)
        if not self._engine.roster.may_begin(execution):
            await _undisturbed(tx.rollback())
            raise StoreUnavailable("the lease has run out")
        fence = self._engine.fence()
        try:
            inside = current_transaction.set(spec.name)
            try:
                async with asyncio.timeout(limit_s) as limit:  # the store ends only what waits for the store
                    value = await run(body, call.args, call.kwargs)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise UsageError(
                    f"transaction {spec.name} took longer than {limit_s:g} s and was rolled back: do slow work in a "
                    "step before it, or give the transaction a longer timeout=…"
                ) from None
            finally:
                current_transaction.reset(inside)
            text, decoded = round_trip(execution.codec, value, spec.shape.result, where=spec.result)
            try:
                async with asyncio.timeout(limit_s):
                    entry = await execution.take_turn(call, text)
            except TimeoutError:  # who has it may wait for the database, which on SQLite this transaction holds
                raise StoreUnavailable("another transaction of the run has the turn") from None
        except BaseException:
            await _undisturbed(tx.rollback())
            execution.end_turn(call, None)
            raise
        call.committing = True
        try:
            await _undisturbed(self._commit(tx, fence, entry))
        except BaseException:
            call.committing = False
            execution.end_turn(call, None)
            raise
        execution.end_turn(call, entry, decoded)

    async def _begin(self, spec: StepSpec, limit_s: float) -> tuple[OpenTransaction | OpenSession, Callable[..., Any]]:
        """Begin; give what ends the transaction, and the body with what it writes through."""
        store = self._engine.store
        if spec.session is not None:
            session = await store.begin_session(spec.session, limit_s)
            return session, session.enclose(spec.function)
        tx = await store.begin(limit_s)
        face = tx if spec.is_async else SyncTransaction(tx, self._engine.main)
        return tx, functools.partial(spec.function, face)

    async def _commit(self, tx: OpenTransaction | OpenSession, fence: Fence, entry: EntryWrite) -> None:
        engine = self._engine
        try:
            await tx.commit(fence, entry)
        except (FenceLost, EntrySettled):  # somebody else owns, or has written for, a run that we believed to own
            engine.lease_lost(fence)
            raise asyncio.CancelledError from None
        except StoreUnavailable as error:
            if not error.outcome_unknown or not await self._was_committed(entry):
                raise

    async def _was_committed(self, entry: EntryWrite) -> bool:
        """Ask, until the database answers, whether a COMMIT without a reply took effect."""
        while True:
            try:
                rows = await self._engine.store.load_entries([entry.row])
            except StoreUnavailable:
                await asyncio.sleep(STORE_AGAIN_S)
                continue
            return any(row.key == entry.key and row.seq == entry.seq for row in rows.get(entry.row, []))


async def _undisturbed(work: Awaitable[None]) -> None:
    """Await to the end even if this task is cancelled meanwhile; the cancellation is delivered after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            log.debug("after a cancellation: %r", task.exception())
        raise


def _not_awaited(name: str) -> Callable[..., Any]:
    def method(self: SyncTransaction, *args: Any) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(getattr(self._tx, name)(*args), self._main).result()
        except asyncio.CancelledError:
            raise UsageError("this transaction was ended; the step it belonged to has been cancelled") from None

    return method


class SyncTransaction:
    """The `tx` of a plain function: the methods of `OpenTransaction`, not awaited, from the step's thread."""

    execute = _not_awaited("execute")
    executemany = _not_awaited("executemany")
    fetch = _not_awaited("fetch")
    fetchrow = _not_awaited("fetchrow")
    fetchval = _not_awaited("fetchval")

    def __init__(self, tx: OpenTransaction, main: asyncio.AbstractEventLoop) -> None:
        self._tx = tx
        self._main = main

    @property
    def raw(self) -> Any:
        """The driver's own connection."""
        return self._tx.raw

    def within(self, main: asyncio.AbstractEventLoop) -> OpenTransaction:
        """Give the transaction itself, to be awaited on the loop of its app."""
        if main is not self._main:
            raise UsageError("tx= is a transaction of another app: start the run with the app that executes the step")
        return self._tx
