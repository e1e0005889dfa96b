"""A file lock per process incarnation: peers on the same host see at once that it has died.

The operating system releases the lock with the process, whatever killed it. A
lock file that is not there proves nothing (another container, another
temporary folder): such a peer is judged by its lease alone.
"""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from pathlib import Path


class FileLocks:
    """Where this process keeps its lock, and how it looks at those of its peers; the simulator brings its own."""

    def __init__(self) -> None:
        self.host = _host_name()

    def hold(self, worker: int) -> ProcessLock:
        """Make and hold the lock of an incarnation."""
        return ProcessLock(worker)

    def is_released(self, path: str | None) -> bool:
        """Whether the process that made this lock file has certainly ended."""
        if path is None:
            return False
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)


def _host_name() -> str:
    """Name this host and its boot: a worker of an earlier boot is surely dead, but its lock file may be gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = "?"
    return f"{platform.node()}/{boot}"


class ProcessLock:
    """The lock file of this incarnation, held until `release` or death."""

    def __init__(self, worker: int) -> None:
        folder = Path(tempfile.gettempdir()) / f"outlive-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = str(folder / f"{worker:x}.lock")
        self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go and remove the file."""
        if self._descriptor is not None:
            Path(self.path).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
