"""Durable calls: what a branch of a run may wait for, one class per kind.

A call is a future of the run's loop with a key. `begin` sets its work going,
once the barrier allows it; the work ends in `Execution.hand_in`; `deliver` hands
the outcome to the branch, from the journal or from the work, by the same code.
Cancelling a call asks its work to end: what then happens is an outcome like any
other, so replay repeats it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from outlive.codec.failure import doubted, mark_entry, rebuild_error, record_error
from outlive.codec.payload import codec_for
from outlive.engine.roles import LiveRun
from outlive.engine.runloop import RunFuture
from outlive.errors import DecodeFailed, OutcomeUnknown, RunExists, RunNotFound
from outlive.model.definition import StepSpec
from outlive.model.mail import SideRow
from outlive.model.reads import GONE, EndedRun
from outlive.model.status import Status
from outlive.model.writes import Committed, ExistingRun, NewRun, Outcome

CANCELLED = json.dumps(
    {"type": "asyncio.exceptions.CancelledError", "text": "cancelled", "args": None, "retryable": False}
)
# The same of a step that may not be repeated blindly, and may have taken effect.
_CANCELLED_IN_DOUBT = doubted(CANCELLED)


class Call(RunFuture):
    """One durable call. Subclasses say how it begins and how its value is read."""

    kind = ""
    has_effect = True  # its beginning shows outside this process: all earlier entries have to be on disk
    begun = False
    cancel_requested = False
    committing = False  # a transaction past the point of cancellation
    attempts = 1
    work: asyncio.Task[Any] | None = None  # what cancel() has to end
    sides: tuple[SideRow, ...] = ()  # what is written with the outcome
    on_durable: Callable[[Committed], object] | None = None  # called when the outcome is on disk
    answers: int | None = None  # the request that decided the outcome: deleted in the commit that records it
    _cancel_words: Any = None  # of whoever cancelled it: anyio knows its own cancellations by them
    _cancels_before: int | None = None  # of the task that awaits this, when its cancellation came here

    def __init__(self, execution: LiveRun, key: str, name: str, digest: str | None) -> None:
        super().__init__(loop=execution.loop)
        self.execution = execution
        self.key = key
        self.name = name
        self.digest = digest
        self.began_at = execution.loop.time()
        self._task = asyncio.current_task(execution.loop)

    def begin(self) -> None:
        """Set the work going."""
        raise NotImplementedError

    def decode(self, text: str) -> Any:
        """Read the value of an `ok` entry."""
        raise NotImplementedError

    def succeed(self, text: str) -> None:
        """Hand in a value as the outcome."""
        self.execution.hand_in(self, "ok", text, self.decode(text), None)

    def fail(self, record: str | None) -> None:
        """Hand in a recorded error as the outcome."""
        self.execution.hand_in(self, "error", None, None, record)

    def deliver(self, outcome: Outcome, value: Any, error: str | None) -> None:
        """Hand the outcome to whoever awaits this call."""
        if self.done():
            return
        if outcome == "ok":
            self.set_result(value)
        elif is_cancellation(error):
            super().cancel(self._cancel_words)
            return
        else:
            rebuilt = rebuild_error(error or "{}")
            failure = RuntimeError(str(rebuilt)) if isinstance(rebuilt, StopIteration) else rebuilt
            mark_entry(failure, self.key)
            self.set_exception(failure)
        if self._cancels_before is not None:
            self.execution.loop.call_soon(self._cancel_next)

    def _cancel_next(self) -> None:
        """Cancel the task where it waits next: its cancellation came here, but the work had an outcome all the same."""
        task = self._task
        if task is None or task.cancelling() <= (self._cancels_before or 0):
            return
        if not task.done():
            task.uncancel()
            task.cancel()
        elif task is self.execution.task:
            self.execution.cancellation.was_felt = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask the work to end; the branch goes on when the outcome is delivered.

        If that is a value after all, the branch gets it, and its CancelledError at its next await.
        """
        if self.done():
            return False
        if self.execution.loop.unwinding:
            return super().cancel(msg)
        if not self.cancel_requested:
            self.cancel_requested = True
            self._cancel_words = msg
            task = self._task
            if task is not None and task._fut_waiter is self:  # type: ignore[attr-defined]
                self._cancels_before = task.cancelling() - 1
            if self.begun:  # else its outcome is handed in when its time comes
                self.stop()
        return True

    def stop(self) -> None:
        """End the work, as far as that is possible; called once, after begin."""
        self.forget()

    def forget(self) -> None:
        """End what this process does for the call: nobody waits for it here."""
        if self.work is not None and not self.committing:
            self.work.cancel()

    def cancellation(self) -> str:
        """Give the record of its cancellation, as it stands now."""
        return CANCELLED


