"""Why a store wrote nothing: what the engine acts on, and users never see.

A refusal is raised after everything of the write has been rolled back.
"""

from __future__ import annotations

from collections.abc import Collection

from outlive.errors import StoreError
from outlive.model.mail import NewMessage, NewPromise
from outlive.model.writes import Batch, Fence


class FenceLost(Exception):
    """The fence's row is gone or has another epoch: nothing was written."""

    def __init__(self, fence: Fence) -> None:
        super().__init__(f"worker {fence.worker} no longer has epoch {fence.epoch}")
        self.fence = fence


class WriteRefused(StoreError):
    """The database refused the data itself (constraint, encoding); nothing was written."""


class RowTaken(WriteRefused):
    """Row numbers drawn for new runs belong to other runs: nothing was written; draw others and send again."""

    def __init__(self, rows: Collection[int]) -> None:
        super().__init__(f"row numbers {sorted(rows)} belong to other runs; draw others and send the batch again")
        self.rows = frozenset(rows)


class GenerationEnded(Exception):
    """A run is in another generation than the one that was planned for: read and plan again."""


class SingletonTaken(Exception):
    """Another singleton of the workflow and key has not ended: nothing was written."""

    def __init__(self, other: str) -> None:
        super().__init__(f"run {other!r} has not ended")
        self.other = other


class EntrySettled(Exception):
    """A transaction's entry was already settled; the transaction was rolled back."""


class RolledBack(Exception):
    """The database aborted a transaction that may simply be run again (serialization, deadlock)."""


def check_unfenced(batch: Batch) -> None:
    """Refuse what only the owner of a run may write: without a fence there are starts and what comes from outside."""
    outside = all(isinstance(side, NewMessage | NewPromise) and side.entry is None for side in batch.sides)
    if not outside or len(batch) > len(batch.starts) + len(batch.sides):
        raise WriteRefused("without a fence a batch may only start runs and send messages from outside")
    if any(run.owned or run.parent is not None for run in batch.starts):
        raise WriteRefused("without a fence a batch may only start runs that nobody owns yet")
