"""A schedule: what is stored of it, and what becomes of its ticks. Values in, values out; knows no database.

Every change of a row is a `ScheduleWrite` that counts on the revision it was computed from: whoever comes second
writes nothing. Invariant: a tick is started, skipped and counted, or waits; never two of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain, islice, takewhile
from typing import Literal

import msgspec

from outlive.clock import to_datetime
from outlive.errors import DecodeFailed, UsageError
from outlive.limits import (
    SCHEDULE_CATCH_UP_MAX,
    SCHEDULE_COUNT_MAX,
    SCHEDULE_LATE_S,
    SCHEDULE_RUNS_MAX,
    SCHEDULE_WAITING_MAX,
)
from outlive.model.ticks import Timing, list_ticks
from outlive.model.writes import NewRun

Overlap = Literal["allow", "skip", "queue", "cancel"]


class ScheduleSpec(Timing, kw_only=True):
    """What a declaration says: when, what is started, and what if ticks meet runs that are not finished."""

    workflow: str
    input: str
    codec: str
    queue: str = ""
    priority: int = 0
    jitter_s: float = 0.0
    overlap: Overlap = "allow"
    catch_up_s: float = 0.0


@dataclass(slots=True)
class ScheduleRow:
    """A schedule as stored, and which of the runs it started are unfinished, at `now` of the database's clock.

    `declared` is what code says, `changed` what somebody has put in its place at run time.
    """

    name: str
    revision: int
    declared: str | None
    changed: str | None
    paused: bool
    next_at: float | None
    last_at: float | None
    waiting: list[float]  # ticks that wait for the runs before them
    skipped: int
    created_at: float
    unfinished: list[int]
    now: float


@dataclass(slots=True)
class ScheduleWrite:
    """The new state of a schedule, written if its revision is still `expected`; None: if there is no such schedule.

    In the same transaction `starts` are inserted, not owned, where their ids are free, and the runs with the rows
    `cancels` are asked to cancel for a `reason` (JSON text). `running`: rows of its runs that may be unfinished.
    """

    name: str
    expected: int | None
    revision: int
    declared: str | None = None
    changed: str | None = None
    paused: bool = False
    next_at: float | None = None
    last_at: float | None = None
    waiting: list[float] = field(default_factory=list)
    skipped: int = 0
    created_at: float = 0.0
    running: list[int] = field(default_factory=list)
    starts: list[NewRun] = field(default_factory=list)
    cancels: list[int] = field(default_factory=list)
    reason: str | None = None


@dataclass(slots=True)
class Decision:
    """What becomes of the ticks that are due: `starts` now, in this order; the rest is the schedule's new state."""

    starts: list[float]
    waiting: list[float]
    skipped: int
    next_at: float | None


def encode_spec(spec: ScheduleSpec) -> str:
    """Give the stored text of a declaration."""
    return msgspec.json.encode(spec).decode()


def read_spec(row: ScheduleRow | ScheduleWrite) -> ScheduleSpec:
    """Give what holds: what was changed at run time, else what code declared."""
    return _decode(row.name, row.changed if row.changed is not None else row.declared or "")


def _decode(name: str, text: str) -> ScheduleSpec:
    try:
        return msgspec.json.decode(text, type=ScheduleSpec)
    except msgspec.DecodeError as error:
        raise DecodeFailed(f"schedule {name!r} cannot be read: {error}") from error


def change(row: ScheduleRow, revision: int) -> ScheduleWrite:
    """Give a write that changes nothing yet."""
    return ScheduleWrite(
        row.name, row.revision, revision, row.declared, row.changed, row.paused, row.next_at, row.last_at,
        list(row.waiting), row.skipped, row.created_at, list(row.unfinished),
    )  # fmt: skip


def put(
    row: ScheduleRow | None,
    name: str,
    revision: int,
    now: float,
    *,
    declared: str | None = None,
    changed: str | None = None,
) -> ScheduleWrite:
    """Put what code declares, or what somebody says at run time, which wins; the next tick moves if the timing does."""
    if row is None:
        write = ScheduleWrite(name, None, revision, created_at=round(now, 6))
    else:
        write = change(row, revision)
    before = None if row is None else read_spec(row).timing
    write = replace(write, declared=declared or write.declared, changed=changed or write.changed)
    return _retime(write, before, now)


