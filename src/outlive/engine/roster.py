"""Which runs are in memory: how they enter, what they are told, and why and how they leave.

It knows no order within a run, and writes ends and releases through the
committer. Suspension is memory policy, never semantics: idle runs stay, up to a
number; the least recently used leave, waits over an hour leave at once, and a
sync run leaves when its thread is wanted. Invariant: an execution in
`executions` is owned by this process under its fence, until its end or release
is committed or the lease is lost.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
from typing import Any

from outlive.clock import to_datetime
from outlive.codec.failure import record_error
from outlive.codec.payload import codec_for, decode_arguments
from outlive.engine.continuing import next_generation
from outlive.engine.execution import Execution
from outlive.engine.roles import Host
from outlive.engine.threads import ThreadBody, WorkflowThreads
from outlive.errors import DeadlineExceeded, LeaseLost, PayloadError, RunOnHold
from outlive.limits import QUARANTINE_CRASHES, RESIDENT_IDLE_RUNS, RESIDENT_WAIT_S
from outlive.model.reads import Claimed, EntryRow, RequestRow
from outlive.model.status import Status
from outlive.model.writes import Continue, Mark, Release

log = logging.getLogger("outlive.engine")


class Roster:
    """The runs that this process executes."""

    def __init__(self, engine: Host, max_running: int) -> None:
        self._engine = engine
        self._max_running = max_running
        self.executions: dict[int, Execution] = {}
        self.idle: dict[Execution, None] = {}  # those that only wait, least recently used first
        self.idle_limit = RESIDENT_IDLE_RUNS
        self.arriving = 0  # runs whose start is being written and that will be executed here
        self.closing = False  # nothing enters or begins any more
        self.hushed = False  # no step begins, so that a suspect may run alone
        self._suspects = 0
        self._lost_waits: dict[int, set[asyncio.Future[Any]]] = {}  # of handles, for a run that is executed here
        self.threads = WorkflowThreads(self._free_thread)

    # -- room ---------------------------------------------------------------
    def is_looking(self) -> bool:
        """Whether a run has begun to wait and not asked yet whether it has to: it cannot rest before."""
        return any(execution.looking for execution in self.executions.values() if not execution.closed)

    def free_slots(self) -> int:
        """Give how many more runs may be active here."""
        if self.closing or self._suspects or self.hushed:
            return 0
        return self._max_running - (len(self.executions) - len(self.idle)) - self.arriving

    def quiet(self) -> bool:
        """Whether no user code runs here, so that a suspect may run alone."""
        return len(self.executions) == len(self.idle) or (self.hushed and not self._engine.bodies.in_flight)

    def hush(self, hushed: bool) -> None:
        """Let no step begin for the moment, or let them begin again."""
        self.hushed = hushed
        if not hushed:
            self.go_on()

    def may_begin(self, execution: Execution) -> bool:
        """Whether a step of this run may start now."""
        if (self._suspects or self.hushed) and not execution.alone:
            return False
        return not self.closing and bool(self._engine.lease.alive())

    def clear_suspicion(self, suspect: Execution) -> None:
        """A run that executed alone has made progress, waits or has left: it does not kill its process."""
        suspect.alone = False
        self._suspects -= 1
        if not self._suspects:
            self.go_on()

    def waits_for_others(self, execution: Execution) -> None:
        """Let others begin, too: this run waits for what they give back, and alone it would in vain."""
        if execution.alone:
            self.clear_suspicion(execution)

    def go_on(self) -> None:
        """What had to wait before it began a step looks again."""
        for execution in self.executions.values():
            execution.wake()

    # -- entering -----------------------------------------------------------
    def enter(self, claimed: Claimed, entries: list[EntryRow], *, ending: bool = False) -> None:
        """Take a run that this process owns into memory and let it run; `ending`: only do what it was asked for."""
        engine = self._engine
        spec = engine.definitions.find(claimed.workflow)
        assert spec is not None, claimed.workflow
        refused: Exception | None = None
        try:
            if claimed.crashes >= QUARANTINE_CRASHES:
                raise RunOnHold(claimed.id, "quarantined", "it killed its worker while it ran alone")
            codec = codec_for(claimed.codec, [engine.codec], what=f"run {claimed.id!r}")
            args, kwargs = decode_arguments(
                codec, spec.shape, claimed.input, where=f"arguments of workflow {spec.name}"
            )
            if (claimed.fresh or ending) and (claimed.deadline_at or math.inf) <= engine.clock.now():
                raise DeadlineExceeded(claimed.id, to_datetime(claimed.deadline_at or 0.0))
            if ending:
                body = _nothing()
            elif spec.is_async:
                body = spec.function(*args, **kwargs)
            else:
                body = ThreadBody(spec.function, args, kwargs, self.threads, engine.context.copy()).drive()
        except (PayloadError, RunOnHold) as error:
            refused, body = error, _fail(error)
        except Exception as error:
            body, ending = _fail(error), False
        execution = self.executions[claimed.row] = Execution(engine, claimed, spec, entries, body)
        if claimed.alone:
            self._suspects += 1
            self.hushed = False  # from now on its presence keeps the others from beginning
        if ending:
            engine.main.call_soon(self._leave_line, execution)  # after it has heard its requests
        elif refused is not None:  # code that reads it may be deployed yet; or it is to be cancelled unentered
            engine.main.call_soon(self.abandon, execution, refused)  # after it has heard its requests
        else:
            execution.wake()

    # -- telling ------------------------------------------------------------
    def hear(self, requests: list[RequestRow]) -> bool:
        """Hand requests to the runs they are for; True if there was one."""
        for request in requests:
            execution = self.executions.get(request.row)
            if execution is None or request.request in execution.heard:
                continue
            execution.heard.add(request.request)
            if execution.closed:
                execution.heard_late.append(request)
                continue
            reason: Any = json.loads(request.payload) if request.payload else None
            if request.kind == "resolve":
                self._decide(execution, reason["key"], reason, request.request)
            elif request.kind == "cancel":
                execution.request_cancel(request.request, reason)
            elif request.kind == "pause":
                record = json.dumps({"type": "Paused", "text": reason or "by an operator"})
                execution.between_turns(functools.partial(self._pause, execution, record, request.request))
        return bool(requests)

    def _decide(self, execution: Execution, key: str, decision: Any, request: int) -> None:
        """Keep a decision for its call; one that another has replaced, or that came too late, is done with."""
        obsolete = execution.decisions.get(key, (None, None))[1]
        if key in execution.journal.started:
            execution.decisions[key] = (decision, request)
        else:
            obsolete = request
        if obsolete is not None:
            self._engine.committer.add_handled(execution, obsolete)

    def mark(self, execution: Execution, *, progressed: bool = False) -> None:
        """Write whether a run is in user code, if that is not what was written last, and whether it has progressed."""
        in_user_code = not execution.idle
        if (progressed or in_user_code != execution.marked_in_user_code) and not execution.closed:
            execution.marked_in_user_code = in_user_code
            mark = Mark(execution.row, execution.claim, in_user_code, clear_crashes=progressed)
            self._engine.committer.add_mark(execution, mark)

    def mark_all(self) -> None:
        """Write of every run whether it is in user code."""
        for execution in list(self.executions.values()):
            self.mark(execution)

    # -- resting ------------------------------------------------------------
    def rested(self, execution: Execution, due_at: float | None) -> None:
        """Take note that a run only waits now, at the longest until `due_at`."""
        is_long = due_at is not None and due_at - self._engine.clock.now() > RESIDENT_WAIT_S
        if is_long or (not execution.spec.is_async and self.threads.crowded):
            self.suspend(execution)
            return
        self.idle[execution] = None
        if len(self.idle) > self.idle_limit:
            self.suspend(next(iter(self.idle)))

    def stirred(self, execution: Execution) -> None:
        """Take note that a run has something to do again, or has left."""
        self.idle.pop(execution, None)

    def _free_thread(self) -> None:
        """Let the least recently used sync run leave, if one is idle."""
        for execution in self.idle:
            if not execution.spec.is_async:
                self.suspend(execution)
                return

    # -- leaving ------------------------------------------------------------
    def suspend(self, execution: Execution) -> None:
        """Let an idle run leave memory."""
        self._engine.committer.add_end(execution, execution.suspend())

    def release(self, execution: Execution) -> None:
        """Let go of a run, for a peer to continue now, or when it is due if it only waits."""
        if execution.idle:
            self.suspend(execution)
            return
        execution.unwind()
        release = Release(execution.row, execution.claim, wake_at=self._engine.clock.now())
        self._engine.committer.add_end(execution, release)

    def release_all(self) -> None:
        """Let go of every run."""
        for execution in list(self.executions.values()):
            if not execution.closed:
                self.release(execution)

    def abandon(self, execution: Execution, error: BaseException | None) -> None:
        """Stop a run that the engine cannot continue: held for a person with the reason, or released without one."""
        if execution.closed:
            return
        if error is None:
            self.release(execution)
        elif execution.cancellation.requests:
            self._end_cancelled(execution)
        else:
            log.error("run %r is paused: %s", execution.id, error)
            self._hold(execution, record_error(error, self._engine.codec))

    def _leave_line(self, execution: Execution) -> None:
        """End a run that was cancelled before it began, or put back in line what was asked for nothing."""
        if execution.closed:  # it is held
            return
        if execution.cancellation.requests:
            self._end_cancelled(execution)
            return
        execution.unwind()
        release = Release(execution.row, execution.claim, wake_at=execution.claimed.deadline_at)
        self._engine.committer.add_end(execution, release)

    def _end_cancelled(self, execution: Execution) -> None:
        """Cancel a run that cannot go on: its code gets no chance to tidy up, since nobody knows where it stands."""
        execution.unwind()
        requests = execution.cancellation.requests
        reason = next(iter(requests.values())) or ""
        for request in requests:
            self._engine.committer.add_handled(execution, request)
        error = record_error(asyncio.CancelledError(reason), self._engine.codec)
        self._engine.committer.add_end(execution, execution.finish(Status.CANCELLED, None, error))

    def _pause(self, execution: Execution, reason: str, request: int) -> None:
        if not execution.closed:
            self._hold(execution, reason, request)

    def _hold(self, execution: Execution, reason: str, request: int | None = None) -> None:
        execution.unwind()
        claimed = execution.claimed
        wake_at = claimed.deadline_at if claimed.ending else self._engine.clock.now()  # if the request was withdrawn
        release = Release(execution.row, execution.claim, wake_at, "paused", reason, request)
        self._engine.committer.add_end(execution, release)

    def write_failed(self, execution: Execution, error: BaseException) -> None:
        """The database refused what a run had to write: hold the run as the journal has it."""
        log.error("run %r cannot be written: %s", execution.id, error)
        execution.unwind()
        if execution.write_failed:
            self.executions.pop(execution.row, None)
            return
        execution.write_failed = True
        execution.disowned = False
        self._hold(execution, record_error(error, self._engine.codec))

    def continue_as_new(self, execution: Execution, end: Continue) -> None:
        """Enter the next generation of a run; where this process leaves, that of a peer does."""
        self.executions.pop(execution.row, None)
        if self.closing:
            return
        self.enter(next_generation(execution.claimed, end), [])
        entered = self.executions[execution.row]
        for request, reason in execution.cancellation.requests.items():  # at once: each generation may be a short one
            entered.heard.add(request)
            entered.request_cancel(request, reason)
        self.hear(execution.heard_late)

    def left(self, execution: Execution) -> None:
        """Take note that a run's end or release is on disk; it may have been claimed here again meanwhile."""
        if self.executions.get(execution.row) is execution:
            del self.executions[execution.row]
            self._lost_waits.pop(execution.row, None)

    def disown(self) -> None:
        """The lease is lost: forget every run without a trace."""
        lost = list(self.executions.values())
        self.executions.clear()
        for execution in lost:
            execution.disowned = True
            execution.unwind()
            for waiting in self._lost_waits.pop(execution.row, ()):
                if not waiting.done():
                    waiting.set_exception(LeaseLost(execution.id))

    def wait_here(self, row: int, waiting: asyncio.Future[Any]) -> None:
        """Fail what waits for the end of a run if this process loses the run."""
        if row in self.executions:
            self._lost_waits.setdefault(row, set()).add(waiting)

    def wait_no_more(self, row: int, waiting: asyncio.Future[Any]) -> None:
        """Forget one who waited for the end of a run."""
        self._lost_waits.get(row, set()).discard(waiting)


async def _fail(error: BaseException) -> Any:
    raise error


async def _nothing() -> None:
    """Stand in for a body that is not to be executed."""
