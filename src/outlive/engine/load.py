"""What goes into one batch, and whom it concerns: collected run by run, assembled, split where it is refused.

Data only: who sends it, and when, is the committer's business. Invariant: the
parts of a split keep the order in which a run has added its writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from outlive.engine.roles import LiveRun
from outlive.errors import StoreUnavailable
from outlive.limits import BLOB_THRESHOLD_CHARS
from outlive.model.mail import Delivery, SideRow
from outlive.model.writes import (
    Batch,
    Committed,
    Continue,
    EntryWrite,
    ExistingRun,
    Fence,
    Finish,
    Mark,
    NewRun,
    Release,
)


def is_large(text: str | None) -> bool:
    """Whether a payload would delay others."""
    return text is not None and len(text) > BLOB_THRESHOLD_CHARS


def has_large(sides: Iterable[SideRow]) -> bool:
    """Whether one of these has a payload that would delay others."""
    return any(is_large(getattr(side, "value", None)) for side in sides)


def name_run(error: StoreUnavailable, run_id: str) -> StoreUnavailable:
    """Give the error of a start, with the id that it may be repeated with."""
    what = f"run {run_id!r} may not have been started: {error}; start it again with the same id"
    return StoreUnavailable(what, outcome_unknown=error.outcome_unknown, run_id=run_id)


class StartDeferred(Exception):
    """The run was not written: it is to be started alone."""


Answer = tuple[ExistingRun | None, Mapping[tuple[str, str], Delivery]]


@dataclass(slots=True, eq=False)
class Asked:
    """What a program has asked to be written, for the run of this id: a new run, side rows from outside, or both.

    `done` gets the run that has the id already, if it is of this start, and what became of messages.
    """

    run_id: str
    run: NewRun | None
    sides: tuple[SideRow, ...]
    done: asyncio.Future[Answer]

    @property
    def large(self) -> bool:
        """Whether a payload of it would delay others."""
        return (self.run is not None and is_large(self.run.input)) or (bool(self.sides) and has_large(self.sides))

    def fail(self, error: BaseException) -> None:
        """Tell that the run was not written, or that nobody knows."""
        if self.done.done():
            return
        if isinstance(error, StoreUnavailable) and self.run is not None:
            error = name_run(error, self.run_id)
        elif isinstance(error, StoreUnavailable):
            what = f"what was sent to run {self.run_id!r} may not have arrived: {error}; send it again, with a key"
            error = StoreUnavailable(what, outcome_unknown=error.outcome_unknown, run_id=self.run_id)
        self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class RunWrites:
    """What one run has to write in the next batch."""

    execution: LiveRun
    entries: dict[str, EntryWrite] = field(default_factory=dict)
    children: tuple[NewRun, ...] = ()
    sides: tuple[SideRow, ...] = ()
    on_durable: tuple[Callable[[Committed], None], ...] = ()
    count: int = 0  # entries appended, those that replaced a pending one included
    end: Finish | Continue | Release | None = None
    mark: Mark | None = None
    requests: tuple[int, ...] = ()
    progresses: bool = False  # an outcome is among the entries, or an attempt that failed: not only that one begins
    large: bool = False  # it has a payload that would delay others


@dataclass(slots=True)
class Load:
    """One batch and whom it concerns."""

    asked: list[Asked]
    runs: list[RunWrites]
    large: bool = False
    fence: Fence | None = None  # under which it was sent
    sides: list[SideRow] = field(default_factory=list)  # that were sent

    def batch(self) -> Batch:
        """Assemble what is to be sent; entries of runs that are disowned meanwhile are not."""
        batch = Batch(starts=[asked.run for asked in self.asked if asked.run is not None], large=self.large)
        for asked in self.asked:
            batch.sides.extend(asked.sides)
        for writes in self.runs:
            execution = writes.execution
            if execution.disowned or (execution.write_failed and writes.entries):
                continue
            batch.starts.extend(writes.children)
            batch.entries.extend(writes.entries.values())
            batch.sides.extend(writes.sides)
            batch.handled_requests.extend(writes.requests)
            if isinstance(writes.end, Finish):
                batch.finishes.append(writes.end)
            elif isinstance(writes.end, Continue):
                batch.continues.append(writes.end)
            elif writes.end is not None:
                batch.releases.append(writes.end)
            elif execution.clear_crashes and writes.progresses:
                execution.clear_crashes = False
                batch.marks.append(
                    Mark(execution.row, execution.claim, execution.marked_in_user_code, clear_crashes=True)
                )
            elif writes.mark is not None:
                batch.marks.append(writes.mark)
        self.sides = batch.sides
        return batch

    def apart(self) -> tuple[Load, Load]:
        """Give what is large, and the rest."""
        large = Load([a for a in self.asked if a.large], [w for w in self.runs if w.large], large=True)
        return large, Load([a for a in self.asked if not a.large], [w for w in self.runs if not w.large])

    def fail_asked(self, error: BaseException) -> None:
        """Tell all programs that wait for this batch."""
        for asked in self.asked:
            asked.fail(error)

    def halves(self) -> Iterable[Load]:
        """Split in two, or give nothing if there is one part only."""
        if self.asked and self.runs:
            return Load(self.asked, [], self.large), Load([], self.runs, self.large)
        parts = max(len(self.asked), len(self.runs))
        if parts < 2:
            return self._halves_of_run(self.runs[0]) if self.runs else ()
        middle = parts // 2
        first = Load(self.asked[:middle], self.runs[:middle], self.large)
        return first, Load(self.asked[middle:], self.runs[middle:], self.large)

    def _halves_of_run(self, writes: RunWrites) -> Iterable[Load]:
        """Split what one run has to write: its first entries, then the others and all that waits for them."""
        entries = list(writes.entries.items())
        middle = len(entries) // 2
        if not middle or writes.children:
            return ()
        keys = {key for key, _ in entries[:middle]}
        first = RunWrites(
            writes.execution, dict(entries[:middle]), sides=tuple(side for side in writes.sides if side.entry in keys)
        )
        others = tuple(side for side in writes.sides if side.entry not in keys)
        rest = replace(writes, entries=dict(entries[middle:]), sides=others)
        return Load([], [first], self.large), Load([], [rest], self.large)
