"""A few connections, lent for one statement or one transaction.

The last one used is lent first, so that its prepared statements are warm. A
connection that is not at rest when it comes back is closed. Invariant: users'
transactions never hold the last connections, because each of them waits for
batches of its run.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from outlive.errors import StoreUnavailable, UsageError
from outlive.store.postgres.connect import load_driver

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection

CLOSE_TIMEOUT_S = 2.0  # a server that does not answer a goodbye gets none


class Pool:
    """At most `size` connections, at least three; all but two of them may be in transactions."""

    def __init__(self, address: Address, size: int) -> None:
        size = max(size, 3)
        self._address = address
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(size)
        self._transactions = asyncio.Semaphore(size - 2)
        self._closed = False

    async def open(self) -> None:
        """Open the first connection, so that a wrong URL is told at once."""
        self._free.append(await self._address.connect())
        self._closed = False

    async def take(self) -> Connection:
        """Take a free connection, or open one; waits while all are in use."""
        await self._room.acquire()
        try:
            if self._closed:
                raise UsageError("the store is closed")
            while self._free:
                connection = self._free.pop()
                if not connection.is_closed():
                    return connection
            try:
                return await self._address.connect()
            except UsageError as error:  # it has been open before: passwords change, databases come back
                raise StoreUnavailable(str(error)) from error
        except BaseException:
            self._room.release()
            raise

    def give(self, connection: Connection) -> None:
        """Give a connection back."""
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self._free.append(connection)
        self._room.release()

    async def take_for_transaction(self) -> Connection:
        """Take a connection for a user's transaction."""
        await self._transactions.acquire()
        try:
            return await self.take()
        except BaseException:
            self._transactions.release()
            raise

    def give_from_transaction(self, connection: Connection) -> None:
        """Give a transaction's connection back."""
        self.give(connection)
        self._transactions.release()

    def lend(self, *, writing: bool, opening: bool = False) -> Loan:
        """Lend a connection for some statements and explain their errors."""
        return Loan(self, self._address, writing, opening)

    async def close(self) -> None:
        """Close what is free; what is in use is closed when it comes back."""
        self._closed = True
        driver = load_driver()
        free, self._free = self._free, []
        for connection in free:
            try:
                await connection.close(timeout=CLOSE_TIMEOUT_S)
            except (OSError, driver.PostgresError, driver.InterfaceError):
                connection.terminate()


class Loan:
    """One use of a connection; written out, because it is on the path of every commit."""

    __slots__ = ("_address", "_connection", "_opening", "_pool", "_writing")

    def __init__(self, pool: Pool, address: Address, writing: bool, opening: bool) -> None:
        self._pool = pool
        self._address = address
        self._writing = writing
        self._opening = opening

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                explained = self._address.explain(error, writing=self._writing, opening=self._opening)
                if isinstance(explained, StoreUnavailable):
                    self._connection.terminate()
                if explained is not None:
                    raise explained from error
        finally:
            self._pool.give(self._connection)
