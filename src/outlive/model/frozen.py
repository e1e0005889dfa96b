"""Frozen journals: recorded runs as lines of text, which later code is tried on.

One run a line, JSON: what replay needs of the run, and its entries with their
payloads as stored. Lines of an archive of pruned runs are read too. Pure.
Invariant: a line that one version wrote is read by every later one; fields are
only added, with a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outlive.codec.jsontext import JsonCodec
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
        """Read the journal of one line, also of an archive of pruned runs. Raises UsageError if it is none."""
        try:
            facts = _FACTS.decode(line)
            return _DECODER.decode(_thaw(facts) if "created_at" in facts else line)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise UsageError(
                f"no journal of a run: {error}; a line that `outlive runs export` has written is one, or one of an "
                "archive of pruned runs"
            ) from None

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


_Facts = dict[str, msgspec.Raw]
_DECODER = msgspec.json.Decoder(FrozenJournal)
_FACTS = msgspec.json.Decoder(_Facts)
_ENTRIES = msgspec.json.Decoder(list[_Facts])
_NONE, _PLAIN = msgspec.Raw(b"null"), msgspec.Raw(msgspec.json.encode(JsonCodec.id))


def _thaw(facts: _Facts) -> bytes:
    """Give the line of a run in an archive as `to_line` writes it: there payloads are no text where they are JSON."""
    plain = facts.get("codec") == _PLAIN
    if facts.get("began_at", _NONE) == _NONE:
        facts["began_at"] = facts["created_at"]
    entries = [_as_text(entry, plain=plain) for entry in _ENTRIES.decode(facts.get("entries", b"[]"))]
    return msgspec.json.encode({**_as_text(facts, plain=plain), "started_at": facts["began_at"], "entries": entries})


def _as_text(facts: _Facts, *, plain: bool) -> dict[str, Any]:
    names = {"error"} | ({"input", "output", "value"} if plain else set())
    return {name: bytes(fact).decode() if name in names and fact != _NONE else fact for name, fact in facts.items()}


def read_lines(lines: Iterable[str | bytes], file: str) -> Iterator[FrozenJournal]:
    """Read the journals of a file; empty lines are passed over. Raises UsageError naming the line that is none."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield FrozenJournal.from_line(line)
        except UsageError as error:
            raise UsageError(f"{file}, line {number}: {error}") from None
