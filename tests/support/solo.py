"""One workflow on the production execution, run loop and journal, without a database and without real time.

`Solo` stands where the engine stands: it records entries and reports them as
written on a later callback, executes step bodies on a loop whose clock jumps to
the next timer, and can kill, suspend or cancel the run at any of its instants.
It watches what must hold of every execution: a settled key never executes
again, `seq` has no gaps and no repeats, nothing is recorded or begun for a run
that has left memory, and a run that rests has nothing in flight.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import itertools
import json
import random
import selectors
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import outlive
from outlive.codec.failure import rebuild_error, record_error
from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import decode_arguments, encode_arguments
from outlive.engine.bodies import Bodies
from outlive.engine.calls import StepCall
from outlive.engine.continuing import next_generation
from outlive.engine.execution import Execution
from outlive.engine.threads import ThreadBody, WorkflowThreads
from outlive.engine.transactions import Transactions
from outlive.errors import JournalMismatch
from outlive.ids import Ids
from outlive.model.definition import StepInfo, WorkflowSpec
from outlive.model.frozen import FrozenJournal
from outlive.model.reads import Claimed, EndedRun, EntryRow
from outlive.model.writes import Committed, Continue, EntryWrite, Fence, Finish, NewRun, Release

EPOCH = 1_800_000_000.0
THREADS_MAX_WAIT_S = 20.0


class Begun(NamedTuple):
    """A step body that began."""

    key: str
    name: str
    args: tuple[Any, ...]
    attempt: int


@dataclass
class ChildRun:
    """A run that the played one has started: enough to go on with it in a later play."""

    new: NewRun
    entries: dict[str, EntryRow] = field(default_factory=dict)
    ended: EndedRun | None = None


@dataclass
class Played:
    """What became of a run. `entries`: what is on disk, by seq, started ones last."""

    status: str  # succeeded, failed, cancelled, paused, died, waiting
    value: Any = None
    error: BaseException | None = None
    error_record: str | None = None
    entries: list[EntryRow] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    children: dict[str, ChildRun] = field(default_factory=dict)
    took_s: float = 0.0
    suspensions: int = 0

    @property
    def executed(self) -> list[str]:
        """The keys of the step bodies that began, in order."""
        return [each.key for each in self.begun]

    @property
    def keys(self) -> list[str]:
        return [entry.key for entry in self.entries]

    @property
    def mismatch(self) -> JournalMismatch | None:
        return self.error if isinstance(self.error, JournalMismatch) else None

    @property
    def settled(self) -> list[EntryRow]:
        return [entry for entry in self.entries if entry.seq is not None]

    @property
    def outcome(self) -> tuple[str, Any, str]:
        """What a replay has to repeat."""
        return self.status, self.value, f"{type(self.error).__name__}: {self.error}"

    def result(self) -> Any:
        """Give the value of a run that succeeded, raise the error of one that did not."""
        if self.error is not None:
            raise self.error
        assert self.status == "succeeded", self.status
        return self.value

    def prefix(self, count: int) -> list[EntryRow]:
        """The journal as a crash after `count` outcomes would leave it."""
        return [copy.copy(entry) for entry in self.settled[:count]]


@dataclass
class Kept:
    """A run as the pretended store has it."""

    spec: WorkflowSpec
    claimed: Claimed
    entries: dict[str, EntryRow]
    execution: Execution | None = None
    played: Played | None = None  # of the run that is played, None for its children
    pending: list[EntryWrite] = field(default_factory=list)
    children: list[NewRun] = field(default_factory=list)
    on_durable: list[Callable[[Committed], Any]] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    end: Finish | Continue | Release | None = None
    in_line: bool = False  # for the next commit
    cancels: list[int] = field(default_factory=list)  # open requests
    ended: EndedRun | None = None
    over: bool = False  # the play has ended


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Instead of waiting for a timer, moves the clock to it; waits for real only for threads."""

    loop: Timeless

    def select(self, timeout: float | None = None) -> list[Any]:
        loop = self.loop
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if loop.threads or loop.is_computing():
            found = super().select(THREADS_MAX_WAIT_S)
            assert found, "a thread does not end"
            return found
        if timeout is not None:
            loop.instant = max(loop.instant, loop._scheduled[0]._when)
        else:
            assert loop.on_still is not None, "nothing will ever happen on this loop"
            loop.call_soon(loop.on_still)
        return super().select(0)


