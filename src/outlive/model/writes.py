"""What the engine asks a store to write: one Batch, one database transaction.

Each record is set-to-value, insert-or-nothing or delete-by-id, never an
increment, so a batch whose COMMIT reply was lost can be sent again as it is.
Instants are seconds since 1970 on the database's clock. Payloads and errors
are JSON text already. The order of the lists within a batch is the order in
which a store applies them. What there is one of for each step is a Struct out of
the garbage collector's sight: it holds nothing but numbers and text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from outlive.model.mail import Delivery, SideRow

Outcome = Literal["ok", "error", "started"]


@dataclass(slots=True, frozen=True)
class Fence:
    """The right of one process incarnation to write for the runs it owns."""

    worker: int
    epoch: int


def claim_name(workflow: str, version: str | None) -> str:
    """Give what the live row of a pinned run has as its workflow; no name holds a '#'."""
    return f"{workflow}#{version}"


class NewRun(msgspec.Struct, gc=False):
    """One run to insert, with its live row, unless its id is taken.

    `started_at` gives it to the writing worker in the same insert (claim 1,
    started then, by the worker's estimate of the database's clock), which needs
    a fence; None leaves it to be claimed. With `parent` the insert derives from the insert
    of the parent's entry `parent_key` in the same batch: no new entry, no run. With
    a `queue` it waits in the queue's line; with `dedupe` it is not inserted beside an
    unfinished run of the same queue and dedupe.
    """

    row: int
    id: str
    workflow: str
    input: str
    version: str | None = None
    queue: str = ""
    priority: int = 0
    key: str | None = None
    attributes: str | None = None  # JSON, whatever the codec
    codec: str = "json/1"
    delay_s: float = 0.0  # start not before the database's now + delay_s
    deadline_at: float | None = None  # the parent's, at the latest
    deadline_s: float | None = None  # from its creation, by the database's clock; the earlier of the two counts
    parent: int | None = None
    parent_key: str | None = None
    parent_close: Literal["cancel", "abandon"] | None = None
    started_at: float | None = None
    pinned: bool = False  # only code of this version may execute it
    dedupe: str | None = None

    @property
    def owned(self) -> bool:
        """Whether the writing worker owns it from the start."""
        return self.started_at is not None

    @property
    def claim_name(self) -> str:
        """What its live row has as its workflow, and a claim has to name."""
        return claim_name(self.workflow, self.version) if self.pinned else self.workflow

    def deadline_after(self, created_at: float) -> float | None:
        """Give when the run has to have ended, if it was created then."""
        own = float("inf") if self.deadline_s is None else created_at + self.deadline_s
        earlier = min(own, float("inf") if self.deadline_at is None else self.deadline_at)
        return earlier if earlier != float("inf") else None


class EntryWrite(msgspec.Struct, gc=False, omit_defaults=True):
    """One outcome of one run: a new entry, or the settlement of a `started` one.

    One of a generation that has ended is written by nobody: it is a late send, and dropped.

    `seq` is the place in the order of delivery, None while only started.
    `noted_version` is the code version that made an entry within a run of
    another version (an edit), else None.
    """

    row: int
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
    generation: int = 0


@dataclass(slots=True)
class Finish:
    """The end of a run: its final status and value, and its live row is deleted.

    With `close_reason` (JSON text) the same transaction asks its unfinished
    children that were to end with it to cancel, for that reason.
    """

    row: int
    claim: int
    status: str
    output: str | None
    error: str | None
    started_at: float
    close_reason: str | None = None


@dataclass(slots=True)
class Continue:
    """The end of a generation whose owner keeps the run and goes on as new; nothing else of the run in this batch.

    Its entries move to the past, of which the last few generations stay. With
    `close_reason` children are asked to cancel, as at the end of the run.
    """

    row: int
    claim: int
    generation: int  # that ends
    continued: int  # how many times it has been continued then
    version: str
    input: str
    at: float  # when the time of the next one begins
    close_reason: str | None = None


@dataclass(slots=True)
class Release:
    """The owner lets go of a run: to wait, to be claimed by a peer, or to be held.

    With a `request` it is held only if that was not withdrawn, and claimable from `wake_at` on if it was; the
    same transaction deletes the request.
    """

    row: int
    claim: int
    wake_at: float | None  # claimable from then on unless it is held; None: only when something wakes it
    hold: Literal["paused", "quarantined"] | None = None
    hold_reason: str | None = None  # an error record as JSON text
    request: int | None = None  # to hold it


@dataclass(slots=True)
class Mark:
    """Whether a run is in user code now: what takeover counts as a crash."""

    row: int
    claim: int
    in_user_code: bool
    clear_crashes: bool = False  # the run has made progress: its crash count is zero again


@dataclass(slots=True)
class Batch:
    """All that one database transaction writes.

    `sides` are side rows of its entries, and messages from outside.
    `large`: a payload may be above limits.BLOB_THRESHOLD_CHARS, and the store moves those out of the rows.
    """

    starts: list[NewRun] = field(default_factory=list)
    entries: list[EntryWrite] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    continues: list[Continue] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    handled_requests: list[int] = field(default_factory=list)
    sides: list[SideRow] = field(default_factory=list)
    large: bool = False

    def __len__(self) -> int:
        return (
            len(self.starts)
            + len(self.entries)
            + len(self.finishes)
            + len(self.continues)
            + len(self.releases)
            + len(self.marks)
            + len(self.handled_requests)
            + len(self.sides)
        )


@dataclass(slots=True, frozen=True)
class Note:
    """Who acts, on what, and why: one row of the audit, written in the transaction of the action.

    `audit` is drawn by the writer, so that a second send is recognised. `facts` is JSON text.
    """

    audit: int
    who: str
    action: str
    noun: Literal["run", "queue", "schedule", "budget"]
    target: str
    reason: str | None = None
    facts: str | None = None


def note_of_settling(note: Note, run_id: str, key: str) -> Note:
    """Give the note of a settlement, which tells of which run and promise: whoever has only the token does not know."""
    return replace(note, target=run_id, facts=json.dumps({**json.loads(note.facts or "{}"), "promise": key}))


@dataclass(slots=True)
class Reopening:
    """Another generation of a run, if nobody owns it or has owned it since it had this generation and claim.

    `dropped`: keys of entries that move to the past. `awaited`: keys of what has begun and has no outcome: children,
    each with the reference to its run, and steps that may have taken effect. `cancelled`: rows of children to be asked
    to cancel. `resume`: a held run may go on.
    """

    row: int
    generation: int
    claim: int | None
    action: Literal["retry", "rewind"]
    dropped: list[str] = field(default_factory=list)
    awaited: dict[str, str | None] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    resume: bool = False


@dataclass(slots=True)
class Fork:
    """A new run with the arguments of another one and a part of its journal, if that is in the generation given.

    `kept`: keys of the entries to copy. `patch`: by key, values as text in the place of those recorded.
    """

    row: int
    id: str
    origin: int
    generation: int
    kept: list[str]
    patch: dict[str, str] = field(default_factory=dict)
    deadline_s: float | None = None


@dataclass(slots=True, frozen=True)
class Terms:
    """On which a run is started alone, if there is another one of its workflow and key.

    `debounce`: its arguments take the place of those of one that has not begun,
    which is delayed by `wait_s` again, but by no more than `cap_s` in all.
    `singleton`: the other one is given, or with `replaces` asked to cancel, and
    this one waits for its end.
    """

    once: Literal["debounce", "singleton"] | None = None
    wait_s: float = 0.0
    cap_s: float | None = None
    replaces: bool = False


@dataclass(slots=True, frozen=True)
class ExistingRun:
    """The run that already had the id of a refused start."""

    row: int
    id: str
    workflow: str


@dataclass(slots=True)
class Committed:
    """What a committed batch did.

    `existing`: by row id of the refused start, the run that has the id (equal
    row ids mean that an earlier send of this very start had succeeded, which is
    not listed). `refused`: rows whose entry was already settled, so that none
    of their finishes, releases and child starts in this batch was applied.
    `deliveries`: by recipient and key, what became of each message.
    `deferred`: rows of starts that were not written and are to be started alone:
    their queue has a bounded backlog, or who stood in their way has just ended or was deleted.
    """

    existing: dict[int, ExistingRun] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    deliveries: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    deferred: set[int] = field(default_factory=set)
