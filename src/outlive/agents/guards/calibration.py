"""How far a judge can be trusted: its verdicts on artefacts that people have labelled, as numbers.

Asks the judge in a workflow, so a long batch outlives crashes; what follows from its verdicts is pure.
Sources: J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960);
E. B. Wilson, Probable inference, JASA 22 (1927); for positions, L. Zheng and others, Judging LLM-as-a-Judge with
MT-Bench and Chatbot Arena, NeurIPS 2023, section 3.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from outlive import ambient
from outlive.agents.guards.judge import Comparison, Judge
from outlive.definitions import in_workflow
from outlive.errors import UsageError
from outlive.model.options import check_count

_Z = 1.959964  # of the normal distribution: 95 % lie within


@dataclass(frozen=True)
class Labelled:
    """An artefact, and what people say of it."""

    artefact: str
    verdict: Literal["pass", "fail"]


@dataclass(frozen=True)
class Pair:
    """Two artefacts, and which of them people prefer."""

    first: str
    second: str
    better: Literal["first", "second"]


@dataclass(frozen=True)
class Agreement:
    """How verdicts compare with labels: of `asked`, `decided` were no abstention, and so many of these agree.

    `agreement` is the share of the decided that agree, `interval` where it may lie with 95 % confidence (Wilson).
    `kappa` is Cohen's: (p - q) / (1 - q), with p the agreement and q what chance alone would give these labels and
    verdicts; 1 is perfect, 0 no better than chance. It is None where chance would always agree, as are all of these
    where nothing was decided. `abstention` is the share that was not decided. `counts` are by label, then by verdict;
    `wrong` are the places, from 0, of what was decided otherwise.
    """

    asked: int
    decided: int
    agreement: float | None
    interval: tuple[float, float] | None
    kappa: float | None
    abstention: float
    counts: dict[str, dict[str, int]]
    wrong: list[int]


@dataclass(frozen=True)
class Places:
    """Whether the place of an artefact decides: of `asked` votes, each in both orders, the shares that do what.

    `consistent` prefer the same artefact in both orders; `first` and `second` prefer a place, whatever stands there;
    of the rest one was an abstention. `bias` is `first` - `second`: above 0 the judge favours what it reads first.
    """

    asked: int
    consistent: float
    first: float
    second: float
    bias: float


@dataclass(frozen=True)
class Calibration:
    """What a judge makes of labelled artefacts, and of pairs; None for what it was not given.

    Of `vetoed` no model was asked: checks have decided.
    """

    grades: Agreement | None = None
    comparisons: Agreement | None = None
    places: Places | None = None
    vetoed: int = 0


async def calibrate(
    judge: Judge, examples: Sequence[Labelled] = (), pairs: Sequence[Pair] = (), *, at_once: int = 4
) -> Calibration:
    """Let a judge grade labelled examples and compare labelled pairs, in a workflow; give how far it agrees.

    `at_once` are judged at the same time. Take labels of people who have not seen the judge's verdicts, as many that
    pass as fail, and not those with which the rubric was written: `interval` says how little a few examples show.
    *Durable*: each vote, as an entry. *Again*: what was judged is not judged again, after a crash neither.
    *Raises* UsageError for labels that are none; BudgetExceeded where the judge's budget ends.
    """
    in_workflow("agents.calibrate")
    if not isinstance(judge, Judge):
        raise UsageError(f"calibrate(judge, …) takes a Judge, not {judge!r}")
    check_count("calibrate(at_once=…)", at_once)
    if not examples and not pairs:
        raise UsageError("calibrate(judge, examples, pairs) needs examples, or pairs, or both")
    _check(examples, Labelled, "verdict")
    _check(pairs, Pair, "better")
    grades = await ambient.map(lambda one: judge.grade(one.artefact), examples, limit=at_once)
    compared = await ambient.map(lambda one: judge.compare(one.first, one.second), pairs, limit=at_once)
    return Calibration(
        compare_labels([(one.verdict, grade.verdict) for one, grade in zip(examples, grades, strict=True)]),
        compare_labels([(one.better, each.verdict) for one, each in zip(pairs, compared, strict=True)]),
        weigh_places(compared),
        sum(bool(grade.vetoed) for grade in grades) + sum(any(each.vetoed) for each in compared),
    )


def _check(given: Sequence[Any], kind: type, label: str) -> None:
    known = {Labelled: ("pass", "fail"), Pair: ("first", "second")}[kind]
    for number, one in enumerate(given):
        if not isinstance(one, kind) or getattr(one, label) not in known:
            raise UsageError(
                f"calibrate: number {number} is no {kind.__name__} with {label} {' or '.join(known)}: {one!r}"
            )


def compare_labels(pairs: Sequence[tuple[str, str]]) -> Agreement | None:
    """Compare labels with verdicts, given as pairs."""
    if not pairs:
        return None
    decided = [(label, verdict) for label, verdict in pairs if verdict != "abstain"]
    counts: dict[str, dict[str, int]] = {}
    for label, verdict in pairs:
        counts.setdefault(label, Counter())[verdict] += 1
    right = sum(label == verdict for label, verdict in decided)
    return Agreement(
        len(pairs),
        len(decided),
        right / len(decided) if decided else None,
        _interval(right, len(decided)) if decided else None,
        _kappa(decided) if decided else None,
        1 - len(decided) / len(pairs),
        {label: dict(verdicts) for label, verdicts in counts.items()},
        [place for place, (label, verdict) in enumerate(pairs) if verdict not in (label, "abstain")],
    )


def _kappa(decided: Sequence[tuple[str, str]]) -> float | None:
    total = len(decided)
    labels, verdicts = Counter(label for label, _ in decided), Counter(verdict for _, verdict in decided)
    by_chance = sum(labels[name] * verdicts[name] for name in labels) / total**2
    if by_chance == 1:
        return None
    return (sum(label == verdict for label, verdict in decided) / total - by_chance) / (1 - by_chance)


def _interval(right: int, total: int) -> tuple[float, float]:
    share, z2 = right / total, _Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def weigh_places(compared: Iterable[Comparison]) -> Places | None:
    """Say how often a place decides: `orders` of a comparison are what each vote said in both orders."""
    orders = [(one, other) for each in compared for one, other in each.orders]
    if not orders:
        return None
    total = len(orders)
    first = orders.count(("first", "first")) / total
    second = orders.count(("second", "second")) / total
    consistent = sum(pair in {("first", "second"), ("second", "first")} for pair in orders) / total
    return Places(total, consistent, first, second, first - second)