class Timeless(asyncio.SelectorEventLoop):
    """The main loop of a process in which time passes only while nothing else can happen."""

    def __init__(self) -> None:
        self.instant = EPOCH
        self.threads = 0  # step bodies that compute in a thread now
        self.is_computing: Callable[[], bool] = lambda: False  # whether a sync workflow does
        self.on_still: Callable[[], None] | None = None  # nothing will ever happen
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 5e-7  # a double of today's seconds has no finer one; asyncio compares with `<`

    def time(self) -> float:
        return self.instant

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self.threads += 1
        work = super().run_in_executor(executor, func, *args)
        work.add_done_callback(self._returned)
        return work

    def _returned(self, _work: object) -> None:
        self.threads -= 1


class _Clock:
    def __init__(self, loop: Timeless) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.instant

    steady = now


class _Bodies(Bodies):
    """Production bodies, with a note of each that begins."""

    solo: Solo

    def begin(self, call: StepCall, **options: Any) -> None:
        kept = self.solo.kept(call.execution)
        self.solo.check(call.execution is kept.execution and not call.execution.closed, f"{call.key} began too late")
        recorded = kept.entries.get(call.key)
        self.solo.check(recorded is None or recorded.seq is None, f"{call.key} executes again")
        assert self.solo.played is not None
        if kept.played is not None:
            self.solo.played.begun.append(Begun(call.key, call.name, call.args, call.attempts))
        else:
            self.solo.played.begun.append(Begun(f"{kept.claimed.id}:{call.key}", call.name, call.args, call.attempts))
        super().begin(call, **options)


class _Roster:
    """Lets an idle run stay, or leave at once if the play says so."""

    def __init__(self, solo: Solo) -> None:
        self._solo = solo
        self.resting: dict[Execution, None] = {}

    def rested(self, execution: Execution, due_at: float | None) -> None:
        solo = self._solo
        solo.check(not execution.thread_busy, "rests while its thread computes")
        solo.check(not execution._in_flight, "rests while a step is in flight")
        self.resting[execution] = None
        if solo.suspending and (due_at is not None or execution.has_children):
            solo.suspend(execution)

    def stirred(self, execution: Execution) -> None:
        self.resting.pop(execution, None)

    def may_begin(self, execution: Execution) -> bool:
        return self._solo.may_begin(execution)

    def mark(self, execution: Execution) -> None: ...

    def clear_suspicion(self, execution: Execution) -> None:
        execution.alone = False

    def abandon(self, execution: Execution, error: BaseException | None) -> None:
        solo = self._solo
        if execution.closed:
            return
        kept = solo.kept(execution)
        if kept.played is not None:
            kept.played.error = error
        execution.unwind()
        hold = "paused" if error is not None else None
        solo.committer.add_end(execution, Release(execution.row, execution.claim, None, hold, "{}"))  # type: ignore[arg-type]


class _Watcher:
    """Tells a parent of its child's end."""

    def __init__(self, solo: Solo) -> None:
        self._solo = solo
        self._waits: dict[int, list[Callable[[EndedRun], None]]] = {}

    def watch(
        self, kind: str, row: int, on_ended: Callable[[EndedRun], None], on_looked: Callable[[], None] | None = None
    ) -> None:
        self._solo.check(kind == "end", f"{kind} is waited for, which nobody here can send")
        self._waits.setdefault(row, []).append(on_ended)
        if on_looked is not None:
            self._solo.main.call_soon(self._look, row, on_looked)

    def _look(self, row: int, on_looked: Callable[[], None]) -> None:
        kept = self._solo.runs.get(row)
        if kept is not None and kept.ended is not None:
            self.tell(kept.ended)
        on_looked()

    def forget(self, _kind: str, row: int, on_ended: Callable[[EndedRun], None]) -> None:
        waits = self._waits.get(row, [])
        if on_ended in waits:
            waits.remove(on_ended)

    def tell(self, ended: EndedRun) -> None:
        for on_ended in list(self._waits.get(ended.row, ())):
            on_ended(ended)


