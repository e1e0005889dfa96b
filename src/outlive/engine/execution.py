"""One run in memory: delivers its outcomes in one order, on first execution and on replay.

The path of an outcome: work ends in `hand_in`; `_pump` takes it from the inbox
when every branch is blocked, lets the recorder number and write its entry, and
delivers it; the branch goes on at once, and what it asks for next waits in
`_unbegun` until all earlier entries are on disk. A recovered run starts with a
journal: its entries are delivered first, by the same `Call.deliver`.

It owns the run's loop, the calls that wait and the order; it must not know SQL,
leases or other runs. Invariants: `_pump` is entered from plain callbacks of the
main loop only, never from a task; after `unwind` nothing of the run runs, and
nothing is written for it but what the committer already has.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from outlive.engine.branch import Branch
from outlive.engine.calls import Call, StepCall, is_cancellation
from outlive.engine.cancellation import Cancellation, Stop
from outlive.engine.continuing import end_generation, find_continued
from outlive.engine.ending import Ending
from outlive.engine.invoke import call_in_thread
from outlive.engine.journal import Divergence, Journal, compare, describe, version_behind
from outlive.engine.mailbox import Mailbox
from outlive.engine.recorder import Recorder, microseconds
from outlive.engine.roles import Host
from outlive.engine.runloop import RunLoop, RunTimer, Unwound
from outlive.engine.timers import Timers
from outlive.errors import JournalMismatch
from outlive.model.children import closing_reason
from outlive.model.control import ROLLBACK_SCOPE
from outlive.model.definition import WorkflowSpec
from outlive.model.reads import Claimed, EntryRow, RequestRow
from outlive.model.status import Status
from outlive.model.writes import EntryWrite, Finish, Outcome, Release

log = logging.getLogger("outlive.run")

Waiting = Call | RunTimer


class Execution:
    """A run that this process owns and executes. Row, claim and id are those of the store."""

    mailbox = functools.cached_property(Mailbox)  # few runs have one

    def __init__(
        self,
        engine: Host,
        claimed: Claimed,
        spec: WorkflowSpec,
        entries: list[EntryRow],
        body: Coroutine[Any, Any, Any],
    ) -> None:
        self.engine = engine
        self.codec = engine.codec
        self.row = claimed.row
        self.id = claimed.id
        self.claim = claimed.claim
        self.claimed = claimed
        self.spec = spec
        self.version = version_behind(entries, claimed.version, spec.version)
        self.journal = Journal(entries, same_version=self.version == spec.version)
        self.ending = Ending(self)
        self.generation = claimed.generation
        salt = claimed.row if claimed.salt is None else claimed.salt
        began_at = claimed.started_at if claimed.began_at is None else claimed.began_at
        self.loop = RunLoop(self, salt, began_at, claimed.continued)  # type: ignore[abstract]
        noted_version = None if claimed.version == spec.version else spec.version
        self.recorder = Recorder(self, self.journal.last_seq, noted_version)
        self.closed = False  # out of memory: nothing runs on
        self.disowned = False  # not ours any more: what was not written yet is dropped
        self.write_failed = False
        self.decisions: dict[str, tuple[Any, int]] = {}  # of a person, about unknown outcomes, by key; and the request
        self.heard: set[int] = set()  # requests
        self.heard_late: list[RequestRow] = []  # those of them that are for the next generation, if there is one
        self.cancellation = Cancellation(claimed.id, claimed.deadline_at, entries)
        self.alone = claimed.alone  # a suspect: no other user code begins until it has made progress
        self.marked_in_user_code = True  # what takeover would count, as last written
        self.idle = False
        self.looking = 0  # waits for which the store has not been asked yet
        self.waits_begun: list[Call] = []  # those whose beginning is not noted in the journal yet
        self.waits_noted = not {"receive", "wait"}.isdisjoint(entry.kind for entry in self.journal.started.values())
        self.thread_busy = False  # a sync body executes: its next call is not known yet
        self.has_children = not {"start", "child"}.isdisjoint(entry.kind for entry in entries)
        self.clear_crashes = claimed.crashes > 0
        self._waiting: dict[str, Waiting] = {}
        self._inbox: deque[Callable[[], bool]] = deque()
        self._unbegun: deque[tuple[int, Call]] = deque()
        self._in_flight = 0
        self._committing: Call | None = None  # a transaction's outcome is being committed: nothing else is delivered
        self._after_turn: list[Callable[[], None]] = []
        self.timers = Timers(self)
        self._armed: asyncio.TimerHandle | None = None
        self._doom: JournalMismatch | None = None
        self._pumping = False
        self._leftovers_cancelled = False
        self.task = self.loop.create_root_task(body, f"{spec.name}:{claimed.id}", engine.context.copy())

    def wake(self) -> None:
        """Go on, or begin, from a plain callback."""
        self.engine.main.call_soon(self._pump)

    # -- what the workflow's body asks ----------------------------------------
    def call_in_thread(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        """Serve `asyncio.to_thread`, for the run loop."""
        return call_in_thread(self, target, args, kwargs)

    def check_alive(self) -> None:
        """Raise Unwound where the run leaves memory."""
        if self.closed or self.loop.unwinding:
            raise Unwound

    def ask(self, call: Call) -> None:
        """Let a branch wait for a call: the journal answers it, or it begins after what was recorded before it."""
        started = self.journal.ask(call.key)
        if started is not None:
            self.compare(started, call.kind, call.name, call.digest)
        self._waiting[call.key] = call
        self._unbegun.append((self.recorder.appended if call.has_effect else 0, call))

    def asked(self) -> list[Waiting]:
        """Give what branches wait for that has no recorded outcome."""
        return [waiting for waiting in self._waiting.values() if waiting.key not in self.journal.unread]

    # -- timers, for the run loop -------------------------------------------
    def add_timer(self, timer: RunTimer) -> None:
        self._waiting[timer.key] = timer
        self.timers.add(timer)

    def drop_timer(self, timer: RunTimer) -> None:
        self._waiting.pop(timer.key, None)

    def _next_due(self) -> float | None:
        """Give when something is to be delivered that only time brings."""
        timer, stop_at = self.timers.first(self._waiting), self.cancellation.due_at()
        if timer is None:
            return stop_at
        return timer.when() if stop_at is None else min(timer.when(), stop_at)

    # -- the order of delivery ----------------------------------------------
    def _pump(self) -> None:
        """Deliver outcomes, one at a time and each when all branches are blocked, until none is left."""
        if self._pumping or self.closed:
            return
        self._pumping = True
        try:
            while True:
                if self.loop.ready:
                    self.loop.turn()
                    if self._doom is not None:
                        raise Unwound
                if self.closed:
                    return
                if self.thread_busy:
                    self._busy_again()  # a timer may have woken it from its rest
                    return
                if self.task.done() and self._ended():
                    return
                if not self._deliver_next() and not self._begin_calls():
                    break
        except Unwound:
            self.engine.roster.abandon(self, self._doom)
            return
        except Exception as error:  # of the engine, a codec, a record: it stops this run only
            self.engine.roster.abandon(self, error)
            return
        except KeyboardInterrupt:
            self.engine.roster.abandon(self, None)
            raise
        finally:
            self._pumping = False
        self._rest()

    def _deliver_next(self) -> bool:
        """Deliver one outcome, recorded ones first; False if there is none to deliver now."""
        if self.journal.unread:
            entry = self.journal.next_of(self._waiting)
            if entry is not None:
                self._deliver_recorded(entry)
                return True
            stuck = self.journal.stuck(list(self._waiting))
            if stuck is not None:
                self.diverge(stuck)
        while self._inbox and self._committing is None:
            if self._inbox.popleft()():
                return True
        if self._committing is not None:  # its entry has its number: a cancellation or a timer would come before it
            return False
        if self.cancellation.pending and not self.task.done():
            stop = self.cancellation.next_due(self.engine.clock.now())
            if stop is not None:
                self._stop(stop)
                return True
        timer = self.timers.ripe(self._waiting)
        if timer is not None:
            self._fire(timer)
            return True
        return False

    def _deliver_recorded(self, entry: EntryRow) -> None:
        self.loop.advance(entry.finished_at or entry.started_at)
        if entry.kind == "cancel":
            self.loop.root.key("cancel")
            self.cancellation.replayed(entry.name, self.codec.decode(entry.value or "null", where="reason of cancel"))
            self.task.cancel()
            return
        waiting = self._waiting.pop(entry.key)
        if isinstance(waiting, RunTimer):
            self.compare(entry, "timer", waiting.name, None)
            waiting.fire()
        else:
            self.compare(entry, waiting.kind, waiting.name, waiting.digest)
            if is_cancellation(entry.error) and not waiting.cancel_requested:
                self.diverge(Divergence(f"the cancellation of {describe(entry)}", "the call uncancelled", entry.key))
            value = waiting.decode(entry.value or "null") if entry.outcome == "ok" else None
            waiting.deliver(entry.outcome, value, entry.error)

    def _deliver(self, call: Call, entry: EntryWrite, value: Any) -> bool:
        self._waiting.pop(call.key, None)
        self.loop.advance(entry.finished_at or entry.started_at)
        call.deliver(entry.outcome, value, entry.error)
        return True

    def _fire(self, timer: RunTimer) -> None:
        del self._waiting[timer.key]
        at = microseconds(max(self.engine.clock.now(), timer.when()))
        self.loop.advance(at)
        self.recorder.append_at_once(timer.key, "timer", timer.name, "null", timer.began_at, at)
        timer.fire()

    # -- outcomes, from the work --------------------------------------------
    def hand_in(self, call: Call, outcome: Outcome, text: str | None, value: Any, error: str | None) -> None:
        """Take the outcome of a call's work, `text` and what it decodes to: it is delivered in its turn."""
        self.in_turn(functools.partial(self.deliver_now, call, outcome, text, value, error))

    def in_turn(self, deliver: Callable[[], bool]) -> None:
        """Let something deliver an outcome, or none (False), when all branches are blocked."""
        self._inbox.append(deliver)
        self._busy_again()
        if not self._pumping:
            self.wake()

    def hand_in_now(self, call: Call, outcome: Outcome, text: str | None, value: Any, error: str | None) -> None:
        """The same, from a plain callback of the main loop."""
        self._inbox.append(functools.partial(self.deliver_now, call, outcome, text, value, error))
        self._pump()

    def deliver_now(self, call: Call, outcome: Outcome, text: str | None, value: Any, error: str | None) -> bool:
        """Deliver an outcome, unless the call has one; from what has its turn."""
        if call.done() or self._waiting.get(call.key) is not call:
            return False
        if call.begun and isinstance(call, StepCall):
            self._in_flight -= 1
        entry = self.recorder.entry_of(call, outcome, text, error)
        self.recorder.append(entry, call.sides, call.on_durable)
        if call.answers is not None:
            self.engine.committer.add_handled(self, call.answers)
        return self._deliver(call, entry, value)

    def take_turn(self, call: Call, value: str) -> asyncio.Future[EntryWrite]:
        """Ask, for a transaction about to commit, for the entry it has to write with its place in the order.

        Until `end_turn` nothing else is delivered, so its entry stands in the
        journal exactly where its outcome is delivered.
        """
        granted: asyncio.Future[EntryWrite] = self.engine.main.create_future()

        def grant() -> bool:
            if granted.done() or call.done():
                return False
            self._committing = call
            entry = self.recorder.entry_of(call, "ok", value)
            self.recorder.number(entry)
            granted.set_result(entry)
            return False

        self.in_turn(grant)
        return granted

    def between_turns(self, work: Callable[[], None]) -> None:
        """Do something now, or when the transaction that is being committed has ended."""
        if self._committing is None:
            work()
        else:
            self._after_turn.append(work)

    def end_turn(self, call: Call, entry: EntryWrite | None, value: Any = None) -> None:
        """Give the turn back: with the committed entry, whose value is delivered, or without."""
        if self._committing is call:
            self._committing = None
            for work in self._after_turn:
                self.engine.main.call_soon(work)
            self._after_turn.clear()
        if self.closed:
            return
        if entry is not None:
            self.recorder.outcomes += 1
        if entry is not None and self.clear_crashes:
            self.clear_crashes = False
            self.engine.roster.mark(self, progressed=True)
        if entry is not None and not call.done():
            self._in_flight -= 1
            self._inbox.appendleft(functools.partial(self._deliver, call, entry, value))
        self.wake()

    def request_cancel(self, request: int, reason: str | None) -> None:
        """Take note of a request to cancel: it is delivered when nothing else can be, outside shielded blocks."""
        if not self.closed:
            self.cancellation.requests[request] = reason
            self._busy_again()
            self.wake()

    def _stop(self, stop: Stop) -> None:
        """Deliver a cancellation."""
        at = self.recorder.now()
        self.loop.advance(at)
        value = self.codec.encode(stop.reason, where="reason of cancel")
        self.recorder.append_at_once(self.loop.root.key("cancel"), "cancel", stop.name, value, at, at)
        if stop.request is not None:
            self.engine.committer.add_handled(self, stop.request)
        self.cancellation.delivered(stop)
        self.task.cancel()

    def compare(self, entry: EntryRow, kind: str, name: str, digest: str | None) -> None:
        """Stop the run if what its code asks is not what is recorded at this place."""
        difference = compare(entry, kind, name, digest)
        if difference is not None:
            self.diverge(difference)

    def diverge(self, difference: Divergence) -> NoReturn:
        """Stop the run where it stands; the workflow's code gets no chance to handle it."""
        self.loop.unwinding = True
        self._doom = JournalMismatch(
            self.id,
            expected=difference.expected,
            got=difference.got,
            where=difference.where,
            recorded_version=self.version,
            code_version=self.spec.version,
        )
        raise Unwound

    # -- beginning work -----------------------------------------------------
    def written(self, count: int, *, progressed: bool) -> None:
        """Take note that `count` more entries are on disk: what waited for them may begin."""
        recorder = self.recorder
        recorder.durable += count
        if self.alone and progressed:
            self.engine.roster.clear_suspicion(self)
        if self._unbegun or recorder.durable == recorder.appended:
            self._pump()

    def _begin_calls(self) -> bool:
        """Begin every call whose earlier entries are on disk; True if an outcome was handed in without any work."""
        handed_in = False
        while self._unbegun:
            barrier, call = self._unbegun[0]
            if call.done() or self._waiting.get(call.key) is not call:
                self._unbegun.popleft()  # answered by the journal
                continue
            if call.cancel_requested:
                self._unbegun.popleft()
                self.hand_in(call, "error", None, None, call.cancellation())
                handed_in = True
                continue
            if barrier > self.recorder.durable or not self.engine.roster.may_begin(self):
                break
            self._unbegun.popleft()
            call.begun = True
            if isinstance(call, StepCall):
                self._in_flight += 1
                started = self.journal.started.get(call.key)
                crashes = 0 if self.recorder.outcomes else self.claimed.crashes
                call.attempts = 1 + crashes
                if started is not None:  # an attempt that only began is the one that the crash used up
                    call.attempts += started.attempts - (started.error is None and crashes > 0)
            outcomes = len(self._inbox)
            call.begin()
            if len(self._inbox) > outcomes:  # recorded before the next one begins, which may hold the run
                return True
        return handed_in

    # -- rest ---------------------------------------------------------------
    def _rest(self) -> None:
        """Nothing can be delivered now: arm the next timer, and tell the engine if the run is idle."""
        pending = self.cancellation.pending
        if self._in_flight and not self.timers.heap and self._armed is None and not self.idle and not pending:
            return  # the usual case: a step is executing
        due_at = self._next_due()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        if due_at is not None and self._committing is None and not self.timers.held:  # else somebody looks again
            delay = max(0.0, due_at - self.engine.clock.now())
            self._armed = self.engine.main.call_later(delay, self._pump)
        waiting = not (self._in_flight or self._unbegun or self._inbox or self._committing or self.looking)
        waiting = waiting and not self.cancellation.requests  # held back by a shielded block: they would only wake it
        if waiting and self.waits_begun:
            self._note_waits()
        idle = waiting and self.recorder.appended == self.recorder.durable
        if idle and not self.idle:
            self.idle = True
            if self.alone:
                self.engine.roster.mark(self)  # at once: it may wait long, and is no suspect of what happens meanwhile
                self.engine.roster.clear_suspicion(self)
            self.engine.roster.rested(self, due_at)
        elif not idle:
            self._busy_again()

    def _note_waits(self) -> None:
        """Write what the run waits for: out of memory, nobody but the store would know."""
        for call in self.waits_begun:
            if self._waiting.get(call.key) is call and call.key not in self.journal.started:
                self.recorder.note(call)
        self.waits_begun.clear()
        self.waits_noted = True

    def looked(self) -> None:
        """Take note that the store has been asked for what one call waits for."""
        self.looking -= 1
        if not self.closed and not self._pumping:
            self._rest()

    def _busy_again(self) -> None:
        if self.idle:
            self.idle = False
            self.engine.roster.stirred(self)

    # -- the end ------------------------------------------------------------
    def _ended(self) -> bool:
        """The workflow has returned: end what it left running, then write its end; True if only waiting is left."""
        left = self.loop.unfinished_tasks()
        if left:
            if not self._leftovers_cancelled:
                self._leftovers_cancelled = True
                names = ", ".join(task.get_name() for task in left if not task.serves)
                if names:
                    log.warning("run %r returned while it had tasks running, which are cancelled: %s", self.id, names)
                for task in left:
                    task.cancel()
                self.loop.turn()
                left = self.loop.unfinished_tasks()
            if self._doom is not None:
                raise Unwound
            if left:
                return False
        continued = find_continued(self.task) if self.cancellation.was_felt else None  # else it would go on for ever
        returned_now = continued is None and self.ending.status is None
        if returned_now and self.ending.conclude(self.task) and not self._roll_back():
            return False
        difference = self.journal.left()
        if difference is not None:
            self.diverge(difference)
        if continued is not None and self.recorder.durable < self.recorder.appended:
            return True  # until they are on disk: the end of a generation stands alone in its batch
        if self.journal.unread:
            log.warning(
                "run %r of code version %s has ended under version %s, which never asked for what is recorded: %s",
                self.id, self.version, self.spec.version, ", ".join(map(describe, self.journal.unread.values())),
            )  # fmt: skip
        self._close()
        if continued is None:
            self.engine.committer.add_end(self, self.finish(*self.ending.record()))
        else:
            self.engine.committer.add_end(self, end_generation(self, continued, self.recorder.now()))
        self.loop.forget_tasks()
        return True

    def _roll_back(self) -> bool:
        """Begin the compensations, from now on shielded; True if they are done already."""
        self.cancellation.shields += 1
        name = f"{self.spec.name}:{self.id} rolls back"
        context = self.engine.context.copy()
        self.task = self.loop.create_root_task(self.ending.roll_back(), name, context, Branch(ROLLBACK_SCOPE))
        self.loop.turn()
        if self._doom is not None:
            raise Unwound
        return self.task.done()

    def finish(self, status: Status, output: str | None, error: str | None) -> Finish:
        """Make the record of the run's end, with the reason for which its children are to end with it."""
        reason = json.dumps(closing_reason(self.id)) if self.has_children else None
        return Finish(self.row, self.claim, status, output, error, self.claimed.started_at, close_reason=reason)

    def _close(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._busy_again()
        if self.alone:
            self.engine.roster.clear_suspicion(self)
        self._waiting.clear()
        self._inbox.clear()
        self._unbegun.clear()
        self.closed = True

    def unwind(self) -> None:
        """Leave memory: end the work, close the coroutines. What follows is the caller's to write."""
        if self.closed:
            return
        calls = [waiting for waiting in self._waiting.values() if isinstance(waiting, Call) and waiting.begun]
        self._close()
        for call in calls:
            call.forget()
        self.loop.unwind()

    def suspend(self) -> Release:
        """Leave memory until the next timer is due or something wakes the run."""
        due_at = self._next_due()
        self.unwind()
        return Release(self.row, self.claim, wake_at=due_at)
