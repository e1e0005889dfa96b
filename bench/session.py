"""One session of measurements: the systems take turns, cell by cell, round by round.

So whatever the machine does in these minutes meets both alike. A cell that
fails is reported and left out; the others go on.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.catalogue import Cell, Sizes
from bench.children import Interpreters, MeasurementFailed
from bench.disk import fdatasync_ms
from bench.machine import cores_in_use
from bench.places import Places
from bench.runner import Task

Key = tuple[str, str]  # cell, system


@dataclass
class Results:
    """What a session found, by cell and system, one item for each round."""

    sizes: Sizes
    figures: defaultdict[Key, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    fdatasync_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cores_of_others: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def values(self, cell: str, system: str, figure: str) -> list[float]:
        """Give one figure of all rounds."""
        return [figures[figure] for figures in self.figures[cell, system] if figure in figures]


class Session:
    """Measures cells on fresh databases."""

    def __init__(
        self, sizes: Sizes, systems: Sequence[str], interpreters: Interpreters, tell: Callable[[str], None]
    ) -> None:
        self._systems = systems
        self._interpreters = interpreters
        self._tell = tell
        self.results = Results(sizes)

    def measure(self, cells: Sequence[Cell]) -> Results:
        """Measure all cells in all rounds."""
        began, sizes = time.monotonic(), self.results.sizes
        with Places() as places:
            self.results.versions.update(places.versions())
            for number in range(1, sizes.rounds + 1):
                for cell in cells:
                    if cell.slow and number > sizes.slow_rounds:
                        continue
                    for system in cell.systems:
                        if system in self._systems:
                            self._measure(places, cell, system, number)
        self.results.took_s = time.monotonic() - began
        return self.results

    def _measure(self, places: Places, cell: Cell, system: str, number: int) -> None:
        results = self.results
        url = places.fresh(cell.store)
        results.cores_of_others.append(cores_in_use())
        results.fdatasync_ms[cell.name].append(fdatasync_ms(places.folder))
        task = Task(cell, system, results.sizes, url, self._interpreters)
        try:
            figures = task.measure()
        except MeasurementFailed as failed:
            results.failures.append(f"round {number}, {cell.name}: {failed}")
            self._tell(f"round {number}  {cell.name:18} {system:8} FAILED: {failed}")
        else:
            results.figures[cell.name, system].append(figures)
            results.versions.update(task.versions)
            shown = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
            self._tell(f"round {number}  {cell.name:18} {system:8} {shown}")
        places.drop(url)
