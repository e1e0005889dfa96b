"""One process's part in a store: puts the duties together and knows which runs are in memory.

It decides nothing about a single run (`Execution` does) and speaks no SQL
(`Store` does). Invariant: an execution in `executions` is owned by this process
under its fence, until its end or release is committed or the lease is lost.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import random
from collections.abc import Callable, Iterable
from typing import Any

from outlive.clock import Clock, DatabaseClock
from outlive.codec.failure import record_error
from outlive.codec.payload import codec_for, decode_arguments
from outlive.engine.bodies import Bodies
from outlive.engine.claimer import Claimer, Requests, Sweep, Takeover
from outlive.engine.committer import Committer
from outlive.engine.execution import Execution
from outlive.engine.filelock import FileLocks, ProcessLock
from outlive.engine.lease import Lease
from outlive.engine.looper import Backoff, Looper
from outlive.engine.residency import Residency
from outlive.engine.threads import ThreadBody, WorkflowThreads
from outlive.engine.transactions import Transactions
from outlive.engine.watcher import Watcher
from outlive.errors import LeaseLost, PayloadError, RunExists, RunOnHold, StoreError, StoreUnavailable
from outlive.ids import Ids
from outlive.limits import BEATS_PER_LEASE, LEASE_MIN_S, POLL_BUSY_S, POLL_IDLE_S, QUARANTINE_CRASHES
from outlive.model.definition import StepSpec, WorkflowSpec
from outlive.model.reads import Claimed, EndedRun, EntryRow, RequestRow, TakenOver, WorkerRow
from outlive.model.status import Status
from outlive.model.writes import ExistingRun, Fence, Finish, Mark, NewRun, Release
from outlive.store.interface import Store

log = logging.getLogger("outlive.engine")


class Engine:
    """See the module's text. Made on the loop that it will live on."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        chance: random.Random,
        codec: Any,
        find_workflow: Callable[[str], WorkflowSpec | None],
        use_definition: Callable[[WorkflowSpec | StepSpec], None],
        workflow_names: Callable[[], list[str]],
        worker: bool,
        name: str,
        lease_s: float,
        grace_s: float,
        max_running: int,
        locks: FileLocks,
        threaded: bool = True,
    ) -> None:
        self.store = store
        self.codec = codec
        self.main = asyncio.get_running_loop()
        self.context = contextvars.copy_context()  # of the app: runs and bodies see what was set before it was entered
        self.clock = DatabaseClock(clock)
        self.chance = chance
        self.ids = Ids(chance)
        self.name = name
        self.find_workflow = find_workflow
        self.use_definition = use_definition
        self.workflow_names = workflow_names
        self.is_worker = worker
        self.lease_s = max(lease_s, LEASE_MIN_S)
        self._grace_s = grace_s
        self._max_running = max_running
        self.locks = locks
        self._stopping = False
        self._suspects = 0
        self.hushed = False  # no step begins, so that a suspect may run alone
        self._arriving = 0  # runs whose start is being written and that will be executed here
        self._lock: ProcessLock | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._loose: set[asyncio.Task[Any]] = set()
        self.executions: dict[int, Execution] = {}
        self._lost_waits: dict[int, list[Callable[[LeaseLost], None]]] = {}
        self.lease = Lease(store, self.clock, self.main, self.lease_s, self.lease_lost, self._go_on, threaded=threaded)
        self.committer = Committer(
            store,
            self.main,
            self._fence_or_none,
            self.lease_lost,
            self._write_failed,
            self._started,
            self._left,
            lambda: self.ids.row_id(self.clock.now()),
        )
        self.bodies = Bodies(self.main, Transactions(self), chance, self.context)
        self.residency = Residency(self.clock, self.suspend)
        self.threads = WorkflowThreads(self.residency.free_thread)
        self.residency.threads = self.threads
        self.watcher = Watcher(store, self.executions, Backoff(POLL_BUSY_S, POLL_IDLE_S, chance.random))
        self.claimer = Claimer(self, chance)
        self._requests = Requests(self, chance)
        self._takeover = Takeover(self, chance)
        self._sweep = Sweep(self)
        self._hints = Looper("hints", self._wait_hint)
        self._marks = Looper("marks", self._mark_all)

    # -- life ---------------------------------------------------------------
    async def open(self, *, migrate: bool) -> None:
        """Connect; a worker registers, frees the runs of dead peers and begins to claim."""
        await self.store.open(migrate=migrate)
        sent = self.clock.steady()
        self.clock.synchronise(await self.store.now(), sent)
        if self.is_worker:
            await self._register()
            await self._takeover.turn()
        for looper in self._loopers():
            looper.start(self.main)

    def _loopers(self) -> Iterable[Looper]:
        yield self.watcher.looper
        yield self._hints
        if self.is_worker:
            for duty in (self.claimer, self._requests, self._takeover, self._sweep):
                yield duty.looper
            yield self._marks

    async def close(self) -> None:
        """Stop claiming, let steps in flight finish within the grace, release every run, leave."""
        self._stopping = True
        for looper in self._loopers():
            await looper.stop()
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)
        until = self.clock.steady() + self._grace_s
        while self.bodies.in_flight and self.clock.steady() < until:
            await asyncio.sleep(0.005)
        self.committer.close()
        await self.committer.drain()
        for execution in list(self.executions.values()):
            if not execution.closed:
                self.release(execution)
        await self.committer.drain()
        while self._loose:  # one may spawn another
            await asyncio.gather(*self._loose, return_exceptions=True)
        fence = self.lease.fence
        await self.lease.close()
        if fence is not None:
            try:
                await self.store.unregister(fence)
            except (StoreError, Exception) as error:
                log.warning("leaving without a word to the store: %s", error)
        if self._lock is not None:
            self._lock.release()
        self.bodies.close()
        self.threads.close()
        await self.store.close()

    async def discard(self) -> None:
        """Let go of everything after an `open` that failed."""
        self._stopping = True
        for looper in self._loopers():
            await looper.stop()
        await self.lease.close()
        if self._lock is not None:
            self._lock.release()
        self.bodies.close()
        self.threads.close()
        await self.store.close()

    async def _register(self) -> None:
        worker = self.ids.worker_id()
        self._lock = self.locks.hold(worker)
        row = WorkerRow(worker, 1, self.locks.host, os.getpid(), self.name, self._lock.path, 0.0)
        await self.lease.open(row)

    async def _wait_hint(self) -> float:
        if await self.store.wait_hint(POLL_IDLE_S):
            self.claimer.looper.wake()
            self._requests.looper.wake()
            self.watcher.looper.wake()
        return 0.0

    # -- the fence ----------------------------------------------------------
    def fence(self) -> Fence:
        """Give the fence of this incarnation."""
        if self.lease.fence is None:
            raise StoreUnavailable("this process has lost its lease and is registering again")
        return self.lease.fence

    def _fence_or_none(self) -> Fence | None:
        return self.fence() if self.is_worker else None

    def lease_lost(self, fence: Fence) -> None:
        """A peer has taken over: forget every run without a trace, then register as a new incarnation."""
        if fence != self.lease.fence:
            return  # heard twice: by a write and by the beat for example
        log.error("lease lost: %d runs continue on other workers", len(self.executions))
        lost, waits = list(self.executions.values()), self._lost_waits
        self.executions.clear()
        self._lost_waits = {}
        for execution in lost:
            execution.disowned = True
            execution.unwind()
            for tell in waits.pop(execution.row, ()):
                tell(LeaseLost(execution.id))
        self._lost_waits.update(waits)
        self.lease.fence = None
        if not self._stopping:
            self._renewal = self.main.create_task(self._register_again(), name="outlive-register")

    async def _register_again(self) -> None:
        await self.lease.close()
        if self._lock is not None:
            self._lock.release()
        while not self._stopping:
            try:
                await self._register()
            except StoreError as error:
                log.warning("registering again: %s", error)
                await asyncio.sleep(0.2)
            else:
                self.claimer.looper.wake()
                return

    # -- starting -----------------------------------------------------------
    def new_run(self, spec: WorkflowSpec, run_id: str | None, text: str) -> NewRun:
        """Make the record of a run of a workflow defined here. UsageError if another workflow has its name."""
        self.use_definition(spec)
        now = self.clock.now()
        return NewRun(
            row=self.ids.row_id(now),
            id=run_id if run_id is not None else self.ids.run_id(now),
            workflow=spec.name,
            input=text,
            version=spec.version,
            codec=self.codec.id,
        )

    def may_own(self, run: NewRun) -> bool:
        """Whether a run that this process starts may begin here at once."""
        return (
            self.is_worker
            and not self._stopping
            and run.delay_s == 0
            and run.queue == ""
            and self.lease.alive()
            and self.free_slots() > 0
            and self.find_workflow(run.workflow) is not None
        )

    async def start(self, run: NewRun) -> ExistingRun | None:
        """Write a run; give the run that already has its id, or None. RunExists if that is of another workflow."""
        run.started_at = self.clock.now() if self.may_own(run) else None
        self._arriving += run.owned
        try:
            existing = await self.committer.start(run)
        finally:
            self._arriving -= run.owned
        if existing is not None and existing.workflow != run.workflow:
            raise RunExists(run.id, existing.workflow, run.workflow)
        if existing is None and not run.owned:
            self.hint()
        return existing

    def hint(self) -> None:
        """Tell this process and the others that there may be work."""
        self.claimer.looper.wake()
        self.spawn(self.store.notify())

    def spawn(self, work: Any) -> None:
        """Run a small piece of work whose failure harms nobody: polling finds what it would have told."""
        task = self.main.create_task(_quietly(work))
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    def _started(self, run: NewRun, fence: Fence | None) -> None:
        """A run is on disk, written under a fence: execute it, if it is ours and the lease was not lost meanwhile."""
        if not run.owned or fence is None or fence is not self.lease.fence:
            return
        self.execute(
            Claimed(
                row=run.row,
                id=run.id,
                workflow=run.workflow,
                version=run.version,
                input=run.input,
                codec=run.codec,
                claim=1,
                crashes=0,
                fresh=True,
                alone=False,
                started_at=run.started_at or 0.0,
                deadline_at=run.deadline_at,
                parent=run.parent,
                parent_key=run.parent_key,
            ),
            [],
        )

    # -- executing ----------------------------------------------------------
    def free_slots(self) -> int:
        """Give how many more runs may be active here."""
        if self._stopping or self._suspects or self.hushed:
            return 0
        return self._max_running - (len(self.executions) - len(self.residency)) - self._arriving

    def quiet(self) -> bool:
        """Whether no user code runs here, so that a suspect may run alone."""
        return len(self.executions) == len(self.residency) or (self.hushed and not self.bodies.in_flight)

    def hush(self, hushed: bool) -> None:
        """Let no step begin for the moment, or let them begin again."""
        self.hushed = hushed
        if not hushed:
            self._go_on()

    def may_begin(self, execution: Execution) -> bool:
        """Whether a step of this run may start now."""
        if (self._suspects or self.hushed) and not execution.alone:
            return False
        return not self._stopping and self.lease.alive()

    def suspect_cleared(self) -> None:
        """The suspect has made progress, waits or has left: the other runs go on."""
        self._suspects -= 1
        if not self._suspects:
            self._go_on()

    def _go_on(self) -> None:
        """What had to wait before it began a step looks again."""
        for execution in self.executions.values():
            execution.wake()

    def mark(self, execution: Execution, *, progressed: bool = False) -> None:
        """Write whether a run is in user code, if that is not what was written last, and whether it has progressed."""
        in_user_code = not execution.idle
        if (progressed or in_user_code != execution.marked_in_user_code) and not execution.closed:
            execution.marked_in_user_code = in_user_code
            mark = Mark(execution.row, execution.claim, in_user_code, clear_crashes=progressed)
            self.committer.add_mark(execution, mark)

    async def _mark_all(self) -> float:
        for execution in list(self.executions.values()):
            self.mark(execution)
        return self.lease_s / BEATS_PER_LEASE

    def execute(self, claimed: Claimed, entries: list[EntryRow]) -> None:
        """Take a run that this process owns into memory and let it run."""
        spec = self.find_workflow(claimed.workflow)
        assert spec is not None, claimed.workflow
        refused: Exception | None = None
        try:
            if claimed.crashes >= QUARANTINE_CRASHES:
                raise RunOnHold(claimed.id, "quarantined", "it killed its worker while it ran alone")
            codec = codec_for(claimed.codec, [self.codec], what=f"run {claimed.id!r}")
            args, kwargs = decode_arguments(
                codec, spec.shape, claimed.input, where=f"arguments of workflow {spec.name}"
            )
            if spec.is_async:
                body = spec.function(*args, **kwargs)
            else:
                body = ThreadBody(spec.function, args, kwargs, self.threads, self.context.copy()).drive()
        except (PayloadError, RunOnHold) as error:
            refused, body = error, _fail(error)
        except Exception as error:
            body = _fail(error)
        execution = Execution(self, claimed, spec, entries, body)
        self._suspects += claimed.alone
        self.hushed = False
        self.executions[claimed.row] = execution
        if refused is not None:  # code that reads it may be deployed yet; or it is to be cancelled unentered
            self.main.call_soon(self.abandon, execution, refused)  # after it has heard its requests
        else:
            self.main.call_soon(execution.begin)

    def hear(self, requests: list[RequestRow]) -> bool:
        """Hand requests to the runs they are for; True if there was one."""
        for request in requests:
            execution = self.executions.get(request.row)
            if execution is None or execution.closed or request.request in execution.heard:
                continue
            execution.heard.add(request.request)
            reason: Any = json.loads(request.payload) if request.payload else None
            if request.kind == "resolve":
                execution.resolutions[reason["key"]] = reason
                self.committer.add_handled(execution, request.request)
            elif request.kind == "cancel":
                execution.request_cancel(request.request, reason)
            elif request.kind == "pause":
                self._hold(
                    execution, json.dumps({"type": "Paused", "text": reason or "by an operator"}), request.request
                )
        return bool(requests)

    def took_over(self, taken: TakenOver) -> None:
        """Peers have died: claim what they had."""
        log.warning("took over %d runs of %d dead workers", taken.released, len(taken.workers))
        for run_id in taken.quarantined:
            log.error("run %r is quarantined: it killed its worker while it ran alone", run_id)
        self.claimer.looper.wake()

    # -- leaving memory -----------------------------------------------------
    def suspend(self, execution: Execution) -> None:
        """Let an idle run leave memory."""
        self.committer.add_release(execution, execution.suspend())

    def release(self, execution: Execution) -> None:
        """Let go of a run, for a peer to continue now, or when it is due if it only waits."""
        if execution.idle:
            self.suspend(execution)
            return
        execution.unwind()
        self.committer.add_release(execution, Release(execution.row, execution.claim, wake_at=self.clock.now()))

    def abandon(self, execution: Execution, error: BaseException | None) -> None:
        """Stop a run that the engine cannot continue: held for a person with the reason, or released without one."""
        if execution.closed:
            return
        if error is None:
            self.release(execution)
            return
        if execution.cancels:
            self._end_cancelled(execution)
            return
        log.error("run %r is paused: %s", execution.id, error)
        self._hold(execution, record_error(error, self.codec))

    def _end_cancelled(self, execution: Execution) -> None:
        """Cancel a run that cannot go on: its code gets no chance to tidy up, since nobody knows where it stands."""
        execution.unwind()
        reason = next(iter(execution.cancels.values())) or ""
        for request in execution.cancels:
            self.committer.add_handled(execution, request)
        error = record_error(asyncio.CancelledError(reason), self.codec)
        started_at = execution.claimed.started_at
        finish = Finish(execution.row, execution.claim, Status.CANCELLED, None, error, started_at)
        finish.close_reason = execution.close_reason()
        self.committer.add_finish(execution, finish)

    def _hold(self, execution: Execution, reason: str, request: int | None = None) -> None:
        execution.unwind()
        if request is not None:
            self.committer.add_handled(execution, request)
        release = Release(execution.row, execution.claim, wake_at=None, hold="paused", hold_reason=reason)
        self.committer.add_release(execution, release)

    def _write_failed(self, execution: Execution, error: BaseException) -> None:
        """The database refused what a run had to write: hold the run as the journal has it."""
        log.error("run %r cannot be written: %s", execution.id, error)
        execution.unwind()
        if execution.write_failed:
            self.executions.pop(execution.row, None)
            return
        execution.write_failed = True
        execution.disowned = False
        self._hold(execution, record_error(error, self.codec))

    def _left(self, execution: Execution, end: Finish | Release) -> None:
        """A run's end or release is on disk."""
        self.executions.pop(execution.row, None)
        self._lost_waits.pop(execution.row, None)
        if isinstance(end, Finish):
            self._finished(execution, end)
        else:
            if end.hold is not None:
                self.watcher.looper.wake()
            elif execution.has_children:
                self._sweep.looper.wake()
            self.claimer.looper.wake()

    def _finished(self, execution: Execution, end: Finish) -> None:
        claimed = execution.claimed
        watched = self.watcher.watched(end.row)
        self.watcher.ended(
            EndedRun(end.row, claimed.id, claimed.workflow, end.status, end.output, end.error, claimed.codec)
        )
        if claimed.parent is not None and claimed.parent not in self.executions:
            self.spawn(self._wake_parent(claimed.parent))
        elif not watched:
            self.spawn(self.store.notify())
        if execution.has_children:
            self._requests.looper.wake()  # the children that end with it have been asked to, in the same transaction
            self._sweep.looper.wake()

    async def _wake_parent(self, parent: int) -> None:
        await self.store.wake([parent])
        self.hint()

    # -- requests of this process -------------------------------------------
    async def request(self, run_id: str, kind: str, reason: Any) -> bool:
        """Ask the owner of a run for something; False if the run has ended. KeyError if there is none."""
        accepted = await self.store.add_request(run_id, kind, json.dumps(reason) if reason is not None else None)
        if accepted:
            self._requests.looper.wake()
            self.hint()
        return accepted

    def request_cancel_of_child(self, run_id: str) -> None:
        """Cancel a child whose awaiting call was cancelled."""
        self.spawn(self.request(run_id, "cancel", "its parent no longer waits for it"))

    def on_lease_lost(self, row: int, tell: Callable[[LeaseLost], None]) -> None:
        """Tell a handle if this process loses the run."""
        if row in self.executions:
            self._lost_waits.setdefault(row, []).append(tell)

    def warn_leftovers(self, execution: Execution, names: str) -> None:
        """Say that a workflow has returned while tasks of it were running."""
        log.warning("run %r returned while it had tasks running, which are cancelled: %s", execution.id, names)


async def _fail(error: BaseException) -> Any:
    raise error


async def _quietly(work: Any) -> None:
    try:
        await work
    except (StoreError, KeyError) as error:
        log.debug("left to polling: %s", error)
