"""When a schedule ticks: cron, interval or one-off, in a zone with its daylight-saving changes. Pure: no clock.

The cron expression is read by cronsim, over plain local times that know no zone; what a change of the zone's offset
means is decided here. A rule whose minute and hour are both fixed names local times: each of them is one tick, the
first where it occurs twice, the moment after the gap where it does not occur. A rule with `*` in one of the two
(`*/15 * * * *`) follows real time: every instant whose local time fits is a tick.
Invariant: ticks grow strictly, are whole microseconds, and are the same on every machine with the same zone data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from outlive.clock import Duration, seconds, to_datetime, to_instant
from outlive.errors import UsageError
from outlive.limits import SCHEDULE_EVERY_MIN_S, WAIT_MAX_S

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)


class Timing(msgspec.Struct, kw_only=True):
    """When: one of `cron`, `every_s` and `at` (an instant); the zone is that of cron and of what people read."""

    cron: str | None = None
    every_s: float | None = None
    at: float | None = None
    zone: str = "UTC"

    @property
    def timing(self) -> tuple[str | None, float | None, float | None, str]:
        """What decides the ticks."""
        return self.cron, self.every_s, self.at, self.zone


def check_timing(cron: Any, every: Duration | None, at: datetime | None, zone: Any) -> Timing:
    """Give a timing that has at least one tick, or raise UsageError naming the wrong part."""
    given = [name for name, value in (("cron", cron), ("every", every), ("at", at)) if value is not None]
    if len(given) != 1:
        raise UsageError(f"a schedule has one of cron=…, every=… and at=…, not {' and '.join(given) or 'none of them'}")
    name = zone.key if isinstance(zone, ZoneInfo) else zone
    find_zone(name)
    timing = Timing(zone=name)
    if at is not None:
        try:
            timing.at = round(to_instant(at), 6)
        except UsageError as error:
            raise UsageError(f"at=…: {error}") from None
    elif every is not None:
        try:
            timing.every_s = seconds(every)
        except UsageError as error:
            raise UsageError(f"every=…: {error}") from None
        if not SCHEDULE_EVERY_MIN_S <= timing.every_s <= WAIT_MAX_S:
            raise UsageError(
                f"every=… is at least {SCHEDULE_EVERY_MIN_S:g} s and at most a hundred years, not {every!r}"
            )
    else:
        timing.cron = _check_cron(cron)
    return timing


def _check_cron(cron: Any) -> str:
    from cronsim import CronSim, CronSimError

    if not isinstance(cron, str):
        raise UsageError(f"cron=… is a text like '30 2 * * *', not {cron!r}")
    try:
        never = next(CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC)), None) is None
    except (CronSimError, ValueError, IndexError) as error:
        problem = str(error)
        problem = f"its field {problem[4:]} is wrong" if problem.startswith("Bad ") else problem.lower()
        raise UsageError(
            f"cron={cron!r}: {problem}; the fields are minute, hour, day of month, month and day of week, with the "
            "second before them if there are six"
        ) from None
    if never:
        raise UsageError(f"cron={cron!r} names no day of any year, so it would never start anything")
    return cron


def find_zone(name: Any) -> ZoneInfo:
    """Give a zone of the IANA database, or raise UsageError."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError, AttributeError):
        raise UsageError(
            f"zone={name!r} is no zone that this machine knows; write one like 'Europe/Berlin', or update `tzdata`"
        ) from None


def tell(timing: Timing) -> str:
    """Give the rule in English words."""
    from cronsim import CronSim

    if timing.cron is not None:
        return f"{CronSim(timing.cron, datetime(2000, 1, 1, tzinfo=UTC)).explain()}, {timing.zone}"
    if timing.every_s is not None:
        return f"Every {timing.every_s:g} seconds"
    return f"Once at {to_datetime(timing.at or 0.0).astimezone(find_zone(timing.zone)).isoformat(' ')}"


def list_ticks(timing: Timing, anchor_at: float, after: float) -> Iterator[float]:
    """Give the ticks after an instant, one by one; an interval counts from the anchor, and never ends."""
    if timing.at is not None:
        if timing.at > after:
            yield timing.at
    elif timing.every_s is not None:
        passed = max(0, math.floor((after - anchor_at) / timing.every_s) - 1)
        for number in count(passed + 1):
            tick = round(anchor_at + number * timing.every_s, 6)
            if tick > after:
                yield tick
    else:
        assert timing.cron is not None
        zone, whole = find_zone(timing.zone), to_datetime(math.floor(after))
        minute, hour = timing.cron.split()[-5:-3]
        each = _follow_time if minute.startswith("*") or hour.startswith("*") else _meet_times
        for moment in each(timing.cron, zone, whole):
            yield moment.timestamp()


def _meet_times(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Give one instant for each local time that the rule names; times that meet in one instant are one tick."""
    from cronsim import CronSim

    last = after
    for local in CronSim(cron, after.astimezone(zone).replace(tzinfo=None, fold=0)):
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) != local:  # it falls into a gap
            moment = _first_after_change(zone, local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment)
        if moment > last:
            last = moment
            yield moment


def _follow_time(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Give every instant whose local time fits, stretch by stretch of one offset."""
    from cronsim import CronSim

    start: datetime | None = after + _SECOND
    while start is not None:
        offset, known = _offset(zone, start), start
        stretch, start = start, None
        for local in CronSim(cron, (stretch + offset - _SECOND).replace(tzinfo=None)):
            moment = local.replace(tzinfo=UTC) - offset
            while known < moment and start is None:
                ahead = min(known + _DAY, moment)
                if _offset(zone, ahead) != offset:
                    start = _first_after_change(zone, known, ahead)
                known = ahead
            if start is not None:
                break
            yield moment


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _first_after_change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Give the first second that has another offset than `before`, which is at most a day earlier than `after`."""
    offset = _offset(zone, before)
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if _offset(zone, middle) == offset:
            before = middle
        else:
            after = middle
    return after
