"""A user's transaction on a connection of the pool, ended by a journal entry, a rollback or its timeout.

Refuses statements that would end it, and finds out before the entry is written
if the user ended it through the driver. Invariant: fence and entry are the last
statement before COMMIT, so the user's writes and the entry stand or fall together.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from outlive import hooks
from outlive.errors import OutliveError, UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.interface import Row
from outlive.store.postgres.connect import PLANNER, SESSION_SQL, load_driver
from outlive.store.postgres.endings import (
    check_settled,
    describe_overdue,
    ends_transaction,
    explain_statement,
    explaining_commit,
    values_to_settle,
)
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection
    from outlive.store.postgres.pool import Pool

_SITE = hooks.declare_site("transaction")

# What a user may have left in the session, undone in the message that ends his transaction; none of it can fail.
_RESET = (
    "; close all; set session authorization default; reset all; unlisten *; select pg_advisory_unlock_all(); "
    + SESSION_SQL
)
_PLANNER_BACK = "".join(f"; set local {name} to default" for name in PLANNER)


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
    async def begin(cls, address: Address, pool: Pool, timeout_s: float) -> PostgresTransaction:
        """Open a transaction; by SET statements only, so that the user's first one may still choose the isolation."""
        hooks.point("transaction.before")
        transaction = cls(address, pool, await pool.take_for_transaction(), timeout_s)
        millis = max(1, int(timeout_s * 1000))
        try:
            with address.explaining():
                await transaction._connection.execute(
                    f"begin; set local statement_timeout = {millis}; set local lock_timeout = {max(1, millis // 2)}; "
                    f"set local idle_in_transaction_session_timeout = {millis}; "
                    f"set local outlive.transaction = '{transaction._token}'" + _PLANNER_BACK
                )
        except BaseException:
            transaction._abandon("it never began")
            raise
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
        self._abandon(str(describe_overdue(self._timeout_s)))

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
            meaning = self._explain(error, loop.time() - began)
            if meaning is None:
                raise
            raise meaning from error

    def _explain(self, error: Exception, waited_s: float) -> Exception | None:
        if self._ended is not None:
            return UsageError(f"this transaction has ended: {self._ended}")
        is_lost = self._connection.is_closed()
        if is_lost:
            self._end("its connection was lost, so it was rolled back")
        open_s = asyncio.get_running_loop().time() - self._deadline + self._timeout_s
        return explain_statement(
            self._address, error, is_lost=is_lost, open_s=open_s, waited_s=waited_s, timeout_s=self._timeout_s
        )

    # -- the end ----------------------------------------------------------------
    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the fence check and the entry as the last statement, then COMMIT."""
        self._check_open()
        query = statement("settle_entry")
        try:
            arguments = query.arguments(values_to_settle(entry, fence, self._token))
            with self._address.explaining():
                check_settled(await self._settle(query.text, arguments), fence)
        except BaseException:
            await self.rollback()
            raise
        hooks.point("transaction.entry_written")
        self._expiry.cancel()  # from here on the server decides: nothing may cut off the reply
        try:
            with explaining_commit(self._address):
                await self._connection.execute("commit" + _RESET, timeout=self._timeout_s)
        except BaseException:
            self._abandon("its COMMIT failed")
            raise
        self._end("it was committed")
        hooks.point("transaction.after")

    async def _settle(self, text: str, arguments: Sequence[Any]) -> Any:
        try:
            return await self._run(self._connection.fetchrow(text, *arguments))
        except load_driver().InterfaceError as error:  # the connection stands: it is not lost
            if isinstance(error, ValueError):  # a value that cannot be stored
                raise
            raise UsageError(
                f"the function returned while a statement of its transaction was executing ({error}); await each"
            ) from error

    async def rollback(self) -> None:
        """Undo everything; does nothing if the transaction has ended."""
        if self._ended is not None:
            return
        self._expiry.cancel()
        try:
            with self._address.explaining():
                await self._connection.execute("rollback" + _RESET, timeout=self._timeout_s)
        except OutliveError:
            self._abandon("it was rolled back")  # the server does so without being asked
        except BaseException:
            self._abandon("it was rolled back")
            raise
        self._end("it was rolled back")
