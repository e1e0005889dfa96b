"""The simulated inbox: what is listed is what is open, and is settled once; bugs planted there are found."""

from __future__ import annotations

from functools import partial

import pytest

from outlive.engine.engine import Engine
from outlive.store.sqlite import mail
from outlive.testing import Simulation, simulate
from tests.sim import inbox
from tests.sim.planted import Plant, edit, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 6) -> Simulation:
    """Play the inbox in the world of one seed."""
    return simulate(
        inbox.drive,
        include=list(inbox.KINDS),
        seed=seed,
        prepare=inbox.prepare,
        check=inbox.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_what_is_open_is_listed_and_settled_once(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: promises with topics", play, first, SEEDS, evidence)


# -- planted bugs ------------------------------------------------------------------
OPEN = "p.settled_at IS NULL AND"
LATE = "AND (p.expires_at IS NULL OR p.expires_at > :now)"
ENDED = "AND r.status IS NULL"


def _all(*plants: Plant) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        for each in plants:
            each(patch)

    return plant


def _nothing_noted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mail, "write_audit", lambda *_: None)


def _not_told_who(patch: pytest.MonkeyPatch) -> None:
    settle = Engine.settle
    patch.setattr(Engine, "settle", lambda self, settlement, note=None: settle(self, settlement))


BUGS: dict[str, Plant] = {
    "settled ones are listed": edit("from_topic", OPEN, "1 AND"),
    "expired ones are listed": edit("from_topic", LATE, ""),
    "runs that have ended ask on": edit("from_topic", ENDED, ""),
    "a page begins with the last one of the page before": edit("from_topic", "        > (", "        >= ("),
    "a page is in no order": edit("from_topic", "ORDER BY p.created_at, p.token", "ORDER BY p.token"),
    "those of other runs are listed": edit("from_run_topic", "r.id = :run AND", ""),
    "those of other topics are listed": edit("from_run_topic", "+p.topic = :topic AND", ""),
    "those of another run are found": edit("from_run_key", "r.id = :run AND", ""),
    "settled ones are found": edit("from_run_key", OPEN, "1 AND"),
    "expired ones are found": edit("from_run_key", LATE, ""),
    "a promise is settled twice": _all(
        edit("find_promise", "row, outcome,", "row, NULL,"),
        edit("settle_promises", " AND outcome IS NULL", ""),
    ),
    "a promise is settled late": edit("find_promise", "expires_at, key", "NULL, key"),
    "what is settled is not": edit("settle_promises", "outcome IS NULL", "outcome IS NOT NULL"),
    "who has settled it is not noted": _nothing_noted,
    "who has settled it is not told": _not_told_who,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=300.0, most_faults=8), BUG_SEEDS, evidence)
