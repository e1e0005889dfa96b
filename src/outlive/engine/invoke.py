"""What a workflow's body asks: each durable call, and each value made at once, gets its key and digest here.

Functions of a run in memory. A call is one of `calls.py`, which the run answers
in its order; a value is journaled, or read, on the spot. A run that leaves memory
gets futures that never end: the branch ends where it waits for one.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

from outlive.codec.failure import mark_entry, rebuild_error, record_error
from outlive.codec.payload import digest_arguments, encode_arguments, is_atomic
from outlive.engine.calls import BarrierCall, Call, ChildCall, StartCall, StepCall
from outlive.engine.roles import LiveRun
from outlive.errors import UsageError
from outlive.model.children import child_id
from outlive.model.definition import StepSpec, WorkflowSpec
from outlive.model.mail import SideRow
from outlive.model.writes import NewRun

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def record(
    run: LiveRun,
    kind: str,
    name: str,
    digest: str | None,
    make: Callable[[str], tuple[str, tuple[SideRow, ...]]],
    *,
    keeps_errors: bool = False,
) -> str:
    """Journal what `make` gives at once for its key, a text and side rows; give the text, or what was recorded.

    With `keeps_errors` what it raises is journaled as well: for functions of users, which may not raise it again.
    """
    run.check_alive()
    key = run.loop.branch().key(kind if name == kind else f"{kind}:{name}")
    misplaced = run.journal.misplaced(key, kind)
    if misplaced is not None:
        run.diverge(misplaced)
    entry = run.journal.take(key)
    if entry is not None:
        run.compare(entry, kind, name, digest)
        if entry.error is not None:
            recorded = rebuild_error(entry.error)
            mark_entry(recorded, key)
            raise recorded
        return entry.value or "null"
    at = run.loop.time()
    try:
        text, sides = make(key)
    except Exception as error:
        if keeps_errors:
            error_text = record_error(error, run.codec)
            run.recorder.append_at_once(key, kind, name, None, at, at, digest=digest, error=error_text)
            mark_entry(error, key)
        raise
    run.recorder.append_at_once(key, kind, name, text, at, at, digest=digest, sides=sides)
    return text


def answer(run: LiveRun, kind: str, make: Callable[[], Any], hint: Any) -> Any:
    """Journal a value that is made at once: `now`, `random`, `uuid`."""
    text = record(run, kind, kind, None, lambda _: (run.codec.encode(make(), where=kind, hint=hint), ()))
    return run.codec.decode(text, hint, where=f"recorded {kind}")


def patched(run: LiveRun, name: str) -> bool:
    """Say whether a run takes the new path here: it does unless it has been past this point; recorded."""
    run.check_alive()
    key = run.loop.branch().key(f"patch:{name}")
    recorded = run.journal.patches.get(key)
    if recorded is not None:
        return bool(run.codec.decode(recorded.value or "null", bool, where=f"recorded patch {name}"))
    is_new = not run.journal.goes_on()
    at = run.loop.time()
    run.recorder.append_at_once(key, "patch", name, run.codec.encode(is_new, where="patch"), at, at)
    return is_new


def invoke(run: LiveRun, spec: StepSpec | WorkflowSpec, args: Args, kwargs: Kwargs) -> Awaitable[Any]:
    """Journal one call of a step or transaction, or of a child run, once this is awaited."""
    if run.loop.unwinding:
        return run.loop.create_future()  # type: ignore[no-any-return]
    awaited = _awaited(run, spec, args, kwargs)
    awaited.__qualname__ = spec.name  # type: ignore[attr-defined]  # whoever forgets to await it is told what
    return awaited


async def start_child(
    run: LiveRun,
    spec: WorkflowSpec,
    args: Args,
    kwargs: Kwargs,
    options: dict[str, Any],
    make_handle: Callable[[str, int], Any],
) -> Any:
    """Start a child run without waiting for its result; `options` are fields of its record."""
    if run.loop.unwinding:
        await run.loop.create_future()
    child, args_digest = _new_child(run, spec, args, kwargs, **options)
    return await wait_for(run, StartCall(run, child, args_digest, make_handle))


async def wait_durable(run: LiveRun) -> None:
    """Wait until all that was recorded so far is on disk."""
    if run.loop.unwinding:
        await run.loop.create_future()
    await wait_for(run, BarrierCall(run, run.loop.branch().key("durable"), "durable", None))


async def wait_for(run: LiveRun, call: Call) -> Any:
    """Ask a call and give its outcome to the branch."""
    if run.loop.unwinding:
        await run.loop.create_future()
    run.ask(call)
    return await call


def compensate(run: LiveRun, spec: StepSpec, args: Args, kwargs: Kwargs) -> None:
    """Register a step for the case that the run fails or is cancelled; noted in the journal."""
    run.engine.definitions.use(spec)
    checked, text = None, "null"
    if spec.check_arguments:
        checked = digest_arguments(spec.shape, args, kwargs, where=spec.arguments)
        text = encode_arguments(run.codec, spec.shape, args, kwargs, where=spec.arguments)
        args, kwargs = copy.deepcopy((args, kwargs))
    record(run, "on_rollback", spec.name, checked, lambda _: (text, ()))
    run.ending.compensations.append((spec, args, kwargs))


def call_in_thread(run: LiveRun, target: Any, args: Args, kwargs: Kwargs) -> asyncio.Future[Any]:
    """Serve `asyncio.to_thread(definition, …)` in a workflow body."""
    spec = getattr(target, "spec", None)
    if isinstance(spec, StepSpec | WorkflowSpec):
        return call_definition(run, spec, args, kwargs)
    name = getattr(target, "__qualname__", repr(target))
    raise UsageError(
        f"a workflow body may not run {name} in a thread: replay could not repeat it; "
        f"decorate {name} with @step, then asyncio.to_thread({name}, …) is durable"
    )


async def _awaited(run: LiveRun, spec: StepSpec | WorkflowSpec, args: Args, kwargs: Kwargs) -> Any:
    return await call_definition(run, spec, args, kwargs)


def call_definition(run: LiveRun, spec: StepSpec | WorkflowSpec, args: Args, kwargs: Kwargs) -> Call:
    """Make the call, for whoever awaits it at once."""
    run.check_alive()
    call = _step_call(run, spec, args, kwargs) if isinstance(spec, StepSpec) else _child_call(run, spec, args, kwargs)
    run.ask(call)
    return call


def _step_call(run: LiveRun, spec: StepSpec, args: Args, kwargs: Kwargs) -> StepCall:
    run.engine.definitions.use(spec)
    key = run.loop.branch().key(spec.name)
    checked = None
    if spec.check_arguments:
        checked = digest_arguments(spec.shape, args, kwargs, where=spec.arguments)
        if not is_atomic(args, kwargs):
            args, kwargs = copy.deepcopy((args, kwargs))  # what a body does to them must not reach the workflow
    return StepCall(run, key, checked, spec, args, kwargs)


def _child_call(run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs) -> ChildCall:
    child, args_digest = _new_child(run, spec, args, kwargs)
    return ChildCall(run, child, spec.shape.result, args_digest)


def _new_child(run: LiveRun, spec: WorkflowSpec, args: Args, kwargs: Kwargs, **options: Any) -> tuple[NewRun, str]:
    engine = run.engine
    engine.definitions.use(spec)
    key = run.loop.branch().key(spec.name)
    where = f"arguments of workflow {spec.name}"
    text = encode_arguments(run.codec, spec.shape, args, kwargs, where=where)
    facts: dict[str, Any] = {"id": child_id(run.id, key, run.generation), "parent_close": "cancel"} | options
    if facts["parent_close"] == "cancel" and not run.cancellation.shields:  # else the deadline would tear the block
        facts["deadline_at"] = run.claimed.deadline_at
    child = NewRun(
        row=engine.new_row(),
        workflow=spec.name,
        input=text,
        version=spec.version,
        pinned=spec.pinned,
        codec=engine.codec.id,
        parent=run.row,
        parent_key=key,
        **facts,
    )
    return child, digest_arguments(spec.shape, args, kwargs, where=where)  # not of the text: sets, and ciphers, vary
