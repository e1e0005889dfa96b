"""Why a run is to stop, and when it hears of it: requests to cancel, its deadline, and what holds both back.

It knows no calls and delivers nothing itself: its execution asks what is due
when nothing else can be delivered. Invariant: within a shielded block nothing
is due, on first execution and on replay, because it is recorded after the block.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import dataclass

from outlive.clock import to_datetime
from outlive.errors import DeadlineExceeded
from outlive.model.reads import EntryRow

DEADLINE = "deadline"  # the name of the entry of a cancellation that no person asked for


@dataclass(slots=True, frozen=True)
class Stop:
    """One cancellation to deliver; without a request it is the deadline."""

    request: int | None
    reason: str | None

    @property
    def name(self) -> str:
        """Give the name of its entry."""
        return DEADLINE if self.request is None else "cancel"


class Cancellation:
    """What one run has been asked to stop for. The last one that was delivered says what the run ends as."""

    def __init__(self, run_id: str, deadline_at: float | None, entries: Sequence[EntryRow]) -> None:
        self._run_id = run_id
        self._deadline_at = self.deadline_at = deadline_at  # the second one until it is delivered
        if entries and any(entry.kind == "cancel" and entry.name == DEADLINE for entry in entries):
            self.deadline_at = None  # it is in the journal
        self.requests: dict[int, str | None] = {}  # reasons, by request, of those that were not delivered yet
        self.shields = 0  # open blocks that hold all of it back
        self.reason: str | None = None  # of the last one that was delivered
        self.deadline_passed = False  # whether that was the deadline
        self.was_felt = True  # False where the body ended before it came to the next await

    @property
    def pending(self) -> bool:
        """Whether something is or will be due, so that it is worth asking."""
        return bool(self.requests) or self.deadline_at is not None

    def next_due(self, now: float) -> Stop | None:
        """Give what is to be delivered now, if nothing holds it back."""
        if self.shields:
            return None
        for request, reason in self.requests.items():
            return Stop(request, reason)
        if self.deadline_at is not None and self.deadline_at <= now:
            return Stop(None, str(self.exceeded(self.deadline_at)))
        return None

    def due_at(self) -> float | None:
        """Give when a run that only waits has to be looked at again; a shielded one is, when its block ends."""
        return None if self.shields else self.deadline_at

    def delivered(self, stop: Stop) -> None:
        """Take note that it was delivered."""
        if stop.request is None:
            self.deadline_at = None
        else:
            del self.requests[stop.request]
        self.replayed(stop.name, stop.reason)

    def replayed(self, name: str, reason: str | None) -> None:
        """Take note of one that was recorded."""
        self.reason = reason
        self.deadline_passed = name == DEADLINE

    def as_error(self, text: str) -> BaseException:
        """Give the error of a run that ends by a cancellation: by the last one that was delivered."""
        if self.deadline_passed and self._deadline_at is not None:
            return self.exceeded(self._deadline_at)
        return CancelledError(self.reason or text)

    def exceeded(self, deadline_at: float) -> DeadlineExceeded:
        """Make the error of a run whose deadline has passed."""
        return DeadlineExceeded(self._run_id, to_datetime(deadline_at))
