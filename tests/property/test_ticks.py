"""Ticks against brute force: every second or minute of real time around daylight-saving changes, asked one by one.

The judge shares nothing with the code but the zone data: it reads the fields of
the expression itself and asks each instant what the clocks on the wall show.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.model.ticks import Timing, check_timing, list_ticks
from tests.support.size import pick


def on(*when: int) -> datetime:
    year, month, day, *time = when
    return datetime(year, month, day, *time, tzinfo=UTC)


# Each zone with days on which its clocks change: forwards, backwards, and (Lord Howe) by half an hour.
CHANGES = {
    "Europe/Berlin": [on(2026, 3, 29), on(2026, 10, 25)],
    "America/New_York": [on(2026, 3, 8), on(2026, 11, 1)],
    "Australia/Lord_Howe": [on(2026, 4, 5), on(2026, 10, 4)],
    "Africa/Casablanca": [on(2026, 2, 15), on(2026, 3, 22)],  # twice within five weeks
    "UTC": [on(2026, 3, 29)],
}
LIMITS = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
SECOND = timedelta(seconds=1)


# -- the judge ------------------------------------------------------------------
def read_field(text: str, low: int, high: int) -> set[int]:
    """Read numbers, ranges, lists and steps."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            chosen = range(low, high + 1)
        elif last:
            chosen = range(int(first), int(last) + 1)
        else:
            chosen = range(int(first), (high if step else int(first)) + 1)
        found.update(list(chosen)[:: int(step or 1)])
    return found


class Judge:
    """What a cron expression means, told instant by instant."""

    def __init__(self, cron: str, zone: str) -> None:
        parts = cron.split()
        parts = parts if len(parts) == 6 else ["0", *parts]
        self.fields = [read_field(part, *limits) for part, limits in zip(parts, LIMITS, strict=True)]
        self.both_days = parts[3].startswith("*") or parts[5].startswith("*")
        self.is_fixed = not parts[1].startswith("*") and not parts[2].startswith("*")
        self.zone = ZoneInfo(zone)

    def fits(self, local: datetime) -> bool:
        seconds, minutes, hours, days, months, weekdays = self.fields
        sunday_is_0 = (local.weekday() + 1) % 7
        day, weekday = local.day in days, bool({sunday_is_0, sunday_is_0 or 7} & weekdays)
        return (
            local.second in seconds
            and local.minute in minutes
            and local.hour in hours
            and local.month in months
            and (day and weekday if self.both_days else day or weekday)
        )

    def ticks(self, start: datetime, end: datetime, step: timedelta) -> list[datetime]:
        """Walk through real time; a fixed rule counts a local time once, and those skipped at the end of their gap."""
        found = []
        walls: set[datetime] = set()
        at, before = start, self.wall(start - step)
        while at < end:
            wall = self.wall(at)
            if not self.is_fixed:
                due = self.fits(wall)
            else:
                passed = [before + step * number for number in range(1, max(1, (wall - before) // step))]
                fresh = [one for one in [*passed, wall] if one not in walls and self.fits(one)]
                walls.update([*passed, wall])
                due = bool(fresh)
            if due:
                found.append(at)
            at, before = at + step, wall
        return found

    def wall(self, at: datetime) -> datetime:
        return at.astimezone(self.zone).replace(tzinfo=None)


def ours(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    ticks = list_ticks(Timing(cron=cron, zone=zone), 0.0, start.timestamp() - 1e-6)
    return [datetime.fromtimestamp(tick, UTC) for tick in takewhile(lambda tick: tick < end.timestamp(), ticks)]


# -- what is asked ----------------------------------------------------------------
def fields(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    pairs = st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1])  # cronsim reads 5-5/2 as 5/2
    ranges = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), ranges, numbers.map(str)), st.integers(1, 31)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    one = st.one_of(numbers.map(str), ranges, steps)
    return st.one_of(st.just("*"), numbers.map(str), one, st.lists(one, min_size=2, max_size=3).map(",".join))


NEAR = st.one_of(st.sampled_from(["1", "2", "3", "1,2,3", "1-3", "*", "*/2"]), fields(0, 23))
DAYS = st.one_of(st.just("*"), fields(1, 31))
MINUTES = st.tuples(fields(0, 59), NEAR, DAYS, st.just("*"), st.one_of(st.just("*"), fields(0, 6))).map(" ".join)
SECONDS = st.tuples(fields(0, 59), fields(0, 59), NEAR).map(lambda three: " ".join([*three, "*", "*", "*"]))
PLACES = st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days])


@given(MINUTES, PLACES)
def test_by_the_minute_over_a_change(cron: str, place: tuple[str, datetime]) -> None:
    zone, day = place
    start, end = day - timedelta(days=1), day + timedelta(days=1)
    assert ours(cron, zone, start, end) == Judge(cron, zone).ticks(start, end, timedelta(minutes=1))


