"""The seam between the engine and a database. Internal, wide and boring.

Both stores implement it and pass one conformance suite (tests/conformance).
All methods but `open` may be called concurrently from the loop that opened the
store. None of them retries by itself, except a lock wait of the local database;
the engine decides what to repeat.

Errors, the same from every method: StoreUnavailable (with `outcome_unknown`
where a write may have been committed), StoreReadOnly, SchemaMismatch,
FenceLost where a fence is passed, WriteRefused where the database refuses the
data of a write (nothing of it is written then).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from outlive.model.ledger import AccountSums, Charge, Granted, LedgerRow, Reservation, Share, Spent
from outlive.model.line import QueueLimits
from outlive.model.mail import (
    Message,
    OpenPromise,
    Settled,
    Settlement,
    Settling,
    Shown,
    StreamPart,
)
from outlive.model.reads import (
    AuditRow,
    Claimed,
    EndedRun,
    EntryRow,
    LineClaim,
    LineRow,
    Memo,
    QueueRow,
    RequestRow,
    RunQuery,
    RunRow,
    TakenOver,
    VersionRow,
    WorkerRow,
)
from outlive.model.retention import Prunable
from outlive.model.schedule import ScheduleRow, ScheduleWrite
from outlive.model.writes import Batch, Committed, EntryWrite, ExistingRun, Fence, Fork, NewRun, Note, Reopening, Terms


class Row(Protocol):
    """One row of a user's query: by name, by position."""

    def __getitem__(self, key: str | int, /) -> Any: ...
    def keys(self) -> Iterable[str]: ...


class OpenTransaction(Protocol):
    """A database transaction of the user, open since `Store.begin`.

    `$1…$n` parameters on both stores. Once `commit`, `rollback` or the timeout
    has ended it, `rollback` does nothing and every other method raises
    UsageError. The statements of the user may not end the transaction: an
    attempt raises UsageError and rolls it back.
    """

    @property
    def raw(self) -> Any: ...
    async def execute(self, sql: str, *args: Any) -> int: ...
    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]: ...
    async def fetchrow(self, sql: str, *args: Any) -> Row | None: ...
    async def fetchval(self, sql: str, *args: Any) -> Any: ...
    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int: ...

    async def commit(self, fence: Fence, entry: EntryWrite) -> None:
        """Write the fence check and the entry as the last statement, then COMMIT.

        Raises FenceLost or EntrySettled after a rollback; RolledBack if the
        database wants the transaction run again; StoreUnavailable with
        `outcome_unknown` if the reply to COMMIT was lost.
        """

    async def rollback(self) -> None: ...


