"""What went on beside a failure: branches of a run that neither the failure nor what came of it has moved.

Pure. Between two deliveries the clock of a run stands still, and what a delivery moves asks for its next calls in that
turn: so the time at which a call began names the delivery that it came of. A branch is known by the scope of its keys;
the branch that opened it may wait for it.
Invariant: whatever `goes_on` holds for is asked for again by a replay in which the failure has not been delivered yet,
unless the branches share more than what they await: then the replay stops, and nothing is executed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from outlive.model.reads import EntryRow


class Beside:
    """The branches beside the one that failed at a point; entries are noted in the order of delivery."""

    def __init__(self, point: EntryRow, entries: Sequence[EntryRow]) -> None:
        self._ended = point.finished_at or 0.0
        self._within = set(_scopes(point.key))  # the branch that failed, and those that may wait for it
        self._opened: dict[str, float] = {}  # by scope: when the branch asked for its first call
        self._went_on: dict[str, float] = {}  # when it last asked for one, or opened another branch
        for entry in sorted(entries, key=lambda entry: entry.started_at):
            scopes = list(_scopes(entry.key))
            opening = [above for above, scope in pairwise(scopes) if scope not in self._opened]
            for scope in scopes:
                self._opened.setdefault(scope, entry.started_at)
            self._went_on.update(dict.fromkeys((*opening, scopes[-1]), entry.started_at))
        self._kept: set[float] = set()  # times of deliveries after the point that are repeated as they were
        self._moved = {self._ended}  # and of those that are not
        self._ends: dict[str, float] = {}  # by scope: from when on a branch may not go on as it did

    def goes_on(self, entry: EntryRow) -> bool:
        """Say whether this call is asked for in any case, without what is not kept."""
        scopes = list(_scopes(entry.key))
        if not any(scope not in self._within and self._opened[scope] < self._ended for scope in scopes):
            return False
        if entry.started_at < self._ended:
            return True
        if entry.started_at not in self._kept or entry.started_at in self._moved:
            return False
        asked_at = [*(self._opened[below] for _, below in pairwise(scopes)), entry.started_at]
        return all(at < self._ends.get(scope, at + 1.0) for scope, at in zip(scopes, asked_at, strict=True))

    def was_handled(self, entry: EntryRow) -> bool:
        """Say whether the branch of a call, or one that may wait for that, went on after its outcome."""
        return any(self._went_on[scope] >= (entry.finished_at or 0.0) for scope in self._others(entry))

    def note(self, entry: EntryRow, *, is_kept: bool) -> None:
        """Take note whether the outcome of a call is delivered again as it was."""
        if entry.finished_at is None:
            return
        (self._kept if is_kept else self._moved).add(entry.finished_at)
        if not is_kept:
            for scope in self._others(entry):
                self._ends.setdefault(scope, entry.finished_at)

    def _others(self, entry: EntryRow) -> Iterator[str]:
        return (scope for scope in _scopes(entry.key) if scope not in self._within)


def scope_of(key: str) -> str:
    """Give the scope in which a key is, with its slash."""
    return key[: key.rfind("/") + 1]


def _scopes(key: str) -> Iterator[str]:
    """Give the scope of a key and those above it, the outermost first: "", "1/", "1/2/"."""
    yield ""
    at = key.find("/")
    while at >= 0:
        yield key[: at + 1]
        at = key.find("/", at + 1)
