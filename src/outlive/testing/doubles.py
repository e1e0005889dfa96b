"""What a test puts in the way of steps: stubs in the place of their bodies, and crashes around them.

It changes copies of the specs that one engine executes, so neither the user's
definitions nor other apps notice.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal, Self, get_args
from unittest import mock

from outlive.definitions import Step
from outlive.engine.bodies import Bodies
from outlive.engine.calls import StepCall
from outlive.errors import UsageError
from outlive.model.definition import StepSpec

CrashPoint = Literal["before", "after", "recorded"]
_ABSENT: Any = object()


class Stub:
    """Stands in for the body of a step until its block, or the app's, ends. `calls` are what it was called with.

    A call is a `unittest.mock.call`: `assert stub.calls == [call("42", 1999)]`. Each attempt is one.
    """

    def __init__(self, doubles: Doubles, name: str, function: Callable[..., Any]) -> None:
        self._doubles = doubles
        self.name = name
        self.function = function
        self.calls: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_exc: object) -> None:
        self._doubles.remove(self)
        if kind is None:
            self.check_used()

    def check_used(self) -> None:
        """Fail if nothing has called it."""
        assert self.calls, f"the stub of {self.name} was never called"


class Crash:
    """A death to come: at the `occurrence`-th time that a step is at this point."""

    def __init__(self, name: str, point: CrashPoint, occurrence: int) -> None:
        self.name = name
        self.point = point
        self.left = occurrence
        self.seen = 0

    def is_here(self, name: str, point: CrashPoint) -> bool:
        """Count an occurrence; True if it is the one."""
        if (name, point) != (self.name, self.point):
            return False
        self.left -= 1
        self.seen += 1
        return self.left == 0

    def check_happened(self) -> None:
        """Fail if it has not."""
        assert self.left <= 0, (
            f"crash_at({self.name!r}, {self.point!r}) never happened: the step was there {self.seen} times"
        )


class Doubles:
    """The stubs and crashes of one app."""

    def __init__(self) -> None:
        self._stubs: dict[str, Stub] = {}
        self._used: list[Stub] = []  # ended, or replaced by another
        self.crashes: list[Crash] = []

    def add_stub(self, step: Any, returns: Any, raises: Any, calls: Callable[..., Any] | None) -> Stub:
        """Make a stub: of what it returns, what it raises, or what it calls."""
        spec = _spec_of(step, "stub")
        if (returns is not _ABSENT) + (raises is not None) + (calls is not None) != 1:
            raise UsageError(f"stub({spec.name}) takes one of returns=…, raises=… and calls=…")

        def stand_in(*_args: Any, **_kwargs: Any) -> Any:
            if raises is not None:
                raise raises
            return returns

        stub = self._stubs[spec.name] = Stub(self, spec.name, calls if calls is not None else stand_in)
        self._used.append(stub)
        return stub

    def remove(self, stub: Stub) -> None:
        """Let the body execute again."""
        if self._stubs.get(stub.name) is stub:
            del self._stubs[stub.name]
        self._used.remove(stub)

    def add_crash(self, step: Any, point: CrashPoint, occurrence: int) -> None:
        """Plan a death."""
        name = step if isinstance(step, str) else _spec_of(step, "crash_at").name
        if point not in get_args(CrashPoint):
            raise UsageError(f"a process crashes 'before' a step, 'after' it or when it is 'recorded', not {point!r}")
        if not isinstance(occurrence, int) or occurrence < 1:
            raise UsageError(f"occurrence=… counts from 1, not {occurrence!r}")
        self.crashes.append(Crash(name, point, occurrence))

    def check(self) -> None:
        """Fail if something that was prepared never came to use."""
        for stub in self._used:
            stub.check_used()
        for crash in self.crashes:
            crash.check_happened()

    # -- for the world ------------------------------------------------------
    def is_crash(self, name: str, point: CrashPoint) -> bool:
        """Whether the process that is at this point dies."""
        return sum(crash.is_here(name, point) for crash in self.crashes) > 0  # each counts

    def put_into(self, bodies: Bodies, die: Callable[[], Awaitable[None]]) -> None:
        """Have an engine execute its steps this way."""
        begin = bodies.begin

        def begin_double(call: StepCall, *, verify: bool = False) -> None:
            call.spec = replace(call.spec, function=self._double(call.spec, bodies, die))
            begin(call, verify=verify)

        bodies.begin = begin_double  # type: ignore[method-assign]

    def _double(self, spec: StepSpec, bodies: Bodies, die: Callable[[], Awaitable[None]]) -> Callable[..., Any]:
        async def body(*args: Any, **kwargs: Any) -> Any:
            if self.is_crash(spec.name, "before"):
                await die()
            stub = self._stubs.get(spec.name)
            function = spec.function if stub is None else stub.function
            if stub is not None:
                shown = args[1:] if spec.transactional else args  # not the transaction
                stub.calls.append(mock.call(*shown, **kwargs))
                value = function(*args, **kwargs)
                value = await value if inspect.isawaitable(value) else value
            else:
                value = await bodies.run(function, args, kwargs)
            if self.is_crash(spec.name, "after"):
                await die()
            return value

        return body


def _spec_of(step: Any, what: str) -> StepSpec:
    if not isinstance(step, Step):
        raise UsageError(f"{what}(…) takes a step or transaction, not {step!r}")
    return step.spec
