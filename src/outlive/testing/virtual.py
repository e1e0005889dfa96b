"""A virtual world on a real event loop: time moves only when a test says so, and processes die where it says.

Workers are production engines on one database in memory. Their tasks run on the
test's own loop, so step bodies are as real as ever; all that a worker does goes
through its `MortalLoop`, and once that is dead nothing of it goes on, not even a
`finally`. Like `SimWorld`, without chance and without faults.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from outlive.engine.engine import Engine
from outlive.engine.runloop import close_coroutine
from outlive.errors import StoreError
from outlive.model.writes import Batch, Committed
from outlive.store.interface import Store
from outlive.store.refusals import FenceLost
from outlive.testing.simstore import SimStore
from outlive.testing.world import START_S, SimProcess, SimWorld, finish

LEASE_S = 100 * 365 * 86_400.0  # time may move by years between two beats; a worker dies when it is killed


class Mortal(Coroutine[Any, Any, Any]):
    """A coroutine of a process: it goes on as long as the process lives, then waits for ever."""

    def __init__(self, loop: MortalLoop, inner: Coroutine[Any, Any, Any]) -> None:
        self.inner = inner
        self._loop = loop

    def send(self, value: Any) -> Any:
        return self._step(self.inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self.inner.throw, *error)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        raise TypeError("a task steps it")

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        loop = self._loop
        if loop.ended:
            raise asyncio.CancelledError
        if not loop.dead:
            try:
                waits_for = step(*args)
            except BaseException:
                if not loop.dead:
                    raise
            else:
                if not loop.dead:
                    return waits_for
        never: Any = loop.create_future()
        never._asyncio_future_blocking = True  # what `yield` of a future tells its task
        return never


class MortalLoop:
    """The loop of one process: the real one while the process lives. Its timers fire when the world moves time."""

    def __init__(self, real: asyncio.AbstractEventLoop) -> None:
        self.real = real
        self.dead = False
        self.ended = False  # the world has ended: what hung is let go
        self._tasks: set[asyncio.Task[Any]] = set()
        self._hung: list[asyncio.Future[Any]] = []  # what nobody of a dead process will ever see

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def create_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.real.create_future()
        if self.dead:
            self._hung.append(future)
        return future

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self.real.create_task(Mortal(self, coro), **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_soon(self, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.Handle:
        return self.real.call_soon(self._call, callback, *args, **options)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **_: Any) -> asyncio.Handle:
        return asyncio.Handle(callback, args, self.real)  # whoever waits for time is woken when it has moved

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        if not self.dead:
            callback(*args)

    async def end(self) -> None:
        """Close what is left, quietly."""
        self.dead = self.ended = True
        tasks = list(self._tasks)
        for task in tasks:
            coroutine: Any = task.get_coro()
            close_coroutine(coroutine.inner)
            task.cancel()
        for future in self._hung:
            future.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class VirtualStore(SimStore):
    """A process's way to the world's database: none takes time, and none leads there from a dead process."""

    async def call(self, *args: Any, **options: Any) -> Any:
        self._process.calls += 1
        try:
            return await super().call(*args, **options)
        finally:
            self._process.calls -= 1

    async def travel(self) -> None:
        if self._process.loop.dead:
            await self._process.nothing()


class VirtualProcess(SimProcess):
    """One incarnation of a worker, or the test's own process."""

    world: VirtualWorld
    loop: MortalLoop
    engine: Engine

    def __init__(self, world: VirtualWorld, name: str) -> None:
        super().__init__(world, f"{name}.{len(world.processes)}", MortalLoop(asyncio.get_running_loop()))
        world.processes.append(self)
        self.calls = 0  # to the store, under way
        self._turns: dict[str, list[int]] = {}  # begun and ended, by duty

    def make_store(self, _url: str, _pool_size: int) -> Store:
        return VirtualStore(self)

    async def sleep(self, delay_s: float) -> None:
        await self.world.sleep(delay_s)

    def close(self) -> None:
        """Let go of the threads."""
        self.engine.bodies.close()
        self.engine.roster.threads.close()

    def adopt(self, engine: Engine) -> None:
        """Watch an engine of this process."""
        self.engine = engine
        for looper in engine._loopers:
            if looper.name != "hints":  # which only waits
                self._turns[looper.name] = [0, 0]
                looper._turn = self._counted(looper.name, looper._turn)

    def _counted(self, name: str, turn: Callable[[], Any]) -> Callable[[], Any]:
        counts = self._turns[name]

        async def counted() -> Any:
            counts[0] += 1
            try:
                return await turn()
            except (StoreError, FenceLost):
                raise
            except Exception as error:
                self.world.problem(f"{name} of {self.name} failed: {error!r}")
                raise
            finally:
                counts[1] += 1

        return counted

    # -- rest ---------------------------------------------------------------
    def is_busy(self) -> bool:
        """Whether something happens here, or is about to, without that time passes."""
        engine = self.engine
        committer, roster = engine.committer, engine.roster
        return bool(
            self.calls
            or engine.bodies.in_flight
            or engine._loose
            or committer._work
            or committer._apart
            or committer._asked
            or roster.arriving
            or any(begun != ended for begun, ended in self._turns.values())
            or any(execution.thread_busy or execution.loop.ready for execution in roster.executions.values())
        )

    def ask_duties(self) -> Callable[[], bool]:
        """Have every duty look once more; give what says whether each has."""
        before = {name: begun for name, (begun, _) in self._turns.items()}
        for looper in self.engine._loopers:
            looper.wake()
        return lambda: all(self._turns[name][1] > begun for name, begun in before.items())

    def in_flight(self) -> list[str]:
        """Name the calls that execute, for messages."""
        return [
            f"{waiting.key} of run {execution.id!r}"
            for execution in self.engine.roster.executions.values()
            for waiting in execution._waiting.values()
            if getattr(waiting, "work", None) is not None
        ]

    def time_moved(self) -> None:
        """Let runs whose time may have come look."""
        for execution in self.engine.roster.executions.values():
            execution.wake()


