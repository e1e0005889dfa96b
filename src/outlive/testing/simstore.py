"""The store of a simulated process: the production SQLite store in memory, behind a network that fails.

Each call takes virtual time on its way there and back, and may meet a fault.
While one process has a user's transaction open, the calls of the others wait,
as they would for SQLite's write lock. A process is a `SimProcess` of world.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from outlive.errors import StoreUnavailable
from outlive.model.writes import Batch, Committed, EntryWrite, Fence
from outlive.store.interface import OpenTransaction


class SimStore:
    """Implements `Store` by passing calls on, through the world's faults."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._world = process.world

    url = "simulated://"

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._world.store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, lambda: method(*args, **kwargs))

        return call

    async def _call(self, name: str, run: Any) -> Any:
        world, process = self._world, self._process
        await self._travel()
        fault = world.next_fault(process, name)
        kind = fault.kind if fault is not None else ""
        while world.lock_owner is not None:
            await asyncio.sleep(0.001)
        if kind == "kill_before":
            world.kill(process)
        if kind == "refuse":
            raise StoreUnavailable(f"simulated: {name} refused")
        if process.loop.dead:
            await process.nothing()
        result = await run()
        if name in ("beat", "register"):
            process.outrun = False
        if kind == "kill_after":
            world.kill(process)
            await process.nothing()
        await self._travel()
        if kind == "lose_reply":
            raise StoreUnavailable(f"simulated: the reply to {name} was lost", outcome_unknown=True)
        return result

    async def _travel(self) -> None:
        await asyncio.sleep(self._world.chance.expovariate(1 / 0.0008))

    async def open(self, *, migrate: bool) -> float:
        """Join the world's database."""
        await self._travel()
        return self._world.database_now()  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Leave it."""

    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        """Commit, and tell the world what has become durable."""

        async def run() -> Committed:
            committed = await self._world.store.commit(batch, fence)
            self._world.committed(self._process, batch, committed)
            return committed  # type: ignore[no-any-return]

        return await self._call("commit", run)  # type: ignore[no-any-return]

    async def side_channel(self) -> SimStore:
        """The lease goes the same way."""
        return self

    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew the lease."""

        async def run() -> float:
            channel = await self._world.store.side_channel()
            return await channel.beat(fence, lease_s)  # type: ignore[no-any-return]

        return await self._call("beat", run)  # type: ignore[no-any-return]

    async def begin(self, timeout_s: float) -> SimTransaction:
        """Open a user's transaction: the database is this process's until it ends."""

        async def run() -> SimTransaction:
            tx = await self._world.store.begin(timeout_s)
            made = SimTransaction(self, tx)
            self._world.lock(self._process, made)
            opened.append(made)
            return made

        opened: list[SimTransaction] = []
        try:
            return await self._call("begin", run)  # type: ignore[no-any-return]
        except StoreUnavailable:
            for made in opened:  # the connection is gone, and the transaction with it
                await made.rollback()
            raise

    async def notify(self) -> None:
        """Hint to every other process, unless the world swallows it."""
        self._world.notify(self._process)

    async def wait_hint(self, timeout_s: float) -> bool:
        """Wait for a hint."""
        self._process.hint.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.hint.wait()
        except TimeoutError:
            return False
        return True


class SimTransaction:
    """An open transaction of a simulated process."""

    def __init__(self, store: SimStore, tx: OpenTransaction) -> None:
        self._store = store
        self._world = store._world
        self._process = store._process
        self.tx = tx

    @property
    def raw(self) -> Any:
        return self.tx.raw

    async def execute(self, sql: str, *args: Any) -> int:
        await self._store._travel()
        return await self.tx.execute(sql, *args)

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        await self._store._travel()
        return await self.tx.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        await self._store._travel()
        return await self.tx.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        await self._store._travel()
        return await self.tx.fetchval(sql, *args)

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        await self._store._travel()
        return await self.tx.executemany(sql, rows)

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        world, process = self._world, self._process
        await self._store._travel()
        fault = world.next_fault(process, "transaction")
        kind = fault.kind if fault is not None else ""
        if kind == "kill_before":
            world.kill(process)
            await process.nothing()
        try:
            if kind == "refuse":
                await self.tx.rollback()
                raise StoreUnavailable("simulated: COMMIT refused")
            await self.tx.commit(fence, entry)
        finally:
            world.unlock(self)
        world.committed(process, Batch(entries=[entry]), Committed())
        if kind == "kill_after":
            world.kill(process)
            await process.nothing()
        await self._store._travel()
        if kind == "lose_reply":
            raise StoreUnavailable("simulated: the reply to COMMIT was lost", outcome_unknown=True)

    async def rollback(self) -> None:
        try:
            await self.tx.rollback()
        finally:
            self._world.unlock(self)
