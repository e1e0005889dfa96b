"""Hints between processes by LISTEN and NOTIFY: there may be work. Losing any of them only costs time.

Sends from a pool connection after a commit, at once and then at most one per
10 ms, because NOTIFY takes a lock of the whole server when it commits. Listens
on a connection of its own and opens it again when it is lost; where that is
impossible (a pooler), waiting just times out. Invariant: a hint that comes while
nobody waits is kept for the next who does, so none is lost while he looks for work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from outlive.clock import Clock
from outlive.errors import OutliveError
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address
    from outlive.store.postgres.pool import Pool

log = logging.getLogger("outlive.hints")

CHANNEL = "outlive"
GAP_S = 0.01  # between two hints of one process
FIRST_LISTEN_S = 2.0  # how long the first wait lets the listener connect
KEEPALIVE_S = 20.0  # after which silence is tested: a dead peer sends nothing, not even an error
RECONNECT_S = (0.1, 30.0)  # first and longest pause before listening again


class Hints:
    """Both directions for one store; `token` tells its own hints from those of others."""

    def __init__(self, address: Address, pool: Pool, clock: Clock, token: str) -> None:
        self._address = address
        self._pool = pool
        self._clock = clock
        self._token = token
        self._told = asyncio.Event()
        self._tried = asyncio.Event()
        self._sent_steady = float("-inf")
        self._due = False
        self._sending: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None

    async def send(self) -> None:
        """Send a hint now, or soon if one was sent just before."""
        if self._due:
            return
        wait_s = self._sent_steady + GAP_S - self._clock.steady()
        if wait_s <= 0:
            await self._send_now()
        else:
            self._due = True
            task = asyncio.create_task(self._send_later(wait_s), name="outlive-hint")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_later(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        self._due = False  # what is committed from here on needs another hint
        await self._send_now()

    async def _send_now(self) -> None:
        self._sent_steady = self._clock.steady()
        try:
            await self._pool.fetch(statement("send_hint").text, [self._token])
        except OutliveError as error:
            log.debug("a hint was not sent: %s", error)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a hint of another process; False if none came in time."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="outlive-listener")
            with contextlib.suppress(TimeoutError):  # a wait counts from when it can hear something
                async with asyncio.timeout(FIRST_LISTEN_S):
                    await self._tried.wait()
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 swallows a cancellation that comes late
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        return True

    async def _listen(self) -> None:
        pause_s = RECONNECT_S[0]
        while True:
            try:
                with self._address.explaining():
                    await self._listen_once()
                pause_s = RECONNECT_S[0]
            except OutliveError as error:
                log.debug("listening for hints failed, polling goes on: %s", error)
            self._tried.set()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RECONNECT_S[1])

    async def _listen_once(self) -> None:
        """Listen until the connection is lost."""
        connection = await self._address.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._receive)
            if self._tried.is_set():
                self._told.set()  # hints may have passed while nobody listened
            self._tried.set()
            while not lost.is_set():
                try:
                    async with asyncio.timeout(KEEPALIVE_S):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute("select 1", timeout=KEEPALIVE_S / 4)
        finally:
            connection.terminate()

    def _receive(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload != self._token:
            self._told.set()

    async def close(self) -> None:
        """Stop listening and sending."""
        if self._listening is not None:  # the driver complains of a connection that is given up while it is made
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LISTEN_S):
                    await self._tried.wait()
        tasks = [*self._sending, *([self._listening] if self._listening else [])]
        self._listening, self._due = None, False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
