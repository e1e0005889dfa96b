"""Statuses of a run; docs/explain/state-machine.md draws how they follow each other."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a run stands. The last three are final."""

    SCHEDULED = "scheduled"  # its start is delayed
    QUEUED = "queued"  # may start, nobody has claimed it
    RUNNING = "running"  # a worker owns it
    SUSPENDED = "suspended"  # waits for something and holds no memory
    PAUSED = "paused"  # held by an operator, or by the engine on divergence
    QUARANTINED = "quarantined"  # killed its workers too often
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self in FINAL

    @property
    def held(self) -> bool:
        """Whether the run waits for a person."""
        return self in HELD


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
HELD = frozenset({Status.PAUSED, Status.QUARANTINED})
