"""One budget for all that a guard lets agents do: attempts, votes, and whatever agents they call.

Knows what an agent's run is charged to; must not know what a guard does with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from outlive.agents.budget import Budget, charged_to, open_charges
from outlive.agents.units import current_scope
from outlive.engine.roles import LiveRun


@contextmanager
def budgeted(run: LiveRun, name: str, budgets: tuple[Budget, ...]) -> Iterator[None]:
    """Let the agents that run here be charged to these budgets, besides their own and those around.

    A budget without `account=` is that of this place in the run, `<run id>/<name>#<number>`, on replay too.
    """
    if not budgets:
        yield
        return
    around = current_scope.get() or run.loop.branch()
    with charged_to(open_charges(run, f"{around.key(name)}/", budgets)):
        yield
