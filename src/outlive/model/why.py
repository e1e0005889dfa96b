"""Why a run does not move: one sentence with the chain of causes, and what helps. Takes facts, knows no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from outlive.model.line import QueueLimits, decode_limits
from outlive.model.reads import EntryRow, LineRow, QueueRow, RunRow, WorkerRow
from outlive.model.status import Status

_LINKS_MAX = 20  # of a chain of runs: whoever reads further has lost the thread
_SHOWN_MAX = 3  # of the things that a run waits for side by side


@dataclass
class Facts:
    """What is known of a run that somebody asks about.

    `open_entries` are those without an outcome, `problem` is what it ended or is held by, as type and text;
    `by` whoever has paused it; `child` the first one that it awaits, with its own facts. Of a run in a line,
    `before` is the run that is in its way (`find_before`), unless that has been told of.
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
    expiries: Mapping[str, float] = field(default_factory=dict)  # of promises, by the key of the entry that made them
    queue: QueueRow | None = None
    queue_by: str | None = None  # who has paused it
    line: LineRow | None = None
    before: Facts | None = None


class _Said(NamedTuple):
    """A cause, and what helps: one thing for each of several causes."""

    cause: str
    helps: tuple[str, ...] = ()


class _Limit(NamedTuple):
    """A limit that is reached: what counts against it, what helps, and the run that has been there longest."""

    cause: str
    helps: str
    oldest: str | None = None


def explain(facts: Facts) -> str:
    """Give the sentence about a run: causes first, what helps last."""
    cause, helps = _state(facts, 0)
    return f"run {facts.run.id!r} {cause}" + (f" → {'; '.join(helps[:_SHOWN_MAX])}" if helps else "")


def find_before(facts: Facts) -> str | None:
    """Give the id of the run that is in the way of one in a line, if that is what holds it up."""
    if facts.line is None:
        return None
    return facts.line.replaced or next((limit.oldest for limit in _reached(facts) if limit.oldest), None)


def _state(facts: Facts, depth: int) -> _Said:
    if depth == _LINKS_MAX:
        return _Said("waits in its turn …")
    run, ended = facts.run, _ago(facts, facts.run.finished_at)
    match status := Status(run.status):
        case Status.SUCCEEDED:
            return _Said(f"has succeeded {ended}: there is nothing to do")
        case Status.FAILED:
            return _Said(f"has failed {ended}{_with(facts.problem)}", ("retry() it when that is mended",))
        case Status.CANCELLED:
            return _Said(f"was cancelled {ended}{_because(facts.problem)}", ("retry() lets it go on",))
        case Status.SCHEDULED:
            said = _scheduled(facts)
        case Status.QUEUED:
            said = _queued(facts, depth)
        case Status.RUNNING:
            said = _running(facts, depth)
        case Status.SUSPENDED:
            said = _suspended(facts, depth)
        case Status.PAUSED:
            said = _paused(facts)
        case Status.QUARANTINED:
            helps = "resume() it when its code is mended, or cancel() it"
            said = _Said(f"is quarantined{_because(facts.problem)}", (helps,))
    deadline = "" if status.held else _deadline(facts)
    return _Said(said.cause + deadline + (", and its cancellation is asked for" * facts.cancelling), said.helps)


def _scheduled(facts: Facts) -> _Said:
    run = facts.run
    said = f"has a delayed start: {_until(facts, run.start_at)}"
    if run.once == "debounce":
        said = f"is debounced {_until(facts, run.start_at)}"
        if run.cap_at is not None and run.start_at is not None and run.cap_at > run.start_at:
            said += f", at the latest {_until(facts, run.cap_at)}"
    if facts.line is not None and facts.line.replaced is not None:
        said += f", and then until the end of {facts.line.replaced!r}, which it replaces"
    if facts.queue is None or not facts.queue.paused:
        return _Said(said, ("reschedule(0) lets it start now",))
    return _Said(f"{said}, and {_pause(facts)}", (f"resume_queue({run.queue!r})",))


def _queued(facts: Facts, depth: int) -> _Said:
    run, line = facts.run, facts.line
    place = f"waits for its turn in queue {run.queue!r}" if run.queue else "waits to be claimed"
    since = f"{place} since {_ago(facts, run.start_at or run.created_at)}"
    if line is not None and line.ahead:
        since += f", behind {_count(line.ahead, 'run')}"
    if line is not None and line.beside:
        since += f"{' and' if line.ahead else ','} by turns with {line.beside} of other keys"
    obstacles = _obstacles(facts, depth)
    if not obstacles or not _alive(facts):
        obstacles.append(_unserved(facts))
    return _join(f"{since}: ", obstacles)


