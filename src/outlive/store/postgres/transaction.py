"""A user's transaction on a connection of the pool, ended by a journal entry, a rollback or its timeout.

Refuses statements that would end it, and finds out before the entry is written
if the user ended it through the driver. Invariant: fence and entry are the last
statement before COMMIT, so the user's writes and the entry stand or fall together.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from outlive import hooks
from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import EntryWrite, Fence
from outlive.store.interface import EntrySettled, FenceLost, RolledBack
from outlive.store.postgres.connect import SESSION_SQL, load_driver
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection, Pool

_TRANSACTION = hooks.declare_site("transaction")

_LEVELS = ("read committed", "repeatable read", "serializable")
_SKIPPED = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|;)+")
_ENDS = re.compile(
    r"(?:begin|start|commit|end|abort|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)

# What a user may have left in the session, undone in the message that ends his transaction.
_RESET = f"; close all; set session authorization default; reset all; unlisten *; discard temp; {SESSION_SQL}"
_RETRY = ("40001", "40P01")  # serialization failure, deadlock


class PostgresTransaction:
    """See `outlive.store.interface.OpenTransaction`."""

    def __init__(self, address: Address, pool: Pool, connection: Connection, timeout_s: float) -> None:
        self._address = address
        self._pool = pool
        self._connection = connection
        self._timeout_s = timeout_s
        self._token = secrets.token_hex(8)
        self._ended: str | None = None  # how, once it has
        self._expiry: asyncio.TimerHandle | None = None

    @classmethod
    async def begin(
        cls, address: Address, pool: Pool, timeout_s: float, isolation: str | None = None
    ) -> PostgresTransaction:
        """Open a transaction; SET statements only, so that the user's first may still choose the isolation level."""
        if isolation is not None and isolation not in _LEVELS:
            raise UsageError(f"an isolation level is one of {', '.join(_LEVELS)}, not {isolation!r}")
        hooks.point("transaction.before")
        transaction = cls(address, pool, await pool.take_for_transaction(), timeout_s)
        millis = max(1, int(timeout_s * 1000))
        try:
            with address.explaining(writing=False):
                await transaction._connection.execute(
                    f"begin isolation level {isolation or 'read committed'}; set local statement_timeout = {millis}; "
                    f"set local idle_in_transaction_session_timeout = {millis}; "
                    f"set local outlive.transaction = '{transaction._token}'"
                )
        except BaseException:
            transaction._connection.terminate()
            transaction._end("it never began")
            raise
        transaction._expiry = asyncio.get_running_loop().call_later(timeout_s, transaction._expire)
        hooks.point("transaction.begun")
        return transaction

    def _expire(self) -> None:
        self._connection.terminate()  # the server rolls back; what it may still execute has a timeout of its own
        self._end(f"it took longer than {self._timeout_s:g} s and was rolled back; set transaction_timeout or do less")

    def _end(self, how: str) -> None:
        if self._ended is None:
            self._ended = how
            if self._expiry is not None:
                self._expiry.cancel()
            self._pool.give_from_transaction(self._connection)

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
        prepared = await self._prepare(sql)
        await self._run(prepared.fetch(*args))
        tag = prepared.get_statusmsg().split()
        return int(tag[-1]) if tag[-1].isdigit() and tag[0] != "SELECT" else 0

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        """Give all rows of a query."""
        await self._inspect(sql)
        rows: Sequence[Any] = await self._run(self._connection.fetch(sql, *args))
        return rows

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        """Give the first row of a query, or None."""
        await self._inspect(sql)
        return await self._run(self._connection.fetchrow(sql, *args))

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """Give the first value of the first row, or None."""
        row = await self.fetchrow(sql, *args)
        return None if row is None else row[0]

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of arguments; give how often it ran."""
        given = [tuple(row) for row in rows]
        await self._inspect(sql)
        await self._run(self._connection.executemany(sql, given))
        return len(given)

    async def _prepare(self, sql: str) -> Any:
        await self._inspect(sql)
        return await self._run(self._connection.prepare(sql))

    async def _inspect(self, sql: str) -> None:
        self._check_open()
        if _ENDS.match(_first_words(sql)):
            await self.rollback()
            raise UsageError(
                f"a transaction step may not end its transaction itself ({sql.strip()[:40]!r}): it commits when the "
                "function returns and rolls back when it raises; savepoints are fine"
            )

    async def _run(self, work: Any) -> Any:
        """Await the driver; its errors are the user's, except those that say the transaction must run again."""
        driver = load_driver()
        try:
            return await work
        except driver.PostgresError as error:
            if error.sqlstate in _RETRY:
                raise RolledBack(str(error)) from error
            if self._connection.is_closed() or error.sqlstate == "57014":
                raise self._explain_loss(error) from error
            raise
        except (OSError, driver.InterfaceError) as error:
            if isinstance(error, OSError) or self._connection.is_closed():
                raise self._explain_loss(error) from error
            raise

    def _explain_loss(self, error: Exception) -> Exception:
        """Say why the connection is gone: our own timeout, or the server."""
        if self._ended is None and getattr(error, "sqlstate", None) in ("57014", "25P03"):
            self._expire()
        if self._ended is not None:
            return UsageError(f"this transaction has ended: {self._ended}")
        self._end("its connection was lost, so it was rolled back")
        return StoreUnavailable(f"lost the connection to {self._address.url} in a transaction, which is undone: {error}")

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
        await self._commit()
        hooks.point("transaction.after")

    async def _settle(self, fence: Fence, entry: EntryWrite) -> None:
        query = statement("settle_entry")
        values = {name: getattr(entry, name, None) for name in query.names}
        values |= {"token": self._token, "worker": fence.worker, "epoch": fence.epoch}
        row = await self._run(self._connection.fetchrow(query.text, *query.arguments(values)))
        if not row["same"]:
            raise UsageError(
                "the transaction was ended through tx.raw, so its writes and its result cannot be committed together; "
                "leave COMMIT and ROLLBACK to the transaction step"
            )
        if not row["fenced"]:
            raise FenceLost
        if not row["written"]:
            raise EntrySettled

    async def _commit(self) -> None:
        driver = load_driver()
        self._cancel_expiry()
        try:
            await self._connection.execute("commit" + _RESET, timeout=self._timeout_s)
        except driver.PostgresError as error:
            if error.sqlstate in _RETRY:
                raise RolledBack(str(error)) from error
            if error.sqlstate[:2] in ("08", "57"):
                raise self._explain_unknown(error) from error
            raise  # a deferred constraint of the user's own
        except (OSError, driver.InterfaceError, driver.InternalClientError) as error:
            raise self._explain_unknown(error) from error
        except BaseException:
            self._connection.terminate()
            raise
        finally:
            self._end("it was committed")

    def _explain_unknown(self, error: Exception) -> StoreUnavailable:
        self._connection.terminate()
        return StoreUnavailable(f"lost the reply to COMMIT from {self._address.url}: {error}", outcome_unknown=True)

    def _cancel_expiry(self) -> None:
        """From here on the server decides: the timer must not cut off the reply to COMMIT."""
        if self._expiry is not None:
            self._expiry.cancel()

    async def rollback(self) -> None:
        """Undo everything; does nothing if the transaction has ended."""
        if self._ended is not None:
            return
        driver = load_driver()
        self._cancel_expiry()
        self._ended = "it was rolled back"
        try:
            await self._connection.execute("rollback" + _RESET, timeout=self._timeout_s)
        except (OSError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError):
            self._connection.terminate()  # the server rolls back without being asked
        except BaseException:
            self._connection.terminate()
            raise
        finally:
            self._pool.give_from_transaction(self._connection)


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
