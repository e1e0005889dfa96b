"""The simulated clerks: no seed makes an agent do twice what it may do once, or do what nobody allowed, or overspend.

A world draws its programs from its seed, as everything else, and a failure is shrunk by leaving out faults. Hypothesis
draws programs too, and shrinks these: what it finds is a small program in some world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlive import ambient
from outlive.agents import durability, units
from outlive.errors import AlreadySettled
from outlive.model import ledger
from outlive.promises import Promises
from outlive.store.sqlite import ledger as sqlite_ledger
from outlive.testing import Simulation, simulate
from tests.sim import clerks
from tests.sim.planted import Plant, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

approvals: Any = import_module("outlive.agents.approvals")  # the package has a function of this name

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200


def play(
    seed: int, limit_s: float = 2_000_000.0, most_faults: int = 8, prepare: Callable[[Any], None] = clerks.prepare
) -> Simulation:
    """Play the clerks in the world of one seed."""
    return simulate(
        clerks.drive,
        include=[clerks.clerk, clerks.poor],
        seed=seed,
        prepare=prepare,
        check=clerks.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_clerks_do_what_is_allowed_and_once(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: agents with tools, approvals, helpers", play, first, SEEDS, evidence)


@pytest.mark.parametrize(
    ("seed", "drawn"),
    [(991, None), (701, [[["ask", "delegate"], ["read", "read", "read"], ["read"]]])],
    ids=["a suspect waits for room", "a process stands still as a task begins"],
)
def test_what_has_failed_once(seed: int, drawn: Any) -> None:
    play(seed, prepare=clerks.prepare if drawn is None else partial(clerks.prepare, drawn=drawn))


TURN = st.lists(st.sampled_from(clerks.TOOLS), min_size=1, max_size=clerks.MOST_CALLS)
PROGRAM = st.lists(TURN, min_size=1, max_size=clerks.MOST_TURNS)


def test_programs_that_hypothesis_draws(evidence: Evidence) -> None:
    runs: list[int] = []

    @settings(
        max_examples=pick(small=8, full=400), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(drawn=st.lists(PROGRAM, min_size=1, max_size=clerks.RUNS), seed=st.integers(0, 1_000_000))
    def draw(drawn: list[list[list[str]]], seed: int) -> None:
        runs.append(len(play(seed, prepare=partial(clerks.prepare, drawn=drawn)).runs))

    draw()
    evidence("programs of agents that hypothesis draws", "sqlite", programs=len(runs), runs=sum(runs))


# -- planted bugs ------------------------------------------------------------------
def _repeated_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    make = units.StepSpec
    patch.setattr(units, "StepSpec", lambda **facts: make(**{**facts, "on_unknown": "retry"}))
    patch.setattr(units, "_specs", {})


def _never_verified(patch: pytest.MonkeyPatch) -> None:
    async def verify(unit: Any) -> Any:
        return {"kind": "tool_failed", "message": units.describe_unknown(unit.tool)}

    patch.setattr(units, "_verify", verify)
    patch.setattr(units, "_specs", {})


def _rows_of_a_refused_call_stay(patch: pytest.MonkeyPatch) -> None:
    async def execute_within(tx: Any, unit: Any) -> Any:
        token = units.current_tx.set((tx, asyncio.get_running_loop()))
        try:
            return await units._execute(unit)
        finally:
            units.current_tx.reset(token)

    patch.setattr(units, "_execute_within", execute_within)
    patch.setattr(units, "_specs", {})


def _verdicts_not_noted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(durability, "ask_policy", lambda run, policy, call, call_id: policy(call))


def _edits_not_judged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(durability.OutliveDurability, "_ask_policy_again", lambda *_: None)


def _edits_ignored(patch: pytest.MonkeyPatch) -> None:
    approved = approvals.ToolApproved
    patch.setattr(approvals, "ToolApproved", lambda override_args: approved())


def _one_is_enough(patch: pytest.MonkeyPatch) -> None:
    ask = approvals._ask

    async def ask_one(run: Any, agent: str, call: Any, tool: Any, terms: Any, ask_again: Any) -> Any:
        return await ask(run, agent, call, tool, approvals.Ask(terms.role, 1, terms.expires, terms.escalate), ask_again)

    patch.setattr(approvals, "_ask", ask_one)


def _expired_means_approved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(approvals, "ToolDenied", lambda message: approvals.ToolApproved())


def _settled_again(patch: pytest.MonkeyPatch) -> None:
    settle, find = Promises._settle_noting, Promises.find_promise
    known: dict[tuple[str, str], Any] = {}

    async def settle_again(self: Any, *args: Any, **options: Any) -> None:
        try:
            await settle(self, *args, **options)
        except AlreadySettled:
            pass

    async def find_again(self: Any, run_id: str, key: str) -> Any:
        return known.setdefault((run_id, key), await find(self, run_id, key))

    patch.setattr(Promises, "_settle_noting", settle_again)
    patch.setattr(Promises, "find_promise", find_again)


def _keys_of_attempts(patch: pytest.MonkeyPatch) -> None:
    describe = ambient.describe

    def changing(call: Any) -> Any:
        info = describe(call)
        return replace(info, idempotency_key=f"{info.idempotency_key} {info.fencing_token}")

    patch.setattr(ambient, "describe", changing)


def _settled_twice(patch: pytest.MonkeyPatch) -> None:
    write = sqlite_ledger._write
    patch.setattr(sqlite_ledger, "_write", lambda db, booking, *facts: write(db, replace(booking, folded=[]), *facts))


def _no_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "_weigh", lambda *_: None)


def _the_dead_have_bought_nothing(patch: pytest.MonkeyPatch) -> None:
    settle = ledger.PendingRow.settle

    def settle_as_nothing(row: Any, state: Any, amounts: Any) -> None:
        settle(row, "spent" if state == "lost" else state, ledger.Amounts() if state == "lost" else amounts)

    patch.setattr(ledger.PendingRow, "settle", settle_as_nothing)


BUGS: dict[str, Plant] = {
    "a tool of at most once is repeated": _repeated_after_a_crash,
    "verify is not asked": _never_verified,
    "rows of a refused call stay": _rows_of_a_refused_call_stay,
    "verdicts of the policy are not noted": _verdicts_not_noted,
    "edited arguments are ignored": _edits_ignored,
    "edited arguments are not for the policy": _edits_not_judged,
    "one vote is enough": _one_is_enough,
    "nobody's decision is an approval": _expired_means_approved,
    "an approval is used twice": _settled_again,
    "each attempt has a key of its own": _keys_of_attempts,
    "what was spent is settled twice": _settled_twice,
    "a reservation ignores the limit": _no_limit,
    "what the dead had reserved is given back": _the_dead_have_bought_nothing,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, most_faults=12), BUG_SEEDS, evidence)
