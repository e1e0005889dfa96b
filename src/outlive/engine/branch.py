"""Branches: who names the durable calls of a run. Pure; knows neither loop nor journal.

Invariant: what a branch names depends only on the names asked of it before, so replay names all of it again.
"""

from __future__ import annotations


class Branch:
    """A line of execution within a run; it alone counts the names used in its scope.

    Keys read `scope/…/name#occurrence`: the scope grows by one number for each
    branch that a branch opens, so counters of branches never interleave.
    """

    __slots__ = ("_counts", "scope")

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self._counts: dict[str, int] = {}

    def key(self, name: str) -> str:
        """Name the next call of `name` in this branch."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return f"{self.scope}{name}#{count}"

    def open(self) -> Branch:
        """Open the next branch below this one."""
        count = self._counts["/"] = self._counts.get("/", 0) + 1
        return Branch(f"{self.scope}{count}/")
