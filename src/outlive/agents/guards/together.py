"""What several agents do for one guard: named by its place in the run, and charged to its budgets.

Knows scopes, charges and units; must not know what a guard is for. Invariant: what a guard has its agents and their
child runs do has keys that begin with its scope, and before the first of it the scope is in the ledger: by both
a child run finds what it is charged to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from outlive.agents.budget import Budget, BudgetTerms, Charges, charged_to, current_charges
from outlive.agents.places import entered, new_scope
from outlive.agents.spending import Spending
from outlive.agents.units import Unit, execute
from outlive.engine.calls import StepCall
from outlive.engine.roles import LiveRun
from outlive.model.ledger import NOTHING, Amounts


@asynccontextmanager
async def together(run: LiveRun, name: str, budgets: tuple[Budget, ...]) -> AsyncIterator[None]:
    """Let the agents that run here be charged to these budgets, besides their own and those around.

    A budget without `account=` is that of this place in the run, `<run id>/<name>#<number>`, on replay too.
    *Durable*: that it is used here, as an entry. *Raises* BudgetExceeded if it is stopped, or its time is up.
    """
    scope = new_scope(run, name)
    with entered(scope), run.loop.within(scope):
        if not budgets:
            yield
            return
        charges = Charges(run, scope.scope, budgets, current_charges.get())
        await execute(run, scope.key("budget"), "budget", Unit(_nothing, spending=_Opening(charges)))
        with charged_to(charges):
            yield


class _Opening(Spending):
    """Nothing, spent once: the accounts are in the ledger from then on."""

    measures = frozenset({"usd", "tokens", "requests", "tools", "wall"})

    def ask(self, call: StepCall, terms: BudgetTerms) -> Amounts:
        return NOTHING


async def _nothing() -> None: ...
