"""The journal of one run as its replay reads it: what comes next, and whether the code still fits.

Pure: takes recorded entries, answers questions, raises nothing. It never knows
how an outcome is delivered or stored.

Invariant: an entry is read at most once, in the order of `seq` while journal
and code have the same version. Across versions the order among entries that
the code waits for at the same time still holds; what the code no longer asks
for stays unread. Answers of `patched` stand apart: they may be missing, left
unread or late, which is no divergence in any version.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from outlive.model.reads import EntryRow


@dataclass(slots=True, frozen=True)
class Divergence:
    """How code and journal differ: both in words, and the key where it showed."""

    expected: str
    got: str
    where: str


class Journal:
    """Recorded entries, waiting to be read."""

    def __init__(self, entries: Sequence[EntryRow], *, same_version: bool) -> None:
        self.same_version = same_version
        self.last_seq = 0
        self.generation = 0  # in which the entry was recorded that was read last
        self.unread: dict[str, EntryRow] = {}  # recorded outcomes not delivered yet, by key, in order of seq
        self.started: dict[str, EntryRow] = {}  # those of calls that had begun but have no outcome
        self._before: dict[str, str] = {}  # the entry before each cancellation
        self._after_gap: set[str] = set()  # entries before which something is missing
        self.patches: dict[str, EntryRow] = {}
        self.read_up_to = 0  # the highest seq of an entry that was read
        self._read_of: dict[str | None, tuple[int, float]] = {}  # by maker: the last that was read, and its time
        last, generation, hole = "", None, -1
        for entry in entries:
            if entry.seq is None:
                self.started[entry.key] = entry
                continue
            if entry.seq > self.last_seq + 1:
                self._after_gap.add(entry.key)
                if generation in (None, entry.generation):
                    hole = (
                        entry.generation
                    )  # a retry has kept what lies behind it, of branches that may go on otherwise
            elif entry.generation <= hole:
                self._after_gap.add(entry.key)
            self.last_seq, generation = entry.seq, entry.generation
            if entry.kind == "patch":
                self.patches[entry.key] = entry
                continue
            if entry.kind == "cancel":
                self._before[entry.key] = last
            last = entry.key
            self.unread[entry.key] = entry
        self.unasked = dict(self.started)  # those whose call the code has not made

    def next_of(self, waiting: Container[str]) -> EntryRow | None:
        """Read the recorded outcome that is due, given the keys the code waits for.

        A cancellation is due when what was delivered just before it has been read.
        """
        for key, entry in self.unread.items():
            if key in waiting or (entry.kind == "cancel" and self._before[key] not in self.unread):
                return self.take(key)
            if self.same_version:
                return None
        return None

    def take(self, key: str) -> EntryRow | None:
        """Read an entry; that of a call which answers at once may be out of turn."""
        entry = self.unread.pop(key, None)
        if entry is not None and entry.seq is not None:
            self.generation = entry.generation
            self.read_up_to = max(self.read_up_to, entry.seq)
            seq, at = self._read_of.get(entry.noted_version, (0, 0.0))
            self._read_of[entry.noted_version] = max(seq, entry.seq), max(at, entry.finished_at or 0.0)
        return entry

    def goes_on(self) -> bool:
        """Whether code has run past where the body stands now: something is recorded that came after this turn.

        What came before is of no account, though it is unread: edited code no longer asks for it, and other entries of
        its maker that came later have been read.
        """
        none = 0, 0.0
        read = self._read_of
        return any((e.seq or 0) > read.get(e.noted_version, none)[0] for e in self.unread.values()) or any(
            e.started_at >= read.get(e.noted_version, none)[1] for e in self.unasked.values()
        )

    def misplaced(self, key: str, kind: str) -> Divergence | None:
        """Judge a call that answers at once: its entry is the very next one, or was lost here, or there is none."""
        if not self.unread or not self.same_version:
            return None
        entry = next(iter(self.unread.values()))
        if entry.key == key or entry.key in self._after_gap:
            return None
        return Divergence(describe(entry), f"{kind} ({key})", entry.key)

    def ask(self, key: str) -> EntryRow | None:
        """Give the entry of a call that had begun but has no outcome, and note that the code makes this call."""
        self.unasked.pop(key, None)
        return self.started.get(key)

    def stuck(self, waiting: Sequence[str]) -> Divergence | None:
        """Judge a run whose branches are all blocked while no recorded outcome can be delivered.

        Across versions that is an edit, unless a cancellation is among what is
        unread: nobody can say whether the code is still before it or has passed it.
        """
        if not self.unread or not (self.same_version or self._before.keys() & self.unread.keys()):
            return None
        entry = next(iter(self.unread.values()))
        fresh = [key for key in waiting if key not in self.unread] or list(waiting)
        return Divergence(describe(entry), ", ".join(sorted(fresh)) or "nothing", entry.key)

    def left(self) -> Divergence | None:
        """Judge a run that has returned."""
        if not self.same_version or not (self.unread or self.unasked):
            return None
        entry = next(iter((self.unread or self.unasked).values()))
        return Divergence(describe(entry), "the end of the workflow", entry.key)


def version_behind(entries: Sequence[EntryRow], stored: str | None, code_version: str) -> str:
    """Give the code version that made these entries; `stored` is that of whoever started the run, if he knew one.

    What several versions have made is replayed strictly by the stored one alone.
    """
    made_by = {entry.noted_version or stored or code_version for entry in entries}
    if len(made_by) == 1:
        return made_by.pop()
    return stored or min(made_by - {code_version}, default=code_version)


def describe(entry: EntryRow) -> str:
    """Name an entry in words."""
    return f"{entry.kind} {entry.name!r} ({entry.key})"


def compare(entry: EntryRow, kind: str, name: str, digest: str | None) -> Divergence | None:
    """Compare a recorded entry with the call at its key; a missing digest on either side fits all."""
    if entry.kind != kind or entry.name != name:
        return Divergence(describe(entry), f"{kind} {name!r}", entry.key)
    if digest is not None and entry.digest is not None and digest != entry.digest:
        return Divergence(
            f"{describe(entry)} with arguments of digest {entry.digest}",
            f"the same call with other arguments (digest {digest})",
            entry.key,
        )
    return None
