"""The same functions for plain workflow functions, which run in a thread: called, not awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any
from uuid import UUID

from outlive import ambient
from outlive.clock import Duration
from outlive.engine.threads import current_body
from outlive.model.definition import StepInfo, WorkflowInfo
from outlive.run import Run


def _call(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    body = current_body.get()
    if body is None:
        return asyncio.run(make())
    return body.call(make)


def _at_once(function: Callable[[], Any]) -> Any:
    async def call() -> Any:
        return function()

    return _call(call) if current_body.get() is not None else function()


def sleep(
    delay: Duration | None = None, /, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> None:
    """Wait durably; see `outlive.sleep`."""
    _call(lambda: ambient.sleep(delay, days=days, hours=hours, minutes=minutes, seconds=seconds))


def sleep_until(at: datetime) -> None:
    """Wait durably until an aware datetime; see `outlive.sleep_until`."""
    _call(lambda: ambient.sleep_until(at))


def now() -> datetime:
    """Give the recorded time; see `outlive.now`."""
    return _at_once(ambient.now)  # type: ignore[no-any-return]


def random() -> float:
    """Give a recorded random number; see `outlive.random`."""
    return _at_once(ambient.random)  # type: ignore[no-any-return]


def uuid() -> UUID:
    """Give a recorded random UUID; see `outlive.uuid`."""
    return _at_once(ambient.uuid)  # type: ignore[no-any-return]


def info() -> StepInfo | WorkflowInfo:
    """Say which run is executing here; see `outlive.info`."""
    return _at_once(ambient.info)  # type: ignore[no-any-return]


def start(workflow: Any, *args: Any, **options: Any) -> Run:
    """Start a child run and go on; see `outlive.start`."""
    return _call(lambda: ambient.start(workflow, *args, **options))  # type: ignore[no-any-return]
