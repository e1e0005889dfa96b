"""A simulated world: several processes of one application on one database, on virtual time, from one seed.

The world decides which process runs next and what fails; engine, run loop,
codec and store are the production ones. It watches what becomes durable; whoever
sees that a guarantee is broken tells it, and it stops.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from outlive.app import Outlive
from outlive.clock import Clock
from outlive.errors import LeaseLost
from outlive.model.writes import Batch, Committed
from outlive.store.interface import Store
from outlive.store.sqlite.store import SqliteStore
from outlive.testing.faultplan import Fault
from outlive.testing.simloop import SimLoop
from outlive.testing.simstore import SimStore, SimTransaction

EVENT_S = 0.00001  # virtual time that one callback takes
START_S = 1_800_000_000.0
DUE = (  # what waits for time in the database
    "SELECT min(wake_at) FROM ol_live WHERE owner IS NULL AND hold IS NULL AND wake_at > {since!r}",
    "SELECT min(next_at) FROM ol_schedules WHERE paused = 0 AND next_at > {since!r}",
)
ADMITTED_S = 0.000_002  # what rounding may take from the window of a rate
POLLS_S = 2.0  # every timer of a process that only polls is due sooner


class Violation(AssertionError):
    """A guarantee was broken; the text says which."""


class SimLocks:
    """File locks of simulated processes, all on one host."""

    host = "simulated"

    def __init__(self, process: SimProcess) -> None:
        self._process = process

    def hold(self, worker: int) -> Any:
        """Hold the lock of an incarnation."""
        held, path = self._process.world.held, f"{worker:x}"
        held[path] = self._process
        return SimpleNamespace(path=path, release=lambda: held.pop(path, None))

    def is_released(self, path: str | None) -> bool:
        """Whether the process that held it is dead; half of the worlds have no such locks."""
        world = self._process.world
        return world.locks_work and path is not None and path in world.held and world.held[path].loop.dead


class SimProcess:
    """One incarnation of a process: a loop, an app, and what the app takes from the outside."""

    threaded = False

    def __init__(self, world: SimWorld, name: str, loop: Any) -> None:
        self.world = world
        self.name = name
        self.loop = loop  # SimLoop, or what stands for it
        self.clock: Clock = world
        self.chance = self.secrets = random.Random(world.chance.getrandbits(64))
        self.locks = SimLocks(self)
        self.frozen_until = 0.0
        self.deaf_until = 0.0
        self.line_at: float | None = None  # when a queue admits somebody by itself, as it was told last
        self.outrun = False  # the database's clock has jumped ahead since the last beat: its lease may end early
        self.hint = asyncio.Event()
        self.app: Outlive | None = None

    def make_store(self, _url: str, _pool_size: int) -> Store:
        """Give this process's way to the world's database."""
        return SimStore(self)

    def main_loop(self) -> Any:
        """Give the loop that the engine lives on."""
        return self.loop

    async def sleep(self, delay_s: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(delay_s)

    async def nothing(self) -> None:
        """Wait for ever: the process is dead."""
        await self.loop.create_future()


class SimWorld:
    """Processes, time, faults, and what is known of durability."""

    def __init__(self, seed: int, faults: list[Fault], *, lease_s: float = 5.0) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.lease_s = lease_s
        self.trace: list[str] = []
        self.processes: list[SimProcess] = []
        self.held: dict[str, SimProcess] = {}
        self.served: dict[str, list[str]] = {}  # the queues of a place's processes, where those are not all
        self.locks_work = self.chance.random() < 0.5
        self.resident_runs = self.chance.choice((0, 1, 3, 1000))
        self.lock_owner: SimTransaction | None = None
        self.store: Store = SqliteStore(
            "sqlite://", clock=self, chance=random.Random(seed), inline=True, wall=self.database_now
        )
        self.ids: dict[int, str] = {}  # run ids by row
        self.durable: set[tuple[str, str]] = set()  # settled entries: run id and key
        self.calls = 0
        self._faults = {fault.at: fault for fault in faults}
        self._time = 0.0
        self._clock_shift = 0.0
        self._problems: list[str] = []
        self._stirred_at = 0.0  # when something has happened last

    # -- time ---------------------------------------------------------------
    def now(self) -> float:
        """The virtual time, which is also everybody's steady clock."""
        return self._time

    steady = now

    def database_now(self) -> float:
        """The database's clock."""
        return START_S + self._time + self._clock_shift

    # -- processes ----------------------------------------------------------
    def start_process(
        self, name: str, include: Sequence[Any], main: Callable[[Outlive], Awaitable[None]] | None
    ) -> SimProcess:
        """Start a process that opens the app and runs `main(app)`, if it has one."""
        own_name = f"{name}.{len(self.processes)}"
        process = SimProcess(self, own_name, SimLoop(own_name, self.now, self.problem))
        self.processes.append(process)
        self.log(f"start {process.name}")

        async def life() -> None:
            app = Outlive(
                "sqlite://", include=include, lease=self.lease_s, grace=1.0, name=own_name, queues=self.served.get(name)
            )
            app._world = process  # type: ignore[assignment]
            process.app = app
            while True:
                try:
                    await app.open()
                    break
                except ConnectionError:
                    await asyncio.sleep(0.5)
            app._engine().roster.idle_limit = self.resident_runs
            while main is not None:
                try:
                    await main(app)
                    break
                except (LeaseLost, ConnectionError):  # as if it had died: again from its top
                    await asyncio.sleep(0.5)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self.problem(f"the driving program failed: {task.exception()!r}")

        process.loop.create_task(life()).add_done_callback(ended)
        return process

    def kill(self, process: SimProcess) -> None:
        """Kill a process: it runs nothing any more, and its open transaction is rolled back."""
        self.log(f"kill {process.name}")
        process.loop.dead = True
        if self.lock_owner is not None and self.lock_owner.process is process:
            finish(self.lock_owner.rollback())

    def end(self) -> None:
        """End every process, quietly."""
        for process in self.processes:
            process.loop.dead = True
            if process.app is not None and process.app._entered is not None:
                for execution in process.app._entered.roster.executions.values():
                    execution.loop.unwind()
            process.loop.clear()

    def notify(self, sender: SimProcess) -> None:
        """Hint to the others: sometimes lost, sometimes late."""
        for process in self.processes:
            if process is sender or process.loop.dead or process.deaf_until > self._time or self.chance.random() < 0.2:
                continue
            process.loop.call_later(self.chance.expovariate(1 / 0.005), process.hint.set)

    def next_fault(self, process: SimProcess, name: str) -> Fault | None:
        """Count a call to the store; give the fault that it meets. Freezes, jumps and deafness happen here."""
        self.calls += 1
        fault = self._faults.pop(self.calls, None)
        if fault is None:
            return None
        self.log(f"{fault} in {name} of {process.name}")
        if fault.kind == "freeze":
            process.frozen_until = self._time + fault.amount
        elif fault.kind == "clock_jump":
            self._clock_shift += fault.amount
            for each in self.processes:
                each.outrun = each.outrun or fault.amount > 0
        elif fault.kind == "deaf":
            process.deaf_until = self._time + fault.amount
        return fault

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement on the database, outside every process: to make tables, to look at effects."""
        return finish(self.store._writer.run(lambda db: list(db.rows(text))))  # type: ignore[attr-defined, no-any-return]

    # -- running ------------------------------------------------------------
    def run_for(self, duration_s: float) -> None:
        """Run processes in an order of chance for some virtual time."""
        end = self._time + duration_s
        while self._time < end:
            able = [p for p in self.processes if not p.loop.dead and p.frozen_until <= self._time]
            ready = [process for process in able if process.loop.has_work()]
            if ready:
                self._time += EVENT_S
                self.chance.choice(ready).loop.run_one()
                if self._problems:
                    raise Violation(self._problems[0])
                continue
            moments = [due for process in able if (due := process.loop.next_due()) is not None]
            moments += [p.frozen_until for p in self.processes if not p.loop.dead and p.frozen_until > self._time]
            self._time = max(self._time, min([*moments, end]))

    def skip(self, end: float) -> None:
        """Let time pass at once until shortly before something is due, if every process only polls, as by a pause.

        Their leases last as if they had renewed them.
        """
        short_s = max(POLLS_S, self.lease_s / 2)
        opened = [process.app._entered for process in self.processes if process.app and not process.loop.dead]
        engines = [engine for engine in opened if engine is not None and engine.lease.alive()]
        thawed_at = max(process.frozen_until for process in self.processes)
        if len(engines) < len(opened) or self._time - max(self._stirred_at, thawed_at) < 2 * short_s:
            return
        moments = [end]
        for process in self.processes:
            timers = [] if process.loop.dead else process.loop.list_due()
            moments += [due for due in timers if due - self._time > short_s]
        shift = self.database_now() - self._time
        moments += [due - shift for due in self.list_due(0.0)]
        passed_s = min(moments) - short_s - self._time
        if passed_s < short_s:
            return
        self._time += passed_s
        for engine in engines:
            engine.lease.extend(passed_s)
        self.sql(f"UPDATE ol_worker_beats SET expires_at = expires_at + {passed_s!r}")  # noqa: S608 - a number
        self.log(f"{passed_s:.6f} s have passed")

    def list_due(self, since: float) -> list[float]:
        """List what waits for time in the database: the first of each kind after an instant of its clock."""
        lines = [process.line_at for process in self.processes if not process.loop.dead]
        admitted = [due + ADMITTED_S for due in lines if due is not None and due + ADMITTED_S > since]
        return admitted + [due for text in DUE for (due,) in self.sql(text.format(since=since)) if due is not None]

    # -- watching -----------------------------------------------------------
    def log(self, what: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{self._time:.6f} {what}")
        self._stirred_at = self._time

    def problem(self, what: str) -> None:
        """Take note of a broken guarantee, or of an error that nobody handled."""
        self.log(f"VIOLATION {what}")
        self._problems.append(what)

    def committed(self, process: SimProcess, batch: Batch, committed: Committed) -> None:
        """Entries have become durable."""
        self._stirred_at = self._time
        self.ids.update((run.row, run.id) for run in batch.starts)
        for entry in batch.entries:
            if entry.row in committed.refused or entry.seq is None:
                continue
            place = (self.ids.get(entry.row, f"row {entry.row}"), entry.key)  # not of a start: a schedule's, a fork
            if place not in self.durable:
                self.log(f"durable {place[0]} {entry.key} seq {entry.seq} by {process.name}")
                self.durable.add(place)


def finish(work: Awaitable[Any]) -> Any:
    """Run a coroutine that does not wait for anything, and give its value."""
    try:
        work.__await__().__next__()
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the in-memory store had to wait")
