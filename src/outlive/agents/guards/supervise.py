"""What stands between a worker and the tests that it lets execute: `python -I -S supervise.py`, standard library only.

Executes one command with limits, which writes only where it may if the system has
Landlock, and ends it with all that it has started: when it has ended, when its time
is up, and when the worker is gone, which is seen by the end of stdin. So nothing of
a check outlives its worker. What the command says of itself is passed on; how it
ended is known from the system.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SHARE = 65_536


def _load_landlock() -> Any:
    spec = importlib.util.spec_from_file_location("landlock", Path(__file__).with_name("landlock.py"))
    assert spec is not None
    assert spec.loader is not None
    landlock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(landlock)
    return landlock


_landlock: Any = _load_landlock() if _LINUX else None


def main() -> None:
    """Execute the command of the orders, the first line on stdin; print what came of it as JSON."""
    orders = json.loads(_read_line())
    orders["landlock"] = _landlock.find_version() if _LINUX else 0
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what detaches itself becomes a child of ours
    result: dict[str, Any] | None
    try:
        result = _execute(orders)
    except OSError as error:
        result = {"status": 127, "late": False, "report": "", "output": f"{orders['command'][0]}: {error.strerror}"}
    finally:
        _end_all()
    if result is None:
        shutil.rmtree(orders["scratch"], ignore_errors=True)
    else:
        sys.stdout.write(json.dumps(result))


def _execute(orders: dict[str, Any]) -> dict[str, Any] | None:
    """Give how the command ended and what it said; None if the worker is gone."""
    told, tell = os.pipe()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    child = subprocess.Popen(  # noqa: S603 - what the worker's owner wants executed
        [*orders["command"], str(tell)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=orders["folder"],
        env=orders["environment"],
        pass_fds=[tell],
        start_new_session=True,
        preexec_fn=lambda: _confine(orders),  # noqa: PLW1509 - this process has no threads
    )
    os.close(tell)
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(json.dumps(orders["input"]).encode() + b"\n")
    report, output = Pipe(told), Pipe(child.stdout.fileno(), keep_bytes=orders["output_max_bytes"])
    due = time.monotonic() + orders["timeout_s"]
    status, left_s = None, 1.0
    while status is None and left_s > 0 and len(report.said) <= orders["report_max_bytes"]:
        left_s = due - time.monotonic()
        pipes = {pipe.number: pipe for pipe in (report, output) if pipe.is_open}
        ready, _, _ = select.select([0, woken, *pipes], [], [], max(0.0, left_s))
        if 0 in ready and not os.read(0, _SHARE):
            return None
        if woken in ready:
            os.read(woken, _SHARE)
            ended, found = os.waitpid(child.pid, os.WNOHANG)
            status = found if ended else None
        for number in pipes.keys() & ready:
            pipes[number].hear()
    _end_all(child.pid)
    for pipe in (report, output):
        while pipe.is_open and pipe.hear():
            pass
    return {
        "status": None if status is None else os.waitstatus_to_exitcode(status),
        "late": left_s <= 0,
        "report": report.said[: orders["report_max_bytes"]].decode(errors="replace"),
        "output": output.said.decode(errors="replace"),
    }


class Pipe:
    """What the command says on one pipe; with `keep_bytes` the end of it."""

    def __init__(self, number: int, keep_bytes: int | None = None) -> None:
        os.set_blocking(number, False)
        self.number = number
        self.said = b""
        self.is_open = True
        self._keep_bytes = keep_bytes

    def hear(self) -> bool:
        """Read what is there; False if it is nothing."""
        try:
            part = os.read(self.number, _SHARE)
        except BlockingIOError:
            return False
        self.is_open = bool(part)
        self.said += part
        if self._keep_bytes is not None:
            self.said = self.said[-self._keep_bytes :]
        return True


def _confine(orders: dict[str, Any]) -> None:
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for name, wanted in orders["limits"].items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))
    if orders["landlock"]:
        _landlock.keep_to(orders["writable"], orders["landlock"])


def _prctl(option: int, value: int) -> None:
    _libc.prctl(option, value, 0, 0, 0)


_libc: Any = ctypes.CDLL(None)


def _end_all(group: int | None = None) -> None:
    """Kill the command's group, and whatever has become a child of this process, until there is none."""
    if group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*") if _LINUX else ():
        with contextlib.suppress(OSError, ValueError):
            _, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid():
                yield int(folder.name)


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            sys.exit(0)
        line += part
    return line


if __name__ == "__main__":
    main()