class OpenSession(Protocol):
    """A database transaction of the user, written through a SQLAlchemy session; ends as an OpenTransaction does."""

    def enclose(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give the body without its first parameter, the session; what it leaves in the session is flushed.

        Raises what leaves the body, but RolledBack, StoreUnavailable or
        UsageError where that says what became of the transaction.
        """

    async def commit(self, fence: Fence, entry: EntryWrite) -> None: ...
    async def rollback(self) -> None: ...


class SideChannel(Protocol):
    """A second way to the database for the lease, used from another loop or thread."""

    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew the lease; give the database's time. Raises FenceLost."""

    async def close(self) -> None: ...


class Store(Protocol):
    """One database. `url` is shown in errors, without a password."""

    @property
    def url(self) -> str: ...

    # -- life ---------------------------------------------------------------
    async def open(self, *, migrate: bool) -> float:
        """Connect, check or migrate the schema; give the database's time."""

    async def close(self) -> None: ...
    async def now(self) -> float: ...
    async def side_channel(self) -> SideChannel:
        """Open a side channel on the loop that is running now, which may be another one."""

    # -- writing ------------------------------------------------------------
    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        """Write a batch in one database transaction.

        With a fence its row is locked in the same transaction; without one only
        starts (not owned, without parent) and messages from outside are allowed, else WriteRefused.
        Sending the same batch again after an unknown outcome is safe, gives the
        same database and refuses nothing: an entry that is settled exactly as
        it was sent is this batch's own. Raises RowTaken if the row number of a
        start, whose id is free, belongs to another run.
        """

    async def begin(self, timeout_s: float) -> OpenTransaction: ...
    async def begin_session(self, maker: Any, timeout_s: float) -> OpenSession:
        """Begin with a session of this sessionmaker; UsageError if it leads to another database."""

    async def start_in(self, connection: Any, run: NewRun) -> ExistingRun | None:
        """Insert a run, not owned, through the user's own connection, inside its transaction."""

    # -- ownership ----------------------------------------------------------
    async def register(self, worker: WorkerRow, lease_s: float) -> Fence:
        """Insert the worker's fence row and its first beat."""

    async def unregister(self, fence: Fence) -> None:
        """Delete the worker's beat and fence rows; runs that it still owns are released."""

    async def list_workers(self) -> list[WorkerRow]: ...

    async def take_over(self, dead: Sequence[int]) -> TakenOver:
        """Bump the epoch of every worker whose lease has expired or who is in `dead`, then release its runs.

        Adds one crash to each run that was in user code; quarantines one that
        died alone, as a suspect. One server-side unit.
        """

    async def claim(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool = False
    ) -> list[Claimed]:
        """Take due runs of these workflows: by priority, then due time; suspects only if asked, and nothing else then.

        A run that waits in a line is due only where it was asked for something: it is claimed as `ending`.
        Of a queue limited per worker no more than there is room for.
        A pinned run is taken if its `claim_name` is among the workflows.
        Suspects come in groups that have crashed equally often: the oftener, the smaller (SUSPECT_GROUPS).
        """

    async def has_suspects(self) -> bool:
        """Say whether a suspect is due that nobody owns."""

    async def release_strays(self, fence: Fence, kept: Sequence[int]) -> int:
        """Let go of every run that this worker owns but does not keep in memory: a claim whose reply was lost."""

    async def next_due(self) -> float | None:
        """Give the earliest time at which a run that nobody owns is due, None if there is none."""

    async def load_entries(self, rows: Sequence[int]) -> Mapping[int, list[EntryRow]]:
        """Read all entries of these runs by seq, started ones last; one query."""

    # -- queues -------------------------------------------------------------
    async def claim_line(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, after: str
    ) -> LineClaim:
        """Admit runs from the lines of these queues (None: of all) to this worker; first of those behind `after`.

        In each queue by priority; of one priority a run of each key by turns,
        from behind the key that was served last; of one key who waits longest.
        What is counted against the limits is locked until it is given. An
        admitted run keeps its slot until it ends.
        """

    async def start_alone(self, run: NewRun, terms: Terms, dropped: str) -> ExistingRun | None:
        """Insert a run, not owned, in a transaction that looks first for what may stand in its way; give what does.

        That is a run of its id or dedupe, or one to be debounced or kept as `terms`
        say. A full queue raises QueueFull, or ends the run that has waited longest
        with the error `dropped`. RowTaken as `commit`.
        """

    async def put_queue(
        self,
        queue: str,
        *,
        declared: str | None = None,
        changed: str | None = None,
        reset: bool = False,
        paused: bool | None = None,
        note: Note | None = None,
    ) -> None:
        """Set what is given: limits as JSON objects, those declared by code as a whole, those changed by name.

        Limits that are changed win over declared ones until `reset` forgets them.
        """

    async def reschedule(
        self,
        run_id: str,
        *,
        delay_s: float | None = None,
        at: float | None = None,
        priority: int | None = None,
        note: Note | None = None,
    ) -> bool:
        """Let a run that waits for its start begin, or join its line, then; False if nobody waits for that any more.

        That is one that is owned, has begun, has ended or was asked to cancel. A cap and a deadline stay; without a
        delay or an instant only the priority changes. Raises KeyError if there is no such run.
        """

    async def list_queues(self, queue: str | None = None) -> list[QueueRow]:
        """Read all queues that were declared or have runs, by name, or the one."""

    async def read_line(self, row: int, limits: QueueLimits) -> LineRow | None:
        """Read what stands in front of a run that is not admitted, None if it has ended."""

    # -- requests, wake-ups -------------------------------------------------
    async def add_request(self, run_id: str, kind: str, payload: str | None, note: Note | None = None) -> bool:
        """Record a request for an unfinished run and make it claimable if it is suspended; False if it has ended.

        The note is written with it, if it is a person's. Raises KeyError if there is no such run.
        """

    async def list_requests(self, fence: Fence) -> list[RequestRow]:
        """Read the open requests for runs that this worker owns."""

    async def resume(
        self, run_id: str, note: Note | None = None, *, decision: str | None = None, claim: int | None = None
    ) -> bool:
        """Make a held run claimable, with no crashes, and withdraw a pause that its owner has not written yet.

        False if there is neither. With a `decision` (JSON text) that is a request to resolve in the same transaction,
        no pause is withdrawn, and it is False if somebody has owned the run since it had this claim. KeyError
        if unknown.
        """

    async def wake(self, rows: Sequence[int]) -> None:
        """Make these runs due now where nobody owns them and they wait: a second statement after a commit."""

    async def sweep(self) -> int:
        """Make due every suspended run that has a request or what it waits for: a child's end, mail; give how many."""

    # -- control ------------------------------------------------------------
    async def reopen(self, reopenings: Sequence[Reopening], note: Note) -> bool:
        """Begin another generation of each of these runs; of none (False) if one is owned, or in another one by now.

        SingletonTaken if one that had ended is a singleton and another one of its key has not.
        """

    async def fork(self, fork: Fork, note: Note) -> ExistingRun | None:
        """Insert a fork, due at once; give the run that has its id already, or None.

        Its row number is that of the fork if an earlier send of this one had succeeded. Raises
        GenerationEnded if the other run is in another generation by now, SingletonTaken if it is a singleton and one
        of its key, it or another, has not ended, RowTaken as `commit` does.
        """

    async def list_descendants(self, row: int) -> list[int]:
        """Read the rows of a run's children, their children and so on."""

    async def delete_runs(self, rows: Sequence[int], note: Note) -> tuple[list[str], list[str]]:
        """Delete runs with all that is their own, or none of them if something is in the way.

        That is given then: the ids of those that have not ended, and of those whose result a parent waits for.
        """

    async def list_past(self, row: int, generation: int) -> list[EntryRow]:
        """Read the journal of a generation that has ended."""

    async def list_audit(self, target: str | None, limit: int, after: int | None) -> list[AuditRow]:
        """Read what operators have done, the latest first."""

    # -- reading ------------------------------------------------------------
    async def find_run(self, run_id: str) -> RunRow | None: ...
    async def list_entries(self, run_id: str) -> list[EntryRow]: ...
    async def list_ended(self, rows: Sequence[int]) -> list[EndedRun]:
        """Read those of these runs that have ended, are held, or are GONE: they are not there."""

    async def list_children(self, row: int, *, unfinished: bool) -> list[RunRow]: ...

    # -- search -------------------------------------------------------------
    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        """Read the runs that a query means, at most its limit, through an index in the order of rows."""

    async def list_ids(self, query: RunQuery) -> list[tuple[int, str]]:
        """Read only their rows and ids."""

    async def count_runs(self, query: RunQuery) -> int:
        """Count them, up to the query's limit."""

    # -- retention ----------------------------------------------------------
    async def list_prunable(self, query: RunQuery) -> list[Prunable]:
        """Read what decides whether the runs of a query, all of them finished, may be pruned."""

    async def read_runs(self, rows: Sequence[int]) -> list[RunRow]:
        """Read those of these runs that are there."""

    async def prune(self, rows: Sequence[int], finished_before: float) -> int:
        """Delete those of these runs that may be pruned together, with all that is their own; give how many.

        Decides again, in the same transaction: a run that is unfinished by now, or that a parent awaits, stays.
        """

    # -- schedules ----------------------------------------------------------
    async def write_schedules(self, writes: Sequence[ScheduleWrite], note: Note | None = None) -> list[bool]:
        """Write the new states of schedules and the runs that they start, all in one transaction.

        Each is written if its revision is still the one that was read: the answer says which. Sent again it finds
        another revision and does nothing. A note says which operator wants it.
        """

    async def delete_schedule(self, name: str, note: Note) -> bool:
        """Delete a schedule, not its runs; False if there is none."""

    async def list_schedules(self, name: str | None = None) -> list[ScheduleRow]:
        """Read all schedules by name, or the one of a name."""

    async def list_due_schedules(self, but: Sequence[str], limit: int) -> list[ScheduleRow]:
        """Read schedules, not paused and not in `but`, with a tick to act on; the earliest first."""

    async def next_tick(self, but: Sequence[str]) -> float | None:
        """Give in how many seconds `list_due_schedules` finds one; None: not before something changes."""

    # -- versions -----------------------------------------------------------
    async def pin(self, fence: Fence, versions: Mapping[int, str]) -> None:
        """Tie runs that this worker has claimed, and no code has executed yet, to these versions, by row."""

    async def count_versions(self, workflow: str | None) -> list[VersionRow]:
        """Count the unfinished runs of each version of a workflow, or of all, by status; versions oldest first."""

    # -- messages, promises, values, streams --------------------------------
    async def list_mail(
        self, wanted: Sequence[tuple[int, str]], limit: int
    ) -> Mapping[tuple[int, str], Sequence[Message]]:
        """Read the oldest unread messages of topics of runs, by row and topic, at most `limit` of each."""

    async def list_promises(self, topic: str, run_id: str | None, after: str | None, limit: int) -> list[OpenPromise]:
        """Read the open promises of a topic, of one run or of all, the oldest first, behind the one of a token."""

    async def find_open_promise(self, run_id: str, key: str) -> OpenPromise | None:
        """Read the promise with a topic that an entry of a run has made, if it is open."""

    async def settle(
        self, settlement: Settlement, note: Note | None = None, *, at_expiry: bool = False
    ) -> tuple[Settling, int | None]:
        """Settle a promise unless it is settled or has expired; give what became of that, and the row of its run.

        `at_expiry`: the settlement says that it has expired, so that is no objection. A `note` is written, of the
        promise's run and key, if this settles it.
        """

    async def list_settled(self, tokens: Sequence[str]) -> Mapping[str, Settled]:
        """Read those of these promises that are settled, by token."""

    async def list_values(self, wanted: Sequence[tuple[int, str]]) -> Mapping[tuple[int, str], Shown]:
        """Read what runs show, by row and name."""

    async def list_items(
        self, wanted: Sequence[tuple[int, str, int]], limit: int
    ) -> Mapping[tuple[int, str, int], StreamPart]:
        """Read the next items of streams, by row, name and the last number seen; nothing of one without news.

        A stream whose run is not there has none.
        """

    # -- memos --------------------------------------------------------------
    async def read_memo(self, name: str) -> Memo | None:
        """Read what is known under a name, None if nothing is or it has passed."""

    async def take_memo(self, name: str, maker: str, fence: Fence, for_s: float) -> bool:
        """Become the one who makes the value of a memo, for so long; False if it has one, or another one is making it.

        A maker whose worker has been taken over, or has left, makes nothing. Again, by the same maker, it is True.
        """

    async def put_memo(self, name: str, maker: str, value: str | None, for_s: float) -> None:
        """Set a memo for so long, or for no time: forget it; nothing happens if another maker has taken it meanwhile.

        Deletes some that have passed.
        """

    # -- budgets ------------------------------------------------------------
    async def reserve(self, fence: Fence, reservation: Reservation, earlier: Spent | None = None) -> Granted:
        """Reserve on all accounts that a unit is charged to, or on none, with the first refusal; one transaction.

        What is settled meanwhile, and what runs that have ended left open, is put into the balances first. One that
        is in the ledger already is neither added nor refused. Of the same unit, what an interrupted attempt
        reserved is lost, but `earlier` says what became of one that failed in this process.
        """

    async def list_charged(self, row: int) -> list[Charge]:
        """Read the accounts charged for the agent's runs within which a run was started, by all that are above it."""

    async def put_account(
        self, account: str, *, changed: str | None = None, stopped: bool | None = None, note: Note
    ) -> None:
        """Set what is given, of an account that may not be open yet: limits by name (JSON), None lifts one."""

    async def list_accounts(self, account: str | None, period: str | None, limit: int, after: str) -> list[AccountSums]:
        """Read accounts by name, those behind one or the one, with their sums in a period, else in that of now."""

    async def list_shares(self, account: str) -> list[Share]:
        """Read what is in the ledger of an account, added up by run, model and state."""

    async def list_ledger(self, account: str, limit: int, before: int) -> list[LedgerRow]:
        """Read the reservations on an account, the latest first, before one."""

    # -- hints --------------------------------------------------------------
    async def notify(self) -> None:
        """Tell other processes that there may be work: a hint, lost without harm."""

    async def wait_hint(self, timeout_s: float) -> bool:
        """Return at a hint of another process (True) or after the timeout (False)."""
