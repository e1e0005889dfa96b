"""The event loop of one simulated process: callbacks run when the world says so, time is the world's.

A process is killed by never running its loop again. Threads do not exist here:
what production hands to a thread runs as one callback.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from outlive.engine.runloop import close_coroutine


class SimLoop(asyncio.BaseEventLoop):
    """One process's loop: the queues of asyncio, turned by the world. `now` gives the world's time."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, name: str, now: Callable[[], float], on_error: Callable[[str], None]) -> None:
        super().__init__()
        self.name = name
        self.dead = False
        self.time = now  # type: ignore[method-assign]
        self._on_error = on_error
        self._tasks: list[asyncio.Task[Any]] = []
        self._unfinished = 0  # of them, when they were counted last

    # -- for the world ------------------------------------------------------
    def has_work(self) -> bool:
        """Whether a callback is ready, now that timers due by now are."""
        while (due := self.next_due()) is not None and due <= self.time():
            self._ready.append(heapq.heappop(self._scheduled))
        return bool(self._ready)

    def next_due(self) -> float | None:
        """When the next timer is due."""
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)
        return self._scheduled[0].when() if self._scheduled else None

    def list_due(self) -> list[float]:
        """List when its timers are due."""
        return [timer.when() for timer in self._scheduled if not timer.cancelled()]

    def run_one(self) -> None:
        """Run the oldest ready callback."""
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    def clear(self) -> None:
        """Close what is left of a dead process, quietly."""
        asyncio._set_running_loop(self)
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                close_coroutine(task.get_coro())
        asyncio._set_running_loop(None)

    # -- asyncio ------------------------------------------------------------
    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = super().create_task(coro, **options)
        self._tasks.append(task)  # kept: a coroutine that the collector closes would run its `finally` at any moment
        if len(self._tasks) > 2 * self._unfinished + 256:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._unfinished = len(self._tasks)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run the function as one callback."""

        async def run() -> Any:
            return func(*args)

        return self.create_task(run())

    def is_closed(self) -> bool:
        return self.dead

    def _write_to_self(self) -> None:
        """Nobody sleeps on a selector here."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._on_error(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")
