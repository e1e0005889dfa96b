"""One database as the store's methods see it: opened and closed; a pool of connections, a clock, hints.

`_read` and `_write` send a named statement. Knows no table. Invariant: a second
statement that must see what others have committed meanwhile is a statement of
its own, with its own snapshot.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from outlive.clock import Clock
from outlive.store.postgres import schema
from outlive.store.postgres.connect import Address, load_driver
from outlive.store.postgres.hints import Hints
from outlive.store.postgres.pool import Pool
from outlive.store.postgres.session import Room
from outlive.store.postgres.side import PostgresSideChannel
from outlive.store.postgres.statements import Statement, statement

Send = Callable[..., Awaitable[list[Any]]]  # a named statement and its values


class Database:
    """See the module's text."""

    def __init__(self, url: str, *, clock: Clock, chance: random.Random, pool_size: int = 5) -> None:
        load_driver()
        self._address = Address(url)
        self._pool = Pool(self._address, pool_size)
        self._room = Room(pool_size)
        self._place: str | None = None
        self._chance = chance
        self._hints = Hints(self._address, self._pool, clock, token=f"{chance.getrandbits(64):016x}")

    @property
    def url(self) -> str:
        return self._address.url

    async def open(self, *, migrate: bool) -> float:
        connection = await self._address.connect()
        try:
            with self._address.explaining(writing=True, opening=True):
                await schema.bring_up(connection, self.url, apply=migrate)
                now = float(await connection.fetchval(statement("read_now").text))
        except BaseException:
            connection.terminate()
            raise
        self._pool.open(connection)
        self._room = Room(self._room.size)
        return now

    async def close(self) -> None:
        await self._hints.close()
        self._room.threads.shutdown(wait=False)
        await self._pool.close()

    async def now(self) -> float:
        ((now,),) = await self._read("read_now")
        return float(now)

    async def side_channel(self) -> PostgresSideChannel:
        return await PostgresSideChannel.open(self._address)

    async def _read(self, name: str, /, **values: Any) -> list[Any]:
        query = statement(name)
        return await self._pool.fetch(query.text, query.arguments(values))

    async def _write(self, name: str, /, **values: Any) -> list[Any]:
        query = statement(name)
        return await self._pool.fetch(query.text, query.arguments(values), writing=True)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Send]:
        """Give what sends named statements within one transaction; where its reply is lost, its outcome is unknown."""
        async with self._pool.transaction() as connection:

            async def send(name: str | Statement, /, **values: Any) -> list[Any]:
                query = statement(name) if isinstance(name, str) else name
                return await connection.fetch(query.text, *query.arguments(values))  # type: ignore[no-any-return]

            yield send

    async def notify(self) -> None:
        await self._hints.send()

    async def wait_hint(self, timeout_s: float) -> bool:
        return await self._hints.wait(timeout_s)
