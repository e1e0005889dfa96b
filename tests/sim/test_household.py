"""The simulated household: no seed breaks what parents and operators were told; bugs planted there are found."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from outlive import bulk
from outlive.engine import invoke, roster
from outlive.model.query import compile_query, parse
from outlive.model.writes import Release
from outlive.store.sqlite import batch
from outlive.testing import Simulation, simulate
from outlive.testing.simstore import SimStore
from tests.sim import household
from tests.sim.planted import Plant, edit, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200
FIRST = {"late writes of a generation that has ended": 12}  # a rare one


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BULK_BATCH_RUNS", 2)


def play(seed: int, limit_s: float = 200_000.0, most_faults: int = 8) -> Simulation:
    """Play the household in the world of one seed."""
    return simulate(
        household.drive,
        include=list(household.KINDS),
        seed=seed,
        prepare=household.prepare,
        check=household.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_parents_and_operators_get_what_they_were_told(first: int, evidence: Evidence) -> None:
    expect_clean(
        "simulated worlds: children, pauses, forks, generations, deletions, bulk", play, first, SEEDS, evidence
    )


# -- planted bugs ------------------------------------------------------------------
def _deadline_not_inherited(patch: pytest.MonkeyPatch) -> None:
    make = invoke.NewRun
    patch.setattr(invoke, "NewRun", lambda **facts: make(**{**facts, "deadline_at": None}))


def _pauses_forgotten(patch: pytest.MonkeyPatch) -> None:
    def release(row: int, claim: int, wake_at: Any = None, hold: Any = None, hold_reason: Any = None) -> Release:
        return Release(row, claim, wake_at=0.0 if hold else wake_at)

    patch.setattr(roster, "Release", release)


def _query_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bulk, "compile_query", lambda conditions, now: compile_query(parse("all"), now))


def _first_of_each_page_only(patch: pytest.MonkeyPatch) -> None:
    async def list_ids(self: Any, query: Any) -> Any:
        page = await self.call("list_ids", lambda: self._world.store.list_ids(query))
        return page[-1:]

    patch.setattr(SimStore, "list_ids", list_ids, raising=False)


BUGS: dict[str, Plant] = {
    "all children end with their parent": edit("close_children", "c.parent_close = 'cancel'", "1"),
    "no child ends with its parent": edit("close_children", "c.parent_close = 'cancel'", "0"),
    "deadline not inherited": _deadline_not_inherited,
    "pauses forgotten": _pauses_forgotten,
    "a fork begins anew": edit("copy_entries", "WHERE row = :origin", "WHERE 0 AND row = :origin"),
    "patch of a fork forgotten": edit("patch_entry", "SET value = :value", "SET value = value"),
    "older generation lost": edit("keep_past", "WHERE e.row = :row", "WHERE 0 AND e.row = :row"),
    "late writes of a generation that has ended": lambda patch: patch.setattr(
        batch, "current_entries", lambda db, entries: entries
    ),
    "grandchildren left": edit("list_descendants", "r.parent = below.row", "r.parent = below.row AND 0"),
    "the unfinished deleted": edit("list_undeletable", "r.status IS NULL OR (", "(0 AND "),
    "query of a bulk action ignored": _query_ignored,
    "first of each page only": _first_of_each_page_only,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    most = partial(play, limit_s=250.0, most_faults=12)
    expect_found(bug, BUGS[bug], most, BUG_SEEDS, evidence, first=FIRST.get(bug, 0))
