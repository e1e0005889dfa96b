"""What becomes of ticks: values in, values out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive import DecodeFailed
from outlive.limits import (
    SCHEDULE_CATCH_UP_MAX,
    SCHEDULE_COUNT_MAX,
    SCHEDULE_RUNS_MAX,
    SCHEDULE_WAITING_MAX,
)
from outlive.model import schedule as model
from outlive.model.schedule import ScheduleRow, ScheduleSpec
from outlive.model.ticks import list_ticks, tell

START = 1_800_000_000.0


@pytest.fixture(autouse=True)
def soon_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are ten seconds apart here: what is older than that is late."""
    monkeypatch.setattr(model, "SCHEDULE_LATE_S", 10.0)


def new_spec(**facts: Any) -> ScheduleSpec:
    timing = {} if facts.keys() & {"cron", "at"} else {"every_s": 10.0}
    return ScheduleSpec(workflow="ship", input="[]", codec="json/1", **(timing | facts))


def new_row(spec: ScheduleSpec, **facts: Any) -> ScheduleRow:
    plain: dict[str, Any] = {
        "revision": 1,
        "changed": None,
        "paused": False,
        "next_at": START + 10,
        "last_at": None,
        "waiting": [],
        "skipped": 0,
        "created_at": START,
        "unfinished": [],
        "now": START,
    }
    return ScheduleRow("nightly", declared=model.encode_spec(spec), **(plain | facts))


def decide(spec: ScheduleSpec, passed_s: float, **facts: Any) -> tuple[list[float], list[float], int, float | None]:
    """Give what becomes of the ticks so many seconds after the start, as seconds after the start."""
    decision = model.decide(new_row(spec, now=START + passed_s, **facts), spec)
    since = None if decision.next_at is None else decision.next_at - START
    return (
        [tick - START for tick in decision.starts],
        [tick - START for tick in decision.waiting],
        decision.skipped,
        since,
    )


def test_nothing_before_its_time() -> None:
    assert decide(new_spec(), 9.999) == ([], [], 0, 10)


def test_a_tick_starts_and_the_next_one_is_set() -> None:
    assert decide(new_spec(), 10) == ([10], [], 0, 20)
    assert decide(new_spec(), 19.999) == ([10], [], 0, 20)


def test_missed_ticks_are_counted() -> None:
    assert decide(new_spec(), 95) == ([90], [], 8, 100)


def test_missed_ticks_are_caught_up_oldest_first() -> None:
    assert decide(new_spec(catch_up_s=45), 95) == ([60, 70, 80, 90], [], 5, 100)
    assert decide(new_spec(catch_up_s=1e6), 95) == ([10, 20, 30, 40, 50, 60, 70, 80, 90], [], 0, 100)


def test_what_came_while_somebody_was_there_was_not_missed() -> None:
    spec = new_spec()
    decision = model.decide(new_row(spec, now=START + 95), spec, watched_since=START + 55)
    assert ([tick - START for tick in decision.starts], decision.skipped) == ([60, 70, 80, 90], 5)
    assert len(model.decide(new_row(spec, now=START + 95), spec, watched_since=START + 1e6).starts) == 1


@pytest.mark.parametrize("beyond", [0, 1, 2, 999, 1_000, 1_001, 1_733])
@pytest.mark.parametrize("spec", [new_spec(catch_up_s=1e6), new_spec(cron="*/10 * * * * *", catch_up_s=1e6)], ids=str)
def test_the_youngest_are_caught_up(spec: model.ScheduleSpec, beyond: int) -> None:
    now_s, next_s, started, skipped = 10.0 * (SCHEDULE_CATCH_UP_MAX + beyond), 10.0, list[float](), 0
    while next_s <= now_s:
        row = new_row(spec, now=START + now_s, next_at=START + next_s)
        decision = model.decide(row, spec)
        started += [tick - START for tick in decision.starts]
        skipped, next_s = skipped + decision.skipped - row.skipped, (decision.next_at or 0.0) - START
    assert started == [10.0 * number for number in range(beyond + 1, beyond + SCHEDULE_CATCH_UP_MAX + 1)]
    assert skipped == beyond