class _Committer:
    """Takes what a run has to write; it is on disk some time later, in one piece."""

    def __init__(self, solo: Solo) -> None:
        self._solo = solo

    def add_entry(
        self,
        execution: Execution,
        entry: EntryWrite,
        on_durable: Callable[[Committed], Any] | None = None,
        _sides: tuple[Any, ...] = (),
    ) -> None:
        self._solo.check(not execution.closed, f"{entry.key} is recorded for a run that has left memory")
        self._solo.check(not execution.loop.unwinding, f"{entry.key} is recorded while the run unwinds")
        kept = self._line(execution)
        kept.pending.append(entry)
        if on_durable is not None:
            kept.on_durable.append(on_durable)

    def add_child(self, execution: Execution, child: NewRun, on_durable: Callable[[Committed], Any]) -> None:
        kept = self._line(execution)
        if child.row not in self._solo.runs:
            kept.children.append(child)
        kept.on_durable.append(on_durable)

    def add_end(self, execution: Execution, end: Finish | Continue | Release) -> None:
        self._line(execution).end = end

    def add_handled(self, execution: Execution, request: int) -> None:
        self._line(execution).requests.append(request)

    def _line(self, execution: Execution) -> Kept:
        solo = self._solo
        kept = solo.kept(execution)
        if not kept.in_line:
            kept.in_line = True
            delay_s = solo.commit_delay()
            if delay_s > 0:
                solo.main.call_later(delay_s, self._commit, kept)
            else:
                solo.main.call_soon(self._commit, kept)
        return kept

    def _commit(self, kept: Kept) -> None:
        kept.in_line = False
        execution, solo = kept.execution, self._solo
        if execution is None or execution.disowned:
            return
        entries, kept.pending = kept.pending, []
        children, kept.children = kept.children, []
        heard, kept.on_durable = kept.on_durable, []
        requests, kept.requests = kept.requests, []
        end, kept.end = kept.end, None
        for entry in entries:
            solo.write(kept, entry)
        kept.cancels = [number for number in kept.cancels if number not in requests]
        if kept.played is not None:
            kept.played.handled.extend(requests)
        for child in children:
            solo.keep_child(child)
        for on_durable in heard:
            on_durable(Committed())
        if end is not None:
            solo.left(kept, end)
        elif entries:
            execution.written(len(entries), progressed=any(one.outcome != "started" for one in entries))


class FakeTransaction:
    """A database transaction that writes nothing but its entry."""

    raw = None

    def __init__(self, solo: Solo) -> None:
        self._solo = solo
        self.statements: list[str] = []
        self.is_open = True

    async def execute(self, sql: str, *_args: Any) -> int:
        assert self.is_open
        self.statements.append(sql)
        return 1

    async def commit(self, _fence: Fence, entry: EntryWrite) -> None:
        assert self.is_open
        await asyncio.sleep(self._solo.commit_delay())
        if self._solo.died:
            raise asyncio.CancelledError
        self.is_open = False
        self._solo.write(self._solo.runs[entry.row], entry)

    async def rollback(self) -> None:
        self.is_open = False


class _Store:
    def __init__(self, solo: Solo) -> None:
        self._solo = solo

    async def begin(self, _timeout_s: float) -> FakeTransaction:
        return FakeTransaction(self._solo)


