"""How the demo shows that it lives: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

_BAR_CHARS = 32
_LINE_EVERY_S = 2.0


class Progress:
    """Draws the course of one demo."""

    def __init__(self, orders: int, out: TextIO) -> None:
        self._orders = orders
        self._out = out
        self._is_terminal = out.isatty()
        self._last_line_at = time.monotonic()

    def show(self, finished: int, deaths: int) -> None:
        """Draw the bar anew, or print a line if the last one is old enough."""
        if self._is_terminal:
            filled = _BAR_CHARS * finished // self._orders
            bar = "█" * filled + "░" * (_BAR_CHARS - filled)
            self.write(f"\r  {bar} {finished}/{self._orders} orders, killed {deaths} ×\x1b[K")
        elif finished == self._orders or time.monotonic() - self._last_line_at >= _LINE_EVERY_S:
            self._last_line_at = time.monotonic()
            self.write(f"  {finished}/{self._orders} orders finished\n")

    def write(self, text: str) -> None:
        """Write at once."""
        self._out.write(text)
        self._out.flush()

    def write_line(self, line: str) -> None:
        """Write a line that stays above the bar."""
        self.write(f"\r\x1b[K{line}\n" if self._is_terminal else f"{line}\n")

    def end(self) -> None:
        """Leave the line of the bar."""
        if self._is_terminal:
            self.write("\n")
