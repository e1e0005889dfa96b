"""Random workflow shapes that fail while branches beside the failure go on, and are retried until they succeed.

What a retry keeps is a journal that replays: nothing of it executes again, and it ends as a run does that never failed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from outlive.codec.failure import error_facts
from outlive.model.control import plan_retry
from outlive.model.reads import EntryRow, RunRow
from tests.property.shapes import Program, failing_programs, mended, strict_shape
from tests.support.evidence import Evidence
from tests.support.size import pick
from tests.support.solo import Played, Solo, delays

SHAPES = pick(small=150, full=3_000)
FAILED = RunRow(
    1, "solo", "strict_shape", None, "failed", "", 0, None, None, "", None, None, "json/1", None, 0.0, 0.0, None
)


@pytest.fixture(scope="module")
def world() -> Iterator[Solo]:
    with Solo() as solo:
        yield solo


@pytest.fixture(autouse=True)
def told(evidence: Evidence) -> Iterator[None]:
    evidence("random workflow shapes in memory", "none", retried=SHAPES)
    yield
    mended.clear()  # for other tests use these shapes, too


def retry(solo: Solo, program: Program, failed: Played, seed: int) -> tuple[list[EntryRow], Played]:
    """Play what a retry leaves of a journal; give that, and what became of it."""
    cut = plan_retry(FAILED, error_facts(failed.error_record or "{}"), failed.entries, [])
    gone = {*cut.dropped, *cut.awaited}
    kept = [copy.copy(entry) for entry in failed.entries if entry.key not in gone]
    assert not cut.awaited and not cut.doubtful, "no step here may be in doubt"
    return kept, solo.play(strict_shape, program, seed=seed, step_delay=delays(seed), entries=kept)


def _has(program: Program, names: set[str]) -> bool:
    parts = [part for part in program if isinstance(part, list)]
    return program[0] in names or any(_has(part, names) for part in parts)


@settings(max_examples=SHAPES)
# Not with what ends a cancellation by a value, nor where the body waits for a task before its end cancels a third one:
# of these a retry may keep too much, and the run is paused with JournalMismatch.
@given(
    failing_programs().filter(lambda program: not _has(program, {"stubborn", "create", "shield"})),
    st.integers(0, 2**31),
)
def test_a_retry_leaves_a_journal_that_replays(world: Solo, program: Program, seed: int) -> None:
    mended.clear()
    played = world.play(strict_shape, program, seed=seed, step_delay=delays(seed))
    for number in range(1, 6):
        if played.status != "failed":
            break
        mended.update(range(10))
        kept, again = retry(world, program, played, seed + number)
        assert again.mismatch is None, again.mismatch
        settled = [entry for entry in kept if entry.seq is not None]
        assert [entry for entry in again.settled if entry.key in {one.key for one in settled}] == settled
        assert not {entry.key for entry in settled} & set(again.executed)
        beside = sum((entry.seq or 0) > number for number, entry in enumerate(settled, 1))
        event(f"{min(beside, 5)} or more outcomes beside the failure are kept")
        played = again
    event(f"ended {played.status}")
