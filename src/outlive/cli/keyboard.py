"""The lines that a person types, or that a pipe brings, for an event loop; nobody waits for them to end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

_READ_BYTES = 65_536


def read_lines(tell: Callable[[str | None], object]) -> None:
    """Tell each line of stdin from now on, without its end, and None when there are no more.

    A thread reads, which dies with the process: it holds no lock of a stream, as one that reads `sys.stdin` would.
    """
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def pass_on(line: str | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, line)

    def read() -> None:
        rest = b""
        while data := os.read(source, _READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                pass_on(line.decode(errors="replace").rstrip("\r"))
        if rest:
            pass_on(rest.decode(errors="replace"))
        pass_on(None)

    threading.Thread(target=read, name="keyboard", daemon=True).start()
