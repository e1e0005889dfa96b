"""Where a journal is cut, against brute force: what is kept is what had begun and ended before the point."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outlive.model.control import failing_point, plan_fork, plan_retry, plan_rewind
from outlive.model.reads import EntryRow, RunRow


def entry(key: str, seq: int | None, began: float, ended: float | None, **facts: Any) -> EntryRow:
    plain: dict[str, Any] = {"kind": "step", "name": "a", "digest": None, "outcome": "ok", "value": "1", "error": None}
    return EntryRow(key, seq, **(plain | facts), attempts=1, started_at=began, finished_at=ended)


def run(status: str, run_id: str = "p", **facts: Any) -> RunRow:
    row = facts.pop("row", 1)
    return RunRow(
        row, run_id, "w", None, status, "", 0, None, None, "", None, None, "json/1", None, 0.0, 0.0, None, **facts
    )


def error(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "ValueError", "text": text, **more}


@st.composite
def journals(draw: Any) -> list[EntryRow]:
    """Calls side by side: each begins at the time of some delivery before its own; some have not ended."""
    count = draw(st.integers(1, 8))
    entries = []
    for seq in range(1, count + 1):
        began = float(draw(st.integers(0, seq - 1)))
        entries.append(entry(f"a#{seq}", seq, began, float(seq)))
    for number in range(draw(st.integers(0, 3))):
        entries.append(entry(f"s#{number}", None, float(draw(st.integers(0, count))), None, outcome="started"))
    return entries


@given(journals(), st.data())
def test_a_rewound_journal_is_one_that_a_crash_could_have_left(entries: list[EntryRow], data: Any) -> None:
    point = data.draw(st.sampled_from(entries))
    cut = plan_rewind(run("succeeded"), point.key, entries, [])
    assert cut is not None and not cut.awaited and not cut.cancelled
    if point.seq is None:
        assert cut.dropped == [point.key]
        return
    last = float(point.seq - 1)  # the time of the last delivery that is kept
    expected = [
        one.key for one in entries if (one.seq or 0) >= point.seq or (one.seq is None and one.started_at > last)
    ]
    assert cut.dropped == expected
    kept = plan_fork(point.key, entries)
    assert kept is not None and [one.seq for one in kept] == list(range(1, point.seq))


def test_unknown_keys() -> None:
    assert plan_rewind(run("succeeded"), "b#1", [entry("a#1", 1, 0, 1)], []) is None
    assert plan_fork("b#1", [entry("a#1", 1, 0, 1)]) is None


CANCELLED = json.dumps({"type": "asyncio.exceptions.CancelledError", "text": "cancelled"})


def test_a_call_that_was_cancelled_goes_with_what_has_cancelled_it() -> None:
    gone = {"outcome": "error", "error": CANCELLED}
    for cause in ("timer", "cancel"):
        entries = [
            entry("a#1", 1, 0, 1),
            entry("cause#1", 2, 1, 2, kind=cause),
            entry("a#2", 3, 1, 3, **gone),
            entry("pay#1", 4, 1, 4, kind="child", **gone),
            entry("receive:go#1", 5, 1, 5, kind="receive", **gone),
            entry("a#3", 6, 5, 6),
            entry("a#4", 7, 5, 7, **gone),  # nobody can say what has cancelled it
        ]
        for key, first in (("receive:go#1", "cause#1"), ("a#2", "cause#1"), ("pay#1", "pay#1"), ("a#4", "a#4")):
            cut = plan_rewind(run("succeeded"), key, entries, [])
            keys = [one.key for one in entries]
            assert cut is not None and cut.dropped == keys[keys.index(first) :]
            kept = plan_fork(key, entries)
            assert kept is not None and [one.key for one in kept] == keys[: keys.index(first)]


def failed(seq: int, text: str, **facts: Any) -> EntryRow:
    return entry(f"a#{seq}", seq, seq - 1, seq, outcome="error", error=json.dumps(error(text)), **facts)


def test_the_point_of_failure() -> None:
    entries = [failed(1, "same"), failed(2, "same"), failed(3, "other"), entry("a#4", 4, 3, 4)]
    for facts, expected in (
        (error("same"), "a#2"),  # the last one of this text: those before it were handled
        (error("mine", cause=error("other")), "a#3"),
        (error("mine", cause=error("not recorded", cause=error("same"))), "a#2"),
        (error("group", members=[error("other"), error("same")]), "a#2"),  # all of them are tried again
        (error("mine"), None),
    ):
        found = failing_point("failed", facts, entries)
        assert (found.key if found else None) == expected, facts
    cancel = entry("cancel#1", 5, 5, 5, kind="cancel", name="deadline")
    late = {"type": "outlive.errors.DeadlineExceeded", "text": "late"}
    for status, facts in (("cancelled", error("x")), ("failed", late)):
        assert failing_point(status, facts, [*entries, cancel]) is cancel
    assert failing_point("cancelled", error("x"), entries) is None


def test_what_becomes_of_children() -> None:
    def child(key: str, status: str, row: int, run_id: str | None = None) -> RunRow:
        return run(status, run_id or f"p/{key}", row=row, parent_key=key)

    entries = [
        entry("point#1", 1, 0, 1, outcome="error", error=json.dumps(error("bad"))),
        entry("good#1", 2, 0, 2, kind="child"),
        entry("bad#1", 3, 0, 3, kind="child", outcome="error", error=json.dumps(error("else"))),
        entry("after#1", 4, 1, 4, kind="child", outcome="error", error=json.dumps(error("else"))),
        entry("going#1", 5, 1, 5, kind="start"),
        entry("named#1", 6, 1, 6, kind="start"),
    ]
    children = [
        child("good#1", "succeeded", 11),
        child("bad#1", "failed", 12),
        child("after#1", "cancelled", 13),
        child("going#1", "suspended", 14),
        child("named#1", "suspended", 15, "by-name"),
    ]
    retried = plan_retry(run("failed"), error("bad"), entries, children)
    assert retried.dropped == ["point#1", "after#1", "going#1", "named#1"]
    assert {key: json.loads(value)["row"] for key, value in retried.awaited.items()} == {"good#1": 11, "bad#1": 12}
    assert [one.row for one in retried.retried] == [12]
    assert retried.cancelled == [14]
    rewound = plan_rewind(run("failed"), "point#1", entries, children)
    assert rewound is not None
    assert (list(rewound.awaited), rewound.retried) == (["good#1"], [])
    again = plan_rewind(run("failed"), "good#1", entries[1:], children)
    assert again is not None and "good#1" in again.dropped
