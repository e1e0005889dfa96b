"""A judge is measured against labels: the numbers are those of the literature, and no vote is asked for twice."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from outlive import Outlive, UsageError, workflow
from outlive.agents import Calibration, Comparison, Judge, Labelled, Pair, calibrate
from outlive.agents.guards.calibration import compare_labels, weigh_places
from tests.agents import grader, shop
from tests.agents.test_judge import model, shown_in
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import pick

LIMIT_S = 60.0


def labelled(pass_pass: int, pass_fail: int, fail_pass: int, fail_fail: int, *, abstained: int = 0) -> Any:
    counts = (("pass", "pass"), pass_pass), (("pass", "fail"), pass_fail), (("fail", "pass"), fail_pass)
    pairs = [pair for pair, count in (*counts, (("fail", "fail"), fail_fail)) for _ in range(count)]
    return compare_labels(pairs + [("pass", "abstain")] * abstained)


def test_kappa_and_interval_are_those_of_the_literature() -> None:
    found = labelled(20, 5, 10, 15)
    assert (found.agreement, found.decided) == (0.7, 50)
    assert found.kappa == pytest.approx(0.4)
    assert found.interval == pytest.approx((0.5625, 0.8090), abs=0.0001)
    assert labelled(45, 15, 25, 15).kappa == pytest.approx(0.1304, abs=0.0001)
    assert labelled(25, 35, 5, 35).kappa == pytest.approx(0.2593, abs=0.0001)
    assert labelled(0, 5, 5, 0).kappa == -1
    assert labelled(7, 3, 0, 0).interval == pytest.approx((0.3968, 0.8922), abs=0.0001)
    assert labelled(0, 10, 0, 0).interval == pytest.approx((0.0, 0.2775), abs=0.0001)


def test_what_says_nothing_is_none_and_not_perfect() -> None:
    assert labelled(0, 0, 0, 0) is None
    assert labelled(10, 0, 0, 0).kappa is None  # chance would agree as well
    silent = labelled(0, 0, 0, 0, abstained=3)
    assert (silent.agreement, silent.interval, silent.kappa, silent.abstention) == (None, None, None, 1.0)


def test_abstentions_are_counted_apart() -> None:
    found = labelled(3, 1, 0, 4, abstained=2)
    assert (found.asked, found.decided, found.agreement, found.abstention) == (10, 8, 0.875, pytest.approx(0.2))
    assert found.counts == {"pass": {"pass": 3, "fail": 1, "abstain": 2}, "fail": {"fail": 4}}
    assert found.wrong == [3]


def test_a_place_that_decides_is_seen() -> None:
    said = [("first", "second"), ("first", "first"), ("first", "first"), ("second", "second"), ("abstain", "first")]
    found = weigh_places([Comparison("abstain", orders=said[:2]), Comparison("abstain", orders=said[2:])])
    assert found is not None
    assert (found.asked, found.consistent, found.first, found.second) == (5, 0.2, 0.4, 0.2)
    assert found.bias == pytest.approx(0.2)
    assert weigh_places([Comparison("abstain")]) is None


async def test_a_judge_is_measured_against_labels(url: str) -> None:
    def says(rules: str, prompt: str, number: int) -> Any:
        one, *other = shown_in(prompt)
        if other:
            return "first", ["costs 17 euros" if "17" in one else "is quite cheap"], "it comes first"
        return "pass" if "17" in one else "abstain" if "?" in one else "fail", [one], "so"

    def is_long(text: str) -> str | None:
        return "it is too long" if len(text) > 100 else None

    judge = Judge(model(says), "Does it name a price?", votes=1, veto=[is_long])
    examples = [
        Labelled("The lamp costs 17 euros.", "pass"),
        Labelled("The lamp costs 17 pounds of gold.", "fail"),
        Labelled("The lamp is quite cheap.", "fail"),
        Labelled("The lamp? What does it cost?", "fail"),
        Labelled("The lamp costs 17 euros. " * 5, "fail"),
    ]
    pairs = [Pair("The lamp is quite cheap.", "The lamp costs 17 euros.", "second")]

    @workflow
    async def measure() -> Calibration:
        return await calibrate(judge, examples, pairs)

    async with Outlive(url) as app:
        done = await app.run(measure)
    assert done.grades is not None
    assert (done.grades.asked, done.grades.decided, done.grades.wrong) == (5, 4, [1])
    assert (done.grades.agreement, done.grades.kappa) == (0.75, 0.5)
    assert done.comparisons is not None
    assert (done.comparisons.abstention, done.comparisons.agreement) == (1.0, None)
    assert done.places is not None
    assert (done.places.first, done.places.bias, done.places.consistent) == (1.0, 1.0, 0.0)
    assert done.vetoed == 1


async def test_wrong_use_is_refused_before_a_model_is_asked(url: str) -> None:
    asked: list[str] = []
    judge = Judge(model(lambda rules, prompt, n: ("pass", [], ""), asked), "Is it good?")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "needs examples"),
        ({"examples": [Labelled("a", "good")]}, "number 0 is no Labelled with verdict pass or fail"),  # type: ignore[arg-type]
        ({"examples": [Labelled("a", "pass"), "b"]}, "number 1 is no Labelled"),
        ({"pairs": [Pair("a", "b", "pass")]}, "number 0 is no Pair with better first or second"),  # type: ignore[arg-type]
        ({"examples": [Labelled("a", "pass")], "at_once": 0}, "at least 1"),
    ]
    for given, why in wrong:

        @workflow
        async def measure(given: Any = given) -> Calibration:
            return await calibrate(judge, **given)

        async with Outlive(url) as app:
            with pytest.raises(UsageError, match=why):
                await app.run(measure)
    assert asked == []


@pytest.mark.parametrize("dies", ["before-model 3", "after-model 4", "commit.after 3"][: pick(small=2, full=3)])
async def test_what_was_judged_before_a_crash_is_not_judged_again(url: str, tmp_path: Path, dies: str) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()

    def work(dies: str) -> Any:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(ledger), shop.DIES: dies}
        return nursery.run(["-m", "tests.agents.grader", url], cwd=ROOT, env=env, timeout=LIMIT_S)

    assert work(dies).returncode == -signal.SIGKILL
    assert 0 < len(ledger.read_text().splitlines()) < grader.ASKED
    done = work("")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["grades"]["agreement"], found["grades"]["wrong"]) == (0.5, [0, 2])
    assert found["places"]["bias"] == 1.0
    assert len(ledger.read_text().splitlines()) <= grader.ASKED + 2  # as many as were judged at once
