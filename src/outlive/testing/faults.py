"""Kills or stops this process at a fault point that its environment names.

`OUTLIVE_FAULT=commit.before:kill:3` ends the process with SIGKILL when it passes
`commit.before` for the third time; with `stop` it gets SIGSTOP there and goes on
after a SIGCONT. What happens is told on stderr first, so that whoever waits for
the death knows that the point was reached. Passages count from the call of
`arm_from_environment`, over all threads.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from outlive import hooks
from outlive.errors import UsageError

VARIABLE = "OUTLIVE_FAULT"

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True)
class Fault:
    """What happens at which passage of which point; as text `point:action:passage`."""

    point: str
    action: str
    passage: int = 1

    def __str__(self) -> str:
        return f"{self.point}:{self.action}:{self.passage}"

    @property
    def notice(self) -> str:
        """The line on stderr that says that the point was reached."""
        return f"fault {self}"


def parse_fault(text: str) -> Fault:
    """Read `point:action:passage`; the passage may be left out."""
    point, action, passage = (*text.split(":"), "1", "1")[:3]
    if not point or action not in _SIGNALS or not passage.isdigit() or int(passage) < 1:
        raise UsageError(f"{VARIABLE}={text!r} is not point:kill:passage or point:stop:passage")
    return Fault(point, action, int(passage))


def arm_from_environment() -> None:
    """Arm the fault that the environment names, if it names one."""
    text = os.environ.get(VARIABLE)
    if text:
        arm_fault(parse_fault(text))


def arm_fault(fault: Fault) -> None:
    """Let this process meet a fault."""
    lock = threading.Lock()
    left = fault.passage

    def fire(name: str) -> None:
        nonlocal left
        if name != fault.point:
            return
        with lock:
            left -= 1
            due = left == 0
        if due:
            os.write(2, f"{fault.notice}\n".encode())
            os.kill(os.getpid(), _SIGNALS[fault.action])

    hooks.arm(fire)
