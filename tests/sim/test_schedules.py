"""Simulated schedules: no seed loses or doubles a tick; bugs planted one at a time are found within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from outlive.engine import scheduler
from outlive.model import schedule as model
from outlive.model.schedule import ScheduleWrite
from outlive.store.sqlite import batch
from outlive.testing import Simulation, simulate
from outlive.testing.simstore import SimStore
from tests.sim import timetable
from tests.sim.planted import expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200
FIRST = {"some runs before are not cancelled": 12}  # a rare one
Patch = Callable[[pytest.MonkeyPatch], None]


def play(seed: int, most_faults: int = 12) -> Simulation:
    """Play the timetable in the world of one seed."""
    return simulate(
        timetable.drive,
        include=[timetable.errand, timetable.endless],
        seed=seed,
        prepare=timetable.prepare,
        check=timetable.check,
        most_faults=most_faults,
        limit_s=3_000.0,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_each_tick_has_one_fate(first: int, evidence: Evidence) -> None:
    expect_clean("simulated schedules", play, first, SEEDS, evidence)


# -- planted bugs ------------------------------------------------------------------
def _no_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(batch.SQL, "update_schedule", batch.SQL["update_schedule"].replace(" AND revision = :expected", ""))


def _next_tick_kept(patch: pytest.MonkeyPatch) -> None:
    """For tenths of a second: for ever it would be seen without a simulator."""
    decide = model.decide

    def kept(row: Any, spec: Any, since: float) -> model.Decision:
        decision = decide(row, spec, since)
        return replace(decision, next_at=row.next_at) if int(row.now * 10) % 2 else decision

    patch.setattr(scheduler, "decide", kept)


def _one_tick_too_far(patch: pytest.MonkeyPatch) -> None:
    """After an outage the tick after the next one comes next."""
    decide = model.decide

    def skip(row: Any, spec: Any, since: float) -> model.Decision:
        decision = decide(row, spec, since)
        late = row.next_at is not None and row.now - row.next_at > 3.0
        if late and spec.every_s and decision.next_at is not None:
            decision.next_at += spec.every_s
        return decision

    patch.setattr(scheduler, "decide", skip)


def _runs_committed_apart(patch: pytest.MonkeyPatch) -> None:
    write = SimStore.write_schedules

    async def in_two(self: Any, writes: list[ScheduleWrite], note: Any = None) -> list[bool]:
        written = await write(self, [replace(row, starts=[]) for row in writes], note)
        left = [
            replace(row, expected=row.revision, revision=row.revision + 1)
            for row, done in zip(writes, written, strict=True)
            if done and row.starts
        ]
        if left:
            await write(self, left)
        return written

    patch.setattr(SimStore, "write_schedules", in_two)


def _pause_ignored(patch: pytest.MonkeyPatch) -> None:
    for block in ("where_schedule_due", "next_tick"):
        patch.setitem(batch.SQL, block, batch.SQL[block].replace("s.paused = 0 AND", ""))


def _catch_up_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model, "SCHEDULE_LATE_S", 0.5)
    decide = model.decide
    patch.setattr(
        scheduler, "decide", lambda row, spec, since: decide(row, msgspec.structs.replace(spec, catch_up_s=0.0))
    )


def _unfinished_runs_forgotten(patch: pytest.MonkeyPatch) -> None:
    decide = model.decide
    patch.setattr(scheduler, "decide", lambda row, spec, since: decide(replace(row, unfinished=[]), spec, since))


def _waiting_ticks_dropped(patch: pytest.MonkeyPatch) -> None:
    decide = model.decide
    patch.setattr(scheduler, "decide", lambda row, spec, since: replace(decide(row, spec, since), waiting=[]))


def _some_cancels_lost(patch: pytest.MonkeyPatch) -> None:
    write = SimStore.write_schedules

    async def without(self: Any, writes: list[ScheduleWrite], note: Any = None) -> list[bool]:
        return await write(self, [replace(row, cancels=row.cancels[row.revision % 9 == 0 :]) for row in writes], note)

    patch.setattr(SimStore, "write_schedules", without)


BUGS: dict[str, Patch] = {
    "no compare-and-set": _no_compare_and_set,
    "the next tick is kept": _next_tick_kept,
    "the next tick is one too far": _one_tick_too_far,
    "runs are committed apart from their tick": _runs_committed_apart,
    "a pause is ignored": _pause_ignored,
    "missed ticks are not caught up": _catch_up_ignored,
    "unfinished runs are forgotten": _unfinished_runs_forgotten,
    "waiting ticks are dropped": _waiting_ticks_dropped,
    "some runs before are not cancelled": _some_cancels_lost,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], play, BUG_SEEDS, evidence, first=FIRST.get(bug, 0))
