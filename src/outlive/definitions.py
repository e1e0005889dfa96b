"""Decorators: plain functions become definitions. A definition is a plain object, bound to no app.

Outside a run, calling a definition calls the function. Inside a run, calling a
step or transaction journals it, and calling a workflow starts a child run and
waits for it. Where the call stands is read from the running loop (async) or
from the thread's context (sync workflows); nothing is stored globally but which
workflows there are.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from outlive.clock import Duration, seconds
from outlive.codec.payload import CallShape
from outlive.engine.bodies import current_step
from outlive.engine.execution import Execution
from outlive.engine.invoke import invoke
from outlive.engine.runloop import RunLoop
from outlive.engine.threads import current_body
from outlive.errors import UsageError
from outlive.model.definition import ONCE, OnUnknown, Retry, StepSpec, WorkflowSpec
from outlive.model.options import check_name, check_version
from outlive.store.sessions import check_maker
from outlive.version import version_of

P = ParamSpec("P")
R = TypeVar("R")

_BRANCHES = frozenset({"gather", "group", "map", "race"})


def current_execution() -> Execution | None:
    """Give the run whose body is executing here, on a run loop."""
    loop = asyncio._get_running_loop()
    return loop.execution if type(loop) is RunLoop else None  # type: ignore[return-value]


def in_workflow(name: str) -> Execution:
    """Give the run whose body calls `outlive.<name>` here; UsageError outside of one."""
    execution = current_execution()
    if execution is None:
        raise UsageError(f"outlive.{name} is for workflow bodies; here no run is executing")
    return execution


def for_async_bodies(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse the call in a plain workflow function: nobody would await it there, or replay could not repeat it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if current_body.get() is not None and current_execution() is None:
            name = function.__name__
            says = "is a single branch and has no such thing" if name in _BRANCHES else f"calls outlive.sync.{name}"
            raise UsageError(f"outlive.{name} is for async workflow functions; a plain one {says}")
        return function(*args, **kwargs)

    return call


class Definition(Generic[P, R]):
    """A decorated function; `spec` says how it executes."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        functools.update_wrapper(self, spec.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        spec = self.spec
        execution = current_execution()
        if execution is not None:
            if not spec.is_async:
                raise UsageError(
                    f"{spec.name} is a plain function: an async workflow calls it as "
                    f"`await asyncio.to_thread({spec.name}, …)`"
                )
            return invoke(execution, spec, args, kwargs)  # type: ignore[return-value]
        body = current_body.get()
        if body is not None:
            if spec.is_async:
                raise UsageError(f"{spec.name} is async: a plain workflow function calls plain {spec.kind}s")
            return body.call(lambda: invoke(body.execution, spec, args, kwargs))  # type: ignore[no-any-return]
        return spec.function(*args, **kwargs)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{self.spec.kind} {self.spec.name}>"


class Step(Definition[P, R]):
    """A decorated step or transaction."""

    spec: StepSpec


class Workflow(Definition[P, R]):
    """A decorated workflow."""

    spec: WorkflowSpec

    def __init__(self, spec: WorkflowSpec) -> None:
        super().__init__(spec)
        if current_execution() is None:  # what a run makes for itself is no definition of the process
            declared.setdefault(spec.name, weakref.WeakValueDictionary())[next(_numbers)] = self

    @property
    def __outlive_workflow__(self) -> WorkflowSpec:
        return self.spec

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if current_step.get() is not None:
            raise UsageError(
                f"workflow {self.spec.name} was called inside a step; a step may fail and be tried again, so call the "
                "workflow from a workflow, or start it with app.start(…, id=…)"
            )
        return super().__call__(*args, **kwargs)


# The workflows of this process by name, oldest first, as long as somebody else holds them.
declared: dict[str, weakref.WeakValueDictionary[int, Workflow[..., Any]]] = {}
_numbers = itertools.count()


