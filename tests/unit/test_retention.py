"""Which runs may go together: against trying every subset."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from outlive.model.retention import Prunable, choose_prunable


def may_go(going: set[int], parents: list[int | None], awaited: list[bool]) -> bool:
    """Say whether nothing is left behind that names a parent which is gone, and nothing goes that is awaited."""
    orphans = {row for row, parent in enumerate(parents) if parent in going and row not in going}
    return not orphans and not any(awaited[row] for row in going)


@st.composite
def families(draw: st.DrawFn) -> tuple[list[int | None], list[bool], set[int]]:
    count = draw(st.integers(1, 7))
    parents = [draw(st.none() | st.integers(0, row - 1)) if row else None for row in range(count)]
    awaited = [parent is not None and draw(st.booleans()) and draw(st.booleans()) for parent in parents]
    return parents, awaited, draw(st.sets(st.integers(0, count - 1)))


@given(families())
def test_the_most_that_may_go_goes(family: tuple[list[int | None], list[bool], set[int]]) -> None:
    parents, awaited, found = family
    runs = [Prunable(row, parents[row], parents.count(row), awaited[row]) for row in sorted(found)]
    able = [set(some) for size in range(len(found) + 1) for some in combinations(found, size)]
    best = max((going for going in able if may_go(going, parents, awaited)), key=len)
    assert choose_prunable(runs) == sorted(best)
