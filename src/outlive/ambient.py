"""What a workflow body may use besides its steps: time, chance, branches, children.

Inside a run everything here is durable or deterministic. Outside a run `sleep`,
`now`, `random` and `uuid` act plainly, the rest raises UsageError.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
import uuid as _uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar, cast

from outlive.clock import Duration, to_datetime, to_instant
from outlive.clock import seconds as to_seconds
from outlive.definitions import current_execution, for_async_bodies, in_workflow, spec_of
from outlive.engine.bodies import current_step, describe
from outlive.engine.engine import Engine
from outlive.engine.invoke import answer, compensate, start_child, wait_durable
from outlive.errors import UsageError
from outlive.ids import check_id
from outlive.model.definition import StepInfo, StepSpec, WorkflowInfo
from outlive.model.options import check_deadline, check_key, check_priority, check_queue, check_wait
from outlive.run import Run

__all__ = ["durable", "info", "now", "random", "sleep", "sleep_until", "start", "uuid"]
__all__ += ["gather", "group", "map", "race"]  # branches
__all__ += ["on_rollback", "shielded"]  # stopping

T = TypeVar("T")


@for_async_bodies
async def sleep(
    delay: Duration | None = None, /, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> None:
    """Wait durably: `sleep(2.5)`, `sleep(days=3)`.

    *Durable*: the wait ends at the time of the last delivered outcome plus the
    delay, whatever dies meanwhile; its end is an entry. A run that waits holds no memory in the long run.
    """
    total_s = to_seconds(delay) if delay is not None else 0.0
    total_s += to_seconds(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))
    await asyncio.sleep(total_s)


@for_async_bodies
async def sleep_until(at: datetime) -> None:
    """Wait durably until an aware datetime on the database's clock; at once if that is past."""
    execution = current_execution()
    now = time.time() if execution is None else execution.loop.time()
    await asyncio.sleep(to_instant(at) - now)  # of two near floats: exact, so a run's timer is due at `at` itself


@for_async_bodies
def now() -> datetime:
    """Give the time as an aware UTC datetime; recorded, so replay sees the same."""
    execution = current_execution()
    if execution is None:
        return datetime.now(UTC)
    clock = execution.engine.clock
    return answer(execution, "now", lambda: to_datetime(max(clock.now(), execution.loop.time())), datetime)  # type: ignore[no-any-return]


@for_async_bodies
def random() -> float:
    """Give a random number in [0, 1); recorded, so replay sees the same."""
    execution = current_execution()
    return _random.random() if execution is None else answer(execution, "random", execution.engine.chance.random, float)


@for_async_bodies
def uuid() -> _uuid.UUID:
    """Give a random UUID; recorded, so replay sees the same."""
    execution = current_execution()
    return _uuid.uuid4() if execution is None else answer(execution, "uuid", execution.engine.ids.uuid, _uuid.UUID)


@for_async_bodies
def info() -> StepInfo | WorkflowInfo:
    """Say which run is executing here: WorkflowInfo in a workflow body, StepInfo in a step."""
    execution = current_execution()
    if execution is not None:
        return WorkflowInfo(execution.id, execution.spec.name, execution.version, bool(execution.journal.unread))
    step = current_step.get()
    if step is None:
        raise UsageError("outlive.info is for workflow bodies and steps; here no run is executing")
    return describe(step)


@for_async_bodies
async def gather(*aws: Awaitable[Any], return_exceptions: bool = False) -> list[Any]:
    """Wait for all. The first error cancels the others, awaits their end and is raised."""
    in_workflow("gather")
    tasks = [asyncio.ensure_future(aw) for aw in aws]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    except BaseException:
        await _end(tasks)
        raise


