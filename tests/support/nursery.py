"""Python processes that need not import the library anew: forked from one that has, and does nothing else.

`spawn(["-m", "outlive", "runs", "ls"], …)` is what `python -m outlive runs ls` is: a process of its own with its
folder, environment, streams, signals and exit code, which may be stopped or killed. Importing all of it takes several
times as long as most of what the tests let such a process do. Tests of imports themselves start real interpreters.

The nursery has no threads, no event loop and no connection when it forks. It ends, and kills what it has forked, when
the process that started it is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = "apsw asyncpg click psycopg sqlalchemy.dialects.postgresql sqlalchemy.ext.asyncio sqlalchemy.orm".split()
LIBRARIES += ["pydantic_ai.models.function", "pydantic_ai.models.openai", "sqlalchemy.dialects.sqlite"]
LIBRARIES += ["anyio._backends._asyncio", "genai_prices.data"]  # what others import when they are first used

UNLOADED = (
    "outlive.agents.mcp",  # FastMCP's client brings a library that takes over how sources are loaded
    "outlive.demo",  # an app that has workflows of the same names would serve neither
)


# -- on the side of the tests -------------------------------------------------------
class Fork:
    """A process of the nursery, with the methods of a Popen."""

    def __init__(self, pid: int, alive: int, stdin: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None
        self._alive = alive  # ends when the process does

    def poll(self) -> int | None:
        """Give its exit code if it has ended."""
        return self._collect(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and give its exit code, or minus the number of the signal."""
        code = self._collect(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has been seen to have ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has been seen to have ended."""
        self.send_signal(signal.SIGKILL)

    def _collect(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._alive], [], [], timeout)[0]:
            self.returncode = _ask({"wait": self.pid})
            os.close(self._alive)
        return self.returncode


def spawn(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: IO[bytes],
    stderr: IO[bytes],
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> Fork:
    """Start what `python` with these arguments would be."""
    alive, theirs = os.pipe()
    pipe: IO[bytes] | None = None
    if stdin == subprocess.PIPE:
        source, ours = os.pipe()
        pipe = os.fdopen(ours, "wb", buffering=0)
    elif isinstance(stdin, int):
        source = os.open(os.devnull, os.O_RDONLY)
    else:
        source = os.dup(stdin.fileno())
    try:
        request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "env": dict(env)}
        pid = _ask(request, source, stdout.fileno(), stderr.fileno(), theirs)
    finally:
        os.close(source)
        os.close(theirs)
    return Fork(pid, alive, pipe)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    input: str = "",
    merged: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end and give what it has printed; `merged` takes stderr as stdout."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(input.encode())
        source.seek(0)
        fork = spawn(arguments, cwd=cwd, env=env, stdin=source, stdout=out, stderr=out if merged else err)
        try:
            fork.wait(timeout)
        finally:
            fork.kill()
            fork.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), fork.wait(), *texts)


_lock = threading.Lock()
_nursery: socket.socket | None = None


def nest() -> None:
    """Let `spawn` fork from a copy of this process, as it is now: for what is itself a fork of the nursery."""
    global _nursery
    path = _own_path()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        request = _serve(theirs)
        _leave(0 if request is None else _exit_code(request, path))
    theirs.close()
    atexit.register(_end, ours, lambda: os.waitpid(pid, 0), os.getpid())
    _nursery = ours


def _ask(request: dict[str, Any], *fds: int) -> int:
    global _nursery
    with _lock:
        if _nursery is None:
            _nursery = _start()
        line = _nursery
        text = json.dumps(request).encode()
        head = struct.pack("!I", len(text))
        if fds:
            socket.send_fds(line, [head], fds)
        else:
            line.sendall(head)
        line.sendall(text)
        (answer,) = struct.unpack("!i", _receive(line, 4))
        return int(answer)


def _start() -> socket.socket:
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # a Ctrl-C of the test run is not for it
        )
    atexit.register(_end, ours, process.wait, os.getpid())
    return ours


def _end(line: socket.socket, wait: Callable[[], object], owner: int) -> None:
    if os.getpid() == owner:
        line.close()
        wait()


def _receive(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = line.recv(size - len(found))
        if not part:
            raise EOFError("the nursery is gone")
        found += part
    return found


# -- on the side of the nursery -----------------------------------------------------
def _import_all() -> None:
    import outlive

    for module in pkgutil.walk_packages(outlive.__path__, "outlive."):
        if not module.name.endswith("__main__") and not module.name.startswith(UNLOADED):
            importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)


def _build_all() -> None:
    """Build what Pydantic builds when it is first used: as much work as all else that most of these processes do."""
    from pydantic_ai.durable_exec import JSON_CODEC, CallToolResult
    from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse

    ModelMessagesTypeAdapter.dump_json([])
    answer = ModelResponse(parts=[])
    JSON_CODEC.load(ModelResponse, JSON_CODEC.dump(ModelResponse, answer))
    JSON_CODEC.load(CallToolResult, {"kind": "tool_return", "result": None})


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork on request; returns a request in the forked process, and None at the end."""
    left: set[int] = set()
    while True:
        head, fds, _, _ = socket.recv_fds(line, 4, 4)
        if not head:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return None
        (size,) = struct.unpack("!I", head)
        request: dict[str, Any] = json.loads(_receive(line, size))
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], 0)
            left.discard(pid)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                line.close()
                for target, fd in enumerate(fds[:3]):
                    os.dup2(fd, target)
                    os.close(fd)
                os.set_inheritable(fds[3], False)  # stays open until this process ends
                return request
            left.add(answer)
            for fd in fds:
                os.close(fd)
        line.sendall(struct.pack("!i", answer))


def _become(request: dict[str, Any], path: list[str]) -> None:
    """Do what the interpreter does with its arguments."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if os.isatty(fd):  # where Python writes line by line, and seeks nothing
            setattr(sys, name, io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), line_buffering=True))
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    words: list[str] = request["arguments"]
    while words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path[:] = [request["cwd"], *inherited, *path]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path[:] = ["", *inherited, *path]
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        sys.argv = words
        sys.path[:] = [str(Path(words[0]).resolve().parent), *inherited, *path]
        main.__file__ = words[0]
        code = compile(Path(words[0]).read_bytes(), words[0], "exec")
        exec(code, vars(main))


def _exit_code(request: dict[str, Any], path: list[str]) -> int:
    try:
        _become(request, path)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code: int) -> None:
    """End as an interpreter does, but for taking the library apart, which would copy all of its memory first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    vars(sys.modules["__main__"]).clear()
    gc.collect()  # what was not closed is told
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # it is closed
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _own_path() -> list[str]:
    """Give where modules are found but for what an interpreter puts before that."""
    own = os.environ["PYTHONPATH"].split(os.pathsep)
    return [place for place in sys.path[1:] if place not in own]


def main() -> None:
    """Serve the process that holds the other end of a socket."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    path = _own_path()
    _import_all()
    _build_all()
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _leave(_exit_code(request, path))


if __name__ == "__main__":
    main()
