"""How a run goes on as new: same id, another journal, other arguments, the code at hand.

It knows how the body says so and what is written then; the order of a run is
its execution's business. `Continued` ends the body as a return does: `finally`
blocks run, and what they call is journaled. Invariant: the next generation
begins when the end of this one is on disk, all of its entries before it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, NoReturn

from outlive.codec.payload import encode_arguments
from outlive.engine.roles import LiveRun
from outlive.errors import UsageError
from outlive.model.reads import Claimed
from outlive.model.writes import Continue


class Continued(BaseException):
    """Ends the body of a run that goes on as new with these arguments, as text. Private, as Unwound is."""

    def __init__(self, input: str) -> None:
        super().__init__()
        self.input = input


async def continue_as_new(run: LiveRun, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """End the body; UsageError in a branch, EncodeFailed where the workflow's arguments cannot be stored."""
    if run.loop.unwinding:
        await run.loop.create_future()
    if asyncio.current_task(run.loop) is not run.task:
        raise UsageError("outlive.continue_as_new ends the whole run: call it in the workflow's body, not in a branch")
    where = f"arguments of workflow {run.spec.name}"
    raise Continued(encode_arguments(run.codec, run.spec.shape, args, kwargs, where=where))


def find_continued(task: asyncio.Task[Any]) -> Continued | None:
    """Give what the body of a task has ended with, also where it left a TaskGroup on its way out."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, Continued) else None


def end_generation(run: LiveRun, continued: Continued, at: float) -> Continue:
    """Make the record of a generation's end; children that were to end with the run end with it."""
    reason = json.dumps(f"its parent {run.id!r} has continued as new") if run.has_children else None
    return Continue(
        run.row, run.claim, run.generation, run.claimed.continued + 1, run.spec.version, continued.input, at, reason
    )


def next_generation(claimed: Claimed, end: Continue) -> Claimed:
    """Give the run as its owner goes on with it."""
    return replace(
        claimed,
        version=end.version,
        input=end.input,
        generation=end.generation + 1,
        continued=end.continued,
        began_at=end.at,
        crashes=0,
        fresh=False,
        alone=False,
        salt=None,
    )
