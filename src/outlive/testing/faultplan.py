"""Faults of a simulation: drawn from the seed before it begins, so that a list of them can be made smaller."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

FaultKind = Literal["kill_before", "kill_after", "refuse", "lose_reply", "freeze", "clock_jump", "deaf"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
LEASES = {"freeze": (0.2, 2.5), "clock_jump": (-0.5, 2.0), "deaf": (0.5, 5.0)}  # least and greatest amount, in leases


@dataclass(frozen=True)
class Fault:
    """At the `at`-th call of any process to the store: what happens to the calling process.

    kill_before, kill_after: it dies before or after the call takes effect.
    refuse: the call fails without effect. lose_reply: it takes effect and fails.
    freeze: the process stands still for `amount` seconds after the call.
    clock_jump: the database's clock jumps by `amount` seconds.
    deaf: hints are lost for `amount` seconds.
    """

    kind: FaultKind
    at: int
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} at store call {self.at}" + (f" ({self.amount:+.2f} s)" if self.amount else "")


def draw_faults(chance: random.Random, *, calls: int, most: int, lease_s: float) -> list[Fault]:
    """Draw up to `most` faults within the first `calls` calls to the store."""
    faults = []
    for _ in range(chance.randint(0, most)):
        kind = chance.choice(KINDS)
        amount = chance.uniform(*LEASES[kind]) * lease_s if kind in LEASES else 0.0
        faults.append(Fault(kind, chance.randrange(calls), amount))
    return sorted(faults, key=lambda fault: fault.at)
