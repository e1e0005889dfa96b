"""What a start may say beside its arguments, checked at the caller; UsageError names the option.

Pure: knows no run and no store. Invariant: what passes here is taken by both databases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from outlive.clock import Duration, seconds
from outlive.errors import UsageError
from outlive.ids import check_id
from outlive.limits import NAME_MAX_CHARS, PRIORITY_MAX, WAIT_MAX_S
from outlive.model.status import Status


def check_name(name: Any) -> str:
    """Give the name if a definition can have it."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX_CHARS or not name.isprintable():
        raise UsageError(f"a name has 1 to {NAME_MAX_CHARS} printable characters, not {name!r}")
    if any(character in name for character in "/#"):
        raise UsageError(f"a name may not hold '/' or '#', which structure the keys of entries: {name!r}")
    return name


def check_version(version: Any) -> str:
    """Give the version if a workflow can have it."""
    if not isinstance(version, str) or not 1 <= len(version) <= NAME_MAX_CHARS or not version.isprintable():
        raise UsageError(f"version=… has 1 to {NAME_MAX_CHARS} printable characters, not {version!r}")
    return version


def check_key(key: Any) -> str | None:
    """Give the key of a run, None if it has none."""
    return None if key is None else check_id(key, "key=…")


def check_queue(queue: Any) -> str:
    """Give the name of a queue as it is stored: empty without one."""
    if queue == "":
        raise UsageError("queue=… is the name of a queue, not ''; without one leave it out, or say None")
    return "" if queue is None else check_id(queue, "queue=…")


def check_queue_name(queue: Any) -> str:
    """Give the name of a queue."""
    return check_id(queue, "the name of a queue")


def check_dedupe(dedupe: Any, on_duplicate: Any) -> str | None:
    """Give what a run shall be the only unfinished one of, None if nothing."""
    if on_duplicate not in ("reject", "attach"):
        raise UsageError(f"on_duplicate=… is 'reject' or 'attach', not {on_duplicate!r}")
    if dedupe is None and on_duplicate != "reject":
        raise UsageError("on_duplicate=… needs dedupe=…, which says what a duplicate is")
    return None if dedupe is None else check_id(dedupe, "dedupe=…")


def check_priority(priority: Any) -> int:
    """Give a priority that both databases can hold."""
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > PRIORITY_MAX:
        raise UsageError(f"priority=… is a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}, not {priority!r}")
    return priority


def check_deadline(duration: Duration | None) -> float | None:
    """Give how long a run may take, in seconds; None if it has no deadline."""
    return None if duration is None else check_wait(duration, "deadline=…")


def check_limit(limit: Any) -> int:
    """Give how many items a list may have at most."""
    return check_count("limit=…", limit)


def check_count(what: str, value: Any) -> int:
    """Give how many of something there are to be: one or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{what} is a whole number of at least 1, not {value!r}")
    return value


def check_mapping(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Give what keyword arguments or attributes are, none if None."""
    if not isinstance(value, Mapping | None):
        raise UsageError(f"{what} is a mapping, not {value!r}")
    return dict(value or {})


def check_messages(messages: Any, fields: str) -> list[tuple[Any, ...]]:
    """Give messages as tuples of these fields, separated by commas, with or without a key behind them."""
    given = [messages] if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable) else list(messages)
    width = fields.count(",") + 1
    for message in given:
        if not isinstance(message, tuple | list) or len(message) not in (width, width + 1):
            raise UsageError(f"messages are a list, each of them ({fields}) or ({fields}, key), not {message!r}")
    return [tuple(message) for message in given]


def check_statuses(status: str | Iterable[str] | None) -> tuple[str, ...]:
    """Give the statuses to look for; none means all."""
    statuses = (status,) if isinstance(status, str) else tuple(status or ())
    for one in set(statuses) - set(Status):
        raise UsageError(f"{one!r} is no status; there are {', '.join(Status)}")
    return statuses


def check_wait(duration: Duration | None, what: str) -> float:
    """Give a duration in seconds, 0 for None; refuse one that ends beyond the calendar of a database."""
    if duration is None:
        return 0.0
    try:
        wait_s = seconds(duration)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
    if math.isinf(wait_s) or wait_s > WAIT_MAX_S:
        raise UsageError(f"{what} is at most a hundred years ({WAIT_MAX_S:,.0f} s), not {duration!r}")
    return wait_s
