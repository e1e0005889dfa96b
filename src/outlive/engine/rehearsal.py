"""Rehearsals: recorded journals replayed by the code at hand, without any effect.

The real execution, on a process that begins nothing, writes nothing and has no
store: recorded outcomes are delivered until the code ends, differs, or asks for
what is not recorded. Then the run leaves memory as it would for a restart.
Invariant: no step body, child or timer of a rehearsed run ever begins, and no
task or thread of it is left.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from outlive.codec.failure import error_facts
from outlive.codec.payload import Codec, codec_for, decode_arguments
from outlive.engine.calls import Call
from outlive.engine.execution import Execution, Waiting
from outlive.engine.journal import describe, version_behind
from outlive.engine.roles import Definitions
from outlive.engine.threads import ThreadBody
from outlive.errors import JournalMismatch, OutliveError, PayloadError, ReplayError, UsageError, VersionMissing
from outlive.ids import Ids
from outlive.limits import REHEARSAL_S
from outlive.model.definition import WorkflowSpec
from outlive.model.frozen import FrozenJournal
from outlive.model.status import Status
from outlive.model.writes import Continue, Finish

Verdict = Literal["fits", "edited", "breaks", "elsewhere"]


@dataclass(frozen=True)
class Report:
    """What became of one run in a rehearsal.

    `fits`: the code goes on with it, or ends it as recorded. `edited`: so it
    does, as an edit that another version tolerates: `notes` name what it would
    execute although outcomes are recorded beyond, or no longer asks for.
    `breaks`: `error` says how. `elsewhere`: it is pinned to another version,
    and this code never gets it. `recorded_version` is that of the code that made
    the journal; None for a run that was started by name and has none yet.
    """

    run_id: str
    workflow: str
    recorded_version: str | None
    code_version: str | None
    verdict: Verdict
    error: OutliveError | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the run would survive the deployment of this code."""
        return self.verdict != "breaks"

    def __str__(self) -> str:
        facts = [("note", note) for note in self.notes]
        if isinstance(self.error, JournalMismatch):
            difference = self.error
            facts[:0] = [("recorded", difference.expected), ("code", difference.got), ("where", difference.where)]
        elif self.error is not None:
            facts[:0] = [("error", str(self.error))]
        facts.append(("versions", f"journal {self.recorded_version or '-'}, code {self.code_version or '-'}"))
        return "\n".join(
            [f"{self.run_id}  {self.workflow}  {self.verdict}", *(f"  {name:<9} {fact}" for name, fact in facts)]
        )


async def rehearse(journal: FrozenJournal, definitions: Definitions, codec: Codec) -> Report:
    """Replay one journal."""
    spec = definitions.find(journal.workflow)
    code_version = spec.version if spec is not None else None
    recorded_version = journal.version
    if journal.entries:
        recorded_version = version_behind(journal.entries, journal.version, code_version or "")

    def report(verdict: Verdict, error: OutliveError | None = None, notes: Sequence[str] = ()) -> Report:
        return Report(journal.id, journal.workflow, recorded_version, code_version, verdict, error, tuple(notes))

    if spec is None:
        return report("breaks", UsageError(f"this code has no workflow {journal.workflow!r}, or several of that name"))
    if journal.pinned and journal.version != spec.version:
        return report("elsewhere", VersionMissing(journal.id, spec.name, journal.version or "", spec.version))
    host = _Host(definitions, codec)
    try:
        execution = host.load(journal, spec)
        async with asyncio.timeout(REHEARSAL_S):
            await host.rests
        error = _judge(journal, execution, host)
        notes = _notes(journal, execution, host)
    except PayloadError as failed:
        return report("breaks", failed)
    except TimeoutError:
        return report(
            "breaks", UsageError(f"the code of {spec.name!r} ran for {REHEARSAL_S:g} s without a durable call")
        )
    finally:
        host.close()
    if error is not None:
        return report("breaks", error, notes)
    return report("edited" if notes else "fits", None, notes)


