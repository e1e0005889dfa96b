"""Lets this process meet faults that its environment names, at fault points of the library.

`OUTLIVE_FAULT=commit.before:kill:3` ends the process with SIGKILL when it passes
`commit.before` for the third time. With `stop` it gets SIGSTOP there and goes on
after a SIGCONT; with `refuse` the database seems not to answer, with `lose_reply` it
seems to have died before its reply. Several faults are separated by commas. What
happens is told on stderr first, so that whoever waits for it knows that the
point was reached. Passages count from the arming on, over all threads.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from outlive import hooks
from outlive.errors import StoreUnavailable, UsageError

VARIABLE = "OUTLIVE_FAULT"

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ERRORS = {"refuse": False, "lose_reply": True}  # whether the outcome is unknown


@dataclass(frozen=True)
class PointFault:
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


def parse_faults(text: str) -> list[PointFault]:
    """Read `point:action:passage,…`; a passage may be left out."""
    return [_parse_fault(part) for part in text.split(",")]


def _parse_fault(text: str) -> PointFault:
    point, action, passage = (*text.split(":"), "1", "1")[:3]
    if not point or action not in {**_SIGNALS, **_ERRORS} or not passage.isdigit() or int(passage) < 1:
        raise UsageError(
            f"{VARIABLE}: {text!r} is not point:action:passage with kill, stop, refuse or lose_reply as action"
        )
    return PointFault(point, action, int(passage))


def arm_from_environment() -> None:
    """Arm the faults that the environment names, if it names any."""
    text = os.environ.get(VARIABLE)
    if text:
        arm_faults(parse_faults(text))


def arm_faults(faults: Iterable[PointFault]) -> None:
    """Let this process meet faults."""
    lock = threading.Lock()
    left = {fault: fault.passage for fault in faults}

    def fire(name: str) -> None:
        with lock:
            passed = [fault for fault in left if fault.point == name]
            for fault in passed:
                left[fault] -= 1
            due = [fault for fault in passed if left[fault] == 0]
        for fault in due:
            _meet(fault)

    hooks.arm(fire)


def _meet(fault: PointFault) -> None:
    os.write(2, f"{fault.notice}\n".encode())
    if fault.action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[fault.action])
    else:
        raise StoreUnavailable(f"the database is gone ({fault})", outcome_unknown=_ERRORS[fault.action])
