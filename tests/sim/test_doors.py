"""The simulated doors: no seed lets in who may not, or tells a starter what is not so; bugs planted there are found."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from outlive import Outlive
from outlive.engine import claimer
from outlive.testing import Simulation, simulate
from tests.sim import doors
from tests.sim.planted import Plant, edit, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 8) -> Simulation:
    """Play the doors in the world of one seed."""
    return simulate(
        doors.drive,
        include=list(doors.KINDS),
        seed=seed,
        prepare=doors.prepare,
        check=doors.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nobody_is_let_in_who_may_not(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: starts alone, full and paused queues", play, first, SEEDS, evidence)


# -- planted bugs ------------------------------------------------------------------


def _refusals_attached(patch: pytest.MonkeyPatch) -> None:
    start = Outlive.start

    async def attach(self: Any, *args: Any, **options: Any) -> Any:
        return await start(self, *args, **{**options, "on_duplicate": "attach"})

    patch.setattr(Outlive, "start", attach)


BUGS: dict[str, Plant] = {
    "the ended keep others out": edit("find_duplicates", " AND r.status IS NULL", ""),
    "who is to be refused is attached": _refusals_attached,
    "a singleton that has not begun is overlooked": edit(
        "list_singletons", "AND l.once = 'singleton'", "AND l.once = 'singleton' AND l.started_at IS NOT NULL"
    ),
    "arguments of the first call stay": edit("replace_input", "SET input = :input,", "SET input = input,"),
    "gathered calls wait beyond their cap": edit("postpone_run", "coalesce(cap_at, :now + :wait_s)", ":now + :wait_s"),
    "the one in place stays": edit("insert_request", "VALUES (?, ?, ?, ?)", "SELECT ?, ?, ?, ? WHERE 0"),
    "its successor does not wait": edit("end_delays", "once IS NOT 'singleton' OR", "1 OR"),
    "the backlog is not counted": edit("count_backlog", "line IN ('delayed', 'waiting')", "line = 'delayed'"),
    "the newest is dropped": edit("find_oldest", "ORDER BY l.line_at, l.row", "ORDER BY l.line_at DESC, l.row DESC"),
    "a paused queue admits": edit("list_lines", "AND NOT coalesce(q.paused, 0)", ""),
    "drained while some wait": edit("list_queues", "l.line = 'waiting'", "l.line = 'delayed'"),
    "all queues served": lambda patch: patch.setattr(claimer.Claimer, "_queues", None),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=100.0, most_faults=12), BUG_SEEDS, evidence)
