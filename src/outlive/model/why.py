"""Why a run does not move: one sentence with the chain of causes, and what helps. Takes facts, knows no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from outlive.model.reads import EntryRow, RunRow, WorkerRow
from outlive.model.status import Status

_LINKS_MAX = 20  # of a chain of children: whoever reads further has lost the thread


@dataclass
class Facts:
    """What is known of a run that somebody asks about.

    `open_entries` are those without an outcome, `problem` is what it ended or is held by, as type and text;
    `by` whoever has paused it; `child` the first one that it awaits, with its own facts.
    """

    run: RunRow
    now: float
    open_entries: Sequence[EntryRow] = ()
    last: EntryRow | None = None
    problem: tuple[str, str] | None = None
    open_problem: tuple[str, str] | None = None  # that of the last attempt at an open entry
    by: str | None = None
    cancelling: bool = False
    workers: Sequence[WorkerRow] = ()
    child: Facts | None = None
    notes: list[str] = field(default_factory=list)  # what other parts know of it


def explain(facts: Facts) -> str:
    """Give the sentence about a run."""
    return f"run {facts.run.id!r} {_state(facts, 0)}"


def _state(facts: Facts, depth: int) -> str:
    if depth == _LINKS_MAX:
        return "waits in its turn …"
    run, ended = facts.run, _ago(facts, facts.run.finished_at)
    match Status(run.status):
        case Status.SUCCEEDED:
            return f"has succeeded {ended}: there is nothing to do"
        case Status.FAILED:
            return f"has failed {ended}{_with(facts.problem)} → retry() it when that is mended"
        case Status.CANCELLED:
            return f"was cancelled {ended}{_because(facts.problem)} → retry() lets it go on"
        case Status.SCHEDULED:
            said = f"has a delayed start: {_until(facts, run.start_at)}"
        case Status.QUEUED:
            said = _queued(facts)
        case Status.RUNNING:
            said = _running(facts, depth)
        case Status.SUSPENDED:
            said = _suspended(facts, depth)
        case Status.PAUSED:
            said = _paused(facts)
        case Status.QUARANTINED:
            said = f"is quarantined{_because(facts.problem)} → resume() it when its code is mended, or cancel() it"
    return said + (", and its cancellation is asked for" if facts.cancelling else "")


def _queued(facts: Facts) -> str:
    run = facts.run
    line = f"waits for its turn in queue {run.queue!r}" if run.queue else "waits to be claimed"
    since = f"{line} since {_ago(facts, run.wake_at or run.created_at)}"
    what = f"workflow {run.workflow!r}" + (f" in version {run.version}" if run.pinned else "")
    if not _alive(facts):
        return f"{since}: no worker is alive → start one that serves {what}"
    if facts.notes:
        return f"{since}: {'; '.join(facts.notes)}"
    count = len(_alive(facts))
    workers = (
        "the one worker that is alive does not serve" if count == 1 else f"none of the {count} workers alive serves"
    )
    return f"{since}: if that lasts, {workers} {what}, or has no room → start another one"


def _running(facts: Facts, depth: int) -> str:
    run = facts.run
    worker = next((one for one in facts.workers if one.worker == run.worker), None)
    if worker is None or worker.expires_at < facts.now:
        name = "a worker" if worker is None else f"worker {worker.name!r}, whose lease has expired"
        others = [one for one in _alive(facts) if worker is None or one.worker != worker.worker]
        helps = "a peer takes over within a second" if others else "no other worker is alive → start one"
        return f"was in the hands of {name}: {helps}"
    at = f"is in the hands of worker {worker.name!r} (process {worker.pid} on {worker.host})"
    waits = _waits(facts, depth)
    if waits:
        return f"{at}, and {waits}"
    last = f"; the last it has recorded is {facts.last.key} {_ago(facts, facts.last.finished_at)}" if facts.last else ""
    return f"{at} and executing{last}"


def _suspended(facts: Facts, depth: int) -> str:
    run = facts.run
    waits = _waits(facts, depth)
    due = run.wake_at is not None and run.wake_at <= facts.now
    if due and not _alive(facts):
        return f"is due {_ago(facts, run.wake_at)}, and no worker is alive → start one"
    if due:
        return "is due, and about to be claimed"
    if waits and run.wake_at is not None:
        return f"{waits}; at the longest {_until(facts, run.wake_at)}"
    if run.wake_at is not None:
        return f"sleeps {_until(facts, run.wake_at)}"
    return waits or "waits to be woken"


def _waits(facts: Facts, depth: int) -> str:
    """Give what a run waits for, None of it if nobody has written that."""
    said = [_wait(facts, entry, depth) for entry in facts.open_entries]
    shown = "; ".join(one for one in said[:3] if one)
    return shown + (f"; and for {len(said) - 3} more" if len(said) > 3 else "")


def _wait(facts: Facts, entry: EntryRow, depth: int) -> str:
    match entry.kind:
        case "child" if facts.child is not None and facts.child.run.parent_key == entry.key:
            return f"waits for child {facts.child.run.id!r}, which {_state(facts.child, depth + 1)}"
        case "child":
            return f"waits for a child of workflow {entry.name!r}"
        case "receive":
            return f"waits for a message {entry.name!r} → send({entry.name!r}, …)"
        case "wait" | "expire":
            return f"waits for the promise made at {entry.name} → settle(its token, …)"
    tries = f"after {entry.attempts} attempt{'s' if entry.attempts > 1 else ''}" if facts.open_problem else "under way"
    return f"is at {entry.kind} {entry.name!r} ({entry.key}), {tries}{_with(facts.open_problem)}"


def _paused(facts: Facts) -> str:
    kind, text = facts.problem or ("", "")
    by = f" by {facts.by}" if facts.by else ""
    name = kind.rpartition(".")[2]
    if name == "OutcomeUnknown":
        return f"is paused, because {text}"
    if name == "JournalMismatch":
        return f"is paused, because {text}"
    return f"is paused{by}{_because(facts.problem)} → resume() it"


def _alive(facts: Facts) -> list[WorkerRow]:
    return [worker for worker in facts.workers if worker.expires_at >= facts.now]


def _with(problem: tuple[str, str] | None) -> str:
    return f" with {problem[0]}: {_short(problem[1])}" if problem else ""


def _because(problem: tuple[str, str] | None) -> str:
    return f", because: {_short(problem[1])}" if problem and problem[1] else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _ago(facts: Facts, at: float | None) -> str:
    return "" if at is None else f"{_lasting(facts.now - at)} ago"


def _until(facts: Facts, at: float | None) -> str:
    if at is None:
        return "until it is woken"
    return f"until {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC (in {_lasting(at - facts.now)})"


def _lasting(duration_s: float) -> str:
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if duration_s >= 2 * size_s:
            return f"{duration_s / size_s:.0f} {unit}"
    return f"{max(duration_s, 0):.0f} s"
