"""How a run ends: what its body came to, the compensations that follow a failure, and the record of both.

Compensations are ordinary durable calls in a scope of their own, one after the
other, the last registered first; nothing cancels them. Invariant: what the body
came to is concluded once, and no compensation changes it: it adds a note.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from outlive.codec.failure import error_facts, record_error
from outlive.codec.payload import encode
from outlive.codec.plain import name_class
from outlive.engine.continuing import Continued
from outlive.engine.invoke import Args, Kwargs, call_definition
from outlive.engine.roles import LiveRun
from outlive.errors import StepFailed, UsageError
from outlive.model.definition import StepSpec
from outlive.model.status import Status

log = logging.getLogger("outlive.run")


class Ending:
    """The end of one run, and what is to be done then."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self.compensations: list[tuple[StepSpec, Args, Kwargs]] = []
        self.status: Status | None = None
        self._output: str | None = None
        self._failure: BaseException | None = None

    def conclude(self, body: asyncio.Task[Any]) -> bool:
        """Take what the body came to; True if there is something to roll back."""
        run = self._run
        try:
            result, hint = body.result(), run.spec.shape.result
            self._output = encode(run.codec, result, hint, where=f"result of workflow {run.spec.name}")
            self.status = Status.SUCCEEDED
        except (asyncio.CancelledError, Continued) as cancelled:
            self._failure = run.cancellation.as_error(str(cancelled))
            late = not isinstance(self._failure, asyncio.CancelledError)
            self.status = Status.FAILED if late else Status.CANCELLED
        except BaseException as failure:
            self._failure = _explain(failure)
            self.status = Status.FAILED
        return self._failure is not None and bool(self.compensations)

    async def roll_back(self) -> None:
        """Execute the compensations; one that fails is noted with the error of the run and stops none of the others."""
        failure = self._failure
        assert failure is not None
        for spec, args, kwargs in reversed(self.compensations):
            try:
                await call_definition(self._run, spec, args, kwargs)
            except Exception as error:
                name = error.type if isinstance(error, StepFailed) else name_class(type(error))
                text = error.text if isinstance(error, StepFailed) else str(error)
                failure.add_note(f"compensation {spec.name} failed: {name}: {text}")
                log.warning("run %r: compensation %s failed: %s: %s", self._run.id, spec.name, name, text)

    def record(self) -> tuple[Status, str | None, str | None]:
        """Give what is written of the end: status, result, error."""
        assert self.status is not None
        error = None if self._failure is None else record_error(self._failure, self._run.codec)
        if error is not None and self.status is Status.FAILED:
            log.warning("run %r failed:\n%s", self._run.id, error_facts(error)["traceback"])
        return self.status, self._output, error


def _explain(failure: BaseException) -> BaseException:
    """Say what to write instead where a workflow awaited something of another loop."""
    if isinstance(failure, RuntimeError) and "attached to a different loop" in str(failure):
        explained = UsageError(
            "a workflow body awaited a future that is not the run's own, which replay could not repeat; "
            "put the call into a function decorated with @step and await that"
        )
        explained.__cause__ = failure
        return explained
    return failure
