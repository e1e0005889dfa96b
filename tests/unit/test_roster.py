"""Which runs are in memory: what is heard late of one that was let go does not touch its successor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from outlive.engine.roster import Roster

ROW = 7


def execution(claim: int) -> Any:
    """Stand in for a run in memory, of which the roster asks no more than its row here."""
    return SimpleNamespace(row=ROW, claim=claim)


def test_a_release_that_is_heard_late_leaves_the_run_that_was_claimed_again() -> None:
    roster, before, again = Roster(SimpleNamespace(), 10), execution(1), execution(2)  # type: ignore[arg-type]
    roster.executions[ROW] = again
    roster.left(before)
    assert roster.executions == {ROW: again}
    roster.left(again)
    assert roster.executions == {}