class StepCall(Call):
    """A step or transaction: its body executes on the main loop or in a thread."""

    in_doubt = False  # it may not be repeated blindly, and nobody knows whether an attempt took effect

    def __init__(
        self,
        execution: LiveRun,
        key: str,
        digest: str | None,
        spec: StepSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(execution, key, spec.name, digest)
        self.kind = spec.kind
        self.spec = spec
        self.args = args
        self.kwargs = kwargs

    def begin(self) -> None:
        bodies = self.execution.engine.bodies
        if not self._was_interrupted():
            bodies.begin(self)
            return
        decision, self.answers = self.execution.decisions.pop(self.key, (None, None))
        if decision is None:
            if self.spec.on_unknown == "park":
                raise OutcomeUnknown(self.execution.id, self.key)
            bodies.begin(self, verify=True)
        elif "value" in decision:
            self._succeed_as_decided(json.dumps(decision["value"]))
        elif "error" in decision:
            self.fail(failure_record("Resolved", decision["error"]))
        else:
            self._forget_decision()  # whoever dies from now on asks again: it may have executed
            bodies.begin(self)

    def cancellation(self) -> str:
        in_doubt = self.in_doubt if self.begun else self._was_interrupted()
        return _CANCELLED_IN_DOUBT if in_doubt else CANCELLED

    def _was_interrupted(self) -> bool:
        """Whether an attempt began of which nothing else is known, where nothing may be repeated blindly."""
        started = self.execution.journal.started.get(self.key) if self.spec.on_unknown != "retry" else None
        return started is not None and started.error is None

    def _succeed_as_decided(self, text: str) -> None:
        try:
            self.succeed(text)
        except DecodeFailed:
            self._forget_decision()
            raise

    def _forget_decision(self) -> None:
        if self.answers is not None:
            self.execution.engine.committer.add_handled(self.execution, self.answers)
            self.answers = None

    def decode(self, text: str) -> Any:
        return self.execution.codec.decode(text, self.spec.shape.result, where=self.spec.result)


class BarrierCall(Call):
    """`outlive.durable()`: it begins when all earlier entries are on disk, and that is all it waits for."""

    kind = "durable"

    def begin(self) -> None:
        self.succeed("null")

    def decode(self, text: str) -> Any:
        return None


class RunCall(Call):
    """A call that starts a child run."""

    def __init__(self, execution: LiveRun, run: NewRun, digest: str | None) -> None:
        super().__init__(execution, run.parent_key or "", run.workflow, digest)
        self.run = run

    def begin(self) -> None:
        # A run that has not looked yet does not rest: the child may have ended long ago, and
        # a run that left memory now would never hear of its start, and be claimed for it again.
        self.execution.looking += 1
        self.execution.recorder.start_child(self)

    def on_started(self, existing: ExistingRun | None, *, again: bool) -> None:
        """Take note that the child's run, or another of its id, is on disk; `again`: the entry was there before."""
        raise NotImplementedError


class ChildCall(RunCall):
    """A child run, awaited: done by the child's end."""

    kind = "child"
    on_disk = False

    def __init__(self, execution: LiveRun, run: NewRun, result_hint: Any, digest: str | None) -> None:
        super().__init__(execution, run, digest)
        self.result_hint = result_hint

    def on_started(self, existing: ExistingRun | None, *, again: bool) -> None:
        """The child's run is on disk: wait for its end."""
        if existing is None and not self.cancel_requested:
            self.on_disk = True
            on_looked = self.execution.looked if again else None
            self.execution.engine.watcher.watch("end", self.run.row, self._on_ended, on_looked)
            if again:
                return
        elif existing is None:
            self.on_disk = True
            self.stop()
        else:
            self.fail(_taken(existing, self.run))
        self.execution.looked()

    def forget(self) -> None:
        """Wait no more."""
        self.execution.engine.watcher.forget("end", self.run.row, self._on_ended)

    def _on_ended(self, ended: EndedRun) -> None:
        if ended.status == GONE:  # deleted between an operator's plan for this run and its execution
            self.forget()
            self.fail(record_error(RunNotFound(self.run.id), self.execution.codec))
            return
        if Status(ended.status).final:
            self.forget()
        if ended.status == Status.SUCCEEDED:
            text = ended.output or "null"
            try:
                codec_for(ended.codec, [self.execution.codec], what=f"the result of run {ended.id!r}")
                value = self.decode(text)
            except DecodeFailed as error:  # code that reads it may be deployed yet: nothing is lost
                engine = self.execution.engine
                engine.main.call_soon(engine.roster.abandon, self.execution, error)
                return
            self.execution.hand_in(self, "ok", text, value, None)
        elif ended.status == Status.CANCELLED:
            self.fail(failure_record("outlive.errors.RunCancelled", f"child run {ended.id!r} was cancelled"))
        elif ended.status == Status.FAILED:
            self.fail(ended.error)

    def stop(self) -> None:
        """Ask the child to cancel, then end the wait; as soon as there is a child that can be asked."""
        if not self.on_disk:
            return
        self.forget()
        self.execution.engine.request_cancel_of_child(self.run.id)
        self.fail(CANCELLED)

    def decode(self, text: str) -> Any:
        return self.execution.codec.decode(text, self.result_hint, where=f"result of workflow {self.name}")


class StartCall(RunCall):
    """A child run that is only started: done when its row is on disk."""

    kind = "start"

    def __init__(
        self, execution: LiveRun, run: NewRun, digest: str | None, make_handle: Callable[[str, int], Any]
    ) -> None:
        super().__init__(execution, run, digest)
        self.make_handle = make_handle

    def on_started(self, existing: ExistingRun | None, *, again: bool) -> None:
        """The child's run is on disk: that is all. The same id of the same workflow is the same run."""
        if existing is not None and existing.workflow != self.run.workflow:
            self.fail(_taken(existing, self.run))
        else:
            if existing is not None:
                self.run.row = existing.row
            self.succeed(child_reference(self.run))
        self.execution.looked()

    def decode(self, text: str) -> Any:
        reference = json.loads(text)
        return self.make_handle(reference["run"], reference["row"])


def is_cancellation(error: str | None) -> bool:
    """Say whether this is the recorded error of a call that was cancelled."""
    return error in (CANCELLED, _CANCELLED_IN_DOUBT)


def child_reference(run: NewRun) -> str:
    """Give the value under which a started child is recorded."""
    return json.dumps({"run": run.id, "row": run.row})


def _taken(existing: ExistingRun, wanted: NewRun) -> str:
    return failure_record("outlive.errors.RunExists", str(RunExists(wanted.id, existing.workflow, wanted.workflow)))


def failure_record(type: str, text: str) -> str:
    """Make the record of an error that no code has raised."""
    return json.dumps({"type": type, "text": text, "args": None, "retryable": False, "traceback": "", "cause": None})
