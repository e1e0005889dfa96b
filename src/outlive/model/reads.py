"""What a store gives back: rows as plain values, payloads still JSON text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outlive.model.writes import Outcome


@dataclass(slots=True)
class EntryRow:
    """One entry as stored; `seq` is None while it is only `started`."""

    key: str
    seq: int | None
    kind: str
    name: str
    digest: str | None
    outcome: Outcome
    value: str | None
    error: str | None
    attempts: int
    started_at: float
    finished_at: float | None
    noted_version: str | None = None
    generation: int = 0  # in which it was recorded


@dataclass(slots=True)
class Claimed:
    """A run that a claim has given to this worker, without its entries.

    `fresh` is True if no worker has ever owned it: it has no entries.
    `alone` is True if it was claimed as a suspect, `asked` if a request waits for it,
    `lined` if it is a run of a queue; `ending` if it still waits in the queue's line: it is
    claimed to be ended or held, and must not execute.
    """

    row: int
    id: str
    workflow: str
    version: str | None
    input: str
    codec: str
    claim: int
    crashes: int
    fresh: bool
    alone: bool
    started_at: float
    deadline_at: float | None
    parent: int | None
    parent_key: str | None
    queue: str = ""
    priority: int = 0
    key: str | None = None
    attributes: str | None = None
    asked: bool = False
    generation: int = 0
    salt: int | None = None  # of the run whose journal this one has inherited
    continued: int = 0  # how many times it has been continued as new
    began_at: float | None = None  # when its time began anew then
    ending: bool = False
    lined: bool = False


@dataclass(slots=True)
class LineClaim:
    """What a claim from the lines gave, in the order of admission.

    `waiting`: a line that is served here is not empty. `next_at`: when one of them moves by itself at the latest.
    `last_queue`: the next claim begins behind it, so that no queue keeps the others from their turn.
    """

    claimed: list[Claimed]
    waiting: bool
    next_at: float | None
    last_queue: str


@dataclass(slots=True)
class QueueRow:
    """A queue as anyone may see it; limits are JSON objects."""

    queue: str
    limits: str
    changed: str
    paused: bool
    delayed: int
    waiting: int
    running: int


@dataclass(slots=True)
class LineRow:
    """What a run that is not admitted has in front of it, of what the limits of its queue count.

    `ahead`: runs of a smaller priority, and of its key and priority that wait longer; `beside`: those of other
    keys, which take turns with it. `oldest` is the id of the run that was admitted first, `replaced` that of
    the one whose end a singleton waits for. `least_owned`: how many the worker has that has the fewest.
    """

    ahead: int
    beside: int
    oldest: str | None
    of_key: int
    oldest_of_key: str | None
    rate_at: float | None  # when a slot in the window of the rate is free again; it may have passed
    key_rate_at: float | None
    least_owned: int | None
    replaced: str | None


@dataclass(slots=True)
class RunRow:
    """A run as anyone may read it; `status` is derived by the store from runs and live."""

    row: int
    id: str
    workflow: str
    version: str | None
    status: str
    queue: str
    priority: int
    key: str | None
    attributes: str | None
    input: str
    output: str | None
    error: str | None
    codec: str
    parent_id: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    hold_reason: str | None = None
    worker: int | None = None
    crashes: int = 0
    wake_at: float | None = None
    parent_close: str | None = None
    generation: int = 0
    deadline_at: float | None = None
    forked_from: str | None = None
    pinned: bool = False
    salt: int | None = None  # of the run whose journal this one has inherited
    continued: int = 0
    began_at: float | None = None  # its time: the start, or when it was continued as new
    parent_key: str | None = None
    claim: int | None = None  # the last one, also of a run that has ended
    line: Literal["delayed", "waiting", "admitted"] | None = None  # where it stands in its queue
    line_at: float | None = None  # since when it waits there, or when it will
    once: Literal["debounce", "singleton"] | None = None
    cap_at: float | None = None  # when a debounced run joins its line at the latest

    @property
    def start_at(self) -> float | None:
        """When a run that has not begun may start; in a line its wake time is that of its deadline."""
        return self.wake_at if self.line is None else self.line_at


GONE = "gone"  # of a run that has been deleted


@dataclass(slots=True)
class EndedRun:
    """What a waiter needs of a run that has ended or is held, or is not there: then its status is GONE."""

    row: int
    id: str
    workflow: str
    status: str
    output: str | None
    error: str | None
    codec: str


@dataclass(slots=True)
class RequestRow:
    """A request of an operator or another run that the owner has to execute."""

    request: int
    row: int
    kind: Literal["cancel", "pause", "resolve"]
    payload: str | None  # JSON text


@dataclass(slots=True)
class AuditRow:
    """One action of an operator."""

    audit: int
    at: float
    who: str
    action: str
    noun: str
    target: str
    reason: str | None
    facts: str | None  # JSON text


@dataclass(slots=True)
class VersionRow:
    """How many unfinished runs of one version of a workflow have one status; `version`: None where nobody knows it."""

    workflow: str
    version: str | None
    pinned: bool
    status: str
    runs: int


@dataclass(slots=True)
class WorkerRow:
    """One live process incarnation as its peers see it."""

    worker: int
    epoch: int
    host: str
    pid: int
    name: str
    lock_path: str | None
    expires_at: float


@dataclass(slots=True)
class TakenOver:
    """What a takeover did: the dead workers and the runs released or quarantined."""

    workers: list[int]
    released: int
    quarantined: list[str]


@dataclass(slots=True, frozen=True)
class Match:
    """A column or attribute that has one of these values, or begins with one of `prefixes`; negated: none of them.

    The empty prefix stands for every value: the run has one.
    """

    field: str
    values: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    negated: bool = False
    is_attribute: bool = False


@dataclass(slots=True)
class RunQuery:
    """A filter over runs, newest first unless `oldest_first`; `after` is the row of the last run seen.

    Without `statuses` every status will do. Instants: from `…_after` on, before `…_before`.
    `pausing`: beside those of the statuses, all of unfinished ones, those that are asked to pause.
    """

    statuses: tuple[str, ...] | None = None
    pausing: bool = False
    where: tuple[Match, ...] = ()
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    after: int | None = None
    limit: int = 100
    oldest_first: bool = False


@dataclass(slots=True, frozen=True)
class Memo:
    """What is known under a name: a value, None while somebody makes it, and for how long."""

    value: str | None
    left_s: float
