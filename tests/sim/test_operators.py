"""Simulated operators and sagas: no seed breaks a promise, and bugs planted into their engine are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from outlive.engine import cancellation, execution, invoke
from outlive.engine import control as acting
from outlive.model import control as cutting
from outlive.store.sqlite import control as stored
from outlive.testing import Simulation, simulate
from tests.sim import operators
from tests.sim.planted import expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=30, full=2_000)
BUG_SEEDS = 300
Patch = Callable[[pytest.MonkeyPatch], None]


def play(seed: int, limit_s: float = 600.0, most_faults: int = 8) -> Simulation:
    """Play the office in the world of one seed."""
    return simulate(
        operators.drive,
        include=list(operators.KINDS),
        seed=seed,
        prepare=operators.prepare,
        check=operators.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_breaks_a_promise(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: sagas, deadlines, retries, rewinds", play, first, SEEDS, evidence)


def test_a_run_that_is_claimed_again_before_its_release_is_heard_stays_in_memory() -> None:
    """The reply to a commit comes late in this world; it is about what the run was before."""
    assert play(50409, limit_s=3_000.0, most_faults=12).runs["cancelled"].status == "cancelled"


# -- planted bugs -------------------------------------------------------------------
def _compensations_cancelled(patch: pytest.MonkeyPatch) -> None:
    roll_back = execution.Execution._roll_back

    def unshielded(self: Any) -> bool:
        self.cancellation.shields -= 1
        return roll_back(self)

    patch.setattr(execution.Execution, "_roll_back", unshielded)


def _compensations_forgotten(patch: pytest.MonkeyPatch) -> None:
    compensate = invoke.compensate

    def when_first_executed(run: Any, *call: Any) -> None:
        replaying = bool(run.journal.unread)
        compensate(run, *call)
        if replaying:
            run.ending.compensations.pop()

    patch.setattr("outlive.ambient.compensate", when_first_executed)


def _deadline_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cancellation.Cancellation, "due_at", lambda self: None)


def _shields_ignored(patch: pytest.MonkeyPatch) -> None:
    next_due = cancellation.Cancellation.next_due

    def unshielded(self: Any, now: float) -> Any:
        shields, self.shields = self.shields, 0
        try:
            return next_due(self, now)
        finally:
            self.shields = shields

    patch.setattr(cancellation.Cancellation, "next_due", unshielded)


def _owned_runs_reopened(patch: pytest.MonkeyPatch) -> None:
    find = acting.Control.find

    async def find_unowned(self: Any, run_id: str) -> Any:
        return replace(await find(self, run_id), worker=None)

    patch.setattr(acting.Control, "find", find_unowned)
    patch.setattr(stored, "_may_reopen", lambda db, reopening: True)


def _children_not_retried(patch: pytest.MonkeyPatch) -> None:
    plan = acting.control.plan_retry

    def alone(*facts: Any) -> Any:
        cut = plan(*facts)
        cut.retried.clear()
        return cut

    patch.setattr(acting.control, "plan_retry", alone)


def _errors_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cutting, "failing_point", lambda *_: None)


def _action_without_note(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stored, "write_audit", lambda db, note, now: None)


BUGS: dict[str, Patch] = {
    "compensations cancelled": _compensations_cancelled,
    "compensations forgotten on replay": _compensations_forgotten,
    "deadline forgotten in suspension": _deadline_forgotten,
    "shields ignored": _shields_ignored,
    "owned runs reopened": _owned_runs_reopened,
    "children not retried": _children_not_retried,
    "errors kept by a retry": _errors_kept,
    "an action without its note": _action_without_note,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=200.0, most_faults=12), BUG_SEEDS, evidence)