class VirtualWorld(SimWorld):
    """Processes on one database, and a time that only `move_to` moves."""

    processes: list[VirtualProcess]  # type: ignore[assignment]

    def __init__(self, seed: int, start_s: float = START_S) -> None:
        super().__init__(seed, [], lease_s=LEASE_S)
        self._time = start_s  # steady and the database's clock are one, so that no sum is rounded
        self.locks_work = True
        self.on_durable: Callable[[VirtualProcess, str], None] = lambda process, name: None
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def database_now(self) -> float:
        return self._time

    def living(self) -> list[VirtualProcess]:
        """Give the processes that have not died."""
        return [process for process in self.processes if not process.loop.dead]

    def kill(self, process: Any) -> None:
        super().kill(process)
        for execution in process.engine.roster.executions.values():
            execution.closed = True

    async def end_all(self) -> None:
        """End every process, quietly."""
        for process in self.processes:
            process.loop.dead = True
        for process in self.processes:
            if not hasattr(process, "engine"):
                continue
            for execution in process.engine.roster.executions.values():
                execution.loop.unwind()
            await process.loop.end()
            process.close()
        finish(self.store.close())

    # -- time ---------------------------------------------------------------
    async def sleep(self, delay_s: float) -> None:
        """Wait until time has moved so far."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._time + delay_s, next(self._numbers), woken))
        await woken

    def next_moment(self) -> float | None:
        """Give when the next thing happens that only time brings, as far as it is known."""
        now = self._time
        moments: list[float | None] = [*self.list_due(now)]
        moments += [due for due, _, woken in self._sleepers if not woken.done()]
        for process in self.living():
            moments += [execution._next_due() for execution in process.engine.roster.executions.values()]
        return min((due for due in moments if due is not None and due > now), default=None)

    def move_to(self, at: float) -> None:
        """Set the time."""
        self._time = max(self._time, at)
        while self._sleepers and self._sleepers[0][0] <= self._time:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
        for process in self.living():
            process.time_moved()

    # -- watching -----------------------------------------------------------
    def changes(self) -> int:
        """Count what was written to the database so far."""
        ((count,),) = self.sql("SELECT total_changes()")
        return int(count)

    def problems(self) -> list[str]:
        """Take what failed in the engine itself."""
        taken, self._problems = self._problems, []
        return taken

    def notify(self, sender: Any) -> None:
        for process in self.living():
            if process is not sender:
                process.hint.set()

    def next_fault(self, process: Any, name: str) -> None:
        return None

    def committed(self, process: Any, batch: Batch, committed: Committed) -> None:
        super().committed(process, batch, committed)
        for entry in batch.entries:
            if entry.kind in ("step", "transaction") and entry.seq is not None and entry.row not in committed.refused:
                self.on_durable(process, entry.name)
