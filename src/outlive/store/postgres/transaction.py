"""A user's transaction on a connection of the pool, ended by a journal entry, a rollback or its timeout.

Refuses statements that would end it, and finds out before the entry is written
if the user ended it through the driver. Invariant: fence and entry are the last
statement before COMMIT, so the user's writes and the entry stand or fall together.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from outlive import hooks
from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.interface import EntrySettled, FenceLost, RolledBack, Row
from outlive.store.postgres.connect import PLANNER, SESSION_SQL, load_driver
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection
    from outlive.store.postgres.pool import Pool

_SITE = hooks.declare_site("transaction")

_LEVELS = ("read committed", "repeatable read", "serializable")
_SKIPPED = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|;)+")
_ENDS = re.compile(
    r"(?:begin|start|commit|end|abort|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)

# What a user may have left in the session, undone in the message that ends his transaction; none of it can fail.
_RESET = (
    "; close all; set session authorization default; reset all; unlisten *; select pg_advisory_unlock_all(); "
    + SESSION_SQL
)
_PLANNER_BACK = "".join(f"; set local {name} to default" for name in PLANNER)
RETRY = ("40001", "40P01")  # serialization failure, deadlock
LOCKED = "55P03"  # a lock was not available in time, perhaps because its holder stands still
CANCELLED, ABORTED = "57014", "25P02"


class PostgresTransaction:
    """See `outlive.store.interface.OpenTransaction`."""

    def __init__(self, address: Address, pool: Pool, connection: Connection, timeout_s: float) -> None:
        self._address = address
        self._pool = pool
        self._connection = connection
        self._timeout_s = timeout_s
        self._token = secrets.token_hex(8)
        self._ended: str | None = None  # how, once it has
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + timeout_s
        self._expiry = loop.call_at(self._deadline, self._expire)

    @classmethod
    async def begin(
        cls, address: Address, pool: Pool, timeout_s: float, isolation: str | None = None
    ) -> PostgresTransaction:
        """Open a transaction; by SET statements only, so that the user's first one may still choose the isolation."""
        if isolation is not None and isolation not in _LEVELS:
            raise UsageError(f"an isolation level is one of {', '.join(_LEVELS)}, not {isolation!r}")
        hooks.point("transaction.before")
        transaction = cls(address, pool, await pool.take_for_transaction(), timeout_s)
        millis = max(1, int(timeout_s * 1000))
        try:
            await transaction._connection.execute(
                f"begin isolation level {isolation or 'read committed'}; set local statement_timeout = {millis}; "
                f"set local lock_timeout = {max(1, millis // 2)}; "
                f"set local idle_in_transaction_session_timeout = {millis}; "
                f"set local outlive.transaction = '{transaction._token}'" + _PLANNER_BACK
            )
        except BaseException as error:
            transaction._abandon("it never began")
            explained = address.explain(error, writing=False)
            if explained is None:
                raise
            raise explained from error
        hooks.point("transaction.begun")
        return transaction

    # -- how it ends ------------------------------------------------------------
    def _end(self, how: str) -> None:
        """Give the connection back, once."""
        if self._ended is None:
            self._ended = how
            self._expiry.cancel()
            self._pool.give_from_transaction(self._connection)

    def _abandon(self, how: str) -> None:
        """End by hanging up: the server rolls back; what it may still execute has a timeout of its own."""
        if self._ended is None:
            self._connection.terminate()
            self._end(how)

    def _expire(self) -> None:
        self._abandon(
            f"it was open for longer than its timeout of {self._timeout_s:g} s and was rolled back; "
            "do slow work before it begins"
        )

    def _check_open(self) -> None:
        if self._ended is not None:
            raise UsageError(f"this transaction has ended: {self._ended}")

    # -- the user's statements --------------------------------------------------
    @property
    def raw(self) -> Any:
        """The driver's connection."""
        self._check_open()
        return self._connection

    async def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; give the number of rows it changed."""
        await self._inspect(sql)
        if args:
            status = await self._run(self._connection.execute(sql, *args))
        else:  # without arguments the driver would accept several statements, a COMMIT among them
            prepared = await self._run(self._connection.prepare(sql))
            await self._run(prepared.fetch())
            status = prepared.get_statusmsg()
        words = status.split()
        return int(words[-1]) if words[-1].isdigit() and words[0] != "SELECT" else 0

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """Give all rows of a query."""
        await self._inspect(sql)
        rows: Sequence[Row] = await self._run(self._connection.fetch(sql, *args))
        return rows

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """Give the first row of a query, or None."""
        await self._inspect(sql)
        row: Row | None = await self._run(self._connection.fetchrow(sql, *args))
        return row

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """Give the first value of the first row, or None."""
        row = await self.fetchrow(sql, *args)
        return None if row is None else row[0]

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of arguments; give how many there were."""
        given = [tuple(row) for row in rows]
        await self._inspect(sql)
        await self._run(self._connection.executemany(sql, given))
        return len(given)

    async def _inspect(self, sql: str) -> None:
        self._check_open()
        if ends_transaction(sql):
            await self.rollback()
            raise UsageError(
                f"a transaction may not end itself ({sql.strip()[:40]!r}), and was rolled back: it commits together "
                "with the journal entry when the function returns, and rolls back when it raises; savepoints are fine"
            )

    async def _run(self, work: Awaitable[Any]) -> Any:
        """Await the driver; its errors are the user's, but for those that say what became of the transaction."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await work
        except Exception as error:
            meaning = self._judge(error, loop.time() - began)
            if meaning is None:
                raise
            raise meaning from error

    def _judge(self, error: Exception, waited_s: float) -> Exception | None:
        """Give what the end of the transaction by an error is called, None if it has not ended."""
        state = getattr(error, "sqlstate", None)
        if state == CANCELLED and asyncio.get_running_loop().time() > self._deadline - 0.05:
            self._expire()  # the server's timeout was a little faster than ours
        if self._ended is not None:
            return UsageError(f"this transaction has ended: {self._ended}")
        if state in RETRY:
            return RolledBack(str(error))
        if state == LOCKED and waited_s > 0.4 * self._timeout_s:  # our own limit; NOWAIT is the user's, and at once
            return StoreUnavailable(f"another session of {self._address.url} holds a lock that is needed: {error}")
        if self._connection.is_closed():
            self._end("its connection was lost, so it was rolled back")
            return StoreUnavailable(f"lost {self._address.url} within a transaction, which is undone: {error}")
        return None

    # -- the end ----------------------------------------------------------------
    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the fence check and the entry as the last statement, then COMMIT."""
        self._check_open()
        try:
            await self._settle(fence, entry)
        except BaseException:
            await self.rollback()
            raise
        hooks.point("transaction.entry_written")
        self._expiry.cancel()  # from here on the server decides: nothing may cut off the reply
        try:
            await self._connection.execute("commit" + _RESET, timeout=self._timeout_s)
        except BaseException as error:
            self._abandon("its COMMIT failed")
            meaning = self._explain_commit(error)
            if meaning is None:
                raise
            raise meaning from error
        self._end("it was committed")
        hooks.point("transaction.after")

    async def _settle(self, fence: Fence, entry: EntryWrite) -> None:
        query = statement("settle_entry")
        values = {name: getattr(entry, name, None) for name in query.names}
        values |= {"token": self._token, "worker": fence.worker, "epoch": fence.epoch}
        try:
            row = await self._run(self._connection.fetchrow(query.text, *query.arguments(values)))
        except load_driver().PostgresError as error:
            if error.sqlstate == ABORTED:
                raise describe_swallowed() from error
            explained = self._address.explain(error, writing=False)
            if explained is None:
                raise
            raise explained from error
        check_settled(row, fence)

    def _explain_commit(self, error: BaseException) -> Exception | None:
        state = getattr(error, "sqlstate", None)
        if state in RETRY:
            return RolledBack(str(error))
        if state is not None and state[:2] not in ("08", "57"):
            return None  # a deferred constraint, or a trigger, of the user's own
        return self._address.explain(error, writing=True)

    async def rollback(self) -> None:
        """Undo everything; does nothing if the transaction has ended."""
        if self._ended is not None:
            return
        self._expiry.cancel()
        driver = load_driver()
        try:
            await self._connection.execute("rollback" + _RESET, timeout=self._timeout_s)
        except (OSError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError):
            self._abandon("it was rolled back")  # the server does so without being asked
        except BaseException:
            self._abandon("it was rolled back")
            raise
        self._end("it was rolled back")


