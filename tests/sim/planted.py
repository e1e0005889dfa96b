"""Finds bugs that were planted into the engine or a store, by playing simulated worlds seed by seed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest

from outlive.store.sqlite.batch import SQL
from outlive.testing import Simulation, SimulationFailed
from tests.support.evidence import Evidence

Plant = Callable[[pytest.MonkeyPatch], None]


def edit(block: str, old: str, new: str) -> Plant:
    """Plant a bug into a block of SQL."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        assert old in SQL[block]
        patch.setitem(SQL, block, SQL[block].replace(old, new))  # type: ignore[arg-type]

    return plant


def expect_found(
    bug: str, plant: Plant, play: Callable[[int], Simulation], seeds: int, evidence: Evidence, *, first: int = 0
) -> None:
    """Fail unless one of so many seeds finds the bug; without the bug the same seed has to be clean."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            import_module("outlive.testing.simulate"), "_shrink", lambda play, failed: failed
        )  # not asked for
        plant(patch)
        seed = next((seed for seed in range(first, first + seeds) if _fails(play, seed)), None)
    if seed is None:
        pytest.fail(f"{seeds} seeds did not find the planted bug: {bug}")
    play(seed)
    evidence("bugs planted into the simulator", "sqlite", found=f"{bug} (seed {seed})")


def _fails(play: Callable[[int], Simulation], seed: int) -> bool:
    try:
        play(seed)
    except SimulationFailed:
        return True
    return False
