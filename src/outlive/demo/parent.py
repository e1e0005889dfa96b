"""The one who kills: starts the order service, kills it at random moments, starts it again.

A moment is drawn as a number of finished orders and a short wait after it, so that a slow machine sees
the same demo as a fast one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

_LATEST = 0.9  # share of finished orders after which nobody is killed any more
_WAIT_S = 0.25  # at most so long after the drawn number of orders


class ServiceBroken(Exception):
    """The order service ended although nobody killed it."""


@dataclass
class Course:
    """What has happened so far."""

    finished: set[str] = field(default_factory=set)
    resumed: int = 0  # runs that were quarantined and let go on
    deaths: int = 0

    def hear(self, line: str) -> None:
        """Note what the order service says on stdout."""
        word, _, order = line.strip().partition(" ")
        if word == "finished":
            self.finished.add(order)
        self.resumed += word == "resumed"


class Parent:
    """Runs the order service, one process after another, until one reaches the end by itself."""

    def __init__(self, arguments: list[str], provider_url: str, orders: int, kills: int, chance: random.Random) -> None:
        self._command = [sys.executable, "-m", "outlive.demo.child", *arguments]
        self._environment = {**os.environ, "DEMO_PROVIDER": provider_url, "no_proxy": "127.0.0.1"}
        self._moments = sorted(chance.randint(0, int((orders - 1) * _LATEST)) for _ in range(kills))
        self._waits_s = [chance.uniform(0, _WAIT_S) for _ in range(kills)]
        self.course = Course()

    def live(self, on_progress: Callable[[Course], None]) -> int | None:
        """Let one process live; give its id if it was killed, None if it ended with all work done."""
        course = self.course
        with tempfile.TemporaryFile("w+") as complaints, self._child(complaints) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for line in child.stdout:
                course.hear(line)
                on_progress(course)
                if self._is_time_to_kill():
                    time.sleep(self._waits_s[course.deaths])
                    child.kill()
                    for last_words in child.stdout:
                        course.hear(last_words)
                elif line == "done\n":  # no process ends before: all kills take place, however fast it works
                    child.stdin.write("\n")
                    child.stdin.flush()
            code = child.wait()
            if code == -signal.SIGKILL:
                course.deaths += 1
                return child.pid
            if code != 0:
                complaints.seek(0)
                raise ServiceBroken(f"the order service ended by itself:\n{complaints.read().strip()}")
            return None

    @contextmanager
    def _child(self, complaints: IO[str]) -> Iterator[subprocess.Popen[str]]:
        child = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,  # its end tells the child that its parent is gone
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        with child:
            try:
                yield child
            finally:
                child.kill()

    def _is_time_to_kill(self) -> bool:
        died = self.course.deaths
        return died < len(self._moments) and len(self.course.finished) >= self._moments[died]
