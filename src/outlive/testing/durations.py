"""Durations as a test writes them: seconds, a timedelta, or text such as `"3 days"`, `"90s"`, `"1h 30m"`."""

from __future__ import annotations

import re
from datetime import timedelta

from outlive.clock import Duration, seconds
from outlive.errors import UsageError

_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*(?:,|and\b)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_WORDS = {"millisecond": "ms", "second": "s", "sec": "s", "minute": "m", "min": "m"}
_WORDS |= {"hour": "h", "day": "d", "week": "w"}


def to_seconds(
    duration: Duration | str | None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds_: float = 0
) -> float:
    """Give the sum of a duration and of numbers of units, in seconds."""
    more = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds_)
    plain = _parse(duration) if isinstance(duration, str) else duration
    return (seconds(plain) if plain is not None else 0.0) + seconds(more)


def _parse(text: str) -> float:
    total_s, place = 0.0, 0
    while match := _PART.match(text.lower(), place):
        unit = match[2] if match[2] in _UNITS_S else _WORDS.get(match[2].removesuffix("s"), "")
        if not unit:
            break
        total_s += float(match[1]) * _UNITS_S[unit]
        place = match.end()
    if not place or text[place:].strip():
        raise UsageError(f"{text!r} is no duration; write for example '3 days', '1h 30m' or '90s'")
    return total_s
