"""Handles: what a program holds of a run. A handle works from any process that can reach the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outlive.clock import Duration, seconds, to_datetime
from outlive.codec.failure import add_notes, error_facts, rebuild_error
from outlive.codec.payload import Codec, codec_for
from outlive.control import Controlled
from outlive.engine.engine import Engine
from outlive.errors import (
    RunCancelled,
    RunError,
    RunFailed,
    RunNotFound,
    RunOnHold,
    RunTimedOut,
    StepFailed,
    UsageError,
)
from outlive.messages import Item, call_run, make_message, post, read_stream, read_value
from outlive.model.attributes import read_attributes
from outlive.model.reads import GONE, EndedRun, EntryRow, RunRow
from outlive.model.status import Status
from outlive.why import explain_run


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run. Times are aware UTC; `parent` is the parent's id; `attributes` are plain JSON data.

    `starts_at`: until when the start of a `scheduled` run is delayed. `pinned`: only code of its version executes it.
    """

    id: str
    workflow: str
    version: str | None
    status: Status
    queue: str
    priority: int
    key: str | None
    attributes: Any
    parent: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None = None
    generation: int = 0
    forked_from: str | None = None
    starts_at: datetime | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run has ended, or that it is held: its result, or the error that says so."""

    status: Status
    value: Any = None
    error: RunError | None = None

    def explain(self) -> str | None:
        """Say what it failed with, or why it has no result; None if it has one."""
        if isinstance(self.error, RunFailed):
            return f"{self.error.type}: {self.error.text}"
        return None if self.error is None else str(self.error)


@dataclass(frozen=True)
class Entry:
    """One entry of a run's journal. `seq` is None while the call is only `started`."""

    seq: int | None
    key: str
    scope: str
    kind: str
    name: str
    outcome: str
    value: Any
    error: dict[str, Any] | None
    attempts: int
    started_at: datetime
    finished_at: datetime | None


