"""The app of a test: in memory, on virtual time, with workers that die and take over as in production.

The app itself is a client, the test's own process, which never dies; its workers
are engines of their own on the same database. Nothing of the engine is replaced
but time, the loop's timers and the way to the database.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from outlive.app import Outlive
from outlive.clock import Duration, to_datetime, to_instant
from outlive.codec.failure import error_facts, rebuild_error
from outlive.codec.payload import Codec
from outlive.engine.bodies import current_step
from outlive.engine.engine import Engine
from outlive.errors import RunOnHold, RunTimedOut, StepFailed, UsageError
from outlive.model.reads import RunQuery, RunRow
from outlive.model.status import Status
from outlive.run import Run, RunInfo
from outlive.testing.doubles import _ABSENT, CrashPoint, Doubles, Stub
from outlive.testing.durations import to_seconds
from outlive.testing.virtual import LEASE_S, VirtualProcess, VirtualWorld
from outlive.testing.world import START_S

CALM_TURNS = 5  # of the loop, in which nothing happens, before the world is asked whether something will


class VirtualApp(Outlive):
    """An app for tests. Use it as `async with VirtualApp() as app:`, or by the fixture `outlive_app`.

    It is an `Outlive`, on a database in memory. Time stands still but for `advance`.
    `replay=True`: every run leaves memory after each outcome and is replayed from its journal, so that code which
    does not take the same path twice fails at once. `workers`: how many processes. `now`: the time at the beginning.
    `seed` draws ids and chance. `patience`: seconds of real time that a step may take.
    """

    def __init__(
        self,
        *,
        include: Iterable[Any] | None = None,
        queues: Iterable[str] | None = None,
        codec: Codec | None = None,
        workers: int = 1,
        replay: bool = False,
        now: datetime | None = None,
        seed: int = 0,
        patience: float = 30.0,
    ) -> None:
        super().__init__(
            "sqlite://", include=include, worker=False, queues=queues, name="test", lease=LEASE_S, codec=codec
        )
        if workers < 1:
            raise UsageError("workers=… is at least 1")
        self._start_s = to_instant(now) if now is not None else START_S
        self._seed = seed
        self._replay = replay
        self._patience_s = patience
        self._places: list[VirtualProcess | None] = [None] * workers
        self._doubles = Doubles()
        self._moving = asyncio.Lock()
        self._told: set[str] = set()  # runs whose failure the test has seen
        self.crashes = 0  # processes that have died

    # -- life ---------------------------------------------------------------
    async def open(self) -> Self:
        """Make the database and start the workers."""
        if self._entered is not None:
            return await super().open()  # which refuses
        world = self.world = VirtualWorld(self._seed, self._start_s)
        world.on_durable = self._on_durable
        await world.store.open(migrate=True)
        client = self._client = VirtualProcess(world, "test")
        client.main_loop = lambda: client.loop.real  # type: ignore[method-assign]
        self._world = client  # type: ignore[assignment]
        await super().open()
        assert self._entered is not None
        client.adopt(self._entered)
        for place in range(len(self._places)):
            await self._start_worker(place)
        return self

    async def close(self) -> None:
        """End the workers where they stand, and forget the database."""
        for process in self.world.living():
            if process is not self._client:
                self.world.kill(process)
        try:
            await super().close()
        finally:
            await self.world.end_all()

    async def __aexit__(self, *exc: object) -> None:
        if self._entered is None:
            return
        try:
            if exc[0] is None:
                await self._check()
        finally:
            await self.close()

    @property
    def is_open(self) -> bool:
        """Whether the app is in use."""
        return self._entered is not None

    async def _start_worker(self, place: int) -> None:
        process = self._places[place] = VirtualProcess(self.world, f"worker-{place + 1}")
        options = replace(self._options, worker=True, name=process.name)
        served = self._client.engine.definitions  # one registry: what the test starts is bound for the workers too
        engine = Engine(process.make_store("", 0), process, served, options)
        process.adopt(engine)
        self._doubles.put_into(engine.bodies, functools.partial(self._die, process))
        if self._replay:
            engine.roster.idle_limit = 0
            engine.roster.may_begin = functools.partial(_may_begin, engine, engine.roster.may_begin)  # type: ignore[method-assign]
        await engine.open(migrate=False)

    async def _die(self, process: VirtualProcess) -> None:
        self.world.kill(process)
        await process.nothing()

    def _on_durable(self, process: VirtualProcess, name: str) -> None:
        if self._doubles.is_crash(name, "recorded"):
            self.world.kill(process)

    # -- time ---------------------------------------------------------------
    def now(self) -> datetime:
        """Give the virtual time."""
        return to_datetime(self.world.now())

    async def advance(
        self,
        duration: Duration | str | None = None,
        /,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let time pass: `advance("3 days")`, `advance(hours=1)`, `advance(timedelta(…))`.

        It goes from one moment at which something is due to the next, and everything happens in between as in
        `run_until_idle`: timers, deadlines, schedules, timeouts, delays, retries.
        """
        total_s = to_seconds(duration, days=days, hours=hours, minutes=minutes, seconds_=seconds)
        async with self._moving:
            await self._move_until(self.world.now() + total_s)

    async def run_until_idle(self) -> None:
        """Wait until everything has happened that can happen without time passing.

        *Raises* what held a run: JournalMismatch where the code took another path than its journal.
        """
        async with self._moving:
            await self._settle()

    async def _move_until(self, end: float, run: Run | None = None) -> None:
        """Move the time, at the longest until a run has ended."""
        __tracebackhide__ = True
        world = self.world
        await self._settle()
        while run is None or not (await self._row_of(run)).finished_at:
            moment = world.next_moment()
            if moment is None or moment > end:
                world.move_to(end)
                await self._settle()
                return
            world.move_to(moment)
            await self._settle()

    async def _settle(self) -> None:
        """Wait until nothing happens any more, and every duty has looked and found nothing to do."""
        __tracebackhide__ = True
        self._engine()  # refuses another loop
        until = time.monotonic() + self._patience_s
        changes = -1
        while True:
            await self._calm(until)
            if changes == (changes := self.world.changes()):
                break
            looked = [process.ask_duties() for process in self.world.living()]
            while not all(has() for has in looked) and not self._dead():
                await self._pause(until, 0.0)
        await self._raise_problems()

    async def _calm(self, until: float) -> None:
        turns = 0
        while turns < CALM_TURNS:
            for place in self._dead():
                self.crashes += 1
                await self._start_worker(place)
            busy = any(process.is_busy() for process in self.world.living())
            turns = 0 if busy else turns + 1
            await self._pause(until, 0.0005 if busy else 0.0)

    def _dead(self) -> list[int]:
        return [place for place, process in enumerate(self._places) if process is None or process.loop.dead]

    async def _pause(self, until: float, pause_s: float) -> None:
        if time.monotonic() > until:
            flying = [call for process in self.world.living() for call in process.in_flight()]
            raise AssertionError(
                f"still not idle after {self._patience_s:g} s of real time; executing: {', '.join(flying) or 'no step'}"
            )
        await asyncio.sleep(pause_s)

    # -- doubles ------------------------------------------------------------
    def stub(
        self, step: Any, *, returns: Any = _ABSENT, raises: Any = None, calls: Callable[..., Any] | None = None
    ) -> Stub:
        """Put a value, an error or a function in the place of a step's body, until the `with` block or the app ends.

        What it gives is encoded, recorded and retried like the step's own. A stub that nothing calls fails the test.
        """
        return self._doubles.add_stub(step, returns, raises, calls)

    def crash_at(self, step: Any, point: CrashPoint, *, occurrence: int = 1) -> None:
        """Let the worker die at a step: "before" its body, "after" it, or when its outcome is "recorded" on disk.

        After the body means before anything of its outcome is on disk: a step executes again, the writes of a
        transaction are rolled back. Nothing more of that process happens; another one takes its place and its runs.
        A crash that never happens fails the test.
        """
        self._doubles.add_crash(step, point, occurrence)

    # -- handles ------------------------------------------------------------
    async def start(self, workflow: Any, *args: Any, **options: Any) -> VirtualRun:
        """Start a run, as in `Outlive`."""
        return VirtualRun.of(await super().start(workflow, *args, **options), self)

    async def get(self, id: str) -> VirtualRun:
        """Give the handle of an existing run, as in `Outlive`."""
        return VirtualRun.of(await super().get(id), self)

    async def trigger_schedule(self, name: str, **options: Any) -> VirtualRun:
        """Start a run of a schedule now, as in `Outlive`."""
        return VirtualRun.of(await super().trigger_schedule(name, **options), self)

    async def backfill_schedule(self, *args: Any, **options: Any) -> list[Run]:
        """Start the runs of past ticks, as in `Outlive`."""
        return [VirtualRun.of(run, self) for run in await super().backfill_schedule(*args, **options)]

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement on the database: to make tables, to look at effects."""
        return self.world.sql(text)

    # -- what went wrong ----------------------------------------------------
    async def _raise_problems(self) -> None:
        __tracebackhide__ = True
        problems = self.world.problems()
        assert not problems, "; ".join(problems)
        held = RunQuery(statuses=(Status.PAUSED, Status.QUARANTINED), limit=50)
        for row in await self._engine().store.list_runs(held):
            record = row.hold_reason or "{}"
            if row.id in self._told or error_facts(record)["type"] == "Paused":
                continue
            self._told.add(row.id)
            error = rebuild_error(record)
            if isinstance(error, StepFailed):  # no error of this process
                raise RunOnHold(row.id, row.status, error.text)
            raise error

    async def _check(self) -> None:
        """Fail if something that was prepared never happened, or a run has failed and the test did not look."""
        await self._raise_problems()
        self._doubles.check()
        for row in await self._engine().store.list_runs(RunQuery(statuses=(Status.FAILED,), limit=50)):
            if row.id not in self._told and row.parent_id is None:
                facts = error_facts(row.error or "{}")
                raise AssertionError(
                    f"run {row.id!r} of workflow {row.workflow} has failed, and the test did not look at it: "
                    f"{facts['type']}: {facts['text']}\n{facts['traceback'] or ''}"
                )

    async def _ended(self, run: Run, timeout_s: float | None) -> None:
        """Let a run go on until it has ended; without a timeout no time passes."""
        __tracebackhide__ = True
        async with self._moving:
            if timeout_s is None:
                await self._settle()
                row = await self._row_of(run)
                assert Status(row.status).final or Status(row.status).held, await self._why_not(row)
                return
            await self._move_until(self.world.now() + timeout_s, run)
            if not Status((await self._row_of(run)).status).final:
                raise RunTimedOut(run.id, timeout_s)

    async def _row_of(self, run: Run) -> RunRow:
        row = await self._engine().store.find_run(run.id)
        assert row is not None
        return row

    async def _why_not(self, row: RunRow) -> str:
        """Say what a run waits for that has not ended."""
        waits = [entry.key for entry in await self._engine().store.list_entries(row.id) if entry.seq is None]
        for process in self.world.living():
            execution = process.engine.roster.executions.get(row.row)
            if execution is not None and not execution.closed:
                waits += [waiting.key for waiting in execution.asked() if waiting.key not in waits]
        moment = self.world.next_moment()
        hint = "nothing is due: send it what it waits for"
        if moment is not None:
            hint = f"something is due at {to_datetime(moment):%Y-%m-%d %H:%M:%S}: move the time with app.advance(…)"
        return f"run {row.id!r} has not ended, it is {row.status} and waits for {', '.join(waits) or 'time'}; {hint}"


class VirtualRun(Run):
    """The handle of a run of a `VirtualApp`."""

    app: VirtualApp

    @classmethod
    def of(cls, run: Run, app: VirtualApp) -> VirtualRun:
        """Make it of a plain handle."""
        made = cls(run._engine, run.id, run._row, run._result_hint, created=run.created)
        made.app = app
        return made

    async def status(self) -> Status:
        """Read where the run stands."""
        return (await self.info()).status

    async def info(self) -> RunInfo:
        """Read what is known of the run."""
        info = await super().info()
        if info.status.final:
            self.app._told.add(self.id)
        return info

    async def fork(self, *args: Any, **options: Any) -> VirtualRun:
        """Start another run from an entry of this one, as in `Run`."""
        return VirtualRun.of(await super().fork(*args, **options), self.app)

    async def result(
        self, timeout: Duration | str | None = None, *, stop_on_hold: bool = True, as_type: Any = None
    ) -> Any:
        """Give the value of the run, or raise its error, when everything has happened that can.

        `timeout`: virtual time that may pass meanwhile. *Raises* AssertionError if the run waits for something else.
        """
        if current_step.get() is None:
            await self.app._ended(self, to_seconds(timeout) if timeout is not None else None)
        self.app._told.add(self.id)  # the test gets its error
        return await super().result(stop_on_hold=stop_on_hold, as_type=as_type)


def _may_begin(engine: Engine, may_begin: Callable[[Any], bool], execution: Any) -> bool:
    """Let a run that has new outcomes leave memory before anything else of it begins; it is replayed and goes on."""
    if not may_begin(execution):
        return False
    if not execution.recorder.outcomes or execution._in_flight:
        return True
    engine.main.call_soon(_forget, engine, execution)
    return False


def _forget(engine: Engine, execution: Any) -> None:
    if not execution.closed and not execution._in_flight:
        engine.roster.release(execution)
