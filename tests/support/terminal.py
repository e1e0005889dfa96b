"""A program on a terminal of its own, with a person who reads and types: waits for what is shown, never for time."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support import nursery

PATIENCE_S = 40.0


class Terminal:
    """`with Terminal(["-m", "outlive", …], cwd=…, env=…) as seen:`; the program is killed at the end of the block."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.shown = ""
        self._read_up_to = 0
        self._end, theirs = pty.openpty()
        with os.fdopen(theirs, "r+b", buffering=0) as line:
            self.program = nursery.spawn(arguments, cwd=cwd, env=env, stdin=line, stdout=line, stderr=line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()
        os.close(self._end)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until the program shows this, behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = re.compile(pattern, re.MULTILINE).search(self.shown, self._read_up_to)
            if found is not None:
                self._read_up_to = found.end()
                return found
            assert time.monotonic() < deadline, f"{pattern!r} was not shown:\n{self.shown}"
            if not self._read(deadline - time.monotonic()):
                raise EOFError(f"the program ended before it showed {pattern!r}:\n{self.shown}")

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._end, line.encode() + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.program.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Let the program die by SIGKILL, and read what it has shown by then."""
        self.program.kill()
        self.end()

    def end(self) -> int:
        """Wait for the end of the program; give its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.program.wait(max(1.0, deadline - time.monotonic()))

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._end], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._end, 65_536)
        except OSError:  # nobody has the other end any more
            return False
        self.shown = (self.shown + data.decode(errors="replace")).replace("\r\n", "\n")
        return bool(data)
