"""The one who kills: starts the order service, kills it at random moments, starts it again.

A moment is drawn as a number of finished orders and a short wait after it, so that a slow machine sees
the same demo as a fast one. After each death, while nobody works, it notes which outcomes
are recorded: the audit checks that none of those steps ever executes again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

_LATEST = 0.9  # share of finished orders after which nobody is killed any more
_WAIT_S = 0.25  # at most so long after the drawn number of orders
_STUCK_S = 60.0  # without a sign of life, give up instead of waiting for ever


@dataclass
class Death:
    """One kill: the process, and how many orders were finished then."""

    pid: int
    finished: int


@dataclass
class Course:
    """What happened until every order was finished."""

    finished: set[str] = field(default_factory=set)
    resumed: int = 0  # runs that were quarantined and let go on
    deaths: list[Death] = field(default_factory=list)


class ServiceBroken(Exception):
    """The order service ended although nobody killed it, or stopped working."""


class Child:
    """The order service as a process; what it says arrives in `lines`."""

    def __init__(self, arguments: list[str], provider_url: str) -> None:
        self.lines: SimpleQueue[str | None] = SimpleQueue()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "outlive.demo.child", *arguments],
            env={**os.environ, "DEMO_PROVIDER": provider_url, "no_proxy": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> bool:
        """SIGKILL it and wait until it is gone; False if it had ended before."""
        self._process.kill()
        return self.close() == -signal.SIGKILL

    def close(self) -> int:
        """Wait for its end and let go of the pipes; give the exit code."""
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    @property
    def complaint(self) -> str:
        """What it wrote to stderr."""
        return "".join(self._errors).strip()

    def _read_lines(self) -> None:
        for line in self._process.stdout or ():
            self.lines.put(line.strip())
        self.lines.put(None)

    def _read_errors(self) -> None:
        self._errors.extend(self._process.stderr or ())


class Parent:
    """Runs children one after another until all orders are finished."""

    def __init__(
        self,
        start_child: Callable[[], Child],
        *,
        orders: int,
        kills: int,
        chance: random.Random,
        on_progress: Callable[[Course], None],
        on_death: Callable[[Course], None],
    ) -> None:
        self._start_child = start_child
        self._orders = orders
        self._moments = sorted(chance.randint(0, int((orders - 1) * _LATEST)) for _ in range(kills))
        self._waits_s = [chance.uniform(0, _WAIT_S) for _ in range(kills)]
        self._on_progress = on_progress
        self._on_death = on_death
        self.course = Course()

    def run(self) -> Course:
        """Start and kill until one child reaches the end by itself."""
        while not self._live():
            self._on_death(self.course)
        return self.course

    def _live(self) -> bool:
        """Let one child live; True if it ended by itself with all work done."""
        child = self._start_child()
        try:
            while (line := self._next_line(child)) is not None:
                self._hear(line)
                if self._is_time_to_kill():
                    time.sleep(self._waits_s[len(self.course.deaths)])
                    if child.kill():
                        self._note_death(child)
                        return False
            if child.close() != 0:
                raise ServiceBroken(f"the order service ended by itself:\n{child.complaint}")
            return True
        finally:
            child.kill()

    def _note_death(self, child: Child) -> None:
        """Hear what it had said before it died, and write down when that was."""
        while (line := self._next_line(child)) is not None:
            self._hear(line)
        self.course.deaths.append(Death(child.pid, len(self.course.finished)))

    def _hear(self, line: str) -> None:
        word, _, order = line.partition(" ")
        if word == "finished" and order not in self.course.finished:
            self.course.finished.add(order)
            self._on_progress(self.course)
        elif word == "resumed":
            self.course.resumed += 1

    def _is_time_to_kill(self) -> bool:
        died = len(self.course.deaths)
        return died < len(self._moments) and len(self.course.finished) >= self._moments[died]

    def _next_line(self, child: Child) -> str | None:
        try:
            return child.lines.get(timeout=_STUCK_S)
        except Empty:
            raise ServiceBroken(f"the order service said nothing for {_STUCK_S:g} s:\n{child.complaint}") from None
