"""Generated from outlive.run by `python -m tools.sync_face`: change that, and run it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from outlive import run
from outlive.clock import Duration
from outlive.messages import Item
from outlive.model.status import Status
from outlive.run import Entry, RunInfo
from outlive.sync.face import Face
from outlive.sync.portal import Portal


class Run(Face):
    """A handle of one run. `created` is False if the run existed when it was started."""

    def __init__(self, portal: Portal, real: run.Run) -> None:
        super().__init__(portal)
        self._real = real
        self.id = real.id
        self.created = real.created

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def status(self) -> Status:
        """Read where the run stands."""
        return self._wait(self._real.status())

    def info(self) -> RunInfo:
        """Read what is known of the run."""
        return self._wait(self._real.info())

    def why(self) -> str:
        """Say in one sentence why the run does not move, with the chain of causes, and what helps."""
        return self._wait(self._real.why())

    def input(self) -> Any:
        """Read the arguments that the run was started with, as plain data: `{"args": […], "kwargs": {…}}`."""
        return self._wait(self._real.input())

    def entries(self, generation: int | None = None) -> list[Entry]:
        """Read the run's journal, by seq; calls that have only started come last.

        `generation` reads it as it was when that generation ended, before a retry or a rewind.
        """
        return self._wait(self._real.entries(generation))

    def result(self, timeout: Duration | None = None, *, stop_on_hold: bool = False, as_type: Any = None) -> Any:
        """Wait for the end of the run and give its value.

        A failed run raises the original error where its class is imported here
        and rebuilds from its recorded arguments, else RunFailed; a cancelled one
        RunCancelled. RunTimedOut says that the wait took too long; the run goes
        on. RunNotFound: it is not there, or was deleted meanwhile. LeaseLost says
        that this process lost the run to a peer. A held run
        keeps the caller waiting unless `stop_on_hold` (RunOnHold).
        """
        return self._wait(self._real.result(timeout, stop_on_hold=stop_on_hold, as_type=as_type))

    def send(self, topic: str, value: Any, key: str | None = None) -> None:
        """Send the run a message; return when it is in its mailbox. A used `key` sends nothing a second time."""
        self._wait(self._real.send(topic, value, key))

    def value(self, name: str, wait: Duration | None = None, *, as_type: Any = Any) -> Any:
        """Give the latest value that the run has published under a name.

        Without one: None at once, or after `wait` RunTimedOut; RunEnded if the run ends before, RunNotFound if it goes.
        """
        return self._wait(self._real.value(name, wait, as_type=as_type))

    def stream(self, name: str, after: int = 0, *, as_type: Any = Any) -> Iterator[Item]:
        """Iterate over the items that the run emits to a stream, past and future, until the run has ended or is gone.

        To go on later or elsewhere, give the `seq` of the last item seen as `after`.
        """
        return self._iterate(lambda: self._real.stream(name, after, as_type=as_type))

    def call(self, name: str, *args: Any, timeout: Duration | None = None, as_type: Any = Any) -> Any:
        """Call into the running workflow, which has said `on_call(name, …)`, and give its answer.

        *Raises* the error with which the run refuses or fails the call, RunEnded if it ends without an answer,
        CallUnanswered where it had accepted the call; RunTimedOut after the timeout: it may be answered all the same.
        """
        return self._wait(self._real.call(name, *args, timeout=timeout, as_type=as_type))

    def cancel(self, reason: str | None = None, *, by: str | None = None) -> bool:
        """Ask for cancellation; False if the run has ended.

        *Durable*: the request, before this returns. The owner delivers it as
        CancelledError at the run's next durable await outside shielded blocks, and journals that.
        """
        return self._wait(self._real.cancel(reason, by=by))

    def pause(self, reason: str | None = None, *, by: str | None = None) -> bool:
        """Ask the owner to take the run out of memory and hold it; False if the run has ended."""
        return self._wait(self._real.pause(reason, by=by))

    def resume(self, *, reason: str | None = None, by: str | None = None) -> bool:
        """Let a paused or quarantined run go on, or withdraw a pause that its owner has not carried out yet.

        *Durable*: that it goes on, before this returns. *Again*: of a pause and a resume at the same time the last one
        counts. False, with nothing changed, if the run is neither held nor to be paused.
        """
        return self._wait(self._real.resume(reason=reason, by=by))

    def reschedule(
        self,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Change when a run that has not begun may start: `delay` from now, or `at` an instant; and its priority.

        *Durable*: the new time, before this returns. In a queue the run is delayed until then and joins the line behind
        those who wait; one that is due keeps its place. A debounced run starts at its cap at the latest, one that
        replaces another still waits for the end of that, and a deadline stays. *Again*: the last call counts.
        False, with nothing changed, if the run has begun or ended, or is to be cancelled.
        """
        return self._wait(self._real.reschedule(delay, at, priority, reason=reason, by=by))

    def resolve(
        self,
        key: str,
        *,
        value: Any = ...,
        error: str | None = None,
        retry: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Decide what became of a step whose outcome a crash left unknown, and let the run go on.

        The step at `key` then has this `value`, fails with this `error`, or is executed again (`retry`): one of them.
        *Durable*: the decision, and that the run may go on, before this returns. False if the run has ended or is not
        held. *Raises* RunRefused, with nothing changed, if it is held for something else than the outcome at `key`.
        """
        return self._wait(self._real.resolve(key, value=value, error=error, retry=retry, reason=reason, by=by))

    def retry(self, *, reason: str | None = None, by: str | None = None) -> None:
        """Let a failed or cancelled run go on from where it failed, under the same id.

        *Durable*: the error or the cancellation that it ended by moves to the past, with what came of it. What had
        begun before and has succeeded is kept, and so is what other branches did meanwhile. A child whose failure it
        was is retried too, and so are those that were cancelled with the run, for whose end this waits. A run of a
        queue stands in line again; its `dedupe` is its own again unless another run has it by now.
        *Raises* RunRefused if it has not failed, its compensations have been executed, something that came of its
        failure may have taken effect, a child that was cancelled does not end, or it is a singleton and another one of
        its key has not ended.
        """
        self._wait(self._real.retry(reason=reason, by=by))

    def rewind(self, to: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Execute the run again from the entry at the key `to` on, under the same id.

        *Durable*: entries before it are reused; it and later ones move to the past, with what has cancelled it, and
        children that those had started are cancelled; nobody is asked what took effect. *Again*: a death on the way
        leaves the run paused. *Raises* RunRefused for an unknown key, and as `retry` for a singleton that has ended.
        """
        self._wait(self._real.rewind(to, reason=reason, by=by))

    def fork(
        self,
        at: str,
        patch: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        deadline: Duration | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Run:
        """Start a new run that reuses the entries before the key `at`, with the values of `patch` in their places.

        *Again*: a used `id` gives the fork that has it. *Raises* RunRefused for an unknown key, for a patch of
        what has no value recorded before it, and for a singleton while one of its key has not ended;
        EncodeFailed for a value that cannot be stored.
        """
        return Run(self._portal, self._wait(self._real.fork(at, patch, id=id, deadline=deadline, reason=reason, by=by)))

    def delete(self, *, children: bool = False, reason: str | None = None, by: str | None = None) -> None:
        """Delete a run that has ended, with all that is its own; `children` takes its finished descendants along.

        *Raises* RunRefused if it has not ended, or a descendant has not, or a parent still waits for its result.
        """
        self._wait(self._real.delete(children=children, reason=reason, by=by))
