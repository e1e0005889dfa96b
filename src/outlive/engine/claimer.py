"""Duties of a worker towards the database: claim due runs, hear requests, take over from the dead, sweep.

Each duty is one looper; truth is polling, hints only shorten the wait.
"""

from __future__ import annotations

import logging

from outlive.engine.looper import Backoff, Looper
from outlive.engine.roles import Host
from outlive.limits import (
    CLAIM_MAX_RUNS,
    POLL_BUSY_S,
    POLL_IDLE_S,
    SUSPECT_EVERY_S,
    SUSPECT_GROUPS,
    SUSPECT_QUIET_S,
    SWEEP_S,
)
from outlive.model.reads import Claimed, WorkerRow
from outlive.model.writes import Fence

log = logging.getLogger("outlive.engine")


class Claimer:
    """Takes runs that nobody owns: new ones, due ones, those of dead workers. Recovery is claiming."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._backoff = Backoff(engine.chance)
        self._hushed_at = float("-inf")
        self._line = True  # whether runs wait in a line that is served here, as far as is known
        self._line_read_at = float("-inf")
        self._line_last = False  # whether it was a line that gave something last
        self._gave = False  # whether the last turn gave something
        self._last_queue = ""
        self._strays = False  # whether the database may think that we own a run we do not know of
        self.full = False  # whether there is no room for another run: the next one that leaves is to wake us
        self.looper = Looper("claimer", self.turn, engine.lease_lost)

    async def turn(self) -> float:
        """Claim once; at rest, wait no longer than until the next run is due."""
        engine, store = self._engine, self._engine.store
        names = engine.definitions.names()
        if not names or not engine.lease.alive():
            return self._backoff.after(False)
        await self._make_quiet()
        free = min(engine.roster.free_slots(), CLAIM_MAX_RUNS)
        self.full = free <= 0
        if self.full and not engine.roster.hushed:
            return POLL_BUSY_S  # a run that only waits makes room without a word
        fence = engine.fence()
        if self._strays:
            await engine.committer.between(self._release_strays)
        self._strays = True  # until all that is claimed is in memory
        claimed, line_at = await self._claim(fence, names, free)
        if not claimed and engine.roster.quiet():
            claimed = await store.claim(fence, names, self._queues, max(SUSPECT_GROUPS.values()), suspect=True)
        if claimed:
            recovered = [run.row for run in claimed if not run.fresh]
            entries = await store.load_entries(recovered) if recovered else {}
            requests = await store.list_requests(fence) if any(run.asked for run in claimed) else []
            await self._pin([run for run in claimed if run.version is None and not entries.get(run.row)])
            if engine.lease.fence is not fence:
                return 0.0  # the lease was lost meanwhile: peers have these runs
            cancelled = {request.row for request in requests if request.kind == "cancel"}
            for run in claimed:
                ending = run.ending or (run.lined and run.fresh and run.row in cancelled)
                engine.roster.enter(run, entries.get(run.row, []), ending=ending)
            engine.roster.hear(requests)
        self._strays = False
        if claimed:
            self._backoff.after(True)
            return 0.0
        if engine.roster.hushed:
            return POLL_BUSY_S
        delay_s = self._backoff.after(False)
        for due_at in (await store.next_due(), line_at):
            if due_at is not None:
                delay_s = min(delay_s, max(due_at - engine.clock.now(), POLL_BUSY_S))
        return delay_s

    async def _pin(self, untouched: list[Claimed]) -> None:
        """Tie runs that were started by name, and that no code has executed yet, to the version that pins them here."""
        pinned = {}
        for run in untouched:
            spec = self._engine.definitions.find(run.workflow)
            if spec is not None and spec.pinned:
                pinned[run.row] = run.version = spec.version
        if pinned:
            await self._engine.store.pin(self._engine.fence(), pinned)

    async def _claim(self, fence: Fence, names: list[str], free: int) -> tuple[list[Claimed], float | None]:
        """Claim runs outside lines or from the lines, and say when a line moves by itself.

        What gives some is enough for one turn, so that they begin at once; the
        next turn asks the other one first. At rest the one is first that gave some last.
        """
        asks_line = self._line or not self._gave or self._engine.clock.steady() - self._line_read_at >= POLL_IDLE_S
        first = asks_line and self._line_last != self._gave
        line_at, claimed = None, list[Claimed]()
        for from_line in (first, not first):
            if from_line:
                claimed, line_at = await self._claim_line(fence, names, free)
            elif free > 0:
                claimed = await self._engine.store.claim(fence, names, self._queues, free)
            if claimed:
                self._line_last = from_line
                break
        self._gave = bool(claimed)
        return claimed, line_at

    async def _claim_line(self, fence: Fence, names: list[str], free: int) -> tuple[list[Claimed], float | None]:
        if free <= 0:
            return [], None
        self._line, self._line_read_at = False, self._engine.clock.steady()  # what is told meanwhile is looked at
        found = await self._engine.store.claim_line(fence, names, self._queues, free, self._last_queue)
        self._line, self._last_queue = self._line or found.waiting, found.last_queue
        return found.claimed, found.next_at

    def look_at_line(self) -> None:
        """A run may have joined a line, or left room in one."""
        self._line = True
        self.looper.wake()

    def left_slot(self) -> None:
        """A run has ended here: who waits in a line for its slot, or to take its place, is let in at once."""
        if self._line:
            self.looper.wake()

    @property
    def _queues(self) -> list[str] | None:
        """The queues that this process serves, and what is in none; None for all."""
        queues = self._engine.served_queues
        return None if queues is None else [*queues, ""]

    async def _make_quiet(self) -> None:
        """Hold up the steps of other runs for a moment, now and then, so that a suspect finds this process quiet."""
        engine, now = self._engine, self._engine.clock.steady()
        if engine.roster.hushed and now - self._hushed_at >= SUSPECT_QUIET_S:
            engine.roster.hush(False)
        if not engine.roster.quiet() and now - self._hushed_at >= SUSPECT_EVERY_S:
            self._hushed_at = now
            if await engine.store.has_suspects():
                engine.roster.hush(True)

    async def _release_strays(self) -> None:
        """Let go of what a claim may have given to this process while its reply was lost."""
        await self._engine.store.release_strays(self._engine.fence(), list(self._engine.roster.executions))
        self._strays = False


class Requests:
    """Hears what operators and other runs ask of the runs that this process owns."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._backoff = Backoff(engine.chance)
        self.looper = Looper("requests", self.turn, engine.lease_lost)

    async def turn(self) -> float:
        """Read the open requests once."""
        if not self._engine.roster.executions or not self._engine.lease.alive():
            return self._backoff.after(False)
        requests = await self._engine.store.list_requests(self._engine.fence())
        return self._backoff.after(self._engine.roster.hear(requests))


