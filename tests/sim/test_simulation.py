"""Simulated worlds: no seed breaks a guarantee, and the same seed is the same world."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from outlive.testing import Simulation, simulate
from tests.sim import bank, mail
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=40, full=2_000)


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 6, kinds: Sequence[Any] = bank.KINDS) -> Simulation:
    """Play the bank in the world of one seed."""
    return simulate(
        partial(bank.drive, kinds=kinds),
        include=list(bank.KINDS),
        seed=seed,
        prepare=bank.prepare,
        check=bank.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_breaks_a_guarantee(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds", play, first, SEEDS, evidence)


@pytest.mark.parametrize("first", range(0, SEEDS // 2, SEEDS_PER_TEST))
def test_no_seed_breaks_a_generation(first: int, evidence: Evidence) -> None:
    """Runs that go on as new only, under twice the faults: their crashes make suspects, for whom the others hush."""
    play_relay = partial(play, most_faults=12, kinds=(bank.relay,))
    expect_clean("simulated worlds: runs that go on as new", play_relay, first, SEEDS // 2, evidence)


def play_mail(seed: int, limit_s: float = 3_000.0, most_faults: int = 6) -> Simulation:
    """Play the post in the world of one seed."""
    return simulate(
        mail.drive, include=list(mail.KINDS), seed=seed, check=mail.check, limit_s=limit_s, most_faults=most_faults
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_loses_or_doubles_mail(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: messages, streams, promises", play_mail, first, SEEDS, evidence)


def test_the_same_seed_is_the_same_world() -> None:
    assert play(4711).trace == play(4711).trace


def test_a_process_that_stood_still_goes_on_before_idle_time_passes() -> None:
    """What its program does next is not skipped, though nothing has happened for longer than idle time lasts."""
    assert len(play(50115, most_faults=12).runs) > bank.RUNS
