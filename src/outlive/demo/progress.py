"""How the demo shows that it lives: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from outlive.demo.parent import Course

_BAR_CHARS = 32
_LINE_EVERY_S = 2.0


class Progress:
    """Draws the course of one demo."""

    def __init__(self, orders: int, out: TextIO = sys.stdout) -> None:
        self._orders = orders
        self._out = out
        self._terminal = out.isatty()
        self._last_line_at = time.monotonic()
        self._last_line = ""

    def show(self, course: Course) -> None:
        """Draw the bar anew, or print a line if the last one is old enough."""
        done = len(course.finished)
        if self._terminal:
            filled = _BAR_CHARS * done // self._orders
            bar = "█" * filled + "░" * (_BAR_CHARS - filled)
            self._write(f"\r  {bar} {done}/{self._orders} orders, {_times(len(course.deaths))} killed\x1b[K")
        elif done == self._orders or time.monotonic() - self._last_line_at >= _LINE_EVERY_S:
            self._write_line(f"  {done}/{self._orders} orders finished\n")

    def show_death(self, course: Course) -> None:
        """Say that a process was killed; stays on the screen above the bar."""
        death = course.deaths[-1]
        start = "\r\x1b[K" if self._terminal else ""
        self._write(
            f"{start}  SIGKILL for process {death.pid}, {death.finished} orders are finished; the next one takes over\n"
        )
        self.show(course)

    def end(self) -> None:
        """Leave the line of the bar."""
        if self._terminal:
            self._write("\n")

    def _write_line(self, line: str) -> None:
        if line != self._last_line:
            self._last_line_at, self._last_line = time.monotonic(), line
            self._write(line)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _times(number: int) -> str:
    return "never" if number == 0 else "once" if number == 1 else f"{number} times"