@given(SECONDS, PLACES, st.integers(-14, 10), st.integers(0, 3600))
def test_by_the_second_over_a_change(cron: str, place: tuple[str, datetime], hours: int, seconds: int) -> None:
    zone, day = place
    start = day + timedelta(hours=hours, seconds=seconds)
    end = start + timedelta(hours=2)
    judge = Judge(cron, zone)
    expected = judge.ticks(start - timedelta(hours=2), end, SECOND)  # it has to know what the wall has shown already
    assert ours(cron, zone, start, end) == [tick for tick in expected if tick >= start]


@given(MINUTES, PLACES, st.integers(0, 2 * 1440))
def test_asking_from_anywhere_gives_the_same_ticks(cron: str, place: tuple[str, datetime], minutes: int) -> None:
    """The next tick after any instant is the first one of the whole sequence that is later."""
    zone, day = place
    start, end = day - timedelta(days=1), day + timedelta(days=1)
    after = start + timedelta(minutes=minutes)
    later = [tick for tick in ours(cron, zone, start, end) if tick > after]
    found = next(list_ticks(Timing(cron=cron, zone=zone), 0.0, after.timestamp()), None)
    if later:
        assert found == later[0].timestamp()
    else:
        assert found is None or found >= end.timestamp()


@given(
    st.floats(1.0, 1e6).map(lambda s: round(s, 3)),
    st.floats(1.7e9, 1.9e9).map(lambda at: round(at, 6)),
    st.integers(0, 10**6),
)
def test_an_interval_never_drifts(every_s: float, anchor_at: float, passed: int) -> None:
    timing = Timing(every_s=every_s)
    after = round(anchor_at + passed * every_s, 6)
    ticks = list(islice(list_ticks(timing, anchor_at, after), 3))
    assert ticks == [round(anchor_at + (passed + number) * every_s, 6) for number in (1, 2, 3)]
    assert next(list_ticks(timing, anchor_at, ticks[0] - 1e-3)) == ticks[0]


# -- examples that people know ------------------------------------------------------
def local(cron: str, zone: str, day: datetime, number: int) -> list[str]:
    start = day.replace(tzinfo=ZoneInfo(zone))
    ticks = islice(list_ticks(Timing(cron=cron, zone=zone), 0.0, start.timestamp()), number)
    return [datetime.fromtimestamp(tick, ZoneInfo(zone)).isoformat() for tick in ticks]


def test_a_time_that_does_not_exist_comes_after_the_gap() -> None:
    assert local("30 2 * * *", "Europe/Berlin", on(2026, 3, 28, 12), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert local("0,15,30 2 * * *", "Australia/Lord_Howe", on(2026, 10, 3, 12), 2) == [
        "2026-10-04T02:30:00+11:00",  # one tick, although three local times meet in it
        "2026-10-05T02:00:00+11:00",
    ]


def test_a_time_that_occurs_twice_is_one_tick() -> None:
    assert local("30 1 * * *", "America/New_York", on(2026, 10, 31, 12), 2) == [
        "2026-11-01T01:30:00-04:00",
        "2026-11-02T01:30:00-05:00",
    ]


def test_a_rule_with_a_star_follows_real_time() -> None:
    assert local("*/30 * * * *", "Europe/Berlin", on(2026, 10, 25, 2, 15), 4) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_last_days_and_weekdays() -> None:
    assert local("0 9 L * *", "UTC", on(2027, 12, 31, 12), 2) == [
        "2028-01-31T09:00:00+00:00",
        "2028-02-29T09:00:00+00:00",
    ]
    assert local("0 9 * * MON#5", "UTC", on(2026, 1, 1), 1) == ["2026-03-30T09:00:00+00:00"]


def test_a_leap_day_is_found_years_ahead() -> None:
    for cron in ("0 12 29 2 *", "0 * 29 2 *"):
        assert local(cron, "Europe/Berlin", on(2096, 3, 1), 1)[0].startswith("2104-02-29T")


@pytest.mark.parametrize("zone", [zone for zone in CHANGES if zone != "UTC"])
def test_a_year_of_each_zone(zone: str) -> None:
    start = on(2026, 1, 1)
    end = start + timedelta(days=365)
    for cron in ("30 2 * * *", "0 */3 * * *", "45 1,2 * * 0", "15 * 1 * *")[: pick(small=2, full=4)]:
        found = ours(cron, zone, start, end)
        assert found == Judge(cron, zone).ticks(start, end, timedelta(minutes=15))
        assert all(early < late for early, late in pairwise(found))
        assert calendar.isleap(2026) or len(found) > 10


def test_what_is_checked_is_what_is_listed() -> None:
    made: Any = check_timing("30 2 * * *", None, None, ZoneInfo("Europe/Berlin"))
    assert made.timing == ("30 2 * * *", None, None, "Europe/Berlin")
