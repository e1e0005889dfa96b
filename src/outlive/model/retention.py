"""Which finished runs may be pruned together: no run is left behind that names a parent which is gone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Prunable:
    """A finished run that is old enough. `children`: how many runs it has started that are still there.

    `awaited`: its parent is unfinished and has neither recorded its end nor let it go.
    """

    row: int
    parent: int | None
    children: int
    awaited: bool


def choose_prunable(found: Iterable[Prunable]) -> list[int]:
    """Give the rows of those that may go at once: nobody awaits them, and all of their children go with them."""
    chosen = {run.row: run for run in found if not run.awaited}
    going = Counter(run.parent for run in chosen.values())
    waiting = [row for row, run in chosen.items() if going[row] < run.children]
    while waiting:
        kept = chosen.pop(waiting.pop(), None)
        if kept is not None and kept.parent in chosen:
            going[kept.parent] -= 1
            waiting.append(kept.parent)
    return sorted(chosen)