def _unserved(facts: Facts) -> _Said:
    """Say why nobody takes a run that is due: nobody tells what he serves."""
    run, count = facts.run, len(_alive(facts))
    what = f"workflow {run.workflow!r}" + (f" in version {run.version}" if run.pinned else "")
    if not count:
        return _Said("no worker is alive", (f"start one that serves {what}",))
    nobody = (
        "the one worker that is alive does not serve" if count == 1 else f"none of the {count} workers alive serves"
    )
    return _Said(f"if that lasts, {nobody} {what}, or has no room", ("start another one",))


def _obstacles(facts: Facts, depth: int) -> list[_Said]:
    """List what keeps a run in its line, whoever is there to execute it."""
    found = []
    if facts.line is not None and facts.line.replaced is not None:
        whom = _before(facts, facts.line.replaced, depth)
        found.append(_Said(f"it replaces {whom.cause}", whom.helps))
    if facts.queue is not None and facts.queue.paused:
        found.append(_Said(_pause(facts), (f"resume_queue({facts.run.queue!r})",)))
    for place, limit in enumerate(_reached(facts)):
        if limit.oldest is None or place:
            found.append(_Said(limit.cause, (limit.helps,)))
        else:
            whom = _before(facts, limit.oldest, depth)
            helps = ", or ".join(("; ".join(whom.helps), limit.helps) if whom.helps else (limit.helps,))
            found.append(_Said(f"{limit.cause}, first of all {whom.cause}", (helps,)))
    return found


def _before(facts: Facts, run_id: str, depth: int) -> _Said:
    """Tell of the run that is in the way."""
    if facts.before is None or facts.before.run.id != run_id:
        return _Said(repr(run_id))
    state = _state(facts.before, depth + 1)
    return _Said(f"{run_id!r}, which {state.cause}", state.helps)


def _reached(facts: Facts) -> list[_Limit]:
    """List the limits that keep a run in its line, those first that name a run."""
    run, queue, line = facts.run, facts.queue, facts.line
    if queue is None or line is None or queue.paused or run.line != "waiting":
        return []
    limits, found = decode_limits(queue.limits), []
    mine = f"of its key {run.key!r}" if run.key else "without a key"
    if limits.concurrency is not None and queue.running >= limits.concurrency:
        cause = f"{queue.running} of {_count(limits.concurrency, 'run')} {_are(queue.running)} admitted"
        found.append(_Limit(cause, _raise(queue, "concurrency"), line.oldest))
    if limits.per_key is not None and line.of_key >= limits.per_key:
        cause = f"{line.of_key} of {_count(limits.per_key, 'run')} {mine} {_are(line.of_key)} admitted"
        found.append(_Limit(cause, _raise(queue, "per_key"), line.oldest_of_key))
    return found + _reached_otherwise(facts, queue, line, limits, mine)


def _reached_otherwise(facts: Facts, queue: QueueRow, line: LineRow, limits: QueueLimits, mine: str) -> list[_Limit]:
    found = []
    rates = (
        ("rate", limits.rate, line.rate_at, ""),
        ("rate_per_key", limits.rate_per_key, line.key_rate_at, f" {mine}"),
    )
    for name, rate, free_at, whose in rates:
        if rate is not None and free_at is not None and free_at > facts.now:
            cause = f"{_count(rate[0], 'run')}{whose} in {rate[1]:g} s {_are(rate[0])} admitted"
            cause += f", the next one {_at(facts, free_at)}"
            found.append(_Limit(cause, _raise(queue, name)))
    if limits.per_worker is not None and line.least_owned is not None and line.least_owned >= limits.per_worker:
        count = len(_alive(facts))
        who = "the one worker alive has" if count == 1 else f"each of the {count} workers alive has"
        cause = f"{who} {limits.per_worker} of its runs"
        found.append(_Limit(cause, f"start another worker, or {_raise(queue, 'per_worker')}"))
    return found


def _raise(queue: QueueRow, limit: str) -> str:
    return f"put_queue({queue.queue!r}, {limit}=…) admits more"


def _pause(facts: Facts) -> str:
    return "the queue is paused" + (f" by {facts.queue_by}" if facts.queue_by else "")


def _running(facts: Facts, depth: int) -> _Said:
    run = facts.run
    worker = next((one for one in facts.workers if one.worker == run.worker), None)
    if worker is None or worker.expires_at < facts.now:
        name = "a worker" if worker is None else f"worker {worker.name!r}, whose lease has expired"
        if any(worker is None or one.worker != worker.worker for one in _alive(facts)):
            return _Said(f"was in the hands of {name}: a peer takes over within a second")
        return _Said(f"was in the hands of {name}: no other worker is alive", ("start one",))
    at = f"is in the hands of worker {worker.name!r} (process {worker.pid} on {worker.host})"
    waits = _waits(facts, depth)
    if waits is not None:
        return _Said(f"{at}, and {waits.cause}", waits.helps)
    last = f"; the last it has recorded is {facts.last.key} {_ago(facts, facts.last.finished_at)}" if facts.last else ""
    return _Said(f"{at} and executing{last}")


