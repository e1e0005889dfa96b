"""What an error of Outlive means to a client of a web service: a status, and a sentence. Knows no framework."""

from __future__ import annotations

from outlive.errors import (
    AlreadySettled,
    DuplicateRun,
    LimitError,
    OutliveError,
    PayloadTooLarge,
    PromiseExpired,
    PromiseNotFound,
    RunEnded,
    RunExists,
    RunNotFound,
    RunOnHold,
    RunRefused,
    RunTimedOut,
    ScheduleNotFound,
    StoreUnavailable,
)

# Others are faults of the service, not of the request: they stay what they are, a 500.
STATUSES: dict[type[OutliveError], int] = {
    RunNotFound: 404,
    ScheduleNotFound: 404,
    PromiseNotFound: 404,
    RunExists: 409,
    DuplicateRun: 409,
    RunEnded: 409,
    RunRefused: 409,
    RunOnHold: 409,
    AlreadySettled: 409,
    PromiseExpired: 410,
    PayloadTooLarge: 413,
    LimitError: 429,
    StoreUnavailable: 503,
    RunTimedOut: 504,
}
_AGAIN_S = 1  # how long a client shall wait that came too early


def answer_to(error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
    """Give body, status and headers for an error of `STATUSES`."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    headers = {"Retry-After": str(_AGAIN_S)} if status in (429, 503) else {}
    return {"detail": str(error)}, status, headers
