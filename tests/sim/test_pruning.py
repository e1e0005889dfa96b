"""Pruning beside families at work loses no result and leaves nothing behind; what would is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from outlive import retention
from outlive.store.sqlite import retention as sqlite_retention
from outlive.store.sqlite.batch import SQL
from outlive.testing import Simulation, simulate
from tests.sim import pruning
from tests.sim.planted import expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=500)
BUG_SEEDS = 100


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PRUNE_BATCH_RUNS", 4)


def play(seed: int, limit_s: float = 3_000.0) -> Simulation:
    """Play the families in the world of one seed."""
    return simulate(
        pruning.drive,
        include=list(pruning.KINDS),
        seed=seed,
        prepare=pruning.prepare,
        check=pruning.check,
        limit_s=limit_s,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_pruning_harms_nobody(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: pruning", play, first, SEEDS, evidence)


def _awaited_children_go(patch: pytest.MonkeyPatch) -> None:
    live = "EXISTS (SELECT 1 FROM ol_live"
    assert live in SQL["select_prunable"]
    patch.setitem(SQL, "select_prunable", SQL["select_prunable"].replace(live, f"0 AND {live}"))


def _parents_go_first(patch: pytest.MonkeyPatch) -> None:
    for module in (retention, sqlite_retention):
        patch.setattr(module, "choose_prunable", lambda found: [run.row for run in found if not run.awaited])


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a result that a parent awaits is pruned": _awaited_children_go,
    "parents go before their children": _parents_go_first,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=200.0), BUG_SEEDS, evidence)
