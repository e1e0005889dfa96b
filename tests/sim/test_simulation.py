"""Simulated worlds: no seed breaks a guarantee, and the same seed is the same world."""

from __future__ import annotations

import pytest

from outlive.testing import Simulation, simulate
from tests.sim import bank
from tests.support.size import pick

SEEDS = pick(small=60, full=2_000)


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 6) -> Simulation:
    """Play the bank in the world of one seed."""
    return simulate(
        bank.drive,
        include=list(bank.KINDS),
        seed=seed,
        prepare=bank.prepare,
        check=bank.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_seed_breaks_a_guarantee(first: int) -> None:
    for seed in range(first, first + 10):
        play(seed)


def test_the_same_seed_is_the_same_world() -> None:
    assert play(4711).trace == play(4711).trace
