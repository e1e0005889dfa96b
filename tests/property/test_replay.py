"""Random workflow shapes, executed once, then replayed from every prefix of their journal.

The journal of a replay begins with the prefix, no step of the prefix executes
again, and the whole journal gives the same end without executing anything:
whatever the durations of the steps, wherever the process died, whether or not
the run left memory in between, with and without a request to cancel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.property.shapes import Program, child, programs, shape
from tests.support.evidence import Evidence
from tests.support.size import pick
from tests.support.solo import Played, Solo, delays

SHAPES = pick(small=100, full=500)
FINAL = ("succeeded", "failed", "cancelled")

seeds = st.integers(0, 2**32)
moments = st.floats(0.0, 4.0, allow_nan=False)
cancels = st.one_of(st.just([]), st.lists(moments, max_size=2))


@pytest.fixture(scope="module")
def world() -> Iterator[Solo]:
    with Solo() as solo:
        solo.serve(child)
        yield solo


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest, evidence: Evidence) -> None:
    """Tell of each test here how many shapes it has drawn."""
    name = request.node.originalname.removeprefix("test_")
    evidence("random workflow shapes in memory", "none", **{name: SHAPES})


def play(solo: Solo, program: Program, seed: Any, **options: Any) -> Played:
    """Play a program with durations of steps and commits by seed."""
    commits = delays((seed, "commits"), 0.01)
    numbers = iter(range(10**9))
    options.setdefault("commit_delay", lambda: commits(str(next(numbers))))
    return solo.play(shape, program, seed=hash(seed) % 2**32, step_delay=delays(seed), **options)


def check_continues(solo: Solo, program: Program, dead: Played, seed: Any, **options: Any) -> Played:
    """Continue what a crash left; its settled entries stand, and are the beginning of the new journal."""
    again = play(solo, program, seed, entries=dead.entries, children=dead.children, **options)
    count = len(dead.settled)
    assert again.settled[:count] == dead.settled
    assert not {entry.key for entry in dead.settled} & set(again.executed)
    assert again.mismatch is None, again.mismatch
    assert again.status in (*FINAL, "died"), again
    return again


def check_repeats(solo: Solo, program: Program, whole: Played, seed: Any) -> None:
    """Replay a whole journal: nothing executes, nothing is added, the end is the same."""
    again = play(solo, program, seed, entries=whole.settled)
    assert again.outcome == whole.outcome
    assert again.executed == []
    assert again.settled == whole.settled


@settings(max_examples=SHAPES)
@given(programs, seeds, cancels)
def test_every_prefix_of_a_journal_replays(world: Solo, program: Program, seed: int, cancel_at: list[float]) -> None:
    first = play(world, program, seed, cancel_at=cancel_at)
    assert first.status in FINAL, first
    event(f"{min(len(first.settled) // 5 * 5, 30)}+ entries, {first.status}")
    for cut in range(len(first.settled) + 1):
        prefix = Played("died", entries=first.prefix(cut))
        later = cancel_at[sum(entry.kind == "cancel" for entry in prefix.entries) :]
        again = check_continues(world, program, prefix, (seed, cut), cancel_at=later)
        if cut % 4 == 0:
            check_repeats(world, program, again, (seed, cut, "again"))
    check_repeats(world, program, first, (seed, "whole"))


@settings(max_examples=SHAPES)
@given(programs, seeds, st.lists(st.integers(1, 12), min_size=1, max_size=4), cancels)
def test_a_run_that_dies_often_ends_once(
    world: Solo, program: Program, seed: int, deaths: list[int], cancel_at: list[float]
) -> None:
    """Dead after some writes, time after time: with started rows, children and transactions among them."""
    dead = Played("died")
    for number, after in enumerate(deaths):
        later = cancel_at[sum(entry.kind == "cancel" for entry in dead.entries) :]
        dead = check_continues(world, program, dead, (seed, number), die_after_entries=after, cancel_at=later)
        if dead.status != "died":
            break
    else:
        dead = check_continues(world, program, dead, (seed, "last"))
    event(f"ended {dead.status}")
    check_repeats(world, program, dead, (seed, "whole"))


@settings(max_examples=SHAPES)
@given(programs, seeds, st.lists(moments, min_size=1, max_size=3))
def test_a_run_that_dies_at_any_moment_ends_once(world: Solo, program: Program, seed: int, deaths: list[float]) -> None:
    """Dead at a moment rather than after a write: steps in flight, outcomes not yet on disk."""
    dead = Played("died")
    for number, at in enumerate(deaths):
        dead = check_continues(world, program, dead, (seed, number), die_at=at)
        if dead.status != "died":
            break
    else:
        dead = check_continues(world, program, dead, (seed, "last"))
    check_repeats(world, program, dead, (seed, "whole"))


@settings(max_examples=SHAPES)
@given(programs, seeds, cancels)
def test_leaving_memory_is_not_noticed(world: Solo, program: Program, seed: int, cancel_at: list[float]) -> None:
    """A run that leaves memory whenever it may has the same journal as one that stays."""
    cancel_at = [at + 0.012_345 for at in cancel_at]  # beside the timers: at one instant either may come first
    stays = play(world, program, seed, cancel_at=cancel_at, commit_delay=lambda: 0.0)
    leaves = play(world, program, seed, cancel_at=cancel_at, commit_delay=lambda: 0.0, suspending=True)
    event("left memory" if leaves.suspensions else "stayed")
    assert leaves.status in FINAL
    if "child" not in repr(program):  # two that end at the same moment may be heard of in any order
        assert leaves.executed == stays.executed
        assert leaves.settled == stays.settled
        assert leaves.outcome == stays.outcome
    check_repeats(world, program, leaves, (seed, "whole"))