def spec_of(workflow: Any) -> WorkflowSpec:
    """Give the spec of what is to be started."""
    spec = getattr(workflow, "__outlive_workflow__", None)
    if not isinstance(spec, WorkflowSpec):
        name = getattr(workflow, "__qualname__", repr(workflow))
        raise UsageError(f"{name} is no workflow; decorate it with @workflow")
    return spec


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    on_unknown: OnUnknown = "retry",
    check_arguments: bool = True,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    on_unknown: OnUnknown = "retry",
    check_arguments: bool = True,
) -> Any:
    """Make a function a step: the place for side effects; its outcome is recorded once.

    *Durable*: the outcome (value or error) as one entry, before the next step of the run starts.
    *Again*: an entry is never made twice; a step whose process died before its
    entry was on disk executes again, so make its effect idempotent
    (`outlive.info().idempotency_key`), or use `transaction`.
    `retry` says how often a failed attempt is repeated (a bare step is not),
    `timeout` limits each attempt. `check_arguments=False` leaves the arguments
    out of divergence detection, for arguments that cannot be encoded.
    """

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        facts = _facts(function, name) | _policy(retry, timeout)
        return Step(StepSpec(**facts, on_unknown=on_unknown, check_arguments=check_arguments))

    return decorate(function) if function is not None else decorate


@overload
def transaction(function: Callable[Concatenate[Any, P], R], /) -> Step[P, R]: ...
@overload
def transaction(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    session: Callable[..., Any] | None = None,
    check_arguments: bool = True,
) -> Callable[[Callable[Concatenate[Any, P], R]], Step[P, R]]: ...
def transaction(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    session: Callable[..., Any] | None = None,
    check_arguments: bool = True,
) -> Any:
    """Make a function a transaction: a step whose database writes commit together with its entry, exactly once.

    The function gets `tx` first: `execute`, `fetch`, `fetchrow`, `fetchval`,
    `executemany` inside one transaction of the app's own database; the engine
    commits it. Inside a run it is called without `tx`, elsewhere with the caller's.
    With `session=`, a `sessionmaker` of SQLAlchemy (for a plain function) or an
    `async_sessionmaker` (for an async one, on PostgreSQL), it gets a session
    instead, which is flushed, not committed, when it returns.
    *Again*: a crash before the commit leaves nothing of it, after the commit it never executes again.
    *Raises* UsageError if the body tries to end the transaction itself.
    """

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        if session is not None:
            check_maker(session, function.__qualname__, is_async=inspect.iscoroutinefunction(function))
        facts = _facts(function, name, skip_first=True) | _policy(retry, timeout)
        return Step(StepSpec(**facts, check_arguments=check_arguments, transactional=True, session=session))

    return decorate(function) if function is not None else decorate


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: str | None = None, pin: bool = False
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    pin: bool = False,
) -> Any:
    """Make a function a workflow: its progress is durable.

    *Durable*: its arguments when it is started, then the outcome of each durable call, then its result.
    *Again*: after a crash the function runs again from its top; recorded outcomes
    are delivered instead of repeated, in the recorded order. So everything that
    touches the outside world belongs into steps.
    `version` names the code version, else it is a hash of the function's code.
    With `pin` a run that starts under this version is executed by workers of this version alone.
    """
    if version is not None:
        check_version(version)

    def decorate(function: Callable[..., Any]) -> Workflow[..., Any]:
        facts = _facts(function, name)
        own = version if version is not None else version_of(function)
        return Workflow(WorkflowSpec(**facts, version=own, pinned=pin))

    return decorate(function) if function is not None else decorate


def _facts(function: Callable[..., Any], name: str | None, *, skip_first: bool = False) -> dict[str, Any]:
    """Give what every spec says; the name is the qualified one without `<locals>` and module, unless given."""
    if not callable(function) or isinstance(function, Definition):
        raise UsageError(f"a definition is made of a plain function, not of {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{function.__qualname__} is a generator; a definition returns one value")
    code = getattr(inspect.unwrap(function), "__code__", None)
    return {
        "function": function,
        "name": check_name(name if name is not None else function.__qualname__.rpartition("<locals>.")[2]),
        "is_async": inspect.iscoroutinefunction(function),
        "shape": CallShape(function, skip_first),
        "site": f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function),
    }


def _policy(retry: Retry | None, timeout: Duration | None) -> dict[str, Any]:
    if not isinstance(retry, Retry | None):
        raise UsageError(f"retry=… takes a Retry, not {retry!r}")
    return {"retry": retry or ONCE, "timeout_s": seconds(timeout) if timeout is not None else None}
