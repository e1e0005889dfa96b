"""Plays simulated worlds seed by seed, and tells the evidence what they held."""

from __future__ import annotations

from collections.abc import Callable

from outlive.testing import Simulation
from tests.support.evidence import Evidence

SEEDS_PER_TEST = 10
Play = Callable[[int], Simulation]


def expect_clean(part: str, play: Play, first: int, seeds: int, evidence: Evidence) -> None:
    """Play ten of so many seeds; a world that fails raises."""
    plays = [play(seed) for seed in range(first, first + SEEDS_PER_TEST)]
    evidence(
        part,
        "sqlite",
        seeds=len(plays),
        runs=sum(len(simulation.runs) for simulation in plays),
        generations=sum(run.generation for simulation in plays for run in simulation.runs.values()),
        faults=sum(len(simulation.faults) for simulation in plays),
        seeds_are=f"0 to {seeds - 1:,}",
    )