class Run(Controlled):
    """A handle of one run. `created` is False if the run existed when it was started."""

    def __init__(self, engine: Callable[[], Engine], run_id: str, row: int, result_hint: Any, *, created: bool) -> None:
        self._engine = engine
        self._row = row
        self._result_hint = result_hint
        self.id = run_id
        self.created = created

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def status(self) -> Status:
        """Read where the run stands."""
        return Status((await self._read()).status)

    async def info(self) -> RunInfo:
        """Read what is known of the run."""
        return make_info(await self._read())

    async def why(self) -> str:
        """Say in one sentence why the run does not move, with the chain of causes, and what helps."""
        return await explain_run(self._engine(), await self._read())

    async def input(self) -> Any:
        """Read the arguments that the run was started with, as plain data: `{"args": […], "kwargs": {…}}`."""
        run = await self._read()
        codec = codec_for(run.codec, [self._engine().codec], what=f"the arguments of run {self.id!r}")
        return codec.decode(run.input, where=f"arguments of run {self.id}")

    async def entries(self, generation: int | None = None) -> list[Entry]:
        """Read the run's journal, by seq; calls that have only started come last.

        `generation` reads it as it was when that generation ended, before a retry or a rewind.
        """
        run, store = await self._read(), self._engine().store
        codec = codec_for(run.codec, [self._engine().codec], what=f"the journal of run {self.id!r}")
        if generation is None or generation == run.generation:
            return [_make_entry(row, codec) for row in await store.list_entries(self.id)]
        if not isinstance(generation, int) or not 0 <= generation < run.generation:
            raise UsageError(f"run {self.id!r} has the generations 0 to {run.generation}, not {generation!r}")
        return [_make_entry(row, codec) for row in await store.list_past(self._row, generation)]

    async def result(self, timeout: Duration | None = None, *, stop_on_hold: bool = False, as_type: Any = None) -> Any:
        """Wait for the end of the run and give its value.

        A failed run raises the original error where its class is imported here
        and rebuilds from its recorded arguments, else RunFailed; a cancelled one
        RunCancelled. RunTimedOut says that the wait took too long; the run goes
        on. RunNotFound: it is not there, or was deleted meanwhile. LeaseLost says
        that this process lost the run to a peer. A held run
        keeps the caller waiting unless `stop_on_hold` (RunOnHold).
        """
        ended = await self._ended(seconds(timeout) if timeout is not None else None, stop_on_hold)
        outcome = self._read_outcome(ended, as_type if as_type is not None else self._result_hint)
        if outcome.error is None:
            return outcome.value
        if isinstance(outcome.error, RunFailed):
            error = rebuild_error(ended.error or "{}")
            if not isinstance(error, StepFailed):
                raise error
            outcome.error.__cause__ = error.__cause__
        raise outcome.error

    async def _outcome(self, timeout_s: float | None = None, *, stop_on_hold: bool = False) -> Outcome:
        """Wait as `result`, and give how the run has ended; what it failed with is not rebuilt."""
        return self._read_outcome(await self._ended(timeout_s, stop_on_hold), Any)

    async def _find_outcome(self) -> Outcome | None:
        """Give how the run has ended or that it is held, without a wait; None if it goes on."""
        for ended in await self._engine().store.list_ended([self._row]):
            if ended.status == GONE:
                raise RunNotFound(self.id)
            return self._read_outcome(ended, Any)
        return None

    def _read_outcome(self, ended: EndedRun, hint: Any) -> Outcome:
        status = Status(ended.status)
        if status == Status.SUCCEEDED:
            codec = codec_for(ended.codec, [self._engine().codec], what=f"the result of run {self.id!r}")
            value = codec.decode(ended.output or "null", hint, where=f"result of run {self.id}")
            return Outcome(status, value)
        facts = error_facts(ended.error or "{}")
        error: RunError = RunFailed(self.id, facts["type"], facts["text"], facts["traceback"])
        if status.held:
            return Outcome(status, error=RunOnHold(self.id, ended.status, _reason_of(facts)))
        if status == Status.CANCELLED:
            error = RunCancelled(self.id, facts["text"] or None)
        add_notes(error, facts.get("attrs"))
        return Outcome(status, error=error)

    async def _ended(self, timeout_s: float | None, stop_on_hold: bool) -> EndedRun:
        engine = self._engine()
        done: asyncio.Future[EndedRun] = engine.main.create_future()

        def on_ended(ended: EndedRun) -> None:
            if done.done():
                return
            if ended.status == GONE:
                done.set_exception(RunNotFound(self.id))
            elif stop_on_hold or Status(ended.status).final:
                done.set_result(ended)

        engine.watcher.watch("end", self._row, on_ended)
        engine.roster.wait_here(self._row, done)
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            raise RunTimedOut(self.id, timeout_s or 0.0) from None
        finally:
            engine.watcher.forget("end", self._row, on_ended)
            engine.roster.wait_no_more(self._row, done)

    async def send(self, topic: str, value: Any, key: str | None = None) -> None:
        """Send the run a message; return when it is in its mailbox. A used `key` sends nothing a second time."""
        engine = self._engine()
        await post(engine, make_message(engine, self.id, topic, value, key))

    async def value(self, name: str, wait: Duration | None = None, *, as_type: Any = Any) -> Any:
        """Give the latest value that the run has published under a name.

        Without one: None at once, or after `wait` RunTimedOut; RunEnded if the run ends before, RunNotFound if it goes.
        """
        return await read_value(self._engine(), self._row, self.id, name, wait, as_type)

    def stream(self, name: str, after: int = 0, *, as_type: Any = Any) -> AsyncIterator[Item]:
        """Iterate over the items that the run emits to a stream, past and future, until the run has ended or is gone.

        To go on later or elsewhere, give the `seq` of the last item seen as `after`.
        """
        return read_stream(self._engine, self._row, self.id, name, after, as_type)

    async def call(self, name: str, *args: Any, timeout: Duration | None = None, as_type: Any = Any) -> Any:
        """Call into the running workflow, which has said `on_call(name, …)`, and give its answer.

        *Raises* the error with which the run refuses or fails the call, RunEnded if it ends without an answer,
        CallUnanswered where it had accepted the call; RunTimedOut after the timeout: it may be answered all the same.
        """
        return await call_run(self._engine(), self._row, self.id, name, args, timeout, as_type)

    async def _read(self) -> RunRow:
        row = await self._engine().store.find_run(self.id)
        if row is None:
            raise RunNotFound(self.id)
        return row


def _reason_of(held: Mapping[str, Any]) -> str:
    """Say why a run is held, and what has to be there before it can be resumed."""
    needs = "; first the code, codec or key that reads it is needed" if held["type"].endswith(".DecodeFailed") else ""
    return f"{held['text']}{needs}"


def make_info(row: RunRow) -> RunInfo:
    """Make the public record of a run from its row."""
    return RunInfo(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=Status(row.status),
        queue=row.queue,
        priority=row.priority,
        key=row.key,
        attributes=read_attributes(row.attributes),
        parent=row.parent_id,
        created_at=to_datetime(row.created_at),
        started_at=to_datetime(row.started_at) if row.started_at is not None else None,
        finished_at=to_datetime(row.finished_at) if row.finished_at is not None else None,
        deadline=to_datetime(row.deadline_at) if row.deadline_at is not None else None,
        generation=row.generation,
        forked_from=row.forked_from,
        starts_at=to_datetime(row.start_at) if row.status == Status.SCHEDULED and row.start_at is not None else None,
        pinned=bool(row.pinned),
    )


def _make_entry(row: EntryRow, codec: Codec) -> Entry:
    has_value = row.value is not None and row.outcome != "started"  # what is only started refers to its child there
    return Entry(
        seq=row.seq,
        key=row.key,
        scope=row.key.rpartition("/")[0],
        kind=row.kind,
        name=row.name,
        outcome=row.outcome,
        value=codec.decode(row.value or "", where=f"entry {row.key}") if has_value else None,
        error=error_facts(row.error) if row.error is not None else None,
        attempts=row.attempts,
        started_at=to_datetime(row.started_at),
        finished_at=to_datetime(row.finished_at) if row.finished_at is not None else None,
    )
