"""Schedules in an app: declared in code, put and changed at run time, asked when they fire.

Each change reads the schedule, computes its new state and writes that against the
revision that was read, again until nobody was faster. Knows no SQL and no cron.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, get_args

import msgspec

from outlive.clock import Duration, to_datetime, to_instant
from outlive.codec.payload import encode_arguments
from outlive.control import make_note
from outlive.definitions import spec_of
from outlive.engine.engine import Engine
from outlive.errors import ScheduleNotFound, UsageError
from outlive.limits import SCHEDULE_BACKFILL_MAX, SCHEDULE_FIRES_MAX, SCHEDULE_NAME_MAX_CHARS, SCHEDULE_RUNS_MAX
from outlive.model import schedule as model
from outlive.model.definition import WorkflowSpec
from outlive.model.options import check_name, check_priority, check_queue, check_wait
from outlive.model.schedule import Overlap, ScheduleRow, ScheduleSpec, ScheduleWrite
from outlive.model.ticks import check_timing, find_zone, list_ticks
from outlive.model.writes import Note
from outlive.opened import Opened
from outlive.run import Run

Change = Callable[[ScheduleRow, int], ScheduleWrite]


@dataclass(frozen=True)
class ScheduleInfo:
    """What is known of a schedule. Times are aware UTC datetimes, durations seconds.

    `changed`: what holds was put at run time, not declared by code. `next_at`:
    the next tick, None if there is none. `waiting`: ticks that wait for the runs
    before them. `skipped`: ticks that started nothing, because they were missed
    or met an unfinished run.
    """

    name: str
    workflow: str
    cron: str | None
    every: float | None
    at: datetime | None
    zone: str
    jitter: float
    overlap: str
    catch_up: float
    queue: str
    priority: int
    paused: bool
    declared: bool
    changed: bool
    next_at: datetime | None
    last_at: datetime | None
    waiting: int
    skipped: int
    created_at: datetime


class Schedules(Opened):
    """What an app does with schedules."""

    def schedule(
        self,
        name: str,
        workflow: Any,
        *args: Any,
        cron: str | None = None,
        every: Duration | None = None,
        at: datetime | None = None,
        zone: str = "UTC",
        jitter: Duration = 0,
        overlap: Overlap = "allow",
        catch_up: Duration = 0,
        queue: str | None = None,
        priority: int = 0,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare that a workflow starts by a rule: one of `cron`, `every` and `at`. Stored when the app is entered.

        Over all processes each tick starts one run, whose id is `name@tick` with the tick in UTC. `overlap` says
        what a tick does while a run of this schedule is unfinished. Ticks that came while no worker was alive are
        started if they are at most `catch_up` old. Each run starts up to `jitter` after its tick. An `at` may pass
        while code still declares it: no error, and nothing is started.
        *Again*: a declaration that differs from the last one replaces it, unless somebody has changed the schedule at
        run time: that holds until `reset_schedule`.
        """
        if self._entered is not None:
            raise UsageError("schedule(…) declares before the app is entered; afterwards await app.put_schedule(…)")
        options = _Options(cron, every, at, zone, jitter, overlap, catch_up, queue, priority)
        if ("schedule", _check_schedule_name(name)) in self._declarations:
            raise UsageError(f"schedule {name!r} is declared twice in this app")
        spec = _make_spec(self._options.codec, name, workflow, args, kwargs, options)

        async def declare(engine: Engine) -> None:
            text = model.encode_spec(spec)
            _check_served(engine, workflow)
            while True:
                row = await _find(engine, name)
                if row is not None and row.declared == text:
                    return
                now = await engine.store.now()
                if await _write(engine, model.put(row, name, engine.new_row(), now, declared=text)):
                    engine.scheduler.looper.wake()
                    return

        self._declarations["schedule", name] = declare

    async def put_schedule(
        self,
        name: str,
        workflow: Any,
        *args: Any,
        cron: str | None = None,
        every: Duration | None = None,
        at: datetime | None = None,
        zone: str = "UTC",
        jitter: Duration = 0,
        overlap: Overlap = "allow",
        catch_up: Duration = 0,
        queue: str | None = None,
        priority: int = 0,
        kwargs: Mapping[str, Any] | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Make a schedule, or change it, at run time; takes what `schedule` takes, and wins over it until it is reset.

        A paused schedule stays paused. An interval counts from when the schedule was first made. An `at` that has
        passed, and that `catch_up` does not reach back to, is a UsageError, unless the schedule has had it already.
        """
        engine = self._engine()
        _check_schedule_name(name)
        options = _Options(cron, every, at, zone, jitter, overlap, catch_up, queue, priority)
        spec = _make_spec(engine.codec, name, workflow, args, kwargs, options)
        text = model.encode_spec(spec)
        _check_served(engine, workflow)
        note = make_note(engine, "put", "schedule", name, reason, by)
        while True:
            row, now = await _find(engine, name), await engine.store.now()
            model.check_at(row, spec, name, now)
            write = model.put(row, name, engine.new_row(), now, changed=text)
            if await _write(engine, write, note):
                break
        engine.scheduler.looper.wake()

    async def pause_schedule(self, name: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Let no more ticks start runs; those in a pause count as neither missed nor skipped. Runs go on."""
        engine = self._engine()
        await _change(engine, name, model.pause, make_note(engine, "pause", "schedule", name, reason, by))

    async def resume_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go on with the first tick from now on."""
        engine = self._engine()
        await _change(engine, name, model.resume, make_note(engine, "resume", "schedule", name, reason, by))

    async def reset_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go back to what code has declared, and end a pause."""

        def change(row: ScheduleRow, revision: int) -> ScheduleWrite:
            if row.declared is None:
                raise UsageError(
                    f"schedule {name!r} was made at run time and no code declares it: put_schedule() or delete it"
                )
            return model.reset(row, revision)

        engine = self._engine()
        await _change(engine, name, change, make_note(engine, "reset", "schedule", name, reason, by))

    async def delete_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Delete a schedule; its runs stay. Code that still declares it makes it again at its next entry."""
        engine = self._engine()
        note = make_note(engine, "delete", "schedule", _check_schedule_name(name), reason, by)
        if not await engine.store.delete_schedule(name, note):
            raise ScheduleNotFound(name)

    async def trigger_schedule(self, name: str, *, reason: str | None = None, by: str | None = None) -> Run:
        """Start a run now, paused or not and whatever `overlap` says; following ticks see it as the run before them."""
        engine = self._engine()
        note = make_note(engine, "trigger", "schedule", name, reason, by)
        while True:
            row = await _get(engine, name)
            spec = msgspec.structs.replace(model.read_spec(row), jitter_s=0.0)
            run = engine.scheduler.make_run(row, spec, row.now)
            write = model.change(row, engine.new_row())
            write.running = [*row.unfinished, run.row][-SCHEDULE_RUNS_MAX:]
            write.starts = [run]
            if await _write(engine, write, note):
                engine.hint()
                return Run(self._engine, run.id, run.row, _result_of(engine, spec), created=True)

    async def backfill_schedule(
        self, name: str, start: datetime, end: datetime, *, reason: str | None = None, by: str | None = None
    ) -> list[Run]:
        """Start a run for each tick from `start` until before `end`, all at once; give them, oldest first.

        A tick that has started a run already is that run (`run.created` is False), so asking twice starts nothing
        twice. The past only: what is to come starts by itself.
        """
        engine = self._engine()
        first, last = to_instant(start), to_instant(end)
        row = await _get(engine, name)
        if not first < last <= row.now:
            raise UsageError(f"a backfill goes from a start to a later end in the past, not from {start} to {end}")
        spec = model.read_spec(row)
        ticks = list(islice(model.list_between(row, spec, first, last), SCHEDULE_BACKFILL_MAX + 1))
        if len(ticks) > SCHEDULE_BACKFILL_MAX:
            raise UsageError(
                f"schedule {name!r} has more than {SCHEDULE_BACKFILL_MAX:,} ticks from {start} to {end}; take less "
                "at a time"
            )
        facts = {"start": start.isoformat(), "end": end.isoformat(), "ticks": len(ticks)}
        await _change(engine, name, model.change, make_note(engine, "backfill", "schedule", name, reason, by, facts))
        runs = [engine.scheduler.make_run(row, spec, tick) for tick in ticks]
        existing = await asyncio.gather(*(engine.start(run) for run in runs))
        return [
            Run(self._engine, run.id, (found or run).row, _result_of(engine, spec), created=found is None)
            for run, found in zip(runs, existing, strict=True)
        ]

    async def next_fires(self, name: str, n: int = 10) -> list[datetime]:
        """Give the next `n` ticks from now on, in the schedule's zone; fewer if there are no more, paused or not."""
        if not isinstance(n, int) or not 1 <= n <= SCHEDULE_FIRES_MAX:
            raise UsageError(f"next_fires() gives 1 to {SCHEDULE_FIRES_MAX:,} ticks, not {n!r}")
        row = await _get(self._engine(), name)
        spec = model.read_spec(row)
        zone = find_zone(spec.zone)
        return [to_datetime(tick).astimezone(zone) for tick in islice(list_ticks(spec, row.created_at, row.now), n)]

    async def schedules(self) -> list[ScheduleInfo]:
        """List all schedules by name."""
        return [_make_info(row) for row in await self._engine().store.list_schedules()]

    async def get_schedule(self, name: str) -> ScheduleInfo:
        """Read one schedule, or raise ScheduleNotFound."""
        return _make_info(await _get(self._engine(), name))


@dataclass(frozen=True)
class _Options:
    cron: Any
    every: Any
    at: Any
    zone: Any
    jitter: Any
    overlap: Any
    catch_up: Any
    queue: Any
    priority: Any


def _make_spec(codec: Any, name: str, workflow: Any, args: Any, kwargs: Any, options: _Options) -> ScheduleSpec:
    """Check everything that a declaration says, and encode its arguments."""
    timing = check_timing(options.cron, options.every, options.at, options.zone)
    if options.overlap not in get_args(Overlap):
        raise UsageError(f"overlap=… is one of {', '.join(get_args(Overlap))}, not {options.overlap!r}")
    if not isinstance(kwargs, Mapping | None):
        raise UsageError(f"kwargs=… is a mapping, not {kwargs!r}")
    known = None if isinstance(workflow, str) else spec_of(workflow)
    target = check_name(workflow) if known is None else known.name
    shape = None if known is None else known.shape
    where = f"arguments of workflow {target} in schedule {name}"
    return ScheduleSpec(
        cron=timing.cron,
        every_s=timing.every_s,
        at=timing.at,
        zone=timing.zone,
        workflow=target,
        input=encode_arguments(codec, shape, args, dict(kwargs or {}), where=where),
        codec=codec.id,
        queue=check_queue(options.queue),
        priority=check_priority(options.priority),
        jitter_s=check_wait(options.jitter, "jitter=…"),
        overlap=options.overlap,
        catch_up_s=check_wait(options.catch_up, "catch_up=…"),
    )


def _check_schedule_name(name: Any) -> str:
    if "@" in check_name(name) or len(name) > SCHEDULE_NAME_MAX_CHARS:
        raise UsageError(
            f"the name of a schedule has at most {SCHEDULE_NAME_MAX_CHARS} characters and no '@': {name!r}"
        )
    return str(name)


def _check_served(engine: Engine, workflow: Any) -> None:
    """Let this app serve the workflow; a worker that knows no workflow of a name has most likely misspelt it."""
    if not isinstance(workflow, str):
        engine.definitions.use(spec_of(workflow))
    elif engine.is_worker and engine.definitions.find(workflow) is None:
        raise UsageError(
            f"no workflow {workflow!r} is declared in this process; import its module, pass the definition "
            "itself, or use a client: Outlive(…, worker=False)"
        )


async def _find(engine: Engine, name: str) -> ScheduleRow | None:
    rows = await engine.store.list_schedules(name)
    return rows[0] if rows else None


async def _get(engine: Engine, name: str) -> ScheduleRow:
    row = await _find(engine, _check_schedule_name(name))
    if row is None:
        raise ScheduleNotFound(name)
    return row


async def _write(engine: Engine, write: ScheduleWrite, note: Note | None = None) -> bool:
    (written,) = await engine.store.write_schedules([write], note)
    return written


async def _change(engine: Engine, name: str, change: Change, note: Note) -> None:
    while not await _write(engine, change(await _get(engine, name), engine.new_row()), note):
        pass  # somebody was faster: look again
    engine.scheduler.looper.wake()


def _result_of(engine: Engine, spec: ScheduleSpec) -> Any:
    known: WorkflowSpec | None = engine.definitions.find(spec.workflow)
    return known.shape.result if known is not None else Any


def _make_info(row: ScheduleRow) -> ScheduleInfo:
    spec = model.read_spec(row)
    return ScheduleInfo(
        name=row.name,
        workflow=spec.workflow,
        cron=spec.cron,
        every=spec.every_s,
        at=None if spec.at is None else to_datetime(spec.at),
        zone=spec.zone,
        jitter=spec.jitter_s,
        overlap=spec.overlap,
        catch_up=spec.catch_up_s,
        queue=spec.queue,
        priority=spec.priority,
        paused=row.paused,
        declared=row.declared is not None,
        changed=row.changed is not None,
        next_at=None if row.next_at is None else to_datetime(row.next_at),
        last_at=None if row.last_at is None else to_datetime(row.last_at),
        waiting=len(row.waiting),
        skipped=row.skipped,
        created_at=to_datetime(row.created_at),
    )
