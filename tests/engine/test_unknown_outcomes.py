"""A process is killed in the middle of a step: what the step's policy, a person or the engine makes of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

import outlive
from outlive import OutcomeUnknown, Outlive, Status
from tests.engine import half_done
from tests.house.source import ROOT, SRC

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _clean() -> None:
    half_done.effects.clear()


def kill_within_step(url: str, name: str) -> None:
    """Start a run in a process and kill that process when it is in the middle of the run's step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.half_done", url, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", half_done.DOOMED: "1"},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"within the step\n"
    finally:
        process.kill()
        process.wait(LIMIT_S)
        process.stdin.close()
        process.stdout.close()


def work_on(url: str, name: str, dies_at: int) -> subprocess.CompletedProcess[str]:
    """Work on a run in a process that dies at one of its commits, or ends when the run has ended."""
    command = [sys.executable, "-m", "tests.engine.half_done", url, name, str(dies_at)]
    env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def make_app(url: str) -> Outlive:
    return Outlive(url, include=[half_done])


async def parked(app: Outlive) -> outlive.Run:
    """Give the run once it waits for a person."""
    run = await app.get("parks")
    with pytest.raises(outlive.RunOnHold, match=r"nobody knows whether it took effect.*resolve\('parked_step#1'"):
        await run.result(timeout=LIMIT_S, stop_on_hold=True)
    assert await run.status() == Status.PAUSED
    assert half_done.effects == []
    assert issubclass(OutcomeUnknown, outlive.OutliveError)
    return run


@pytest.mark.parametrize(
    ("decision", "result", "attempts"),
    [
        ({"value": "it was paid"}, "it was paid", []),
        ({"error": "it was not paid"}, "it was not paid", []),
        ({"retry": True}, "attempt 2", [2]),
    ],
    ids=["value", "error", "retry"],
)
async def test_a_parked_step_is_resolved_by_a_person(
    url: str, decision: dict[str, object], result: str, attempts: list[int]
) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        run = await parked(app)
        assert [(entry.key, entry.outcome) for entry in await run.entries()] == [
            ("before#1", "ok"),
            ("parked_step#1", "started"),
        ]
        assert await run.resolve("parked_step#1", **decision)  # type: ignore[arg-type]
        (entry,) = await app.audit(run.id)
        assert (entry.action, entry.facts) == ("resolve", {"key": "parked_step#1", "as": next(iter(decision))})
        said = await run.result(timeout=LIMIT_S)
        assert said[0] == "before"
        assert said[1] == result or ("error" in decision and result in said[1])
        assert half_done.effects == attempts
        assert [entry.outcome for entry in await run.entries()][-1] == ("error" if "error" in decision else "ok")
        assert await run.resolve("parked_step#1", value=1) is False


@pytest.mark.parametrize(
    ("decision", "result"),
    [({"value": "it was paid"}, ["before", "it was paid"]), ({"error": "no"}, ["before", "StepFailed: Resolved: no"])],
    ids=["value", "error"],
)
async def test_a_decision_outlives_whoever_hears_it(url: str, decision: Any, result: list[str]) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        await parked(app)
    async with Outlive(url, worker=False) as client:
        run = await client.get("parks")
        assert await run.resolve("parked_step#1", **decision)
        for dies_at in itertools.count(1):
            done = await asyncio.to_thread(work_on, url, "parks", dies_at)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            assert await run.status() != Status.PAUSED
        assert dies_at > 2
        assert await run.result(timeout=LIMIT_S) == result


async def test_a_rewind_makes_a_decision_void(url: str) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        await parked(app)
    async with Outlive(url, worker=False) as client:
        run = await client.get("parks")
        assert await run.resolve("parked_step#1", value="of the first time")
        await run.rewind(to="before#1")
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        run = await parked(app)
        assert await run.resolve("parked_step#1", value="of the second time")
        assert await run.result(timeout=LIMIT_S) == ["before", "of the second time"]


async def test_a_decision_about_another_step_changes_nothing(url: str) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        run = await parked(app)
        for key, why in (
            ("no_such_step#1", "no entry 'no_such_step#1'"),
            ("before#1", "something else.*parked_step#1"),
        ):
            with pytest.raises(outlive.RunRefused, match=why):
                await run.resolve(key, value="nothing")
        assert await run.status() == Status.PAUSED
        assert await app.audit(run.id) == []
        assert await run.resume()  # a bare resume decides nothing either
        await parked(app)
        assert await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert half_done.effects == []


