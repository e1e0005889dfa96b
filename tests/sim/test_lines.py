"""Simulated queues: no seed exceeds a limit or breaks the order, and bugs planted into the line are all found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from outlive.engine import roster
from outlive.store.sqlite import queues
from outlive.testing import Simulation, simulate
from tests.sim import lines
from tests.sim.planted import edit, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=20, full=1_000)
SEEDS_OF_BUG = 200
Patch = Callable[[pytest.MonkeyPatch], None]


def play(seed: int, limit_s: float = 600.0, most_faults: int = 6) -> Simulation:
    """Play the queues in the world of one seed."""
    return simulate(
        lines.drive,
        include=[lines.lined],
        seed=seed,
        prepare=lines.prepare,
        check=lines.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_exceeds_a_limit(first: int, evidence: Evidence) -> None:
    expect_clean("simulated queues", play, first, SEEDS, evidence)


def _counts_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    before: dict[Any, Any] = {}
    count = queues._Admission._room

    def stale(self: Any, queue: str, limits: Any, most: int) -> int:
        room = count(self, queue, limits, most)
        before[queue], room = room, before.get(queue, room)
        return min(room, most)

    patch.setattr(queues._Admission, "_room", stale)


def _waiting_run_executed(patch: pytest.MonkeyPatch) -> None:
    enter = roster.Roster.enter
    patch.setattr(roster.Roster, "enter", lambda self, run, entries, ending=False: enter(self, run, entries))


BUGS: dict[str, Patch] = {
    "counted before the lock": _counts_before_the_lock,
    "slot given back on release": edit("release_run", "SET owner = NULL", "SET line = NULL, owner = NULL"),
    "slot lost by a takeover": edit("take_owned", "SET owner = NULL", "SET line = NULL, owner = NULL"),
    "window of a rate too short": edit("count_admitted", ":now - :rate_s", ":now - :rate_s * 0.5"),
    "window of a key's rate too short": edit("room_for_key", ":now - :key_s", ":now - :key_s * 0.5"),
    "turn not noted": edit("serve_key", "SET served_key = excluded.served_key", "SET queue = excluded.queue"),
    "room of a worker forgotten": edit("list_rooms", "q.per_worker IS NOT NULL", "0"),
    "limit of a key forgotten": edit("room_for_key", "WHEN :per_key", "WHEN NULL"),
    "priority upside down": edit("next_priority", "ORDER BY priority", "ORDER BY -priority"),
    "last come, first served": edit("list_first", "ORDER BY n.line_at, n.row", "ORDER BY n.line_at DESC, n.row"),
    "delay ends early": edit("end_delays", "line_at <= :now", "line_at <= :now + 10"),
    "delay never ends": edit("end_delays", "line_at <= :now", "line_at <= :now - 10000"),
    "another start for who has begun": edit(
        "reschedule_run", "(line IN ('delayed', 'waiting') OR (line IS NULL AND started_at IS NULL))", "1"
    ),
    "another start leaves nobody out of line": edit("reschedule_run", "ELSE 'delayed' END", "ELSE 'waiting' END"),
    "waiting run executed to be cancelled": _waiting_run_executed,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=120.0, most_faults=12), SEEDS_OF_BUG, evidence)
