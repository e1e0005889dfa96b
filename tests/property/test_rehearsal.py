"""Rehearsals of random workflow shapes: what their own code recorded fits, cut off anywhere; forged entries do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from outlive.errors import JournalMismatch
from outlive.testing import Report, replay
from outlive.testing.replay import FrozenJournal
from tests.property.shapes import Program, child, programs, shape
from tests.property.test_replay import cancels, play, seeds
from tests.support.size import pick
from tests.support.solo import Solo, freeze

SHAPES = pick(small=60, full=400)


@pytest.fixture(scope="module")
def world() -> Iterator[Solo]:
    with Solo() as solo:
        solo.serve(child)
        yield solo


def rehearse(*journals: FrozenJournal) -> list[Report]:
    lines = [journal.to_line() for journal in journals]
    return replay(map(FrozenJournal.from_line, lines), include=[shape, child])


# A cancellation that was due when a transaction was given its turn came before the outcome that has the smaller number.
CANCELLED_AT_A_TURN = ["gather_all", ["work", 0], ["wait", "FIRST_COMPLETED", ["work", 0], ["book", 0]]]


@settings(max_examples=SHAPES)
@given(programs, seeds, cancels)
@example(["seq", CANCELLED_AT_A_TURN], 126, [2.158901207405679e-249])
def test_its_own_code_fits_each_journal(world: Solo, program: Program, seed: int, cancel_at: list[float]) -> None:
    first = play(world, program, seed, cancel_at=cancel_at)
    (whole,) = rehearse(freeze(shape, program, entries=first.entries, played=first))
    assert (whole.verdict, whole.notes) == ("fits", ()), whole
    prefixes = [freeze(shape, program, entries=first.prefix(cut)) for cut in range(len(first.settled) + 1)]
    reports = rehearse(*prefixes)
    fails = {"fits", "breaks"} if first.status == "failed" else {"fits"}  # it may be about to fail, as it did
    assert {report.verdict for report in reports} <= fails, reports
    assert all("the run would fail: " in str(report.error) for report in reports if report.error is not None)


@settings(max_examples=SHAPES)
@given(programs, seeds, st.integers(0, 100))
def test_a_run_that_died_with_calls_begun_fits(world: Solo, program: Program, seed: int, after: int) -> None:
    dead = play(world, program, seed, die_after_entries=after % 12 + 1)
    assume(dead.status == "died")
    (report,) = rehearse(freeze(shape, program, entries=dead.entries))
    assert report.verdict == "fits" or "would fail" in str(report.error), report


@settings(max_examples=SHAPES)
@given(programs, seeds, st.integers(0, 100), st.sampled_from(["digest", "name", "kind", "key"]))
def test_a_forged_entry_is_told(world: Solo, program: Program, seed: int, place: int, fact: str) -> None:
    """Anything but what the code asks for there, in the same version: a mismatch that names the place."""
    first = play(world, program, seed)
    steps = [entry for entry in first.settled if entry.digest is not None]
    assume(steps)
    entry = steps[place % len(steps)]
    forged = dataclasses.replace(entry, **{fact: "forged#1" if fact == "key" else "forged"})
    entries = [forged if each is entry else each for each in first.settled]
    (report,) = rehearse(freeze(shape, program, entries=entries, played=first))
    assert report.verdict == "breaks"
    assert isinstance(report.error, JournalMismatch)
    assert "forged" in report.error.expected