async def test_what_is_not_held_for_an_unknown_outcome_cannot_be_resolved(url: str) -> None:
    async with make_app(url) as app:
        run = await app.start(half_done.rests)
        assert await run.value("at", wait=LIMIT_S) == "rest"
        assert await run.resolve("before#1", value=1) is False
        assert await run.resolve("no_such_step#1", value=1) is False
        await run.pause("have a look")
        async with asyncio.timeout(LIMIT_S):
            while await run.status() != Status.PAUSED:
                await asyncio.sleep(0.01)
        with pytest.raises(outlive.RunRefused, match=r"it is paused for something else.*'before#1': have a look"):
            await run.resolve("before#1", value=1)
        assert await run.status() == Status.PAUSED
        assert [entry.action for entry in await app.audit(run.id)] == ["pause"]


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"value": 1, "retry": True},
        {"value": None, "error": "no"},
        {"error": "no", "retry": True},
        {"error": 5},
        {"retry": "yes"},
    ],
    ids=str,
)
async def test_a_decision_is_one_thing(url: str, decision: Any) -> None:
    async with make_app(url) as app:
        run = await app.start(half_done.rests)
        with pytest.raises(outlive.UsageError, match="say one of value=…, error='…' and retry=True"):
            await run.resolve("before#1", **decision)


async def test_two_unknown_outcomes_are_decided_one_after_the_other(url: str) -> None:
    kill_within_step(url, "parks_twice")
    async with make_app(url) as app:
        run = await app.get("parks_twice")
        for key in ("1/parked_of_two#1", "2/parked_of_two#1"):
            with pytest.raises(outlive.RunOnHold, match=f"resolve.'{key}'"):
                await run.result(timeout=LIMIT_S, stop_on_hold=True)
            assert await run.resolve(key, value=f"decided {key[0]}")
        assert await run.result(timeout=LIMIT_S) == ["decided 1", "decided 2"]


async def test_only_one_of_several_decisions_counts(url: str) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        run = await parked(app)
        said = await asyncio.gather(*(run.resolve("parked_step#1", value=str(number)) for number in range(5)))
        assert sorted(said) == [False] * 4 + [True]
        assert await run.result(timeout=LIMIT_S) == ["before", str(said.index(True))]


async def test_a_value_that_does_not_fit_is_no_decision(url: str) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        run = await parked(app)
        with pytest.raises(outlive.EncodeFailed, match="value for parked_step#1"):
            await run.resolve("parked_step#1", value=object())
        assert await run.status() == Status.PAUSED
        assert await run.resolve("parked_step#1", value=7)
        with pytest.raises(outlive.RunOnHold, match="result of step parked_step"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.resolve("parked_step#1", value="text")
        assert await run.result(timeout=LIMIT_S) == ["before", "text"]


async def test_a_parked_run_survives_its_next_process_too(url: str) -> None:
    kill_within_step(url, "parks")
    async with make_app(url) as app:
        await parked(app)
    async with make_app(url) as app:
        run = await parked(app)
        async with Outlive(url, worker=False) as client:  # a person's tool needs no code
            assert await (await client.get("parks")).resolve("parked_step#1", value="found out")
        assert await run.result(timeout=LIMIT_S) == ["before", "found out"]


@pytest.mark.parametrize(
    ("answer", "result", "attempts"),
    [("paid", "paid", []), ("not found", "attempt 2", [2])],
    ids=["found", "not found"],
)
async def test_a_verify_function_is_asked_first(
    url: str, monkeypatch: pytest.MonkeyPatch, answer: str, result: str, attempts: list[int]
) -> None:
    monkeypatch.setenv("OUTLIVE_TEST_BANK", answer)
    kill_within_step(url, "verifies")
    async with make_app(url) as app:
        assert await (await app.get("verifies")).result(timeout=LIMIT_S) == ["before", result]
        assert half_done.effects == attempts


async def test_a_plain_step_is_executed_again(url: str) -> None:
    kill_within_step(url, "repeats")
    async with make_app(url) as app:
        assert await (await app.get("repeats")).result(timeout=LIMIT_S) == ["attempt 2"]
        assert half_done.effects == [2]


async def test_a_crash_uses_up_an_attempt(url: str) -> None:
    kill_within_step(url, "crash_uses_up_an_attempt")
    async with make_app(url) as app:
        said = await (await app.get("crash_uses_up_an_attempt")).result(timeout=LIMIT_S)
        assert said == "no luck with attempt 2"
        assert half_done.effects == [2]


async def test_a_crash_uses_up_no_attempt_of_what_comes_after_a_transaction(url: str) -> None:
    kill_within_step(url, "books_and_is_stubborn")
    async with make_app(url) as app:
        said = await (await app.get("books_and_is_stubborn")).result(timeout=LIMIT_S)
        assert said == ["attempt 2", "no luck with attempt 2"]
        assert half_done.effects == [2, 1, 2]
