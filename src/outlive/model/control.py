"""Where a journal is cut: what a retry, a rewind or a fork keeps of it, and what becomes of the children started there.

Pure: takes entries as recorded, gives keys. Invariant: what is kept is a journal
that a crash could have left, a prefix in the order of delivery with the calls
that had begun by then, so replay goes on from it by its usual rules. A retry
keeps what those calls have come to: it repeats no step that has succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlive.model.children import is_child_id
from outlive.model.reads import EntryRow, RunRow
from outlive.model.status import Status

ROLLBACK_SCOPE = "rollback/"
PATCHABLE = frozenset({"step", "transaction", "child", "receive", "now", "random", "uuid"})  # kinds that have a value

_CANCELLED = "asyncio.exceptions.CancelledError"


@dataclass(slots=True)
class Cut:
    """What a journal loses: `dropped` entries are executed again; those at `awaited` have begun, and no outcome.

    These are children, each with the reference to its run, and steps of which nobody knows whether they took effect.

    `retried`: of those, the runs that have to be retried too. `cancelled`: runs that entries dropped had started.
    """

    dropped: list[str] = field(default_factory=list)
    awaited: dict[str, str | None] = field(default_factory=dict)
    retried: list[RunRow] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)


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
    return entry.error is not None and json.loads(entry.error)["type"] == _CANCELLED


def failing_point(status: str, error: Mapping[str, Any], entries: Sequence[EntryRow]) -> EntryRow | None:
    """Give the entry that a run has ended by: its last cancellation, or the first of the errors that it ended with."""
    recorded: dict[tuple[str, str], EntryRow] = {}
    cancelled = None
    for entry in entries:
        if entry.kind == "cancel":
            cancelled = entry
        elif entry.outcome == "error" and entry.error is not None:
            facts = json.loads(entry.error)
            recorded[facts["type"], facts["text"]] = entry
    if status == Status.CANCELLED:
        return cancelled
    found = min(_matches(error, recorded), key=lambda entry: entry.seq or 0, default=None)
    if found is None and cancelled is not None and str(error.get("type")).endswith(".DeadlineExceeded"):
        return cancelled
    return found


def _matches(error: Mapping[str, Any], recorded: Mapping[tuple[str, str], EntryRow]) -> Iterator[EntryRow]:
    """Give the entries of an error: its own, else those of its members, else that of its cause."""
    entry = recorded.get((str(error.get("type")), str(error.get("text"))))
    if entry is not None and error.get("type") != _CANCELLED:
        yield entry
        return
    members = [found for member in error.get("members") or () for found in _matches(member, recorded)]
    if members:
        yield from members
    elif error.get("cause"):
        yield from _matches(error["cause"], recorded)


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
    """Whether a compensation has taken effect."""
    return any(entry.key.startswith(ROLLBACK_SCOPE) and entry.outcome == "ok" for entry in entries)


def _cut(
    run: RunRow, point: EntryRow, entries: Sequence[EntryRow], children: Iterable[RunRow], *, retrying: bool
) -> Cut:
    latest = {child.parent_key: child for child in sorted(children, key=lambda child: child.row)}
    cut = Cut()
    for entry in entries:
        if not _is_later(entry, point):
            continue
        child = latest.get(entry.key)
        awaited = _began_before(entry, point) or (retrying and entry is point)
        if retrying and awaited and entry.kind in ("step", "transaction") and entry.outcome == "ok":
            continue
        if retrying and awaited and entry.outcome == "error" and json.loads(entry.error or "{}").get("in_doubt"):
            cut.awaited[entry.key] = None
            continue
        if entry.kind == "child" and entry.seq is not None and child is not None and awaited:
            status = Status(child.status)
            going_on = not status.final and not Status(run.status).final  # with its parent it has been asked to cancel
            if status == Status.SUCCEEDED or going_on or (retrying and status.final):
                cut.awaited[entry.key] = json.dumps({"run": child.id, "row": child.row})
                if status.final and status != Status.SUCCEEDED:
                    cut.retried.append(child)
                continue
        cut.dropped.append(entry.key)
        if child is not None and not Status(child.status).final and is_child_id(child.id, run.id, entry.key):
            cut.cancelled.append(child.row)  # one that was given its id is the same run again
    return cut


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