def _suspended(facts: Facts, depth: int) -> _Said:
    run = facts.run
    waits = _waits(facts, depth)
    if run.wake_at is not None and run.wake_at <= facts.now:
        return _join(f"is due since {_ago(facts, run.wake_at)}: ", [_unserved(facts)])
    if run.wake_at is None or run.wake_at == run.deadline_at:
        return waits or _Said("waits to be woken")
    if waits is not None:
        return _Said(f"{waits.cause}; at the longest {_until(facts, run.wake_at)}", waits.helps)
    return _Said(f"sleeps {_until(facts, run.wake_at)}")


def _waits(facts: Facts, depth: int) -> _Said | None:
    """Give what a run waits for, None if nobody has written that."""
    said = [_wait(facts, entry, depth) for entry in facts.open_entries]
    more = len(said) - _SHOWN_MAX
    joined = _join("", said[:_SHOWN_MAX])
    return _Said(joined.cause + (f"; and for {more} more" if more > 0 else ""), joined.helps) if said else None


def _wait(facts: Facts, entry: EntryRow, depth: int) -> _Said:
    match entry.kind:
        case "child" if facts.child is not None and facts.child.run.parent_key == entry.key:
            state = _state(facts.child, depth + 1)
            return _Said(f"waits for child {facts.child.run.id!r}, which {state.cause}", state.helps)
        case "child":
            return _Said(f"waits for a child of workflow {entry.name!r}")
        case "receive" if entry.name.startswith("call/"):
            name = entry.name.removeprefix("call/")
            return _Said(f"waits for a call {name!r}", (f"call({name!r}, …)",))
        case "receive":
            return _Said(f"waits for a message {entry.name!r}", (f"send({entry.name!r}, …)",))
        case "wait" | "expire":
            expires_at = facts.expiries.get(entry.name)
            until = f", which expires {_at(facts, expires_at)}" if expires_at is not None else ""
            return _Said(f"waits for the promise made at {entry.name}{until}", ("settle(its token, …)",))
    tries = f"after {_count(entry.attempts, 'attempt')}" if facts.open_problem else "under way"
    return _Said(f"is at {entry.kind} {entry.name!r} ({entry.key}), {tries}{_with(facts.open_problem)}")


def _paused(facts: Facts) -> _Said:
    kind, text = facts.problem or ("", "")
    if kind.rpartition(".")[2] in ("OutcomeUnknown", "JournalMismatch"):  # whose texts say what helps
        return _Said(f"is paused, because {text}")
    by = f" by {facts.by}" if facts.by else ""
    if kind.rpartition(".")[2] == "DecodeFailed":
        return _Said(
            f"is paused{_because(facts.problem)}", ("resume() it when the code, codec or key that reads it runs",)
        )
    return _Said(f"is paused{by}{_because(facts.problem)}", ("resume() it",))


def _join(head: str, said: Iterable[_Said]) -> _Said:
    """Give several causes as one; what helps against more than one of them is named once."""
    parts = list(said)
    helps = dict.fromkeys(one for part in parts for one in part.helps)
    return _Said(head + "; ".join(part.cause for part in parts), tuple(helps))


def _alive(facts: Facts) -> list[WorkerRow]:
    return [worker for worker in facts.workers if worker.expires_at >= facts.now]


def _deadline(facts: Facts) -> str:
    at = facts.run.deadline_at
    if at is None:
        return ""
    return f"; its deadline {f'is {_at(facts, at)}' if at > facts.now else f'has passed {_ago(facts, at)}'}"


def _with(problem: tuple[str, str] | None) -> str:
    return f" with {problem[0]}: {_short(problem[1])}" if problem else ""


def _because(problem: tuple[str, str] | None) -> str:
    return f", because: {_short(problem[1])}" if problem and problem[1] else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _ago(facts: Facts, at: float | None) -> str:
    return "" if at is None else f"{_lasting(facts.now - at)} ago"


def _until(facts: Facts, at: float | None) -> str:
    return "until it is woken" if at is None else f"until {_instant(facts, at)}"


def _at(facts: Facts, at: float) -> str:
    return f"at {_instant(facts, at)}"


def _instant(facts: Facts, at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC (in {_lasting(at - facts.now)})"


def _lasting(duration_s: float) -> str:
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if duration_s >= 2 * size_s:
            return f"{duration_s / size_s:.0f} {unit}"
    return f"{max(duration_s, 0):.0f} s"