def check_settled(row: Any, fence: Fence) -> None:
    """Raise if `settle_entry` has written nothing, and say why."""
    if not row["same"]:
        raise UsageError(
            "the transaction was ended through tx.raw or the session's own connection, so its writes and its result "
            "cannot be committed together; leave COMMIT and ROLLBACK to the transaction step"
        )
    if not row["fenced"]:
        raise FenceLost(fence)
    if not row["written"]:
        raise EntrySettled


def describe_swallowed() -> UsageError:
    """Give the error of a transaction that the server has aborted and the body wanted to commit."""
    return UsageError(
        "a statement of this transaction failed and its error was swallowed, so nothing can be committed; put such "
        "a statement between a savepoint and ROLLBACK TO"
    )


def ends_transaction(sql: str) -> bool:
    """Say whether a statement would end the transaction."""
    return _ENDS.match(_first_words(sql)) is not None


def _first_words(sql: str) -> str:
    """Give the statement without the comments and blanks before it."""
    at = 0
    while True:
        if blank := _SKIPPED.match(sql, at):
            at = blank.end()
        elif sql.startswith("/*", at):
            at = _skip_comment(sql, at)
        else:
            return sql[at:]


def _skip_comment(sql: str, at: int) -> int:
    """Give the place after a block comment; PostgreSQL nests them."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", sql[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return len(sql)
