"""Queues as values: what limits a queue may have, and how many runs more it may admit.

Pure: knows no store and no clock. A limit that is None is none. Invariant: limits
that were checked here are taken by both databases, as one JSON object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from outlive.clock import seconds
from outlive.errors import UsageError
from outlive.limits import PRIORITY_MAX, WAIT_MAX_S

Rate = tuple[int, float]  # so many, in any window of so many seconds
FULL = ("reject", "drop_oldest")
KEPT: Any = object()  # a limit that is not mentioned


@dataclass(frozen=True)
class QueueLimits:
    """What a queue holds its runs to. `rate` and `rate_per_key` are pairs: a count, and seconds."""

    concurrency: int | None = None  # admitted and not yet ended, over all workers
    per_worker: int | None = None  # of those, owned by one worker
    per_key: int | None = None  # of those, of one key
    rate: Rate | None = None  # admitted in any window
    rate_per_key: Rate | None = None
    backlog: int | None = None  # started from outside and not yet admitted
    on_full: Literal["reject", "drop_oldest"] = "reject"


NAMES = tuple(field.name for field in fields(QueueLimits))


def check_limits(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give limits as JSON can hold them; UsageError names the one that is none."""
    return {name: _check(name, value) for name, value in given.items()}


def _check(name: str, value: Any) -> Any:
    if name == "on_full":
        if value not in FULL:
            raise UsageError(f"on_full=… is 'reject' or 'drop_oldest', not {value!r}")
        return value
    if value is None:
        return None
    if name in ("rate", "rate_per_key"):
        return _check_rate(name, value)
    return _check_count(f"{name}=…", value)


def _check_rate(name: str, value: Any) -> list[Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UsageError(f"{name}=… is a pair (count, seconds), for example (10, 60), not {value!r}")
    count, window = value
    try:
        window_s = seconds(window)
    except UsageError as error:
        raise UsageError(f"{name}=…: {error}") from None
    if not 0 < window_s <= WAIT_MAX_S or math.isinf(window_s):
        raise UsageError(f"{name}=(count, seconds) looks back more than 0 seconds and at most a hundred years")
    return [_check_count(f"the count of {name}=…", count), window_s]


def _check_count(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= PRIORITY_MAX:
        raise UsageError(
            f"{what} is a whole number from 1 to {PRIORITY_MAX}, not {value!r}; pause the queue to admit none"
        )
    return value


def encode_limits(limits: Mapping[str, Any]) -> str:
    """Give checked limits as JSON text."""
    return json.dumps(limits)


def decode_limits(text: str) -> QueueLimits:
    """Give the limits of a JSON object; what it does not name is not limited."""
    known = {name: value for name, value in json.loads(text).items() if name in NAMES}
    for name in ("rate", "rate_per_key"):
        if known.get(name) is not None:
            count, window_s = known[name]
            known[name] = (int(count), float(window_s))
    return QueueLimits(**known)


def put_together(declared: str, changed: str) -> str:
    """Give the limits in force: what was changed wins over what was declared."""
    return json.dumps({**json.loads(declared), **json.loads(changed)})


def refuse_bounded(queue: str) -> UsageError:
    """Give the error of a start that would have to hold up all others of its queue until its transaction ends."""
    return UsageError(
        f"queue {queue!r} has a bounded backlog, so a run cannot be started in it with tx=: start it outside of the "
        "transaction, or in a queue without backlog="
    )


def list_facts(limits: QueueLimits) -> dict[str, Any]:
    """Give the limits by name."""
    return asdict(limits)


def list_rates(limits: QueueLimits) -> dict[str, Any]:
    """Give counts and windows of the rates, as statements name them; None where there is none."""
    rate, of_key = limits.rate or (None, None), limits.rate_per_key or (None, None)
    return {"rate_count": rate[0], "rate_s": rate[1], "key_count": of_key[0], "key_s": of_key[1]}


def room_left(limits: QueueLimits, most: int, *, admitted: int, owned: int, recent: int) -> int:
    """Say how many runs more may be admitted now, at most `most`.

    `admitted` of the queue have not ended, `owned` of them belong to this
    worker, `recent` were admitted within the window of the rate.
    """
    bounds = [most]
    if limits.concurrency is not None:
        bounds.append(limits.concurrency - admitted)
    if limits.per_worker is not None:
        bounds.append(limits.per_worker - owned)
    if limits.rate is not None:
        bounds.append(limits.rate[0] - recent)
    return max(0, min(bounds))
