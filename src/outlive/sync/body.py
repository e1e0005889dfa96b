"""The functions of workflow bodies for plain ones, which run in a thread: called, not awaited.

The others have no place there: a plain body is a single branch.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from outlive import ambient, messages, questions, versions
from outlive.engine.threads import current_body
from outlive.errors import UsageError
from outlive.sync.portal import Portal
from outlive.sync.run import Run

_NO_PORTAL = Portal()  # a body may not ask about a run
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def _awaited(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make a function that waits for what this one gives to be awaited."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        body = current_body.get()
        if body is None:
            name = function.__name__
            if asyncio._get_running_loop() is not None:
                raise UsageError(f"outlive.sync.{name} is for plain functions; here: await outlive.{name}(…)")
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


def _made(function: Callable[P, R], make: Callable[[R], S]) -> Callable[P, S]:
    """Make a function that makes something of what this one gives."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> S:
        return make(function(*args, **kwargs))

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


class Promise:
    """A promise of this run: hand out its token, and wait for the value it is settled with by `result()`."""

    def __init__(self, real: messages.Promise) -> None:
        self._real = real
        self.token = real.token

    def result(self) -> Any:
        """Wait durably until it is settled, and give the value; PromiseExpired after its time."""

        async def result() -> Any:
            return await self._real

        return _awaited(result)()


start = _made(_awaited(ambient.start), lambda run: Run(_NO_PORTAL, run))
promise = _made(_awaited(messages.promise), Promise)
ask_user = _awaited(questions.ask_user)
sleep = _awaited(ambient.sleep)
sleep_until = _awaited(ambient.sleep_until)
receive = _awaited(messages.receive)
send = _awaited(messages.send)
publish = _awaited(messages.publish)
emit = _awaited(messages.emit)
durable = _awaited(ambient.durable)
on_call = _on_loop(messages.on_call)
on_rollback = _awaited(ambient.on_rollback)
now = _on_loop(ambient.now)
random = _on_loop(ambient.random)
uuid = _on_loop(ambient.uuid)
info = _on_loop(ambient.info)
patched = _on_loop(versions.patched)
continue_as_new = _awaited(versions.continue_as_new)
