"""One process's part in a store: puts the duties together, and starts, ends and asks for runs.

It decides nothing about a single run (`Execution` does), knows no reason for
which one is in memory (`Roster` does) and speaks no SQL (`Store` does).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from outlive.clock import DatabaseClock
from outlive.codec.failure import record_error
from outlive.codec.payload import Codec
from outlive.engine.bodies import Bodies
from outlive.engine.claimer import Claimer, Requests, Sweep, Takeover
from outlive.engine.committer import Committer
from outlive.engine.control import Control
from outlive.engine.execution import Execution
from outlive.engine.filelock import ProcessLock
from outlive.engine.lease import Lease
from outlive.engine.load import StartDeferred, name_run
from outlive.engine.looper import Backoff, Looper
from outlive.engine.roles import Closing, Definitions, World
from outlive.engine.roster import Roster
from outlive.engine.scheduler import Scheduler
from outlive.engine.transactions import Transactions
from outlive.engine.watcher import Watcher
from outlive.errors import StoreError, StoreUnavailable
from outlive.ids import Ids
from outlive.limits import BEATS_PER_LEASE, POLL_IDLE_S, STORE_AGAIN_S
from outlive.model.mail import NewMessage, Settlement, Settling, SideRow
from outlive.model.reads import Claimed, EndedRun, WorkerRow
from outlive.model.writes import Committed, Continue, ExistingRun, Fence, Finish, NewRun, Note, Release, Terms
from outlive.store.interface import Store
from outlive.store.refusals import FenceLost, RowTaken

log = logging.getLogger("outlive.engine")

_LOOK_S = 1.0  # within which a run that has just begun to wait is asked about, so that it leaves as one that waits


@dataclass
class Options:
    """How the user of an app wants this process to work; times in seconds."""

    codec: Codec
    worker: bool
    name: str
    lease_s: float
    grace_s: float
    max_running: int
    queues: list[str] | None = None  # those served; None: all


class Engine:
    """See the module's text. Made on the loop that it will live on."""

    def __init__(self, store: Store, world: World, definitions: Definitions, options: Options) -> None:
        self.store = store
        self.definitions = definitions
        self.options = options
        self.codec = options.codec
        self.lease_s = options.lease_s
        self.served_queues = options.queues
        self.is_worker = options.worker
        self.main = world.main_loop()
        self.context = contextvars.copy_context()  # of the app: runs and bodies see what was set before it was entered
        self.clock = DatabaseClock(world.clock)
        self.chance = world.chance
        self.ids = Ids(self.chance, world.secrets)
        self.locks = world.locks
        self._lock: ProcessLock | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._loose: set[asyncio.Task[Any]] = set()
        self.attached: dict[type, Closing] = {}  # what bodies have opened for others to use, by what it is
        self.roster = Roster(self, options.max_running)
        self.lease = Lease(self, threaded=world.threaded)
        self.committer = Committer(self)
        self.bodies = Bodies(self.main, Transactions(self), self.chance, self.context, world.sleep)
        self.watcher = Watcher(store, self.roster.executions, Backoff(self.chance))
        self.claimer = Claimer(self)
        self.control = Control(self)
        self._requests = Requests(self)
        self._takeover = Takeover(self)
        self._sweep = Sweep(self)
        self.scheduler = Scheduler(self)
        self._loopers = [Looper("hints", self._wait_hint)]  # but the watcher's, which closes later
        if self.is_worker:
            duties = (self.claimer, self._requests, self._takeover, self._sweep, self.scheduler)
            self._loopers += [*(duty.looper for duty in duties), Looper("marks", self._mark_all)]

    # -- life ---------------------------------------------------------------
    async def open(self, *, migrate: bool) -> None:
        """Connect; a worker registers, frees the runs of dead peers and begins to claim."""
        await self.store.open(migrate=migrate)
        sent = self.clock.steady()
        self.clock.synchronise(await self.store.now(), sent)
        if self.is_worker:
            await self._register()
            await self._takeover.turn()
        for looper in (self.watcher.looper, *self._loopers):
            looper.start(self.main)

    async def close(self) -> None:
        """Stop claiming, let steps in flight finish within the grace, release every run, leave.

        Also after an `open` that failed.
        """
        self.roster.closing = True
        for looper in self._loopers:
            await looper.stop()
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)
        until = self.clock.steady() + self.options.grace_s
        looked = self.clock.steady() + min(self.options.grace_s, _LOOK_S)
        while (self.bodies.in_flight and self.clock.steady() < until) or (
            self.roster.is_looking() and self.clock.steady() < looked
        ):
            await asyncio.sleep(0.005)
        await self.watcher.looper.stop()
        self.committer.closing = True
        await self.committer.drain()
        self.roster.release_all()
        await self.committer.drain()
        while self._loose:  # one may spawn another
            await asyncio.gather(*self._loose, return_exceptions=True)
        for opened in reversed(list(self.attached.values())):
            await opened.close()
        fence = self.lease.fence
        await self.lease.close()
        if fence is not None:
            try:
                await self.store.unregister(fence)
            except (StoreError, FenceLost) as error:
                log.warning("leaving without a word to the store: %s", error)
        if self._lock is not None:
            self._lock.release()
        self.bodies.close()
        self.roster.threads.close()
        await self.store.close()

    async def _register(self) -> None:
        worker = self.ids.worker_id()
        self._lock = self.locks.hold(worker)
        row = WorkerRow(worker, 1, self.locks.host, os.getpid(), self.options.name, self._lock.path, 0.0)
        try:
            await self.lease.open(row)
        except BaseException:
            self._lock.release()
            raise

    async def _wait_hint(self) -> float:
        if await self.store.wait_hint(POLL_IDLE_S):
            self.claimer.look_at_line()
            self._requests.looper.wake()
            self.watcher.nudge()
        return 0.0

    async def _mark_all(self) -> float:
        self.roster.mark_all()
        return self.lease_s / BEATS_PER_LEASE

    # -- the fence ----------------------------------------------------------
    def fence(self) -> Fence:
        """Give the fence of this incarnation."""
        if self.lease.fence is None:
            raise StoreUnavailable("this process has lost its lease and is registering again")
        return self.lease.fence

    def lease_lost(self, fence: Fence) -> None:
        """A peer has taken over: forget every run without a trace, then register as a new incarnation."""
        if fence != self.lease.fence:
            return  # heard twice: by a write and by the beat for example
        log.error("lease lost: %d runs continue on other workers", len(self.roster.executions))
        self.roster.disown()
        self.lease.fence = None
        if not self.roster.closing:
            self._renewal = self.main.create_task(self._register_again(), name="outlive-register")

    async def _register_again(self) -> None:
        await self.lease.close()
        if self._lock is not None:
            self._lock.release()
        while not self.roster.closing:
            try:
                await self._register()
            except StoreError as error:
                log.warning("registering again: %s", error)
                await asyncio.sleep(STORE_AGAIN_S)
            else:
                self.claimer.looper.wake()
                return

    # -- starting -----------------------------------------------------------
    def new_row(self) -> int:
        """Give a number for a run to insert; another process may draw the same."""
        return self.ids.row_id(self.clock.now())

    def may_own(self, run: NewRun) -> bool:
        """Whether a run that this process starts may begin here at once."""
        return (
            self.is_worker
            and not self.roster.closing
            and run.delay_s == 0
            and run.queue == ""
            and self.lease.alive()
            and self.roster.free_slots() > 0
            and self.definitions.find(run.workflow) is not None
        )

    async def start(
        self, run: NewRun, messages: Sequence[NewMessage] = (), terms: Terms | None = None
    ) -> ExistingRun | None:
        """Write a run, with messages to it, or alone if there are terms; give the run that is in its place, or None."""
        run.started_at = self.clock.now() if terms is None and self.may_own(run) else None
        self.roster.arriving += run.owned
        try:
            if terms is not None:
                existing = await self._start_alone(run, terms)
            else:
                existing, _ = await self.committer.ask(run.id, run, tuple(messages))
        except StartDeferred:
            existing = await self._start_alone(run, Terms())
            if messages:
                await self.committer.ask(run.id, None, tuple(messages))
        finally:
            self.roster.arriving -= run.owned
        if existing is None and not run.owned:
            self.hint()
        return existing

    async def _start_alone(self, run: NewRun, terms: Terms) -> ExistingRun | None:
        run.started_at = None
        error = asyncio.CancelledError(f"its queue was full, and run {run.id!r} has come")
        dropped = record_error(error, self.codec)
        while True:
            try:
                return await self.store.start_alone(run, terms, dropped)
            except RowTaken:
                run.row = self.new_row()
            except StoreUnavailable as error:
                raise name_run(error, run.id) from error

    def written(self, sides: Iterable[SideRow], committed: Committed) -> None:
        """Side rows are on disk: look here whom they concern, wake runs that wait elsewhere, and tell the others."""
        recipients = {committed.deliveries[m.run, m.key].row for m in sides if isinstance(m, NewMessage)}
        away = [row for row in recipients if row is not None and row not in self.roster.executions]
        self.watcher.nudge()
        self.spawn(functools.partial(self._wake, away) if away else self.store.notify)

    def hint(self) -> None:
        """Tell this process and the others that there may be work."""
        self.claimer.look_at_line()
        self.spawn(self.store.notify)

    def spawn(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run a small piece of work whose failure harms nobody: polling finds what it would have told."""
        task = self.main.create_task(_quietly(work))
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    def started(self, run: NewRun, fence: Fence | None) -> None:
        """A run is on disk, written under a fence: execute it, if it is ours and the lease was not lost meanwhile."""
        if run.queue and run.parent is not None:
            self.hint()
        if not run.owned or fence is None or fence is not self.lease.fence:
            return
        self.roster.enter(
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
                deadline_at=run.deadline_after(run.started_at or 0.0),
                parent=run.parent,
                parent_key=run.parent_key,
            ),
            [],
        )

    # -- ends ---------------------------------------------------------------
    def left(self, execution: Execution, end: Finish | Continue | Release) -> None:
        """The end of a run or of its generation, or its release, is on disk."""
        if isinstance(end, Continue):
            self.roster.continue_as_new(execution, end)
            self._requests.looper.wake()  # what the last generation has not heard any more is for the next one
            return
        self.roster.left(execution)
        if self.claimer.full:
            self.claimer.looper.wake()
        if isinstance(end, Finish):
            self._finished(execution, end)
        else:
            if end.hold is not None:
                self.watcher.looper.wake()
            elif execution.has_children or execution.waits_noted:
                self._sweep.looper.wake()
            self.claimer.looper.wake()

    def _finished(self, execution: Execution, end: Finish) -> None:
        self.scheduler.ended(end.row)
        claimed = execution.claimed
        watched = self.watcher.watched("end", end.row)
        ended = EndedRun(end.row, claimed.id, claimed.workflow, end.status, end.output, end.error, claimed.codec)
        self.watcher.tell("end", end.row, ended)
        if claimed.parent is not None and claimed.parent not in self.roster.executions:
            self.spawn(functools.partial(self._wake, [claimed.parent]))
        elif not watched or claimed.lined:
            self.spawn(self.store.notify)
        self.claimer.left_slot()
        if execution.has_children:
            self._requests.looper.wake()  # the children that end with it have been asked to, in the same transaction
            self._sweep.looper.wake()

    async def _wake(self, rows: Sequence[int]) -> None:
        await self.store.wake(rows)
        self.hint()

    # -- requests of this process -------------------------------------------
    def note(
        self,
        action: str,
        noun: Literal["run", "queue", "schedule", "budget"],
        target: str,
        reason: str | None,
        by: str | None,
        facts: Any = None,
    ) -> Note:
        """Make the note that the audit gets of an action; `by` is this app unless somebody is named."""
        who = by if by is not None else self.options.name
        return Note(self.new_row(), who, action, noun, target, reason, None if facts is None else json.dumps(facts))

    async def request(self, run_id: str, kind: str, payload: Any, note: Note | None = None) -> bool:
        """Ask the owner of a run for something; False if the run has ended. KeyError if there is none."""
        text = json.dumps(payload) if payload is not None else None
        accepted = await self.store.add_request(run_id, kind, text, note)
        if accepted:
            self._requests.looper.wake()
            self.hint()
        return accepted

    async def settle(self, settlement: Settlement, note: Note | None = None) -> Settling:
        """Settle a promise, and wake the run that waits for it; give what became of that."""
        settling, row = await self.store.settle(settlement, note)
        if settling == "settled" and row is not None:
            if row not in self.roster.executions:
                await self.store.wake([row])
            self.watcher.nudge()
            self.hint()
        return settling

    def request_cancel_of_child(self, run_id: str) -> None:
        """Cancel a child whose awaiting call was cancelled."""
        self.spawn(functools.partial(self.request, run_id, "cancel", "its parent no longer waits for it"))


async def _quietly(work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except (StoreError, KeyError) as error:
        log.debug("left to polling: %s", error)