def test_catching_up_has_a_limit() -> None:
    spec = new_spec(catch_up_s=1e9)
    started, _, skipped, next_at = decide(spec, 10.0 * SCHEDULE_CATCH_UP_MAX * 50)
    assert len(started) == SCHEDULE_RUNS_MAX
    assert next_at == started[-1] + 10
    assert started[0] / 10 == SCHEDULE_CATCH_UP_MAX * 49 + 1
    assert skipped == min(SCHEDULE_COUNT_MAX, started[0] / 10 - 1)


def test_years_of_seconds_cost_nothing() -> None:
    started, _, skipped, next_at = decide(new_spec(cron="* * * * * *", catch_up_s=3.2e8), 3.1e8, next_at=START + 1)
    assert (len(started), skipped) == (SCHEDULE_RUNS_MAX, SCHEDULE_COUNT_MAX)
    assert next_at == started[-1] + 1


def test_a_one_off_ends_the_schedule() -> None:
    spec = new_spec(at=START + 10)
    assert decide(spec, 10) == ([10], [], 0, None)
    assert decide(spec, 100) == ([], [], 1, None)
    assert decide(new_spec(at=START + 10, catch_up_s=100), 100) == ([10], [], 0, None)


@pytest.mark.parametrize(
    ("overlap", "idle", "busy"),
    [
        ("allow", ([10, 20, 30], [], 0, 40), ([10, 20, 30], [], 0, 40)),
        ("cancel", ([10, 20, 30], [], 0, 40), ([10, 20, 30], [], 0, 40)),
        ("skip", ([10], [], 2, 40), ([], [], 3, 40)),
        ("queue", ([10], [20, 30], 0, 40), ([], [10, 20, 30], 0, 40)),
    ],
)
def test_overlap(overlap: Any, idle: Any, busy: Any) -> None:
    spec = new_spec(overlap=overlap, catch_up_s=100)
    assert decide(spec, 30) == idle
    assert decide(spec, 30, unfinished=[7]) == busy


def test_waiting_ticks_go_first_and_one_by_one() -> None:
    spec = new_spec(overlap="queue", catch_up_s=100)
    assert decide(spec, 12, waiting=[START + 1, START + 2]) == ([1], [2, 10], 0, 20)
    assert decide(spec, 5, waiting=[START + 1, START + 2], unfinished=[7]) == ([], [1, 2], 0, 10)


def test_the_line_has_an_end() -> None:
    full = [START + number for number in range(SCHEDULE_WAITING_MAX)]
    _, waiting, skipped, _ = decide(new_spec(overlap="queue"), 10, waiting=full, unfinished=[7])
    assert (len(waiting), waiting[-1], skipped) == (SCHEDULE_WAITING_MAX, SCHEDULE_WAITING_MAX - 1, 1)


@given(
    st.sampled_from(["allow", "cancel", "skip", "queue"]),
    st.sampled_from([0.0, 15.0, 300.0]),
    st.lists(st.tuples(st.floats(0.01, 400.0), st.booleans()), min_size=1, max_size=30),
    st.sampled_from([{"every_s": 7.3}, {"cron": "*/11 * * * * *"}, {"cron": "*/2 * * * *"}]),
)
def test_each_tick_has_one_fate(overlap: Any, catch_up_s: float, looks: list[tuple[float, bool]], timing: Any) -> None:
    """Whenever somebody looks, and whatever is unfinished then, no tick is lost and none has two fates."""
    spec = new_spec(overlap=overlap, catch_up_s=catch_up_s, **timing)
    row = new_row(spec, next_at=next(list_ticks(spec, START, START)))
    started: list[float] = []
    for wait_s, busy in looks:
        row = replace(row, now=row.now + wait_s, unfinished=[1] if busy else [])
        decision = model.decide(row, spec)
        started += decision.starts
        assert decision.next_at is not None
        assert not decision.starts or overlap not in ("skip", "queue") or (len(decision.starts) == 1 and not busy)
        row = replace(row, waiting=decision.waiting, skipped=decision.skipped, next_at=decision.next_at)
        assert row.now < decision.next_at
    passed = list(takewhile(lambda tick: tick <= row.now, list_ticks(spec, START, START)))
    assert started + row.waiting == sorted({*started, *row.waiting}), "in order, none twice"
    assert {*started, *row.waiting} <= set(passed)
    assert len(started) + len(row.waiting) + row.skipped == len(passed)
    if overlap in ("allow", "cancel") and catch_up_s > 200 and max(wait_s for wait_s, _ in looks) < catch_up_s:
        assert started == passed


