"""Deploys on the way: no seed confuses old and new code; what would is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from outlive import registry
from outlive.engine import claimer, journal
from outlive.testing import Simulation, simulate
from tests.sim import deploys
from tests.sim.planted import expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 100


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 8) -> Simulation:
    """Play the deploy in the world of one seed."""
    return simulate(
        deploys.drive,
        include=deploys.Deploys(),
        seed=seed,
        prepare=deploys.prepare,
        check=deploys.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_confuses_versions(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: deploys", play, first, SEEDS, evidence)


def _answers_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "patches", property(lambda self: {}, lambda self, value: None), raising=False)


def _everybody_is_new(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "goes_on", lambda self: False)


def _everybody_is_old(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "goes_on", lambda self: True)


def _not_tied_by_whoever_claims(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, untouched: Any) -> None:
        return None

    patch.setattr(claimer.Claimer, "_pin", nothing)


def _any_version_served(patch: pytest.MonkeyPatch) -> None:
    names = registry.Registry.names
    patch.setattr(registry.Registry, "names", lambda self: [*names(self), "tied#1", "tied#2"])


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "answers forgotten": _answers_forgotten,
    "everybody takes the new path": _everybody_is_new,
    "everybody takes the old path": _everybody_is_old,
    "not tied by whoever claims": _not_tied_by_whoever_claims,
    "any version served": _any_version_served,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=120.0), BUG_SEEDS, evidence)