def check_at(row: ScheduleRow | None, spec: ScheduleSpec, name: str, now: float) -> None:
    """Refuse a one-off time that nobody will catch up any more, unless the schedule has had it already."""
    reach_s = _reach(spec)
    if spec.at is None or spec.at > now - reach_s or (row is not None and read_spec(row).timing == spec.timing):
        return
    raise UsageError(
        f"schedule {name!r} would never start anything: {to_datetime(spec.at).isoformat(' ')} has passed, and ticks "
        f"older than {reach_s:g} s are not caught up; give a time to come, or a longer catch_up"
    )


def reset(row: ScheduleRow, revision: int) -> ScheduleWrite:
    """Go back to what code declares."""
    write = resume(row, revision) if row.paused else change(row, revision)
    return _retime(replace(write, changed=None), read_spec(row).timing, row.now)


def pause(row: ScheduleRow, revision: int) -> ScheduleWrite:
    """Let no tick pass any more."""
    return replace(change(row, revision), paused=True)


def resume(row: ScheduleRow, revision: int) -> ScheduleWrite:
    """Go on with the first tick that is still to come: those in the pause were not missed."""
    return replace(change(row, revision), paused=False, next_at=_next_after(read_spec(row), row.created_at, row.now))


def _retime(write: ScheduleWrite, before: object, now: float) -> ScheduleWrite:
    spec = read_spec(write)
    if spec.timing != before:
        write.next_at = spec.at if spec.at is not None else _next_after(spec, write.created_at, now)
    return write


def _next_after(spec: ScheduleSpec, anchor_at: float, after: float) -> float | None:
    return next(list_ticks(spec, anchor_at, after), None)


def _reach(spec: ScheduleSpec) -> float:
    """Give how old a tick may be that nobody fired."""
    return max(spec.catch_up_s, SCHEDULE_LATE_S)


def decide(row: ScheduleRow, spec: ScheduleSpec, watched_since: float = math.inf) -> Decision:
    """Say what becomes of the ticks that are due at the row's `now`, oldest first.

    Ticks after `watched_since` were not missed, however long it takes until their turn comes: a worker was alive.
    """
    due, skipped, next_at = _take_due(row, spec, watched_since)
    decision = Decision([], [], row.skipped + skipped, next_at)
    busy = bool(row.unfinished)
    for tick in chain(row.waiting, due):
        if not busy or spec.overlap in ("allow", "cancel"):
            decision.starts.append(tick)
            busy = True
        elif spec.overlap == "queue" and len(decision.waiting) < SCHEDULE_WAITING_MAX:
            decision.waiting.append(tick)
        else:
            decision.skipped += 1
    return decision


def _take_due(row: ScheduleRow, spec: ScheduleSpec, watched_since: float) -> tuple[list[float], int, float | None]:
    """Give the ticks to act on now, how many before them were missed for good, and the tick after them."""
    now, first = row.now, row.next_at
    if first is None or first > now:
        return [], 0, first

    def list_from(since: float, until: float, most: int) -> list[float]:
        ticks = list_ticks(spec, row.created_at, max(since, first))
        if first > since:
            ticks = chain([first], ticks)
        return list(islice(takewhile(lambda tick: tick <= until, ticks), most))

    since = min(now - _reach(spec), watched_since)
    most, early, late = SCHEDULE_CATCH_UP_MAX, since, now
    while len(due := list_from(since, now, 2 * most + 1)) > 2 * most or (len(due) < most and since > early):
        if len(due) > 2 * most:  # halve until all of them are in the list, and enough
            early = since
        else:
            late = since
        since = (early + late) / 2
    if len(due) > most:
        due = due[-most:]
        since = math.nextafter(due[0], -math.inf)
    skipped = len(list_from(first - 1.0, since, SCHEDULE_COUNT_MAX))
    if len(due) > SCHEDULE_RUNS_MAX:
        return due[:SCHEDULE_RUNS_MAX], skipped, due[SCHEDULE_RUNS_MAX]
    return due, skipped, _next_after(spec, row.created_at, now)


def tick_id(name: str, tick: float) -> str:
    """Give the id of the run that a tick starts: the same tick is the same run."""
    return f"{name}@{to_datetime(tick).isoformat().removesuffix('+00:00')}Z"


def spread(name: str, tick: float, jitter_s: float) -> float:
    """Give by how many seconds the start of a tick is put off: of chance, but the same whoever asks."""
    drawn = int.from_bytes(blake2b(tick_id(name, tick).encode(), digest_size=8).digest())
    return jitter_s * drawn / 2**64


def list_between(row: ScheduleRow, spec: ScheduleSpec, start: float, end: float) -> Iterable[float]:
    """Give the ticks from `start` until before `end`."""
    return takewhile(lambda tick: tick < end, list_ticks(spec, row.created_at, start - 1e-6))
