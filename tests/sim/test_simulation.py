"""Simulated worlds: no seed breaks a guarantee, and the same seed is the same world."""

from __future__ import annotations

import pytest

from outlive.testing import Simulation, simulate
from tests.sim import bank, mail
from tests.support.evidence import Evidence
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
def test_no_seed_breaks_a_guarantee(first: int, evidence: Evidence) -> None:
    plays = [play(seed) for seed in range(first, first + 10)]
    evidence(
        "simulated worlds",
        "sqlite",
        seeds=len(plays),
        runs=sum(len(simulation.runs) for simulation in plays),
        faults=sum(len(simulation.faults) for simulation in plays),
        seeds_are=f"0 to {SEEDS - 1:,}",
    )


def play_mail(seed: int, limit_s: float = 3_000.0, most_faults: int = 6) -> Simulation:
    """Play the post in the world of one seed."""
    return simulate(
        mail.drive, include=list(mail.KINDS), seed=seed, check=mail.check, limit_s=limit_s, most_faults=most_faults
    )


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_seed_loses_or_doubles_mail(first: int, evidence: Evidence) -> None:
    plays = [play_mail(seed) for seed in range(first, first + 10)]
    evidence(
        "simulated worlds: messages, streams, promises",
        "sqlite",
        seeds=len(plays),
        runs=sum(len(simulation.runs) for simulation in plays),
        faults=sum(len(simulation.faults) for simulation in plays),
        seeds_are=f"0 to {SEEDS - 1:,}",
    )


def test_the_same_seed_is_the_same_world() -> None:
    assert play(4711).trace == play(4711).trace
