"""Where a journal is cut: what a retry, a rewind or a fork keeps of it, and what becomes of the children started there.

Pure: takes entries as recorded, gives keys. Invariant: what is kept is a journal
that a crash could have left, a prefix in the order of delivery with the calls
that had begun by then, so replay goes on from it by its usual rules. A retry
also keeps what those calls have come to, and what went on beside the failure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlive.model.beside import Beside, scope_of
from outlive.model.children import closing_reason, is_child_id
from outlive.model.reads import EntryRow, RunRow
from outlive.model.status import Status

ROLLBACK_SCOPE = "rollback/"
PATCHABLE = frozenset({"step", "transaction", "child", "receive", "now", "random", "uuid"})  # kinds that have a value

_CANCELLED = "asyncio.exceptions.CancelledError"


@dataclass(slots=True)
class Cut:
    """What a journal loses: `dropped` entries are executed again; those at `awaited` have begun, and no outcome.

    These are children, each with the reference to its run, and steps of which nobody knows whether they took effect.

    `retried`: children that have to be retried too. `cancelled`: runs that entries dropped had started.
    `doubtful`: of the dropped, steps of which nobody knows whether they took effect. `unended`: children that were
    asked to cancel and go on.
    """

    dropped: list[str] = field(default_factory=list)
    awaited: dict[str, str | None] = field(default_factory=dict)
    retried: list[RunRow] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    unended: list[RunRow] = field(default_factory=list)

    def open_again(self, child: RunRow, parent: RunRow) -> None:
        """Let a child that was only started go on, if it is cancelled because its parent had ended."""
        if child.parent_close != "cancel":
            return
        why = json.loads(child.error or "{}").get("text")
        if not Status(child.status).final:
            self.unended.append(child)
        elif child.status == Status.CANCELLED and why == closing_reason(parent.id):
            self.retried.append(child)


def plan_retry(run: RunRow, error: Mapping[str, Any], entries: Sequence[EntryRow], children: Iterable[RunRow]) -> Cut:
    """Cut before what a failed or cancelled run has ended by; `error` holds the facts of its error.

    If its body raised without a recorded error, nothing is cut: other code may go on.
    """
    point = failing_point(run.status, error, entries)
    return Cut() if point is None else _cut(run, point, entries, children, retrying=True)


def plan_rewind(run: RunRow, key: str, entries: Sequence[EntryRow], children: Iterable[RunRow]) -> Cut | None:
    """Cut before the entry at a key, or before what cancelled it; None if there is none."""
    point = _find(key, entries)
    return None if point is None else _cut(run, point, entries, children, retrying=False)


def plan_fork(key: str, entries: Sequence[EntryRow]) -> list[EntryRow] | None:
    """Give the recorded outcomes before the one at a key, or before what cancelled it; None if there is none."""
    point = _find(key, entries)
    if point is None:
        return None
    return [entry for entry in entries if entry.seq is not None and (point.seq is None or entry.seq < point.seq)]


def _find(key: str, entries: Sequence[EntryRow]) -> EntryRow | None:
    """Give the entry at a key; for a call that was cancelled the timer or request by which it was, lest it is again."""
    point = next((entry for entry in entries if entry.key == key), None)
    if point is None or point.seq is None or point.kind == "child" or not _was_cancelled(point):
        return point
    before = {entry.seq: entry for entry in entries if entry.seq is not None and entry.seq < point.seq}
    for seq in sorted(before, reverse=True):
        entry = before[seq]
        if entry.kind in ("timer", "cancel"):
            return entry
        if not _was_cancelled(entry):
            break
    return point


def _was_cancelled(entry: EntryRow) -> bool:
    if entry.error is None:
        return False
    facts = json.loads(entry.error)
    return facts["type"] == _CANCELLED and "traceback" not in facts  # else a step has raised it by itself


def failing_point(status: str, error: Mapping[str, Any], entries: Sequence[EntryRow]) -> EntryRow | None:
    """Give the entry that a run has ended by: its last cancellation, or the first of the errors that it ended with."""
    cancelled = next((entry for entry in reversed(entries) if entry.kind == "cancel"), None)
    if status == Status.CANCELLED:
        return cancelled
    found = min(_ended_by(error, entries), key=lambda entry: entry.seq or 0, default=None)
    if cancelled is None or cancelled.seq is None:
        return found
    if found is None:
        return cancelled if str(error.get("type")).endswith(".DeadlineExceeded") else None
    if found.seq is not None and found.started_at <= (cancelled.finished_at or 0.0) and cancelled.seq < found.seq:
        return cancelled  # by which it was cut off
    return found


def _ended_by(error: Mapping[str, Any], entries: Sequence[EntryRow]) -> Iterable[EntryRow]:
    """Give the entries whose errors a run has ended with: as its record says, or by their words if it is too old."""
    failures = {entry.key: entry for entry in entries if entry.outcome == "error" and entry.error is not None}
    if "entry" in error:
        return _matches(error, lambda facts: failures.get(facts.get("entry") or ""))
    by_words = {}
    for entry in failures.values():
        facts = json.loads(entry.error or "{}")
        if facts["type"] != _CANCELLED:
            by_words[facts["type"], facts["text"]] = entry
    return _matches(error, lambda facts: by_words.get((facts.get("type"), facts.get("text"))))


def _matches(error: Mapping[str, Any], entry_of: Callable[[Mapping[str, Any]], EntryRow | None]) -> Iterator[EntryRow]:
    """Give the entries of an error: its own, else those of its members, else that of its cause."""
    members = [found for member in error.get("members") or () for found in _matches(member, entry_of)]
    entry = None if members else entry_of(error)
    if entry is not None:
        yield entry
    elif members:
        yield from members
    elif error.get("cause"):
        yield from _matches(error["cause"], entry_of)


def is_undecided(held: Mapping[str, Any], key: str, entries: Iterable[EntryRow]) -> bool:
    """Whether these facts say that a run is held until a person decides the outcome at a key, or decides it better."""
    kind = str(held.get("type")).rpartition(".")[2]
    if kind == "OutcomeUnknown":
        return (held.get("attrs") or {}).get("key") == key
    return kind == "DecodeFailed" and any(
        entry.key == key
        and entry.outcome == "started"
        and entry.error is None
        and entry.kind in ("step", "transaction")
        for entry in entries
    )


def has_rolled_back(entries: Iterable[EntryRow]) -> bool:
    """Whether a compensation has taken effect, or may have."""
    return any(entry.key.startswith(ROLLBACK_SCOPE) and (entry.outcome == "ok" or in_doubt(entry)) for entry in entries)


def in_doubt(entry: EntryRow) -> bool:
    """Whether this is a step that has failed, and may have taken effect all the same."""
    return entry.outcome == "error" and bool(json.loads(entry.error or "{}").get("in_doubt"))


def _cut(
    run: RunRow, point: EntryRow, entries: Sequence[EntryRow], children: Iterable[RunRow], *, retrying: bool
) -> Cut:
    latest = {child.parent_key: child for child in sorted(children, key=lambda child: child.row)}
    keeping = _Keeping(point, entries) if retrying else None
    cut = Cut()
    for entry in entries:
        child = latest.get(entry.key)
        if not _is_later(entry, point) or (keeping is not None and keeping.keeps(entry)):
            if keeping is not None and entry.kind == "start" and child is not None:
                cut.open_again(child, run)
            continue
        awaited = _began_before(entry, point) or (keeping is not None and (entry is point or keeping.goes_on(entry)))
        if in_doubt(entry) and awaited:
            cut.awaited[entry.key] = None
            continue
        if retrying and in_doubt(entry):
            cut.doubtful.append(entry.key)
        if entry.kind == "child" and entry.seq is not None and child is not None:
            status, parent = Status(child.status), Status(run.status)
            going_on = not status.final and not parent.final  # with its parent it has been asked to cancel
            if awaited and (status == Status.SUCCEEDED or going_on or (retrying and status.final)):
                cut.awaited[entry.key] = json.dumps({"run": child.id, "row": child.row})
                if status.final and status != Status.SUCCEEDED:
                    cut.retried.append(child)
                continue
            if retrying and not status.final:
                cut.unended.append(child)
        cut.dropped.append(entry.key)
        if child is not None and not Status(child.status).final and is_child_id(child.id, run.id, entry.key):
            cut.cancelled.append(child.row)  # one that was given its id is the same run again
    return cut


class _Keeping:
    """What a retry keeps of what was delivered after its point: outcomes that no failure has had a part in."""

    def __init__(self, point: EntryRow, entries: Sequence[EntryRow]) -> None:
        self._point = point
        self._beside = Beside(point, entries)
        self._timer: EntryRow | None = None  # after which all that was delivered was cancelled

    def goes_on(self, entry: EntryRow) -> bool:
        """Say whether a call is asked for in any case; of what cancels a run no branch is free."""
        return self._point.kind != "cancel" and entry is not self._point and self._beside.goes_on(entry)

    def keeps(self, entry: EntryRow) -> bool:
        """Say whether an entry stays as it is; asked of each in the order of delivery."""
        kept = entry is not self._point and self._keeps(entry)
        self._beside.note(entry, is_kept=kept)
        if not _was_cancelled(entry):
            self._timer = entry if kept and entry.kind == "timer" else None
        return kept

    def _keeps(self, entry: EntryRow) -> bool:
        if not self.goes_on(entry):
            is_effect = entry.kind in ("step", "transaction", "start")
            return is_effect and entry.outcome == "ok" and _began_before(entry, self._point)
        if entry.outcome != "error":
            return True
        if in_doubt(entry) or (_was_cancelled(entry) and not self._was_late(entry)):
            return False
        return self._beside.was_handled(entry)

    def _was_late(self, entry: EntryRow) -> bool:
        """Say whether a timer of its own branch has cancelled a call."""
        return self._timer is not None and scope_of(entry.key).startswith(scope_of(self._timer.key))


def _is_later(entry: EntryRow, point: EntryRow) -> bool:
    """Whether an entry is the point of the cut, or was delivered, or had only begun, after it."""
    if entry is point:
        return True
    if point.seq is None or point.finished_at is None:
        return False
    return entry.seq >= point.seq if entry.seq is not None else not _began_before(entry, point)


def _began_before(entry: EntryRow, point: EntryRow) -> bool:
    """Whether a call had begun before the outcome at the point was delivered; where nobody can say, it had not."""
    return entry is not point and point.finished_at is not None and entry.started_at < point.finished_at