@for_async_bodies
async def race(*aws: Awaitable[Any]) -> tuple[int, Any]:
    """Wait for the first to end and give its index and value; the others are cancelled and awaited."""
    in_workflow("race")
    if not aws:
        raise UsageError("outlive.race takes at least one awaitable")
    tasks = [asyncio.ensure_future(aw) for aw in aws]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(index for index, task in enumerate(tasks) if task.done())
    finally:
        await _end(tasks)
    return winner, tasks[winner].result()


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@for_async_bodies
async def durable() -> None:
    """Wait until everything recorded so far is on disk: before this body's code talks to the outside by other means."""
    await wait_durable(in_workflow("durable"))


@asynccontextmanager
async def shielded() -> AsyncIterator[None]:
    """Hold back cancellation: `async with outlive.shielded():` a request or the deadline is delivered after the block.

    *Again*: replay holds it back as well. The block holds back what comes for the whole run, in whichever branch it
    is open; timeouts of the body's own still count. Children started meanwhile do not inherit the deadline.
    """
    cancellation = in_workflow("shielded").cancellation
    cancellation.shields += 1
    try:
        yield
    finally:
        cancellation.shields -= 1


@for_async_bodies
async def on_rollback(step: Any, /, *args: Any, **kwargs: Any) -> None:
    """Register a compensation: a step that is executed if this run fails or is cancelled, the last registered first.

    *Durable*: the step and its arguments, as an entry. *Again*: compensations are
    durable calls, each recorded once, and nothing cancels them. One that fails is
    noted with the run's error and stops none of the others.
    """
    execution, spec = in_workflow("on_rollback"), getattr(step, "spec", None)
    if not isinstance(spec, StepSpec):
        raise UsageError(f"outlive.on_rollback takes a step or transaction and its arguments, not {step!r}")
    compensate(execution, spec, args, kwargs)


@for_async_bodies
def group() -> asyncio.TaskGroup:
    """Open a group of branches: `async with outlive.group() as g: g.create_task(…)`."""
    in_workflow("group")
    return asyncio.TaskGroup()


@for_async_bodies
async def map(function: Callable[[T], Awaitable[Any]], items: Iterable[T], limit: int | None = None) -> list[Any]:
    """Call a function for every item, at most `limit` at a time; results in the order of the items."""
    in_workflow("map")
    if limit is None:
        return await gather(*(function(item) for item in items))
    if limit < 1:
        raise UsageError("outlive.map(limit=…) is at least 1")
    places = asyncio.Semaphore(limit)

    async def one(item: T) -> Any:
        async with places:
            return await function(item)

    return await gather(*(one(item) for item in items))


@for_async_bodies
async def start(
    workflow: Any,
    *args: Any,
    id: str | None = None,
    queue: str | None = None,
    delay: Duration | None = None,
    priority: int = 0,
    key: str | None = None,
    deadline: Duration | None = None,
    kwargs: dict[str, Any] | None = None,
    parent_close: Literal["cancel", "abandon"] = "cancel",
) -> Run:
    """Start a child run and go on; return when it is on disk.

    *Again*: replay gives a handle of the same child. `parent_close` says what
    becomes of it when this run ends first.
    """
    execution = in_workflow("start")
    spec = spec_of(workflow)
    if parent_close not in ("cancel", "abandon"):
        raise UsageError(f"parent_close=… is 'cancel' or 'abandon', not {parent_close!r}")
    options: dict[str, Any] = {
        "queue": check_queue(queue),
        "priority": check_priority(priority),
        "key": check_key(key),
        "delay_s": check_wait(delay, "delay=…"),
        "deadline_s": check_deadline(deadline),
        "parent_close": parent_close,
    }
    if id is not None:
        options["id"] = check_id(id)

    def make_handle(run_id: str, row: int) -> Run:
        return Run(lambda: _outside(cast(Engine, execution.engine)), run_id, row, spec.shape.result, created=True)

    return await start_child(execution, spec, args, kwargs or {}, options, make_handle)  # type: ignore[no-any-return]


def _outside(engine: Engine) -> Engine:
    """Refuse what a handle does inside a workflow body, where replay could not repeat it."""
    if current_execution() is not None:
        raise UsageError(
            "a workflow body may not ask the store about a run; await the workflow itself for its result, "
            "or use the handle in a step"
        )
    return engine
