"""Time: one steady clock of the process, and the database's clock estimated on it.

Only the database's clock decides leases, timers and schedules. `DatabaseClock`
maps the process's steady clock, which also runs while the host is suspended,
to the database's seconds since 1970. Durations at the public edge are seconds
or a timedelta; inside they are float seconds, instants are float seconds since
1970 (`*_at`), and `steady` values are only compared with each other.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from outlive.errors import UsageError

Duration = float | int | timedelta


class Clock(Protocol):
    """A steady clock in seconds; the simulator brings its own."""

    @property
    def steady(self) -> Callable[[], float]: ...


class SystemClock:
    """The host's steady clock; counts through suspension where the system offers one."""

    _id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def __init__(self) -> None:
        self.steady = functools.partial(time.clock_gettime, self._id)  # read several times for each step


class DatabaseClock:
    """The database's clock, read from the process's steady clock and one measured offset.

    `synchronise` takes an answer of the database and when the question was sent:
    the estimate is never ahead of the database's clock by more than the round trip.
    """

    def __init__(self, clock: Clock) -> None:
        self.steady = clock.steady
        self._offset_s = 0.0

    def now(self) -> float:
        """Give the database's time in seconds since 1970, as estimated."""
        return self.steady() + self._offset_s

    def synchronise(self, database_now: float, sent_steady: float) -> None:
        """Set the offset from a database time that was asked for at `sent_steady`."""
        middle = (sent_steady + self.steady()) / 2
        self._offset_s = database_now - middle


def seconds(duration: Duration) -> float:
    """Give a duration in seconds; refuse what is not one, and negative ones."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        value = float(duration)
    else:
        raise UsageError(f"a duration is seconds as a number or a timedelta, not {duration!r}")
    if value < 0 or value != value:
        raise UsageError(f"a duration cannot be {duration!r}")
    return value


def to_datetime(at: float) -> datetime:
    """Give an instant as an aware UTC datetime."""
    return datetime.fromtimestamp(at, UTC)


def to_instant(aware: datetime) -> float:
    """Give an aware datetime as seconds since 1970."""
    if not isinstance(aware, datetime) or aware.tzinfo is None:
        raise UsageError(f"{aware!r} is no datetime with a time zone; pass an aware one, for example with tzinfo=UTC")
    return aware.timestamp()
