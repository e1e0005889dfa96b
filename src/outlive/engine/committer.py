"""The one writer of a process: all that its runs have to write, in batches, fenced.

It commits what is pending and never waits on purpose: what arrives during a
commit forms the next batch. A batch that the database refuses is split, first by
run, so that one run's bad data fails only itself. A batch whose reply was lost is
sent again as it is. What has a large payload is committed apart, beside the
batches of the others; what its run adds meanwhile is held back. Invariant: the
writes of one run reach the database in the order in which they were added, and
after a failed one none follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from outlive.engine.calls import child_reference
from outlive.engine.load import Answer, Asked, Load, RunWrites, StartDeferred, has_large, is_large
from outlive.engine.roles import Host, LiveRun
from outlive.errors import JournalCorrupt, StoreError, StoreUnavailable
from outlive.limits import BATCH_MAX_ROWS
from outlive.model.mail import SideRow
from outlive.model.writes import Committed, Continue, EntryWrite, Finish, Mark, NewRun, Release
from outlive.store.refusals import FenceLost, RowTaken, WriteRefused

log = logging.getLogger("outlive.committer")

_AGAIN_S = 0.1  # to a store that does not write
_TRIES_PER_WARNING = 100  # one every 10 s or so


class Committer:
    """See the module's text."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._main = engine.main
        self._asked: list[Asked] = []
        self._runs: dict[LiveRun, RunWrites] = {}
        self._work: asyncio.Task[None] | None = None
        self._apart: set[asyncio.Task[None]] = set()
        self._held: dict[LiveRun, dict[LiveRun, RunWrites]] = {}  # what runs that are written apart add meanwhile
        self._one_apart = asyncio.Lock()  # the other connections are for what is small
        self.closing = False  # it gives up on a store that does not answer
        self._turn = asyncio.Lock()  # held while a batch is under way

    # -- adding -------------------------------------------------------------
    async def ask(self, run_id: str, run: NewRun | None, sides: tuple[SideRow, ...]) -> Answer:
        """Write what a program asks for: a new run, or None; side rows of the run with this id."""
        done: asyncio.Future[Answer] = self._main.create_future()
        self._asked.append(Asked(run_id, run, sides, done))
        self._soon()
        return await done

    def add_entry(
        self,
        execution: LiveRun,
        entry: EntryWrite,
        on_durable: Callable[[Committed], Any] | None = None,
        sides: tuple[SideRow, ...] = (),
    ) -> None:
        """Add an entry with its side rows; it replaces a pending one of the same key, only `started`."""
        writes = self._of(execution)
        writes.entries[entry.key] = entry
        writes.count += 1
        writes.progresses |= entry.outcome != "started" or entry.error is not None
        if is_large(entry.value):
            writes.large = True
        if sides:
            writes.sides += sides
            writes.large = writes.large or has_large(sides)
        if on_durable is not None:
            writes.on_durable += (on_durable,)

    def add_sides(self, execution: LiveRun, sides: tuple[SideRow, ...]) -> None:
        """Add side rows that belong to no entry."""
        writes = self._of(execution)
        writes.sides += sides
        writes.large = writes.large or has_large(sides)

    def add_child(self, execution: LiveRun, child: NewRun, on_durable: Callable[[Committed], None]) -> None:
        """Add a run that an entry, just added or on disk, has started, to hear what became of it."""
        writes = self._of(execution)
        writes.children += (child,)
        if is_large(child.input):
            writes.large = True
        writes.on_durable += (on_durable,)

    def add_end(self, execution: LiveRun, end: Finish | Continue | Release) -> None:
        """Add the end of a run or of its generation, or its departure from this process."""
        writes = self._of(execution)
        writes.end = end
        if is_large(end.output if isinstance(end, Finish) else end.input if isinstance(end, Continue) else None):
            writes.large = True

    def add_mark(self, execution: LiveRun, mark: Mark) -> None:
        """Add whether a run is in user code."""
        self._of(execution).mark = mark

    def add_handled(self, execution: LiveRun, request: int) -> None:
        """Add a request that an entry has answered."""
        self._of(execution).requests += (request,)

    async def between(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await `work()` while no batch is under way: what is in memory and in the database then agrees."""
        async with self._turn:
            if self._apart:
                await asyncio.wait(self._apart)
            await work()

    def _of(self, execution: LiveRun) -> RunWrites:
        pending = self._held.get(execution, self._runs) if self._held else self._runs
        writes = pending.get(execution)
        if writes is None:
            writes = pending[execution] = RunWrites(execution)
            self._soon()
        return writes

    # -- committing ---------------------------------------------------------
    def _soon(self) -> None:
        if self._work is None:
            context = self._engine.context.copy()  # timers of the driver would keep that of a step, and what it holds
            self._work = self._main.create_task(self._commit_pending(), name="outlive-committer", context=context)

    async def drain(self) -> None:
        """Wait until nothing is pending."""
        while self._work is not None or self._apart:
            await asyncio.shield(self._work or next(iter(self._apart)))

    async def _commit_pending(self) -> None:
        try:
            while self._asked or self._runs:
                async with self._turn:
                    large, rest = self._take().apart()
                    if large.asked or large.runs:
                        self._held.update((writes.execution, {}) for writes in large.runs)
                        work = self._main.create_task(self._commit_apart(large), name="outlive-committer-large")
                        self._apart.add(work)
                    await self._commit(rest)
        finally:
            self._work = None

    def _take(self) -> Load:
        """Take the oldest of what is pending, at most one batch of it."""
        asked, self._asked = self._asked[:BATCH_MAX_ROWS], self._asked[BATCH_MAX_ROWS:]
        if len(self._runs) + len(asked) <= BATCH_MAX_ROWS:
            runs, self._runs = list(self._runs.values()), {}
        else:
            first = list(self._runs)[: max(1, BATCH_MAX_ROWS - len(asked))]
            runs = [self._runs.pop(execution) for execution in first]
        return Load(asked, runs)

    async def _commit_apart(self, load: Load) -> None:
        task = asyncio.current_task()
        try:
            async with self._one_apart:
                await self._commit(load)
        finally:
            for writes in load.runs:
                self._runs.update(self._held.pop(writes.execution))
            self._apart.discard(task)
            self._soon()

    async def _commit(self, load: Load) -> None:
        try:
            committed = await self._send(load)
        except FenceLost as lost:
            self._engine.lease_lost(lost.fence)
            self._asked[:0] = load.asked
            return
        except RowTaken as error:
            self._renumber(load, error.rows)
            await self._commit(load)
            return
        except WriteRefused as error:
            await self._split(load, error)
            return
        if committed is None:
            return
        # The outcome goes on from a plain callback: run loops may not turn within this task.
        settled = self._main.create_future()
        self._main.call_soon(self._settle, load, committed, settled)
        await settled

    async def _send(self, load: Load) -> Committed | None:
        """Send a batch until its outcome is known; None if nothing is left to send."""
        batch, tries = load.batch(), 0
        while len(batch):
            try:
                load.fence = self._engine.fence() if self._engine.is_worker else None
                return await self._engine.store.commit(batch, load.fence)
            except WriteRefused:
                raise
            except StoreError as error:  # it does not answer, or is read-only or damaged for the moment
                load.fail_asked(error)
                self._fail_waiting(error)
                if tries % _TRIES_PER_WARNING == 0:
                    log.warning("the store does not write, %d rows wait for it: %s", len(batch), error)
                tries += 1
                if not (isinstance(error, StoreUnavailable) and error.outcome_unknown):
                    if self.closing:
                        return None
                    load.asked.clear()  # else it is sent again as it is: it may have taken effect
                    batch = load.batch()
                await asyncio.sleep(_AGAIN_S)
        return None

    def _fail_waiting(self, error: StoreError) -> None:
        """Tell those who have asked since: they are to hear of it as soon as those whose wish was sent."""
        known = StoreUnavailable(str(error)) if isinstance(error, StoreUnavailable) else error
        Load(self._asked, []).fail_asked(known)
        self._asked.clear()

    def _renumber(self, load: Load, taken: Collection[int]) -> None:
        """Give other row numbers to runs whose numbers another process has drawn too."""
        for asked in load.asked:
            if asked.run is not None and asked.run.row in taken:
                asked.run.row = self._engine.new_row()
        for writes in load.runs:
            for child in writes.children:
                if child.row in taken:
                    child.row = self._engine.new_row()
                    writes.entries[child.parent_key or ""].value = child_reference(child)

    async def _split(self, load: Load, error: BaseException) -> None:
        halves = load.halves()
        if not halves:
            load.fail_asked(error)
            for writes in load.runs:
                self._drop(writes.execution)
                self._engine.roster.write_failed(writes.execution, error)
        for half in halves:
            await self._commit(half)

    def _drop(self, execution: LiveRun) -> None:
        """Forget what a run whose write failed has added meanwhile."""
        execution.disowned = True
        self._held.get(execution, self._runs).pop(execution, None)

    def _settle(self, load: Load, committed: Committed, settled: asyncio.Future[None]) -> None:
        try:
            for asked in load.asked:
                existing = None
                if asked.run is not None and asked.run.row in committed.deferred:
                    asked.fail(StartDeferred())
                    continue
                if asked.run is not None:
                    existing = committed.existing.get(asked.run.row)
                    if existing is None:
                        self._engine.started(asked.run, load.fence)
                if not asked.done.done():
                    asked.done.set_result((existing, committed.deliveries))
            for writes in load.runs:
                self._settle_run(load, writes, committed)
            if load.sides:
                self._engine.written(load.sides, committed)
        finally:
            if not settled.done():
                settled.set_result(None)

    def _settle_run(self, load: Load, writes: RunWrites, committed: Committed) -> None:
        execution = writes.execution
        if execution.disowned:
            return
        if execution.row in committed.refused:
            self._drop(execution)
            error = JournalCorrupt(f"an entry of run {execution.id!r} was written twice")
            self._engine.roster.write_failed(execution, error)
            return
        for child in writes.children:
            if child.row not in committed.existing:
                self._engine.started(child, load.fence)
        for on_durable in writes.on_durable:
            on_durable(committed)
        if writes.end is not None:
            self._engine.left(execution, writes.end)
        elif writes.count:
            execution.written(writes.count, progressed=writes.progresses)
