"""The store of a simulated process: the production SQLite store in memory, behind a network that fails.

Each call takes virtual time on its way there and back, and may meet a fault.
While one process has a user's transaction open, the calls of the others wait,
as they would for SQLite's write lock. A process is a `SimProcess` of world.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from outlive.errors import StoreUnavailable
from outlive.model.reads import LineClaim
from outlive.model.schedule import ScheduleWrite
from outlive.model.writes import Batch, Committed, EntryWrite, ExistingRun, Fence, NewRun, Note


class SimStore:
    """Implements `Store` by passing calls on, through the world's faults."""

    url = "simulated://"

    def __init__(self, process: Any) -> None:
        self._process = process
        self._world = process.world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._world.store, name)
        return lambda *args, **kwargs: self.call(name, lambda: method(*args, **kwargs))

    async def call(self, name: str, run: Callable[[], Awaitable[Any]], inside: SimTransaction | None = None) -> Any:
        """Make a call: `run` is its effect on the database, `inside` the open transaction that it belongs to."""
        world, process = self._world, self._process
        await self.travel()
        fault = world.next_fault(process, name)
        kind = fault.kind if fault is not None else ""
        while world.lock_owner not in (None, inside):
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
        await self.travel()
        if kind == "lose_reply":
            raise StoreUnavailable(f"simulated: the reply to {name} was lost", outcome_unknown=True)
        return result

    async def travel(self) -> None:
        """Spend the time of one way to the database or back."""
        await asyncio.sleep(self._world.chance.expovariate(1 / 0.0008))

    async def open(self, *, migrate: bool) -> float:
        """Join the world's database."""
        await self.travel()
        return self._world.database_now()  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Leave it."""

    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        """Commit, and tell the world what has become durable."""

        async def run() -> Committed:
            committed = await self._world.store.commit(batch, fence)
            self._world.committed(self._process, batch, committed)
            return committed  # type: ignore[no-any-return]

        return await self.call("commit", run)  # type: ignore[no-any-return]

    async def write_schedules(self, writes: Sequence[ScheduleWrite], note: Note | None = None) -> list[bool]:
        """Write schedules, and tell the world of their runs."""

        async def run() -> list[bool]:
            written = await self._world.store.write_schedules(writes, note)
            self._world.ids.update((run.row, run.id) for write in writes for run in write.starts)
            return written  # type: ignore[no-any-return]

        return await self.call("write_schedules", run)  # type: ignore[no-any-return]

    async def claim_line(self, *args: Any) -> LineClaim:
        """Claim from the lines, and tell the world when one moves by itself."""
        found: LineClaim = await self.call("claim_line", lambda: self._world.store.claim_line(*args))
        self._process.line_at = found.next_at
        return found

    async def side_channel(self) -> SimStore:
        """The lease goes the same way."""
        return self

    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew the lease."""
        channel = await self._world.store.side_channel()
        return await self.call("beat", lambda: channel.beat(fence, lease_s))  # type: ignore[no-any-return]

    async def start_in(self, connection: Any, run: NewRun) -> ExistingRun | None:
        """Start a run inside a user's transaction, of this process or of the program's own."""
        inside = connection if isinstance(connection, SimTransaction) else None
        raw = connection if inside is None else inside.tx
        return await self.call("start_in", lambda: self._world.store.start_in(raw, run), inside)  # type: ignore[no-any-return]

    async def begin(self, timeout_s: float) -> SimTransaction:
        """Open a user's transaction: the database is this process's until it ends."""
        opened = SimTransaction(self)

        async def run() -> None:
            opened.tx = await self._world.store.begin(timeout_s)
            self._world.lock_owner = opened

        await opened.call("begin", run)
        return opened

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
    """A user's transaction of a simulated process; `tx` is the production one once it is open."""

    tx: Any = None

    def __init__(self, store: SimStore) -> None:
        self._store = store
        self.process = store._process
        self._world = store._world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.tx, name)

        async def call(*args: Any) -> Any:
            await self._store.travel()
            return await method(*args)

        return call

    @property
    def raw(self) -> Any:
        return self.tx.raw

    async def call(self, name: str, run: Callable[[], Awaitable[Any]]) -> None:
        """Begin or commit: if that fails or nobody waits for it, the connection is gone, the transaction with it."""
        try:
            await self._store.call(name, run, self)
        except (StoreUnavailable, asyncio.CancelledError):
            await self.rollback()
            raise

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Commit, and tell the world what has become durable."""

        async def run() -> None:
            try:
                await self.tx.commit(fence, entry)
            finally:
                self._unlock()
            self._world.committed(self.process, Batch(entries=[entry]), Committed())

        await self.call("transaction", run)

    async def rollback(self) -> None:
        """Roll back what is still open, and let the others go on."""
        try:
            if self.tx is not None:
                await self.tx.rollback()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._world.lock_owner is self:
            self._world.lock_owner = None
