"""What one run writes: its entries, numbered in the order of delivery, and how many of them are on disk.

The counterpart of the journal, which is what the run reads. It makes entries and
hands them to the committer; it must not know what is delivered to whom.
Invariant: an outcome's number is given once, right before it is delivered.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from outlive.engine.calls import Call, RunCall, child_reference
from outlive.engine.roles import LiveRun
from outlive.model.mail import SideRow
from outlive.model.writes import Committed, EntryWrite, Outcome


class Recorder:
    """Writes the journal of one run. `noted_version` stands in each entry if another version started the run."""

    def __init__(self, run: LiveRun, last_seq: int, noted_version: str | None) -> None:
        self._run = run
        self._engine = run.engine
        self._noted_version = noted_version
        self._seq = last_seq
        self.outcomes = 0  # of this incarnation
        self.appended = 0  # entries handed to the committer, started ones included
        self.durable = 0  # how many of them are on disk

    def now(self) -> float:
        """Give the time of a delivery that is due now."""
        so_far: float = self._run.loop.time()
        return max(microseconds(self._engine.clock.now()), so_far)

    def entry_of(self, call: Call, outcome: Outcome, value: str | None, error: str | None = None) -> EntryWrite:
        """Make the entry of a call, without its place in the order."""
        return EntryWrite(
            self._run.row, call.key, None, call.kind, call.name, call.digest, outcome, value, error, call.attempts,
            call.began_at, self.now(), self._noted_version, self._run.generation,
        )  # fmt: skip

    def number(self, entry: EntryWrite) -> None:
        """Give an outcome its place in the order."""
        self._seq += 1
        entry.seq = self._seq

    def append(
        self,
        entry: EntryWrite,
        sides: tuple[SideRow, ...] = (),
        on_durable: Callable[[Committed], object] | None = None,
    ) -> None:
        """Write an outcome, the next in the order, with its side rows."""
        self.number(entry)
        self.outcomes += 1
        self.appended += 1
        self._engine.committer.add_entry(self._run, entry, on_durable, sides)

    def append_at_once(
        self,
        key: str,
        kind: str,
        name: str,
        value: str | None,
        began_at: float,
        at: float,
        *,
        digest: str | None = None,
        sides: tuple[SideRow, ...] = (),
        error: str | None = None,
    ) -> None:
        """Write the outcome of what has it without any work."""
        outcome: Outcome = "ok" if error is None else "error"
        row, noted, generation = self._run.row, self._noted_version, self._run.generation
        entry = EntryWrite(
            row, key, None, kind, name, digest, outcome, value, error, 1, began_at, at, noted, generation
        )
        self.append(entry, sides)

    def attempt(self, call: Call, error: str) -> None:
        """Write that an attempt failed and another will follow; nobody waits for it."""
        if not self._run.closed:
            self._append_started(self.entry_of(call, "started", None, error))

    def start(self, call: Call) -> asyncio.Future[None]:
        """Write that an attempt begins, for a step that may not be repeated blindly; give when that is on disk."""
        durable: asyncio.Future[None] = self._engine.main.create_future()
        entry = self.entry_of(call, "started", None)
        self._append_started(entry, lambda _: None if durable.done() else durable.set_result(None))
        return durable

    def note(self, call: Call) -> None:
        """Write that a call waits; nobody waits for that."""
        self._append_started(self.entry_of(call, "started", None))

    def start_with(
        self, call: Call, value: str, sides: tuple[SideRow, ...], on_durable: Callable[[Committed], Any]
    ) -> None:
        """Write that a call's work begins, with its side rows; where that was written before, it is sent again."""

        def tell(committed: Committed) -> None:
            if not self._run.closed:
                on_durable(committed)

        self._append_started(self.entry_of(call, "started", value), tell, sides)

    def start_child(self, call: RunCall) -> None:
        """Write the child's run together with the entry that says it was started.

        If that entry is there already, only the run is sent: a database that has the entry
        inserts nothing, but says so if the id was another run's, which no other entry may say yet.
        """
        run, child = self._run, call.run
        run.has_children = True
        recorded = run.journal.started.get(call.key)

        def on_durable(committed: Committed) -> None:
            if not run.closed:
                call.on_started(committed.existing.get(child.row), again=recorded is not None)

        if recorded is not None:
            reference = json.loads(recorded.value or "{}")
            child.row, child.id, child.started_at = reference["row"], reference["run"], None
        else:
            child.started_at = self._engine.clock.now() if self._engine.may_own(child) else None
            self._append_started(self.entry_of(call, "started", child_reference(child)))
        self._engine.committer.add_child(run, child, on_durable)

    def _append_started(
        self,
        entry: EntryWrite,
        on_durable: Callable[[Any], Any] | None = None,
        sides: tuple[SideRow, ...] = (),
    ) -> None:
        entry.finished_at = None
        self.appended += 1
        self._engine.committer.add_entry(self._run, entry, on_durable, sides)


def microseconds(at: float) -> float:
    """Round up to what both databases keep: what the run sees as its time has to be what its replay will see."""
    return math.ceil(at * 1e6) / 1e6