class Solo:
    """Plays runs, one after the other. A context manager: it owns a loop and threads."""

    def __init__(self) -> None:
        self.main = Timeless()
        self.main.is_computing = self._is_computing
        self.main.set_exception_handler(self._fell_out)
        self.codec = JsonCodec()
        _playing.set(self)
        self.context = contextvars.copy_context()
        self.clock = _Clock(self.main)
        self.store = _Store(self)
        self.committer = _Committer(self)
        self.roster = _Roster(self)
        self.threads = WorkflowThreads(lambda: None)
        self.watcher = _Watcher(self)
        self.chance = random.Random(0)
        self._chance_of_ids = random.Random(0)  # apart: each replay of a call of a child draws a row
        self.ids = Ids(self._chance_of_ids)
        self.bodies = _Bodies(self.main, Transactions(self), self.chance, self.context)  # type: ignore[arg-type]
        self.bodies.solo = self
        self.runs: dict[int, Kept] = {}
        self.played: Played | None = None
        self.broken: list[str] = []
        self.suspending = False
        self.died = False
        self.lease_s = 15.0
        self.definitions = self
        self.may_begin: Callable[..., bool] = lambda *_: True
        self.commit_delay: Callable[[], float] = lambda: 0.0
        self.step_delay: Callable[[str], float] = lambda _key: 0.0
        self.children: dict[str, WorkflowSpec] = {}
        self.on_entry: Callable[[EntryWrite], object] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._known_children: dict[str, ChildRun] = {}

    def __enter__(self) -> Solo:
        return self

    def __exit__(self, *_exc: object) -> None:
        _playing.set(None)
        self.bodies.close()
        self.threads.close()
        self.main.close()

    # -- playing ------------------------------------------------------------
    def play(
        self,
        workflow: Any,
        *args: Any,
        entries: Iterable[EntryRow] = (),
        version: str | None = None,
        recorded_version: str | None = None,
        run_id: str = "solo",
        seed: int = 0,
        crashes: int = 0,
        step_delay: Callable[[str], float] | Mapping[str, float] | None = None,
        commit_delay: Callable[[], float] | None = None,
        cancel_at: Sequence[float] = (),
        die_at: float | None = None,
        die_after_entries: int | None = None,
        suspending: bool = False,
        children: dict[str, ChildRun] | None = None,
        down_for: float = 0.0,
    ) -> Played:
        """Execute a run to its end, from these recorded entries on.

        `version` is that of the code, `recorded_version` that of the run (the same
        if not given). `step_delay` gives a step's duration by its key, for those that
        call `pause()`. `cancel_at`: seconds after which a cancel request arrives.
        `die_at`, `die_after_entries`: when the process ends, without a word.
        `suspending`: the run leaves memory whenever it may. `down_for`: seconds from
        the last recorded entry to now. Raises AssertionError if one of the invariants
        did not hold.
        """
        spec = workflow.spec
        if version is not None:
            spec = dataclasses.replace(spec, version=version)
        recorded = list(entries)
        self.runs.clear()
        self.broken.clear()
        self.chance.seed(seed)
        self._chance_of_ids.seed(seed)
        self.died = False
        self.suspending = suspending
        self.step_delay = _delay_of(step_delay)
        self.commit_delay = commit_delay or (lambda: 0.0)
        self._known_children = children or {}
        self.played = played = Played("waiting")
        input_text = encode_arguments(self.codec, spec.shape, args, {}, where="input")
        claimed = _claimed(1, run_id, spec.name, recorded_version or spec.version, input_text, EPOCH)
        claimed.crashes = crashes
        kept = Kept(spec, claimed, {entry.key: copy.copy(entry) for entry in recorded}, played=played)
        self.runs[1] = kept
        # A replay begins later than what it replays ended.
        self.main.instant = down_for + max([EPOCH, *(entry.finished_at or entry.started_at for entry in recorded)])
        began_at = self.main.instant
        for entry in recorded:
            if entry.seq is None and entry.kind in ("child", "start"):
                self._bring_back(json.loads(entry.value or "{}")["run"])
        self.main.run_until_complete(self._play(kept, cancel_at, die_at, die_after_entries))
        played.took_s = self.main.instant - began_at
        played.entries = _by_seq(kept.entries.values())
        played.children = {
            run.claimed.id: ChildRun(_new_run(run.claimed), run.entries, run.ended)
            for run in self.runs.values()
            if run is not kept
        }
        self._check_order(played)
        assert not self.broken, "; ".join(self.broken)
        self.played = None
        return played

    async def _play(
        self,
        kept: Kept,
        cancel_at: Sequence[float],
        die_at: float | None,
        die_after_entries: int | None,
    ) -> None:
        main = self.main
        self._finished = finished = main.create_future()
        main.on_still = self._still
        timers = [self._later(at, self._request_cancel, kept, number) for number, at in enumerate(cancel_at, 1)]
        if die_at is not None:
            timers.append(self._later(die_at, self._die, kept))
        if die_after_entries is not None:
            left = itertools.count(die_after_entries - 1, -1)
            self.on_entry = lambda _entry: next(left) or main.call_soon(self._die, kept)
        self._load(kept)
        try:
            await finished
        finally:
            self.on_entry = None
            for timer in timers:
                timer.cancel()
        self._leave_all()
        for run in self.runs.values():
            run.over = True
        while self.bodies.in_flight or main.threads:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)

    def _later(self, delay_s: float, callback: Callable[..., None], *args: Any) -> asyncio.Handle:
        """Call at a time of the play; at 0 before the run begins."""
        return self.main.call_later(delay_s, callback, *args) if delay_s else self.main.call_soon(callback, *args)

    def join_threads(self) -> None:
        """Wait until no thread of a sync workflow is left."""
        while self.threads._taken:
            time.sleep(0.001)
            self.main.run_until_complete(asyncio.sleep(0))

    def _still(self) -> None:
        """The run waits for something that nobody will bring."""
        self._end_play()

    def _is_computing(self) -> bool:
        executions = [run.execution for run in self.runs.values()]
        return any(each is not None and each.thread_busy and not each.closed for each in executions)

    def _load(self, kept: Kept) -> None:
        claimed, spec = kept.claimed, kept.spec
        args, kwargs = decode_arguments(self.codec, spec.shape, claimed.input, where="input")
        if spec.is_async:
            body = spec.function(*args, **kwargs)
        else:
            body = ThreadBody(spec.function, args, kwargs, self.threads, self.context.copy()).drive()
        entries = [copy.copy(entry) for entry in _by_seq(kept.entries.values())]
        kept.execution = Execution(self, claimed, spec, entries, body)  # type: ignore[arg-type]
        kept.execution.wake()
        for number in kept.cancels:
            kept.execution.request_cancel(number, f"request {number}")

    def kept(self, execution: Execution) -> Kept:
        return self.runs[execution.row]

    def _fell_out(self, _loop: object, context: dict[str, Any]) -> None:
        """Nothing of the engine may fail on the main loop: what fails there is lost."""
        error = context.get("exception")
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        self.broken.append(f"{context['message']}\n{trace}")
        self._end_play()

    def check(self, holds: bool, claim: str) -> None:
        if not holds:
            self.broken.append(claim)

    def _check_order(self, played: Played) -> None:
        numbers = [entry.seq for entry in played.settled]
        self.check(numbers == sorted(set(numbers)), f"seq is not an order: {numbers}")

    def write(self, kept: Kept, entry: EntryWrite) -> None:
        """An entry is on disk: times as a database keeps them, in microseconds."""
        known = kept.entries.get(entry.key)
        self.check(known is None or known.seq is None, f"{entry.key} is settled twice")
        kept.entries[entry.key] = EntryRow(
            entry.key, entry.seq, entry.kind, entry.name, entry.digest, entry.outcome, entry.value, entry.error,
            entry.attempts, round(entry.started_at, 6),
            round(entry.finished_at, 6) if entry.finished_at is not None else None, entry.noted_version,
        )  # fmt: skip
        if self.on_entry is not None and kept.played is not None:
            self.on_entry(entry)

    # -- what happens to runs -----------------------------------------------
    def _request_cancel(self, kept: Kept, number: int) -> None:
        kept.cancels.append(number)
        if kept.execution is None:
            self._claim_again(kept)
        elif not kept.execution.closed:
            kept.execution.request_cancel(number, f"request {number}")

    def _die(self, kept: Kept) -> None:
        assert kept.played is not None and self._finished is not None
        if not self._finished.done():
            self.died = True
            kept.played.status = "died"
            self._leave_all()
            self._finished.set_result(None)

    def _leave_all(self) -> None:
        for run in self.runs.values():
            if run.execution is not None:
                run.execution.disowned = True
                run.execution.unwind()

    def suspend(self, execution: Execution) -> None:
        if self.played is not None:
            self.played.suspensions += 1
        self.committer.add_end(execution, execution.suspend())

    def left(self, kept: Kept, end: Finish | Continue | Release) -> None:
        """The end of an execution is on disk."""
        if isinstance(end, Continue):
            kept.claimed, kept.entries = next_generation(kept.claimed, end), {}
            self._load(kept)
        elif isinstance(end, Finish):
            kept.ended = EndedRun(
                kept.claimed.row, kept.claimed.id, kept.spec.name, end.status, end.output, end.error, "json/1"
            )
            self._ended(kept, end)
        elif end.hold is not None:
            if kept.played is not None:
                kept.played.status = "paused"
                self._end_play()
        else:
            kept.execution = None
            kept.claimed.claim += 1
            kept.claimed.fresh = False
            if kept.cancels or self._has_news(kept):
                self.main.call_soon(self._claim_again, kept)
            elif end.wake_at is not None:
                self.main.call_at(end.wake_at, self._claim_again, kept)

    def _claim_again(self, kept: Kept) -> None:
        if kept.execution is None and kept.ended is None and not self.died and not kept.over:
            self._load(kept)

    def _has_news(self, kept: Kept) -> bool:
        """Whether a child has ended whose end the run has not read."""
        awaited = [entry for entry in kept.entries.values() if entry.seq is None and entry.kind == "child"]
        rows = [json.loads(entry.value or "{}")["row"] for entry in awaited]
        return any(self.runs[row].ended is not None for row in rows)

    def _ended(self, kept: Kept, end: Finish) -> None:
        played = kept.played
        self.watcher.tell(kept.ended)  # type: ignore[arg-type]
        if played is None:
            for run in self.runs.values():
                if run.execution is None and self._has_news(run):
                    self.main.call_soon(self._claim_again, run)
            return
        played.status = str(end.status)
        if end.error is not None:
            played.error, played.error_record = rebuild_error(end.error, allow_cancelled=True), end.error
        else:
            played.value = self.codec.decode(end.output or "null", kept.spec.shape.result, where="result")
        self._end_play()

    def _end_play(self) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    # -- children -----------------------------------------------------------
    def serve(self, *workflows: Any) -> None:
        """Make workflows known, so that they can be children."""
        for workflow in workflows:
            self.children[workflow.spec.name] = workflow.spec

    def keep_child(self, new: NewRun) -> None:
        spec = self.children[new.workflow]
        kept = Kept(spec, _claimed(new.row, new.id, new.workflow, new.version, new.input, self.main.instant), {})
        self.runs[new.row] = kept
        self._load(kept)

    def _bring_back(self, run_id: str) -> None:
        known = self._known_children[run_id]
        spec = self.children[known.new.workflow]
        claimed = _claimed(known.new.row, run_id, spec.name, known.new.version, known.new.input, self.main.instant)
        kept = Kept(spec, claimed, {key: copy.copy(entry) for key, entry in known.entries.items()})
        self.runs[known.new.row] = kept
        if known.ended is not None:
            kept.ended = known.ended
        else:
            self.main.call_soon(self._load, kept)

    # -- the engine's face towards an execution -----------------------------
    def new_row(self) -> int:
        return self.ids.row_id(self.clock.now())

    def may_own(self, _run: NewRun) -> bool:
        return True

    def fence(self) -> Fence:
        return Fence(1, 1)

    def use(self, spec: Any) -> None: ...

    def lease_lost(self) -> None:
        raise AssertionError("a lone run has no rival")

    def request_cancel_of_child(self, run_id: str) -> None:
        for run in self.runs.values():
            if run.claimed.id == run_id:
                self.main.call_soon(self._request_cancel, run, 1)

    def spawn(self, _work: Any) -> None:
        raise AssertionError("a lone run asks nobody")