class Takeover:
    """Releases the runs of workers whose lease has expired, or whose process has ended on this host."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._peers: list[WorkerRow] = []
        self._read_at = float("-inf")
        self.looper = Looper("takeover", self.turn)

    async def turn(self) -> float:
        """Look for dead peers: at their lock files each time, at the table now and then."""
        engine = self._engine
        now = engine.clock.now()
        if now - self._read_at >= POLL_IDLE_S:
            own = engine.lease.worker
            self._peers = [
                peer for peer in await engine.store.list_workers() if own is None or peer.worker != own.worker
            ]
            self._read_at = now = engine.clock.now()
        released = [
            peer.worker
            for peer in self._peers
            if peer.host == engine.locks.host and engine.locks.is_released(peer.lock_path)
        ]
        if released or any(peer.expires_at <= now for peer in self._peers):
            taken = await engine.store.take_over(released)
            self._read_at = float("-inf")
            if taken.workers:
                level = logging.WARNING if taken.released else logging.INFO
                log.log(level, "took over %d runs of %d dead workers", taken.released, len(taken.workers))
                engine.claimer.looper.wake()
            for run_id in taken.quarantined:
                log.error("run %r is quarantined: it killed its worker while it ran alone", run_id)
        expiries = [peer.expires_at - now for peer in self._peers]
        # Where no peer is known nobody's lock can be looked at, and the table is read no sooner.
        look_s = min([POLL_IDLE_S / 4, *expiries]) if expiries else POLL_IDLE_S
        return max(0.0, look_s) + 0.05 * engine.chance.random()


class Sweep:
    """Finds wake-ups that were lost because their sender died between its two statements."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self.looper = Looper("sweep", self.turn)

    async def turn(self) -> float:
        """Sweep once."""
        if await self._engine.store.sweep():
            self._engine.claimer.looper.wake()
        return SWEEP_S
