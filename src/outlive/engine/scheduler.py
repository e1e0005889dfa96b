"""Fires schedules: what is due by the database's clock becomes runs, whoever will execute them.

Any worker fires any schedule: arguments are stored already encoded. What becomes
of a tick is decided by `outlive.model.schedule`; the write counts on the revision
that was read, so of several processes one fires. Invariant: a schedule that cannot
be computed here is left alone and holds up no other.
"""

from __future__ import annotations

import json
import logging

from outlive.engine.looper import Looper
from outlive.engine.roles import Host
from outlive.errors import StoreUnavailable
from outlive.limits import POLL_BUSY_S, POLL_IDLE_S, SCHEDULE_RETRY_S, SCHEDULE_RUNS_MAX
from outlive.model.schedule import ScheduleRow, ScheduleSpec, change, decide, read_spec, spread, tick_id
from outlive.model.writes import NewRun
from outlive.store.interface import WriteRefused

log = logging.getLogger("outlive.engine")


class Scheduler:
    """Acts on the ticks that are due."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._left: set[str] = set()  # what cannot be computed here
        self._left_at = float("-inf")
        self._awaited: dict[str, list[int]] = {}  # runs that ticks wait for, by schedule
        self.looper = Looper("scheduler", self.turn)

    async def turn(self) -> float:
        """Fire what is due; sleep until the next tick, not for long: another process may put an earlier one."""
        engine = self._engine
        if engine.clock.steady() - self._left_at >= SCHEDULE_RETRY_S:
            self._left.clear()
        wait_s = await engine.store.next_tick(sorted(self._left))
        if wait_s is None or wait_s > 0:
            return min(POLL_IDLE_S, wait_s or POLL_IDLE_S) + POLL_BUSY_S * engine.chance.random()
        rows = await engine.store.list_due_schedules(sorted(self._left), SCHEDULE_RUNS_MAX)
        engine.chance.shuffle(rows)  # so that processes do not meet at each of them
        delay_s = 0.0
        for row in rows:
            try:
                if await self._fire(row):
                    engine.hint()
            except StoreUnavailable:
                raise
            except WriteRefused as error:
                log.warning("schedule %r is tried again: %s", row.name, error)
                delay_s = POLL_BUSY_S
            except Exception:
                log.exception("schedule %r cannot be computed here; other workers may do it", row.name)
                self._left.add(row.name)
                self._left_at = engine.clock.steady()
        return delay_s

    def ended(self, row: int) -> None:
        """A run has ended here: if ticks wait for it, look at once."""
        if any(row in rows for rows in self._awaited.values()):
            self.looper.wake()

    async def _fire(self, row: ScheduleRow) -> bool:
        """Act on the due ticks of one schedule in one transaction; False if another process was first."""
        spec = read_spec(row)
        decision = decide(row, spec)
        write = change(row, self._engine.new_row())
        write.waiting, write.skipped, write.next_at = decision.waiting, decision.skipped, decision.next_at
        write.last_at = decision.starts[-1] if decision.starts else row.last_at
        starts = [self.make_run(row, spec, tick) for tick in decision.starts]
        rows = [*row.unfinished, *(run.row for run in starts)]
        write.running = rows[-SCHEDULE_RUNS_MAX:]
        cancels = rows[:-1] if starts and spec.overlap == "cancel" else []
        reason = json.dumps(f"the next run of schedule {row.name!r} starts")
        if not await self._engine.store.write_schedule(write, starts, cancels, reason):
            return False
        self._awaited.pop(row.name, None)
        if write.waiting:
            self._awaited[row.name] = write.running
        if decision.skipped > row.skipped:
            log.info("schedule %r has skipped %d ticks", row.name, decision.skipped - row.skipped)
        if cancels:
            await self._engine.store.wake(cancels)
        return True

    def make_run(self, row: ScheduleRow, spec: ScheduleSpec, tick: float) -> NewRun:
        """Give the run of a tick, to be claimed by whoever serves its workflow."""
        served = self._engine.definitions.find(spec.workflow)
        start_at = tick + spread(row.name, tick, spec.jitter_s)
        return NewRun(
            row=self._engine.new_row(),
            id=tick_id(row.name, tick),
            workflow=spec.workflow,
            input=spec.input,
            version=served.version if served is not None else None,
            pinned=served is not None and served.pinned,
            queue=spec.queue,
            priority=spec.priority,
            codec=spec.codec,
            delay_s=max(0.0, start_at - row.now),
        )
