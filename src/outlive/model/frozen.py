"""Frozen journals: recorded runs as lines of text, which later code is tried on.

One run a line, JSON: what replay needs of the run, and its entries with their
payloads as stored. Pure. Invariant: a line that one version wrote is read by
every later one; fields are only added, with a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from outlive.errors import UsageError
from outlive.model.reads import Claimed, EntryRow
from outlive.model.status import FINAL


@dataclass(slots=True, kw_only=True)
class FrozenJournal:
    """One run as it was recorded, up to where it stood; payloads are as stored."""

    id: str
    row: int
    workflow: str
    version: str | None
    pinned: bool = False
    status: str
    codec: str
    input: str
    output: str | None = None
    error: str | None = None
    started_at: float  # when its time began; seconds since 1970
    salt: int | None = None  # of the run whose journal it has inherited
    generation: int = 0
    continued: int = 0  # how many times it had been continued as new
    deadline_at: float | None = None
    entries: list[EntryRow] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether the run had ended by what its code did: the engine cancels one that cannot go on without a word."""
        if self.status == "cancelled":
            return any(entry.kind == "cancel" for entry in self.entries)
        return self.status in FINAL

    @classmethod
    def from_line(cls, line: str | bytes) -> FrozenJournal:
        """Read the journal of one line. Raises ValueError if it is none."""
        return _DECODER.decode(line)

    def to_line(self) -> str:
        """Give the journal as one line of JSON."""
        return msgspec.json.encode(self).decode()

    def as_claimed(self) -> Claimed:
        """Give the run as a worker gets it that is to go on with it."""
        return Claimed(
            self.row, self.id, self.workflow, self.version, self.input, self.codec, claim=1, crashes=0, fresh=False,
            alone=False, started_at=self.started_at, deadline_at=self.deadline_at, parent=None, parent_key=None,
            generation=self.generation, salt=self.salt, continued=self.continued,
        )  # fmt: skip


_DECODER = msgspec.json.Decoder(FrozenJournal)


def read_lines(lines: Iterable[str | bytes]) -> Iterator[FrozenJournal]:
    """Read frozen journals; empty lines are passed over. Raises UsageError naming the line that is none."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield FrozenJournal.from_line(line)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise UsageError(
                f"line {number} is no frozen journal: {error}; `outlive runs export` writes them"
            ) from None
