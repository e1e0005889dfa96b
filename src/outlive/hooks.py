"""Fault points: named places where a test may kill, stop or fail the process.

Production code calls `point(name)`; it is a no-op unless a test armed it. A
place that writes to the database is a commit site and is declared with
`commit_site`, which sets one point before and one after it and enters the name
in SITES: the crash suite runs through all of them, so a new site without a
crash test fails. Floor 0: knows nothing of what it interrupts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SITES: set[str] = set()
_armed: Callable[[str], None] | None = None


def arm(fire: Callable[[str], None] | None) -> None:
    """Call `fire(name)` at every point from now on; None disarms."""
    global _armed
    _armed = fire


def point(name: str) -> None:
    """Mark a place where a process may die."""
    if _armed is not None:
        _armed(name)


def declare_site(name: str) -> str:
    """Enter a commit site whose points `name.before` and `name.after` its code sets itself."""
    SITES.add(name)
    return name


def commit_site(name: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Declare an async function as a commit site called `name`."""
    declare_site(name)

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            point(name + ".before")
            result = await function(*args, **kwargs)
            point(name + ".after")
            return result

        return call

    return decorate
