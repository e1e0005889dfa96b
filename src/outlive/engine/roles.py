"""What the parts of the engine are to each other, so that none of them has to import its user.

`World` and `Definitions` are what an app brings; `LiveRun` is a run in memory as
calls, bodies and the committer see it, filled by Execution; `Host` is the process
as its runs and duties see it, filled by Engine.
Attributes that are other parts stand as Any here: their modules import this one.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from outlive.clock import Clock, DatabaseClock
from outlive.codec.payload import Codec
from outlive.ids import Ids
from outlive.model.definition import StepSpec, WorkflowSpec
from outlive.model.reads import Claimed, EntryRow
from outlive.model.writes import Committed, Continue, EntryWrite, Fence, Finish, NewRun, Note, Outcome, Release
from outlive.store.interface import Store


class World(Protocol):
    """What a process takes from the outside; the simulator puts its own in the place."""

    clock: Clock
    chance: random.Random
    secrets: random.Random  # for what nobody may guess
    locks: Any  # FileLocks
    threaded: bool

    def main_loop(self) -> asyncio.AbstractEventLoop: ...
    async def sleep(self, delay_s: float) -> None: ...  # between the attempts of a step


class Definitions(Protocol):
    """The definitions that a process serves, by name."""

    def use(self, spec: WorkflowSpec | StepSpec) -> None: ...
    def find(self, name: str) -> WorkflowSpec | None: ...
    def names(self) -> list[str]: ...  # of live rows that a claim may take


class LiveRun(Protocol):
    """A run that this process owns and executes."""

    engine: Host
    codec: Codec
    row: int
    id: str
    claim: int
    generation: int
    claimed: Claimed
    spec: WorkflowSpec
    loop: Any  # RunLoop
    task: Any  # of the body
    journal: Any  # Journal
    recorder: Any  # Recorder
    cancellation: Any  # Cancellation
    ending: Any  # Ending
    closed: bool
    disowned: bool
    write_failed: bool
    thread_busy: bool
    clear_crashes: bool
    marked_in_user_code: bool
    decisions: dict[str, tuple[Any, int]]
    looking: int
    waits_begun: list[Any]  # of WaitCall
    mailbox: Any  # Mailbox
    timers: Any  # Timers
    has_children: bool

    def looked(self) -> None: ...
    def check_alive(self) -> None: ...
    def compare(self, entry: EntryRow, kind: str, name: str, digest: str | None) -> None: ...
    def diverge(self, difference: Any) -> NoReturn: ...
    def ask(self, call: Any) -> None: ...
    def hand_in(self, call: Any, outcome: Outcome, text: str | None, value: Any, error: str | None) -> None: ...
    def in_turn(self, deliver: Callable[[], bool]) -> None: ...
    def deliver_now(self, call: Any, outcome: Outcome, text: str | None, value: Any, error: str | None) -> bool: ...
    def hand_in_now(self, call: Any, outcome: Outcome, text: str | None, value: Any, error: str | None) -> None: ...
    def take_turn(self, call: Any, value: str) -> asyncio.Future[EntryWrite]: ...
    def end_turn(self, call: Any, entry: EntryWrite | None, value: Any = None) -> None: ...
    def written(self, count: int, *, progressed: bool) -> None: ...
    def wake(self) -> None: ...


class Closing(Protocol):
    """What is closed with the process that has opened it."""

    async def close(self) -> None: ...


class Host(Protocol):
    """The process that executes runs."""

    store: Store
    definitions: Definitions
    is_worker: bool
    main: asyncio.AbstractEventLoop
    clock: DatabaseClock
    codec: Codec
    chance: random.Random
    ids: Ids
    context: contextvars.Context
    lease_s: float
    served_queues: list[str] | None  # None: all
    lease: Any  # Lease
    locks: Any  # FileLocks
    committer: Any  # Committer
    bodies: Any  # Bodies
    watcher: Any  # Watcher
    roster: Any  # Roster
    claimer: Any  # Claimer
    attached: dict[type, Closing]

    def new_row(self) -> int: ...
    def hint(self) -> None: ...
    def written(self, sides: Any, committed: Committed) -> None: ...
    def started(self, run: NewRun, fence: Fence | None) -> None: ...
    def left(self, execution: Any, end: Finish | Continue | Release) -> None: ...
    def may_own(self, run: NewRun) -> bool: ...
    def fence(self) -> Fence: ...
    async def request(self, run_id: str, kind: str, payload: Any, note: Note | None = None) -> bool: ...
    def lease_lost(self, fence: Fence) -> None: ...
    def request_cancel_of_child(self, run_id: str) -> None: ...
