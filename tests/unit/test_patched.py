"""`patched`: a run that was past the point goes the old way, any other the new one, and each again on every replay.

The old code is cut off after each of its outcomes, which is where a crash may leave
it; the changed code then goes on, is cut off in turn, and goes on once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import outlive
from outlive import UsageError, step, workflow
from outlive.codec.jsontext import JsonCodec
from tests.support.solo import Played, Solo, pause


@pytest.fixture
def solo() -> Iterator[Solo]:
    with Solo() as made:
        yield made


@step
async def a() -> str:
    await pause()
    return "a"


@step
async def b() -> str:
    await pause()
    return "b"


@step
async def c() -> str:
    await pause()
    return "c"


@step
async def fee() -> str:
    await pause()
    return "fee"


@step
async def background() -> str:
    await pause()
    return "background"


def answers(played: Played) -> dict[str, bool]:
    decode = JsonCodec().decode
    return {entry.key: decode(entry.value or "", bool, where="") for entry in played.entries if entry.kind == "patch"}


def go_on(solo: Solo, old: Any, new: Any, cut: int, *, same_version: bool = False, **options: Any) -> Played:
    """Play old code, cut its journal, let new code end the run; then replay that from each of its prefixes."""
    recorded = solo.play(old, version="1", **options).prefix(cut)
    versions = {"version": "1" if same_version else "2", "recorded_version": "1"}
    played = solo.play(new, entries=recorded, **versions)
    assert played.status == "succeeded", played.error
    for end in range(cut, len(played.settled) + 1):
        again = solo.play(new, entries=played.prefix(end), **versions)
        assert again.value == played.value
        assert answers(again) == answers(played)
    return played


# -- one point --------------------------------------------------------------------
@workflow(name="plan")
async def old_line() -> list[str]:
    return [await a(), await b(), await c()]


@workflow(name="plan")
async def new_line() -> list[str]:
    first = await a()
    second = await fee() if outlive.patched("fee") else await b()
    return [first, second, await c()]


@pytest.mark.parametrize("same_version", [False, True])
@pytest.mark.parametrize(("cut", "is_new"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_run_past_the_point_keeps_to_the_old_path(solo: Solo, cut: int, is_new: bool, same_version: bool) -> None:
    """With the same version pinned too: then it is the only change that replay lets pass."""
    played = go_on(solo, old_line, new_line, cut, same_version=same_version)
    assert played.value == ["a", "fee" if is_new else "b", "c"]
    assert answers(played) == {"patch:fee#1": is_new}
    assert played.executed == [["a#1"], [], [], []][cut] + (["fee#1"] if is_new else []) + ["c#1"] * (cut < 3)


def test_the_call_may_be_deleted_again(solo: Solo) -> None:
    """Once no run goes the old way: journals with either answer replay under the same and under another version."""

    @workflow(name="plan")
    async def without_call() -> list[str]:
        return [await a(), await fee(), await c()]

    whole = solo.play(new_line, version="2")
    assert answers(whole) == {"patch:fee#1": True}
    for version in ("2", "3"):
        for cut in range(len(whole.settled) + 1):
            again = solo.play(without_call, entries=whole.prefix(cut), version=version, recorded_version="2")
            assert again.value == whole.value, again.error
            assert len(again.executed) + len([e for e in whole.prefix(cut) if e.kind != "patch"]) == 3
    went_old = go_on(solo, old_line, new_line, 3)
    assert solo.play(old_line, entries=went_old.settled, version="1").value == ["a", "b", "c"]


def test_an_unread_answer_delays_no_cancellation(solo: Solo) -> None:
    """The recorded cancellation comes where it came, whether or not the code still asks."""

    @workflow(name="plan")
    async def asks(call: bool) -> str:
        await a()
        if call:
            outlive.patched("fee")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return await b()
        return "not cancelled"

    first = solo.play(asks, True, version="1", cancel_at=[1.0])
    assert [entry.kind for entry in first.settled] == ["step", "patch", "cancel", "step"]
    again = solo.play(asks, False, entries=first.prefix(3), version="1")
    assert (again.value, again.executed) == ("b", ["b#1"])


# -- what was in flight -------------------------------------------------------------
@pytest.mark.parametrize(("started", "is_new"), [(False, True), (True, False)])
def test_a_started_entry_beyond_the_point_tells_too(solo: Solo, started: bool, is_new: bool) -> None:
    """The old path had begun a call whose beginning is on record; what has left no trace has begun nothing."""

    @step(on_unknown="park" if started else "retry")
    async def slow() -> str:
        if (await pause()).attempt == 1:
            await asyncio.sleep(100)
        return "slow"

    @workflow(name="plan")
    async def old() -> str:
        await a()
        return await slow()

    @workflow(name="plan")
    async def new() -> str:
        await a()
        return await fee() if outlive.patched("fee") else await slow()

    dead = solo.play(old, version="1", die_at=50)
    again = solo.play(new, entries=dead.entries, version="2", recorded_version="1")
    assert answers(again) == {"patch:fee#1": is_new}
    assert again.status == ("succeeded" if is_new else "paused")  # parked


def test_what_an_edit_has_left_unread_is_no_trace_of_the_old_path(solo: Solo) -> None:
    @workflow(name="plan")
    async def without_b() -> list[str]:
        await asyncio.sleep(0)
        return [await a(), await c(), await fee() if outlive.patched("fee") else await background()]

    recorded = solo.play(old_line, version="1").prefix(3)
    again = solo.play(without_b, entries=recorded, version="2", recorded_version="1")
    assert again.value == ["a", "c", "fee"]


def test_a_step_put_in_before_the_point_changes_no_answer(solo: Solo) -> None:
    """It executes in the middle of what is recorded, and is replayed out of order ever after."""

    @workflow(name="plan")
    async def with_more() -> list[str]:
        first = await a()
        await background()
        return [first, await fee() if outlive.patched("fee") else await b(), await c()]

    for cut, is_new in [(1, True), (2, False), (3, False)]:
        played = go_on(solo, old_line, with_more, cut)
        assert played.value == ["a", "fee" if is_new else "b", "c"]
        assert played.executed.count("b#1") == 0


# -- several points -------------------------------------------------------------------
def test_two_changes_in_turn(solo: Solo) -> None:
    @workflow(name="plan")
    async def newest_line() -> list[str]:
        first = await a()
        second = await fee() if outlive.patched("fee") else await b()
        third = await background() if outlive.patched("background") else await c()
        return [first, second, third]

    for first_cut in range(4):
        middle = go_on(solo, old_line, new_line, first_cut)
        for cut in range(first_cut, len(middle.settled) + 1):
            again = solo.play(newest_line, entries=middle.prefix(cut), version="3", recorded_version="1")
            assert again.status == "succeeded"
            assert again.value[1] == ("fee" if answers(again)["patch:fee#1"] else "b")
            past_last = any(entry.key == "c#1" for entry in middle.prefix(cut))
            assert answers(again)["patch:background#1"] is not past_last
            assert not {entry.key for entry in middle.prefix(cut)} & set(again.executed)


@workflow(name="plan")
async def old_loop() -> list[str]:
    return [await b() for _ in range(4)]


def test_each_pass_of_a_loop_is_a_point(solo: Solo) -> None:
    @workflow(name="plan")
    async def new_loop() -> list[str]:
        return [await fee() if outlive.patched("fee") else await b() for _ in range(4)]

    for cut in range(5):
        assert go_on(solo, old_loop, new_loop, cut).value == ["b"] * cut + ["fee"] * (4 - cut)


def test_asked_before_a_loop_it_decides_for_all_of_it(solo: Solo) -> None:
    @workflow(name="plan")
    async def new_loop() -> list[str]:
        is_new = outlive.patched("fee")
        return [await fee() if is_new else await b() for _ in range(4)]

    assert go_on(solo, old_loop, new_loop, 0).value == ["fee"] * 4
    for cut in range(1, 5):
        assert go_on(solo, old_loop, new_loop, cut).value == ["b"] * 4


def test_branches_are_each_at_a_point_of_their_own(solo: Solo) -> None:
    """A branch is at its point while others are far ahead; one that opens later has a point later."""

    async def old_branch(number: int) -> str:
        await asyncio.sleep(number)
        await a()
        return await b()

    async def new_branch(number: int) -> str:
        await asyncio.sleep(number)
        await a()
        return await fee() if outlive.patched("fee") else await b()

    @workflow(name="plan")
    async def old() -> list[str]:
        return await outlive.gather(*map(old_branch, range(3)))

    @workflow(name="plan")
    async def new() -> list[str]:
        return await outlive.gather(*map(new_branch, range(3)))

    whole = solo.play(old, version="1").settled
    for cut in range(len(whole) + 1):
        played = go_on(solo, old, new, cut)
        went_on = {entry.key for entry in whole[:cut]}
        for number in range(1, 4):
            if f"{number}/b#1" in went_on:
                assert played.value[number - 1] == "b"
            if f"{number}/a#1" not in went_on:
                assert played.value[number - 1] == "fee"


def test_plain_workflows_ask_too(solo: Solo) -> None:
    @step
    def plain() -> str:
        return "plain"

    @workflow(name="plan")
    def old() -> list[str]:
        return [plain(), plain()]

    @workflow(name="plan")
    def new() -> list[str]:
        return ["new" if outlive.sync.patched("fee") else plain(), plain()]

    assert go_on(solo, old, new, 0).value == ["new", "plain"]
    assert go_on(solo, old, new, 1).value == ["plain", "plain"]
    solo.join_threads()


# -- bad input --------------------------------------------------------------------------
def test_outside_a_run_it_says_so() -> None:
    with pytest.raises(UsageError, match=r"outlive\.patched is for workflow bodies"):
        outlive.patched("fee")
    with pytest.raises(UsageError, match=r"outlive\.patched is for workflow bodies"):
        outlive.sync.patched("fee")


@pytest.mark.parametrize("name", ["", "a/b", "a#1", None, 7, "x" * 201])
def test_a_wrong_name_fails_the_run_and_records_nothing(solo: Solo, name: Any) -> None:
    @workflow(name="plan")
    async def asks() -> bool:
        return outlive.patched(name)

    played = solo.play(asks)
    assert played.status == "failed"
    assert "a name" in str(played.error)
    assert played.entries == []
