"""Hints between processes that share a file: a datagram to each peer, and a look at the file itself.

A hint is never the truth: it may be lost, late or for nothing. Each process
binds a socket in `<database>-outlive/`; a name left by a dead process is
removed by whoever finds it dead. As fallback the writer thread looks at `PRAGMA
data_version`, which changes when another connection has committed. Invariant:
a hint that comes while nobody waits is kept for the next who does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outlive.store.sqlite.drivers import Connection

BUSY_S, REST_S, BUSY_FOR_S = 0.002, 0.1, 0.1  # between two looks: after a change, at rest; how long a change counts
_GROWTH = 1.5
_FOLDER_MAX_BYTES = 70  # longer ones are reached through /proc: with the name, a socket's path has 104 to 108 bytes
_numbers = itertools.count()  # of the sockets of this process


class Hints:
    """What a process hears and tells; belongs to the loop that waits first."""

    def __init__(self, path: str, chance: random.Random) -> None:
        self._folder = Path(path + "-outlive")
        self._name = self._folder / f"{os.getpid()}-{next(_numbers)}-{chance.getrandbits(32):08x}.sock"
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = asyncio.Event()
        self._version: int | None = None
        self._pause_s = REST_S
        self._changed_at = self._looked_at = float("-inf")

    # -- hearing ----------------------------------------------------------------
    def listen(self) -> bool:
        """Bind the socket, at the first call (True); without one, looking at the file has to do."""
        if self._loop is not None:
            return False
        self._loop = asyncio.get_running_loop()
        if hasattr(socket, "AF_UNIX"):
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            bound.setblocking(False)
            try:
                self._folder.mkdir(exist_ok=True)
                with _short(self._folder) as folder:
                    bound.bind(f"{folder}/{self._name.name}")
                self._loop.add_reader(bound.fileno(), self._drain, bound)
            except (OSError, NotImplementedError):  # a loop without readers
                bound.close()
                self._name.unlink(missing_ok=True)
            else:
                self._socket = bound
        return True

    def _drain(self, bound: socket.socket) -> None:
        try:
            while True:
                bound.recv(16)
        except OSError:  # empty
            self._heard.set()

    async def wait(self, timeout_s: float) -> bool:
        """Return at the next hint, or at one that nobody has heard yet; False after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True

    # -- looking: called on the writer's thread ------------------------------------
    def pause_s(self) -> float:
        """Give how long until the next look at the file."""
        return self._looked_at + self._pause_s - time.monotonic()

    def look(self, db: Connection) -> None:
        """Ring if another connection has committed since the last look."""
        self._looked_at = now = time.monotonic()
        ((version,),) = db.rows("PRAGMA data_version")
        known, self._version = self._version, version
        if known not in (None, version):
            self._changed_at = now
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._heard.set)
            except RuntimeError:
                pass  # the loop is closed: nobody waits
        busy = now - self._changed_at < BUSY_FOR_S
        self._pause_s = BUSY_S if busy else min(self._pause_s * _GROWTH, REST_S)

    # -- telling ----------------------------------------------------------------
    def tell(self) -> None:
        """Send a datagram to every peer; one whose process is dead loses its name."""
        peers = [peer for peer in self._folder.glob("*.sock") if peer != self._name]
        if not peers:
            return
        with _short(self._folder) as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for peer in peers:
                try:
                    sender.sendto(b"!", f"{folder}/{peer.name}")
                except (ConnectionRefusedError, FileNotFoundError):
                    peer.unlink(missing_ok=True)
                except OSError:
                    continue  # its queue is full: it has been told

    def close(self) -> None:
        """Remove the socket; whoever waits still waits until his timeout."""
        if self._socket is None:
            return
        assert self._loop is not None
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._name.unlink(missing_ok=True)
        try:
            self._folder.rmdir()
        except OSError:
            pass  # a peer is still there


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give a name of a folder that leaves room for a socket's name, where the system has one."""
    if len(os.fsencode(folder)) <= _FOLDER_MAX_BYTES or not Path("/proc/self/fd").is_dir():
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
