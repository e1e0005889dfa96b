"""The lease of this process: registered once per incarnation, renewed from a thread of its own.

The thread has its own loop and its own way to the database, so neither a busy
main loop nor a full pool delays a beat; and it refuses to renew when the main
loop itself has not turned for half a lease. Invariant: `alive` turns false on
this process's steady clock before the database lets a peer take over, since the
deadline counts from before the beat was sent.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable

from outlive.engine.looper import pause, post
from outlive.engine.roles import Host
from outlive.errors import StoreError, UsageError
from outlive.limits import BEATS_PER_LEASE, LEASE_MARGIN, LOOP_LAG_WARN_S
from outlive.model.reads import WorkerRow
from outlive.model.writes import Fence
from outlive.store.interface import SideChannel
from outlive.store.refusals import FenceLost

log = logging.getLogger("outlive.lease")


class Lease:
    """The right of this process to execute runs."""

    def __init__(self, engine: Host, *, threaded: bool) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._main = engine.main
        self._lease_s = engine.lease_s
        self._threaded = threaded
        self._deadline = 0.0
        self._turned_at = engine.clock.steady()
        self._turn_timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: Callable[[], object] = lambda: None
        self._stopping = False
        self._main_thread = threading.get_ident()
        self.fence: Fence | None = None
        self.worker: WorkerRow | None = None

    def alive(self) -> bool:
        """Whether steps may start: the lease, less its margin, has not run out."""
        return self.fence is not None and self._clock.steady() < self._deadline

    async def open(self, worker: WorkerRow) -> None:
        """Register a new incarnation and keep its lease renewed."""
        sent = self._clock.steady()
        fence = self.fence = await self._engine.store.register(worker, self._lease_s)
        self.worker = worker
        self._renewed(sent)
        self._stopping = False
        self._mark_turn()
        if self._threaded:
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._beat(fence)), name="outlive-lease", daemon=True
            )
            self._thread.start()
        else:
            self._task = self._main.create_task(self._beat(fence), name="outlive-lease")

    async def close(self) -> None:
        """Stop renewing, without a word to the database."""
        self._stopping = True
        self._stop()
        if self._turn_timer is not None:
            self._turn_timer.cancel()
        if self._thread is not None:
            await self._main.run_in_executor(None, self._thread.join)
            self._thread = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.fence = None

    def extend(self, passed_s: float) -> None:
        """Take time as not passed; for simulations, where nothing happened meanwhile."""
        self._deadline += passed_s
        self._turned_at += passed_s

    def _renewed(self, sent: float) -> None:
        was_alive = self.alive()
        self._deadline = sent + self._lease_s * (1 - LEASE_MARGIN)
        if not was_alive:
            post(self._main, self._engine.roster.go_on)

    def _mark_turn(self) -> None:
        self._turned_at = self._clock.steady()
        self._turn_timer = self._main.call_later(LOOP_LAG_WARN_S / 2, self._mark_turn)

    async def _beat(self, fence: Fence) -> None:
        """Renew until stopped or lost; runs on the thread's own loop."""
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: post(loop, woken.set)
        channel: SideChannel | None = None
        interval_s = self._lease_s / BEATS_PER_LEASE
        due = self._clock.steady() + interval_s
        reported = 0.0
        try:
            while not self._stopping:
                await pause(woken, min(LOOP_LAG_WARN_S, interval_s / 2))
                reported = self._report_lag(reported)
                if self._clock.steady() < due or self._stopping:
                    continue
                due = self._clock.steady() + interval_s
                if self._clock.steady() - self._turned_at > self._lease_s / 2:
                    log.error("the event loop has been blocked for half a lease: the lease is not renewed")
                    continue
                try:
                    channel = channel or await self._engine.store.side_channel()
                    sent = self._clock.steady()
                    self._clock.synchronise(await channel.beat(fence, self._lease_s), sent)
                except (StoreError, UsageError) as error:  # it was open before: passwords change, databases come back
                    log.warning("the lease could not be renewed, trying again: %s", error)
                    due = self._clock.steady() + interval_s / 4
                    continue
                self._renewed(sent)
        except FenceLost:
            if not self._stopping:
                post(self._main, self._engine.lease_lost, fence)
        finally:
            self._stop = lambda: None
            if channel is not None:
                await channel.close()

    def _report_lag(self, reported: float) -> float:
        lag_s = self._clock.steady() - self._turned_at
        if lag_s <= 2 * LOOP_LAG_WARN_S or reported == self._turned_at or not self._threaded:
            return reported
        frame = sys._current_frames().get(self._main_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
        log.warning("the event loop has been blocked for %.2f s, here:\n%s", lag_s, stack)
        return self._turned_at
