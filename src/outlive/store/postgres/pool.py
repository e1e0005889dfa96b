"""A few connections, for one statement or one transaction at a time.

The last one used is lent first, so that its prepared statements are warm. A
connection that is not at rest when it comes back is closed. Invariant: users'
transactions never hold the last connections, because each of them waits for
batches of its run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from outlive.errors import StoreUnavailable, UsageError
from outlive.store.postgres.connect import hang_up

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection


class Pool:
    """At most `size` connections, at least three; all but two of them may be in transactions."""

    def __init__(self, address: Address, size: int) -> None:
        size = max(size, 3)
        self._address = address
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(size)
        self._transactions = asyncio.Semaphore(size - 2)
        self._closed = False

    def open(self, connection: Connection) -> None:
        """Begin to lend, with the first connection."""
        self._free.append(connection)
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

    async def fetch(self, text: str, arguments: Iterable[Any] = (), *, writing: bool = False) -> list[Any]:
        """Send one statement and give its rows; with `writing` its outcome is unknown if the reply is lost."""
        connection = await self.take()
        try:
            rows: list[Any] = await connection.fetch(text, *arguments)
            return rows
        except Exception as error:
            explained = self._address.explain(error, writing=writing)
            if isinstance(explained, StoreUnavailable):
                connection.terminate()
            if explained is None:
                raise
            raise explained from error
        finally:
            self.give(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lend a connection for one transaction of several statements; an error rolls it back."""
        connection = await self.take()
        try:
            async with connection.transaction(isolation="read_committed"):
                yield connection
        except Exception as error:
            explained = self._address.explain(error, writing=True)
            if isinstance(explained, StoreUnavailable):
                connection.terminate()
            if explained is None:
                raise
            raise explained from error
        finally:
            self.give(connection)

    async def close(self) -> None:
        """Close what is free; what is in use is closed when it comes back."""
        self._closed = True
        free, self._free = self._free, []
        for connection in free:
            await hang_up(connection)
