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
from outlive.limits import POLL_BUSY_S, POLL_IDLE_S, SCHEDULE_LATE_S, SCHEDULE_RETRY_S, SCHEDULE_RUNS_MAX
from outlive.model.schedule import ScheduleRow, ScheduleSpec, ScheduleWrite, change, decide, read_spec, spread, tick_id
from outlive.model.writes import NewRun
from outlive.store.refusals import WriteRefused

log = logging.getLogger("outlive.engine")


class Scheduler:
    """Acts on the ticks that are due."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._left: set[str] = set()  # what cannot be computed here
        self._left_at = float("-inf")
        self._watched_since = float("inf")  # an instant at which nothing was due: what came later was not missed
        self._looked_at = float("-inf")
        self._awaited: dict[str, list[int]] = {}  # runs that ticks wait for, by schedule
        self.looper = Looper("scheduler", self.turn)

    async def turn(self) -> float:
        """Fire what is due; sleep until the next tick, not for long: another process may put an earlier one."""
        engine = self._engine
        if engine.clock.steady() - self._left_at >= SCHEDULE_RETRY_S:
            self._left.clear()
        asked_at = engine.clock.now()
        wait_s = await engine.store.next_tick(sorted(self._left))
        if engine.clock.steady() - self._looked_at > SCHEDULE_LATE_S:
            self._watched_since = float("inf")  # this process slept, or the database did not answer
        self._looked_at = engine.clock.steady()
        if wait_s is None or wait_s > 0:
            self._watched_since = asked_at
            return min(POLL_IDLE_S, wait_s or POLL_IDLE_S) + POLL_BUSY_S * engine.chance.random()
        rows = await engine.store.list_due_schedules(sorted(self._left), SCHEDULE_RUNS_MAX)
        writes: list[ScheduleWrite] = []
        for row in rows:
            try:
                writes.append(self._act(row))
            except Exception:
                log.exception("schedule %r cannot be computed here; other workers may do it", row.name)
                self._left.add(row.name)
                self._left_at = engine.clock.steady()
            if sum(len(write.starts) for write in writes) >= SCHEDULE_RUNS_MAX:
                break
        return await self._fire(writes) if writes else 0.0

    def _act(self, row: ScheduleRow) -> ScheduleWrite:
        """Decide what becomes of the due ticks of one schedule."""
        spec = read_spec(row)
        decision = decide(row, spec, self._watched_since)
        write = change(row, self._engine.new_row())
        write.waiting, write.skipped, write.next_at = decision.waiting, decision.skipped, decision.next_at
        write.starts = [self.make_run(row, spec, tick) for tick in decision.starts]
        rows = [*row.unfinished, *(run.row for run in write.starts)]
        write.running = rows[-SCHEDULE_RUNS_MAX:]
        if decision.starts:
            write.last_at = decision.starts[-1]
            if spec.overlap == "cancel":
                write.cancels, write.reason = rows[:-1], json.dumps(f"the next run of schedule {row.name!r} starts")
        if decision.skipped > row.skipped:
            log.info("schedule %r skips %d ticks", row.name, decision.skipped - row.skipped)
        return write

    async def _fire(self, writes: list[ScheduleWrite]) -> float:
        """Write all in one transaction, each for itself if the database refuses something of it."""
        store = self._engine.store
        try:
            written = await store.write_schedules(writes)
        except WriteRefused as error:
            if len(writes) > 1:
                return max([await self._fire([write]) for write in writes])
            log.warning("schedule %r is tried again: %s", writes[0].name, error)
            return POLL_BUSY_S
        fired = [write for write, done in zip(writes, written, strict=True) if done]
        for write in fired:
            self._awaited.pop(write.name, None)
            if write.waiting:
                self._awaited[write.name] = write.running
        cancels = [row for write in fired for row in write.cancels]
        if cancels:
            await store.wake(cancels)
        if any(write.starts for write in fired):
            self._engine.hint()
        return 0.0

    def ended(self, row: int) -> None:
        """A run has ended here: if ticks wait for it, look at once."""
        if any(row in rows for rows in self._awaited.values()):
            self.looper.wake()

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
