"""The same functions for plain workflow functions, which run in a thread: called, not awaited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from outlive import ambient, messages, versions
from outlive.engine.threads import current_body

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make a function that waits for what this one gives to be awaited."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        body = current_body.get()
        if body is None:
            return asyncio.run(function(*args, **kwargs))
        return body.call(lambda: function(*args, **kwargs))  # type: ignore[no-any-return]

    return call


def _on_loop(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that has this one called on the run's loop, where it is executing."""

    async def call_there(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return _awaited(call_there)(*args, **kwargs) if current_body.get() is not None else function(*args, **kwargs)

    return call


@contextmanager
def shielded() -> Iterator[None]:
    """Hold back cancellation: `with sync.shielded():` a request or the deadline is delivered after the block."""
    block = ambient.shielded()
    _awaited(block.__aenter__)()
    try:
        yield
    finally:
        _awaited(block.__aexit__)(None, None, None)


sleep = _awaited(ambient.sleep)
sleep_until = _awaited(ambient.sleep_until)
start = _awaited(ambient.start)
receive = _awaited(messages.receive)
send = _awaited(messages.send)
publish = _awaited(messages.publish)
emit = _awaited(messages.emit)
on_rollback = _awaited(ambient.on_rollback)
now = _on_loop(ambient.now)
random = _on_loop(ambient.random)
uuid = _on_loop(ambient.uuid)
info = _on_loop(ambient.info)
patched = _on_loop(versions.patched)