# -- changes ----------------------------------------------------------------------
def test_a_new_timing_moves_the_next_tick_and_nothing_else_does() -> None:
    row = new_row(new_spec(), now=START + 55, next_at=START + 30, skipped=3)
    same = model.encode_spec(new_spec(overlap="skip"))
    assert model.put(row, "nightly", 2, row.now, changed=same).next_at == START + 30
    other = model.encode_spec(new_spec(every_s=20.0))
    write = model.put(row, "nightly", 2, row.now, changed=other)
    assert (write.next_at, write.skipped, write.expected, write.revision) == (START + 60, 3, 1, 2)


def test_what_was_changed_holds_against_what_is_declared() -> None:
    changed = model.encode_spec(new_spec(every_s=7.0))
    row = new_row(new_spec(), changed=changed, now=START + 5, next_at=START + 7)
    write = model.put(row, "nightly", 2, row.now, declared=model.encode_spec(new_spec(every_s=3.0)))
    assert (write.changed, write.next_at, model.read_spec(write).every_s) == (changed, START + 7, 7.0)
    back = model.reset(row, 3)
    assert (back.changed, back.next_at, model.read_spec(back).every_s) == (None, START + 10, 10.0)


def test_a_pause_is_not_missed() -> None:
    row = new_row(new_spec(catch_up_s=1e6))
    assert model.pause(row, 2).paused
    resumed = model.resume(replace(row, paused=True, now=START + 95), 3)
    assert (resumed.paused, resumed.next_at, resumed.skipped) == (False, START + 100, 0)
    assert model.reset(replace(row, paused=True, now=START + 95), 3).next_at == START + 100


def test_a_one_off_does_not_come_again() -> None:
    spec = new_spec(at=START + 10)
    over = new_row(spec, next_at=None, now=START + 11)
    assert (
        model.put(over, "nightly", 2, over.now, declared=model.encode_spec(new_spec(at=START + 10, priority=3))).next_at
        is None
    )
    assert model.reset(replace(over, paused=True), 2).next_at is None
    later = model.put(over, "nightly", 2, over.now, declared=model.encode_spec(new_spec(at=START + 20)))
    assert later.next_at == START + 20


def test_ids_and_jitter() -> None:
    tick = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    assert model.tick_id("nightly", tick) == "nightly@2026-03-29T01:00:00Z"
    assert model.tick_id("nightly", tick + 0.25) == "nightly@2026-03-29T01:00:00.250000Z"
    spread = [model.spread(f"schedule {number}", tick, 60.0) for number in range(200)]
    assert spread == [model.spread(f"schedule {number}", tick, 60.0) for number in range(200)]
    assert 0 <= min(spread) < 10
    assert 50 < max(spread) < 60
    assert model.spread("nightly", tick, 0.0) == 0.0


def test_what_cannot_be_read_names_the_schedule() -> None:
    with pytest.raises(DecodeFailed, match="'nightly'"):
        model.read_spec(new_row(new_spec(), changed=json.dumps({"workflow": 7})))


def test_rules_in_words() -> None:
    assert tell(new_spec(cron="30 2 * * *", zone="Europe/Berlin")) == "At 02:30 every day, Europe/Berlin"
    assert tell(new_spec(every_s=90.0)) == "Every 90 seconds"
    assert tell(new_spec(at=START, zone="Asia/Tokyo")) == "Once at 2027-01-15 17:00:00+09:00"