def _claimed(row: int, run_id: str, workflow: str, version: str | None, input: str, at: float) -> Claimed:
    return Claimed(
        row=row,
        id=run_id,
        workflow=workflow,
        version=version,
        input=input,
        codec="json/1",
        claim=1,
        crashes=0,
        fresh=True,
        alone=False,
        started_at=round(at, 6),
        deadline_at=None,
        parent=None,
        parent_key=None,
    )


def _new_run(claimed: Claimed) -> NewRun:
    return NewRun(claimed.row, claimed.id, claimed.workflow, claimed.input, claimed.version)


def _by_seq(entries: Iterable[EntryRow]) -> list[EntryRow]:
    return sorted(entries, key=lambda entry: (entry.seq is None, entry.seq or 0, entry.started_at, entry.key))


def _delay_of(step_delay: Callable[[str], float] | Mapping[str, float] | None) -> Callable[[str], float]:
    if callable(step_delay):
        return step_delay
    durations = step_delay or {}
    return lambda key: durations.get(key, 0.0)


_playing: contextvars.ContextVar[Solo | None] = contextvars.ContextVar("playing", default=None)


async def pause() -> StepInfo:
    """Within a step: take as long as the play says for this key; gives what is known of the step."""
    solo, info = _playing.get(), outlive.info()
    assert isinstance(info, StepInfo)
    if solo is not None:
        delay_s = solo.step_delay(info.key)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
    return info


