"""The timers of one run, by when they are due.

What came in time comes before a timer, though nobody here has heard of it yet: a
run that waits for messages or promises asks the store for them once more when a
timer is due. Invariant: of two timers that are due at one moment the one that was
made first comes first, on first execution and on replay.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from functools import partial

from outlive.engine.roles import LiveRun
from outlive.engine.runloop import RunTimer


class Timers:
    """Timers in a heap; those that nobody waits for any more stay in it until they come up."""

    def __init__(self, run: LiveRun) -> None:
        self.heap: list[tuple[float, int, RunTimer]] = []
        self.waits = 0  # calls that wait for what others write
        self.waits_begun = 0
        self.held = False  # whether the first one is due and may not fire yet
        self._run = run
        self._made = 0
        self._look: object = None  # the question under way
        self._looked_at = float("-inf")  # when the store was asked what all of the waits wait for

    def add(self, timer: RunTimer) -> None:
        """Add one that was made now."""
        self._made += 1
        heapq.heappush(self.heap, (timer.when(), self._made, timer))

    def first(self, waiting: Mapping[str, object]) -> RunTimer | None:
        """Give the first of those that stand in `waiting` under their keys."""
        while self.heap:
            timer = self.heap[0][2]
            if waiting.get(timer.key) is timer:
                return timer
            heapq.heappop(self.heap)
        return None

    def ripe(self, waiting: Mapping[str, object]) -> RunTimer | None:
        """Give the first of those that stand in `waiting` if it may fire now."""
        self.held = False
        timer = self.first(waiting) if self.heap else None
        now = self._run.engine.clock.now() if timer is not None else 0.0
        if timer is None or timer.when() > now:
            return None
        if not self.waits or timer.when() <= self._looked_at:
            return timer
        self.held = True
        if self._look is None and self.waits_begun == self.waits:
            self._look = look = object()
            self._run.looking += 1
            self._run.engine.watcher.look(partial(self._on_looked, look, now))
        return None

    def began_wait(self) -> None:
        """Take note of a wait that no earlier question was about."""
        self.waits_begun += 1
        self._look, self._looked_at, self.held = None, float("-inf"), False

    def _on_looked(self, look: object, at: float) -> None:
        if self._look is look:
            self._look, self._looked_at = None, at
        self._run.looking -= 1
        self._run.wake()
