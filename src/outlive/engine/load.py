"""What goes into one batch, and whom it concerns: collected run by run, assembled, split where it is refused.

Data only: who sends it, and when, is the committer's business. Invariant: the
parts of a split keep the order in which a run has added its writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from outlive.engine.roles import LiveRun
from outlive.errors import StoreUnavailable
from outlive.limits import BLOB_THRESHOLD_CHARS
from outlive.model.writes import Batch, Committed, EntryWrite, ExistingRun, Fence, Finish, Mark, NewRun, Release


def is_large(text: str | None) -> bool:
    """Whether a payload would delay others."""
    return text is not None and len(text) > BLOB_THRESHOLD_CHARS


@dataclass(slots=True, eq=False)
class Start:
    """A run to insert, and who is to know: `done` gets the existing run or None."""

    run: NewRun
    done: asyncio.Future[ExistingRun | None]

    @property
    def large(self) -> bool:
        """Whether its arguments would delay others."""
        return is_large(self.run.input)

    def fail(self, error: BaseException) -> None:
        """Tell that the run was not written, or that nobody knows."""
        if self.done.done():
            return
        if isinstance(error, StoreUnavailable):
            error = StoreUnavailable(
                f"run {self.run.id!r} may not have been started: {error}; start it again with the same id",
                outcome_unknown=error.outcome_unknown,
                run_id=self.run.id,
            )
        self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class RunWrites:
    """What one run has to write in the next batch."""

    execution: LiveRun
    entries: dict[str, EntryWrite] = field(default_factory=dict)
    children: tuple[NewRun, ...] = ()
    on_durable: tuple[Callable[[Committed], None], ...] = ()
    count: int = 0  # entries appended, those that replaced a pending one included
    end: Finish | Release | None = None
    mark: Mark | None = None
    requests: tuple[int, ...] = ()
    large: bool = False  # it has a payload that would delay others


@dataclass(slots=True)
class Load:
    """One batch and whom it concerns."""

    starts: list[Start]
    runs: list[RunWrites]
    large: bool = False
    fence: Fence | None = None  # under which it was sent

    def batch(self) -> Batch:
        """Assemble what is to be sent; entries of runs that are disowned meanwhile are not."""
        batch = Batch(starts=[start.run for start in self.starts], large=self.large)
        for writes in self.runs:
            execution = writes.execution
            if execution.disowned or (execution.write_failed and writes.entries):
                continue
            batch.starts.extend(writes.children)
            batch.entries.extend(writes.entries.values())
            batch.handled_requests.extend(writes.requests)
            if isinstance(writes.end, Finish):
                batch.finishes.append(writes.end)
            elif writes.end is not None:
                batch.releases.append(writes.end)
            elif execution.clear_crashes and writes.entries:
                execution.clear_crashes = False
                batch.marks.append(
                    Mark(execution.row, execution.claim, execution.marked_in_user_code, clear_crashes=True)
                )
            elif writes.mark is not None:
                batch.marks.append(writes.mark)
        return batch

    def apart(self) -> tuple[Load, Load]:
        """Give what is large, and the rest."""
        large = Load([s for s in self.starts if s.large], [w for w in self.runs if w.large], large=True)
        return large, Load([s for s in self.starts if not s.large], [w for w in self.runs if not w.large])

    def fail_starts(self, error: BaseException) -> None:
        """Tell all who wait for a start."""
        for start in self.starts:
            start.fail(error)

    def halves(self) -> Iterable[Load]:
        """Split in two, or give nothing if there is one part only."""
        if self.starts and self.runs:
            return Load(self.starts, [], self.large), Load([], self.runs, self.large)
        parts = max(len(self.starts), len(self.runs))
        if parts < 2:
            return self._halves_of_run(self.runs[0]) if self.runs else ()
        middle = parts // 2
        first = Load(self.starts[:middle], self.runs[:middle], self.large)
        return first, Load(self.starts[middle:], self.runs[middle:], self.large)

    def _halves_of_run(self, writes: RunWrites) -> Iterable[Load]:
        """Split what one run has to write: its first entries, then the others and all that waits for them."""
        entries = list(writes.entries.items())
        middle = len(entries) // 2
        if not middle or writes.children:
            return ()
        first = RunWrites(writes.execution, dict(entries[:middle]))
        return Load([], [first], self.large), Load([], [replace(writes, entries=dict(entries[middle:]))], self.large)