class _Host:
    """The process of one rehearsal; stands for all the parts that a run in memory asks for something."""

    def __init__(self, definitions: Definitions, codec: Codec) -> None:
        self.main = asyncio.get_running_loop()
        self.definitions = definitions
        self.codec = codec
        self.context = contextvars.copy_context()
        self.chance = random.Random(0)
        self.ids = Ids(self.chance)
        self.roster = self.committer = self.clock = self
        self.rests: asyncio.Future[None] = self.main.create_future()
        self.error: BaseException | None = None
        self.end: Finish | Continue | None = None
        self._execution: Execution | None = None
        self._threads: list[threading.Thread] = []

    def load(self, journal: FrozenJournal, spec: WorkflowSpec) -> Execution:
        """Let the code run on the journal. Raises PayloadError where it cannot read the arguments."""
        codec = codec_for(journal.codec, [self.codec], what=f"run {journal.id!r}")
        args, kwargs = decode_arguments(codec, spec.shape, journal.input, where=f"arguments of workflow {spec.name}")
        if spec.is_async:
            body = spec.function(*args, **kwargs)
        else:
            body = ThreadBody(spec.function, args, kwargs, self, self.context.copy()).drive()  # type: ignore[arg-type]
        execution = Execution(self, journal.as_claimed(), spec, list(journal.entries), body)  # type: ignore[arg-type]
        self._execution = execution
        execution.wake()
        return execution

    def add_sides(self, _execution: Any, _sides: Any) -> None:
        """Write nothing of what the run shows."""

    def close(self) -> None:
        """Take the run out of memory and wait for its thread."""
        if self._execution is not None:
            self._execution.unwind()
        for thread in self._threads:
            thread.join(REHEARSAL_S)

    def _rest(self) -> None:
        if not self.rests.done():
            self.rests.set_result(None)

    # -- what tells that there is nothing more to deliver ---------------------
    def may_begin(self, _execution: Any) -> bool:
        """Nothing may."""
        self._rest()
        return False

    def rested(self, _execution: Any, _due_at: float | None) -> None:
        """It only waits."""
        self._rest()

    def abandon(self, execution: Any, error: BaseException | None) -> None:
        """It differs, or cannot be read."""
        self.error = error
        execution.unwind()
        self._rest()

    def add_end(self, _execution: Any, end: Finish | Continue) -> None:
        """It has ended."""
        self.end = end
        self._rest()

    # -- what has no effect ---------------------------------------------------
    def add_entry(self, execution: Any, _entry: Any, _on_durable: Any = None, _sides: Any = ()) -> None:
        """An answer that is made at once, such as `now`: on disk as soon as the pump has stopped."""
        self.main.call_soon(partial(execution.written, 1, progressed=True))

    def stirred(self, _execution: Any) -> None: ...

    def now(self) -> float:
        """Before every instant, so that no timer fires by itself."""
        return 0.0

    def new_row(self) -> int:
        return self.ids.row_id(0.0)

    def submit(self, work: Callable[[], None], _main: Any) -> None:
        """Give a sync body its thread."""
        self._threads.append(threading.Thread(target=work, name="outlive-rehearsal", daemon=True))
        self._threads[-1].start()


def _judge(journal: FrozenJournal, execution: Execution, host: _Host) -> OutliveError | None:
    """Give what a deployment of this code would do to the run, if that is nothing good."""
    if isinstance(host.error, OutliveError):
        return host.error
    if isinstance(host.error, Exception):
        return ReplayError(f"replay fails: {type(host.error).__qualname__}: {host.error}")
    if host.error is not None:
        raise host.error
    if isinstance(host.end, Continue):
        if journal.has_ended:
            return ReplayError(f"the run had ended as {journal.status}, this code lets it continue as new")
    elif host.end is not None:
        ends_as = host.end.status
        why = f": {_text(host.end.error)}" if host.end.error else ""
        if journal.has_ended and ends_as != journal.status:
            return ReplayError(f"the run had ended as {journal.status}, this code ends it as {ends_as}{why}")
        if not journal.has_ended and ends_as == Status.FAILED:
            return ReplayError(f"the run would fail{why}")
    elif journal.has_ended and execution.journal.same_version:
        asked = execution.asked()
        return JournalMismatch(
            journal.id,
            expected=f"the end of the workflow, {journal.status}",
            got=", ".join(map(_describe, asked)) or "nothing",
            where=asked[0].key if asked else "the end",
            recorded_version=execution.version,
            code_version=execution.spec.version,
        )
    return None


def _notes(journal: FrozenJournal, execution: Execution, host: _Host) -> list[str]:
    """Say what this code would do that the code before did not, where another version tolerates that."""
    if host.error is not None:
        return []
    notes = []
    unread = list(execution.journal.unread.values())
    new = ", ".join(_describe(call) for call in execution.asked() if call.key not in execution.journal.started)
    if host.end is None and (unread or journal.has_ended):
        beyond = f"{len(unread)} recorded outcomes lie beyond" if unread else "the run had ended"
        notes.append(f"begins {new or 'nothing'}, though {beyond}")
    if unread:
        asks = "never asks" if host.end is not None else "has not asked so far"
        notes.append(f"{asks} for {', '.join(map(describe, unread))}")
    if given_up := list(execution.journal.unasked.values()):
        notes.append(f"no longer waits for {', '.join(map(describe, given_up))}, which has begun")
    if isinstance(host.end, Finish) and host.end.status == Status.SUCCEEDED and journal.has_ended:
        texts = [host.codec.decode(text or "null", where="result") for text in (journal.output, host.end.output)]
        if texts[0] != texts[1]:
            notes.append("gives another result")
    return notes


def _describe(waiting: Waiting) -> str:
    kind = waiting.kind if isinstance(waiting, Call) else "timer"
    return f"{kind} {waiting.name!r} ({waiting.key})"


def _text(record: str) -> str:
    facts = error_facts(record)
    return f"{facts['type']}: {facts['text']}"