def delays(seed: Any, longest_s: float = 1.0) -> Callable[[str], float]:
    """Give each step a duration of its own: by seed and key, a third of them none at all."""

    def delay(key: str) -> float:
        chance = random.Random(f"{seed} {key}")
        return 0.0 if chance.random() < 1 / 3 else chance.random() * longest_s

    return delay


def check_replays(
    solo: Solo, workflow: Any, *args: Any, seed: Any = 0, ends: str = "succeeded", **options: Any
) -> Played:
    """Play a run, then replay it from every prefix of its journal with other delays; give the first play.

    The replayed journal begins with the prefix, no step of the prefix executes
    again, and the whole journal gives the same end without executing anything.
    `ends`: the final statuses that may come.
    """
    first = solo.play(workflow, *args, seed=1, step_delay=delays(seed), **options)
    cancel_at = options.pop("cancel_at", ())
    options.pop("suspending", None)
    assert first.status in ends, first
    count = len(first.settled)
    for cut in range(count + 1):
        prefix = first.prefix(cut)
        cancelled = sum(entry.kind == "cancel" for entry in prefix)
        again = solo.play(
            workflow,
            *args,
            entries=prefix,
            seed=2 + cut,
            step_delay=delays((seed, cut)),
            cancel_at=cancel_at[cancelled:],
            **options,
        )
        assert again.settled[:cut] == prefix, (first.keys, again.keys)
        assert not {entry.key for entry in prefix} & set(again.executed)
        assert again.status in ends, (cut, again)
        if cut == count:
            assert again.executed == []
            assert again.settled == prefix
            assert again.outcome == first.outcome
    return first


def freeze(
    workflow: Any, *args: Any, entries: Sequence[EntryRow], played: Played | None = None, version: str | None = None
) -> FrozenJournal:
    """Give a journal of a play as `outlive runs export` would write it; `played` if it had ended like this."""
    spec, codec = workflow.spec, JsonCodec()
    output = error = None
    if played is not None and played.error is not None:
        error = record_error(played.error, codec)
    elif played is not None:
        output = codec.encode(played.value, hint=spec.shape.result, where="result")
    return FrozenJournal(
        id="solo", row=1, workflow=spec.name, version=version or spec.version, codec=codec.id, started_at=EPOCH,
        status=played.status if played is not None else "suspended", output=output, error=error,
        input=encode_arguments(codec, spec.shape, args, {}, where="input"), entries=list(entries),
    )  # fmt: skip
