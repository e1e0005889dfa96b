"""Medians, percentiles and spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """What several rounds gave."""

    middle: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that so many percent of the values do not exceed."""
    ranked = sorted(values)
    place = -(-len(ranked) * percent // 100)  # rounded up
    return ranked[max(int(place), 1) - 1]
