"""From a URL to an open connection: the path, the driver, the pragmas, and what is refused.

Refused are network file systems, whose locks do not work, and a second SQLite
library on a file that this process has open already: closing one connection
would drop the POSIX locks of the other. Invariant: every connection that this
module gives has synchronous=FULL in WAL mode, or is in memory.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from outlive.errors import StoreError, StoreReadOnly, UsageError
from outlive.store.sqlite.drivers import Connection, connect_apsw, connect_stdlib

OLDEST_LIBRARY = (3, 38, 0)  # STRICT, RETURNING, json functions, unixepoch modifiers
FIRST_SAFE_LIBRARY = (3, 51, 3)  # before it two processes that write at the same moment may damage the WAL

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs"}
    | {"smb3", "smbfs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)

_PRAGMAS = (
    "PRAGMA busy_timeout = 0",  # SQLite's own handler starves one of two processes; we wait with jitter
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = 1",  # macOS: a plain fsync is not durable there
    "PRAGMA checkpoint_fullfsync = 1",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -65536",
)
_WRITER_PRAGMAS = ("PRAGMA wal_autocheckpoint = 4000", "PRAGMA journal_size_limit = 67108864")
_READER_PRAGMAS = ("PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = 1")

_open_files: list[tuple[str, str]] = []  # path and driver of each store that is open
_open_files_lock = threading.Lock()


@dataclass(frozen=True)
class Location:
    """Where a store is: `path` is absolute and without links, None if it is private in memory."""

    url: str
    path: str | None
    driver: str

    @property
    def where(self) -> str:
        """The database as errors name it."""
        return f"SQLite database {self.path}" if self.path else "SQLite database in memory"

    def is_at(self, path: str | None) -> bool:
        """Whether a path leads to this very file."""
        return bool(self.path and path) and Path(str(path)).exists() and Path(str(path)).samefile(str(self.path))

    def identify(self) -> tuple[int, int] | None:
        """Give what tells a file from another one that has taken its name; None if there is none."""
        if self.path is None:
            return None
        try:
            found = Path(self.path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def parse_url(url: str) -> Location:
    """Read `sqlite://`, `sqlite:///relative.db` or `sqlite:////absolute.db`, with `?driver=apsw` if wanted."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or parts.fragment:
        raise UsageError(f"{url!r} is no SQLite URL: write sqlite:///relative.db, sqlite:////absolute.db or sqlite://")
    settings = parse_qs(parts.query, keep_blank_values=True)
    driver = settings.pop("driver", ["stdlib"])[-1]
    if settings or driver not in ("stdlib", "apsw"):
        raise UsageError(f"{url!r}: the only setting of a SQLite URL is driver=stdlib or driver=apsw")
    path = unquote(parts.path)
    if not path:
        return Location(url, None, driver)
    if path in ("/", "/:memory:") or path.endswith("/"):
        raise UsageError(f"{url!r} names no file; a private database in memory is sqlite://")
    return Location(url, os.path.realpath(path[1:]), driver)


def check_file(location: Location) -> None:
    """Refuse a place where a database cannot live, before SQLite gives a riddle for an answer."""
    if location.path is None:
        return
    path = Path(location.path)
    try:
        has_parent = path.parent.is_dir()
        is_folder = path.is_dir()
    except PermissionError as error:
        raise StoreReadOnly(f"{location.where} cannot be reached by this process: {error}") from error
    if not has_parent:
        raise UsageError(f"{location.url!r}: the directory {path.parent} does not exist; create it first")
    if is_folder:
        raise UsageError(f"{location.url!r}: {path} is a directory, not a database file")
    kind = file_system(str(path.parent), _read_mounts())
    if kind in NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"{location.url!r} lies on a network file system ({kind}), where SQLite's locks do not hold: "
            "put it on a local disk, or use PostgreSQL"
        )
    writable = path if path.exists() else path.parent
    if not (os.access(writable, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise StoreReadOnly(
            f"{location.where} cannot be written by this process: give its user the right to write {writable} and "
            f"its directory, which also holds the -wal and -shm files"
        )


def file_system(path: str, mounts: str) -> str | None:
    """Give the type of the file system that holds a path, from the text of /proc/self/mounts."""
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _read_mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux: nothing is known, nothing refused
        return ""


def enter_file(location: Location) -> None:
    """Note that this process opens the file; refuse it if it is open through the other SQLite library."""
    with _open_files_lock:
        for path, driver in _open_files:
            if path == location.path and driver != location.driver:
                raise UsageError(
                    f"{location.where} is open in this process through {driver!r} already: a second SQLite library on "
                    f"the same file loses locks and commits; use driver={driver} here too, or another process"
                )
        if location.path is not None:
            _open_files.append((location.path, location.driver))


def leave_file(location: Location) -> None:
    """Undo one `enter_file`."""
    with _open_files_lock:
        if location.path is not None:
            _open_files.remove((location.path, location.driver))


def library_version(driver: str) -> tuple[int, ...]:
    """Give the version of the SQLite library that a driver carries."""
    if driver == "stdlib":
        return sqlite3.sqlite_version_info
    try:
        import apsw
    except ImportError as error:
        raise UsageError("driver=apsw needs the package apsw: pip install 'outlive[apsw]'") from error
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def connect(location: Location, *, reader: bool = False) -> Connection:
    """Open a connection and set its pragmas; raises the driver's error if the file is locked."""
    version = library_version(location.driver)
    if version < OLDEST_LIBRARY:
        raise StoreError(
            f"the SQLite library of this Python is {dotted(version)}, Outlive needs "
            f"{dotted(OLDEST_LIBRARY)}: pip install 'outlive[apsw]' and add ?driver=apsw to the URL"
        )
    target = location.path or ":memory:"
    connection = connect_apsw(target) if location.driver == "apsw" else connect_stdlib(target)
    try:
        for pragma in (*_PRAGMAS, *(_READER_PRAGMAS if reader else _WRITER_PRAGMAS)):
            connection.rows(pragma)
        if not reader and location.path is not None:
            ((mode,),) = connection.rows("PRAGMA journal_mode = WAL")
            if mode != "wal":
                raise StoreError(
                    f"{location.where} cannot be used in WAL mode (it stays in {mode!r}): use a local disk"
                )
    except BaseException:
        connection.close()
        raise
    return connection
