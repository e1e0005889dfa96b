"""Durable calls as a workflow's body makes them: each gets its key here, and its arguments are recorded.

Functions of a run in memory; what they make is a `Call` of `calls.py`, which the
run answers in its order. A run that leaves memory gets futures that never end:
the branch ends where it waits for one.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from outlive.codec.payload import digest, digest_arguments, encode_arguments, is_atomic
from outlive.engine.calls import BarrierCall, ChildCall, StartCall, StepCall, child_id
from outlive.engine.roles import LiveRun
from outlive.errors import UsageError
from outlive.model.definition import StepSpec, WorkflowSpec
from outlive.model.writes import NewRun

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
ParentClose = Literal["cancel", "abandon"]


def call_step(run: LiveRun, spec: StepSpec, args: Args, kwargs: Kwargs) -> Awaitable[Any]:
    """Journal one call of a step or transaction, once it is awaited."""
    return run.loop.create_future() if run.loop.unwinding else _await_step(run, spec, args, kwargs)


def call_child(run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs) -> Awaitable[Any]:
    """Start a child run and wait for its result, once this is awaited."""
    return run.loop.create_future() if run.loop.unwinding else _await_child(run, spec, args, kwargs)


async def start_child(
    run: LiveRun,
    spec: WorkflowSpec,
    args: Args,
    kwargs: Kwargs,
    options: dict[str, Any],
    parent_close: ParentClose,
    make_handle: Callable[[str, int], Any],
) -> Any:
    """Start a child run without waiting for its result."""
    if run.loop.unwinding:
        await run.loop.create_future()
    child, args_digest = _new_child(run, spec, args, kwargs, parent_close)
    for name, value in options.items():
        setattr(child, name, value)
    call = StartCall(run, child.parent_key or "", child, args_digest, make_handle)
    run.ask(call)
    return await call


async def wait_durable(run: LiveRun) -> None:
    """Wait until all that was recorded so far is on disk."""
    if run.loop.unwinding:
        await run.loop.create_future()
    call = BarrierCall(run, run.loop.branch().key("durable"), "durable", None)
    run.ask(call)
    await call


def call_in_thread(run: LiveRun, target: Any, args: Args, kwargs: Kwargs) -> asyncio.Future[Any]:
    """Serve `asyncio.to_thread(definition, …)` in a workflow body."""
    spec = getattr(target, "spec", None)
    if isinstance(spec, StepSpec):
        return _step_call(run, spec, args, kwargs)
    if isinstance(spec, WorkflowSpec):
        return _child_call(run, spec, args, kwargs)
    name = getattr(target, "__qualname__", repr(target))
    raise UsageError(
        f"a workflow body may not run {name} in a thread: replay could not repeat it; "
        f"decorate {name} with @step, then asyncio.to_thread({name}, …) is durable"
    )


async def _await_step(run: LiveRun, spec: StepSpec, args: Args, kwargs: Kwargs) -> Any:
    return await _step_call(run, spec, args, kwargs)


async def _await_child(run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs) -> Any:
    return await _child_call(run, spec, args, kwargs)


def _step_call(run: LiveRun, spec: StepSpec, args: Args, kwargs: Kwargs) -> StepCall:
    run.check_alive()
    run.engine.use_definition(spec)
    key = run.loop.branch().key(spec.name)
    checked = None
    if spec.check_arguments:
        checked = digest_arguments(spec.shape, args, kwargs, where=spec.arguments)
        if not is_atomic(args, kwargs):
            args, kwargs = copy.deepcopy((args, kwargs))  # what a body does to them must not reach the workflow
    call = StepCall(run, key, checked, spec, args, kwargs)
    run.ask(call)
    return call


def _child_call(run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs) -> ChildCall:
    run.check_alive()
    child, args_digest = _new_child(run, spec, args, kwargs, "cancel")
    call = ChildCall(run, child.parent_key or "", child, spec.shape.result, args_digest)
    run.ask(call)
    return call


def _new_child(
    run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs, parent_close: ParentClose
) -> tuple[NewRun, str]:
    key = run.loop.branch().key(spec.name)
    text = encode_arguments(run.codec, spec.shape, args, kwargs, where=f"arguments of workflow {spec.name}")
    child = run.engine.new_run(spec, child_id(run.id, key), text)
    child.parent, child.parent_key, child.parent_close = run.row, key, parent_close
    return child, digest(text)
