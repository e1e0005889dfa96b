"""The timers of one run, by when they are due.

It knows neither the clock nor who waits. Invariant: of two timers that are due at
one moment the one that was made first comes first, on first execution and on replay.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from outlive.engine.runloop import RunTimer


class Timers:
    """Timers in a heap; those that nobody waits for any more stay in it until they come up."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, RunTimer]] = []
        self._made = 0

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
