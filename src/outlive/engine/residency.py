"""Which waiting runs stay in memory. Suspension is memory policy, never semantics.

Idle runs stay, up to a number; the least recently used leave, waits over an
hour leave at once, and a sync run leaves when its thread is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from outlive.clock import DatabaseClock
from outlive.engine.roles import LiveRun
from outlive.engine.threads import WorkflowThreads
from outlive.limits import RESIDENT_IDLE_RUNS, RESIDENT_WAIT_S


class Residency:
    """Keeps the idle runs of this process, least recently used first."""

    threads: WorkflowThreads  # set by the engine: each of the two needs the other

    def __init__(self, clock: DatabaseClock, suspend: Callable[[Any], None]) -> None:
        self._clock = clock
        self._suspend = suspend
        self._idle: dict[LiveRun, None] = {}
        self.limit = RESIDENT_IDLE_RUNS

    def __len__(self) -> int:
        return len(self._idle)

    def rested(self, execution: LiveRun, due_at: float | None) -> None:
        """Take note that a run only waits now, at the longest until `due_at`."""
        if due_at is not None and due_at - self._clock.now() > RESIDENT_WAIT_S:
            self._suspend(execution)
            return
        if not execution.spec.is_async and self.threads.crowded:
            self._suspend(execution)
            return
        self._idle[execution] = None
        if len(self._idle) > self.limit:
            self._suspend(next(iter(self._idle)))

    def stirred(self, execution: LiveRun) -> None:
        """Take note that a run has something to do again, or has left."""
        self._idle.pop(execution, None)

    def free_thread(self) -> None:
        """Let the least recently used sync run leave, if one is idle."""
        for execution in self._idle:
            if not execution.spec.is_async:
                self._suspend(execution)
                return
