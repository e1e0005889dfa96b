"""One background duty, repeated: `turn` does it once and says in how many seconds it is due again.

`wake` makes the next turn come at once; the flag is cleared before the turn, so
a wake-up during a turn is never lost. A store that does not answer delays the
duty, any other error is logged and never ends it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from outlive.errors import StoreError
from outlive.limits import POLL_BUSY_S, POLL_IDLE_S
from outlive.model.writes import Fence
from outlive.store.refusals import FenceLost

log = logging.getLogger("outlive.engine")


class Looper:
    """Repeats one duty until it is stopped."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[float]],
        on_fence_lost: Callable[[Fence], None] = lambda fence: None,
    ) -> None:
        self.name = name
        self._turn = turn
        self._on_fence_lost = on_fence_lost
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self, main: asyncio.AbstractEventLoop) -> None:
        """Begin; the first turn comes at once."""
        self._task = main.create_task(self._loop(), name=f"outlive-{self.name}")

    def wake(self) -> None:
        """Make the next turn come at once."""
        self._woken.set()

    async def stop(self) -> None:
        """End after the wait, or in the middle of a turn."""
        self._stopping = True  # where a turn swallows its cancellation
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _loop(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                delay_s = await self._turn()
            except FenceLost as lost:
                self._on_fence_lost(lost.fence)
                delay_s = POLL_IDLE_S
            except StoreError as error:
                log.warning("%s: the store does not answer, trying again: %s", self.name, error)
                delay_s = POLL_IDLE_S
            except Exception:
                log.exception("%s failed, trying again", self.name)
                delay_s = POLL_IDLE_S
            if delay_s > 0 and not self._woken.is_set():
                await pause(self._woken, delay_s)


async def pause(woken: asyncio.Event, delay_s: float) -> None:
    """Wait for an event, but not for ever."""
    try:
        async with asyncio.timeout(delay_s):
            await woken.wait()
    except TimeoutError:
        pass


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> bool:
    """Call back on a loop of another thread; False if that is closed: there is nobody to tell."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        return False
    return True


class Backoff:
    """Adaptive polling: short waits while something is found, doubling to long ones at rest."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance  # so that processes do not poll in step
        self._delay_s = POLL_BUSY_S

    def after(self, found: bool) -> float:
        """Give the wait before the next look."""
        self._delay_s = POLL_BUSY_S if found else min(self._delay_s * 2, POLL_IDLE_S)
        return self._delay_s * (0.75 + 0.5 * self._chance.random())
