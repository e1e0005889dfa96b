"""Budgets as an agent declares them, and what an agent's run is charged to.

Knows limits and accounts; must not know what a unit asks of a model, nor how it is executed.
Invariant: what a budget says is checked when it is made; what an agent's run is
charged to follows from its place in its run, so replay finds the same accounts.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, get_args

from outlive.clock import Duration
from outlive.engine.roles import LiveRun
from outlive.errors import UsageError
from outlive.model.ledger import COUNT_MAX, TERMS, Charge, Measure, check_account, check_dollars, check_limits
from outlive.store.interface import Store


@dataclass(frozen=True)
class Price:
    """What a million tokens of a model cost, in dollars."""

    input: Decimal | str | float
    output: Decimal | str | float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            check_dollars(f"Price({name}=…)", getattr(self, name))


@dataclass(frozen=True)
class Budget:
    """Limits on what an agent may use: dollars, tokens, model requests, calls of tools, seconds of wall time.

    It is that of each run of the agent, with all the durable agents that this run calls, or with `account` that of all
    who name this account, for ever or `per="day"` (of UTC). What a model request may use is reserved before it is sent:
    of the answer `max_tokens` of the model's settings, else `answer_tokens`, which is then what the model is told.
    `prices`, by the name of the model, come before those that are published. A model without any is refused where
    dollars are limited, unless `unknown_price="allow"`.
    """

    usd: Decimal | str | float | None = None
    tokens: int | None = None
    requests: int | None = None
    tools: int | None = None
    wall: Duration | None = None
    account: str | None = None
    per: Literal["day"] | None = None
    answer_tokens: int = 4096
    unknown_price: Literal["refuse", "allow"] = "refuse"
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.limits:
            raise UsageError("Budget(…) needs a limit: usd, tokens, requests, tools or wall")
        if self.account is not None:
            check_account(self.account)
        if self.per not in (None, "day"):
            raise UsageError(f"Budget(per=…) is 'day' or None, not {self.per!r}")
        if self.per is not None and self.account is None:
            raise UsageError("Budget(per='day') needs account=…, which says whose days are meant")
        if self.wall is not None and self.account is not None:
            raise UsageError("Budget(wall=…) is the time of one run of an agent: it does not go with account=…")
        if type(self.answer_tokens) is not int or not 1 <= self.answer_tokens <= COUNT_MAX:
            raise UsageError(
                f"Budget(answer_tokens=…) is a whole number from 1 to {COUNT_MAX:,}, not {self.answer_tokens!r}"
            )
        if self.unknown_price not in ("refuse", "allow"):
            raise UsageError(f"Budget(unknown_price=…) is 'refuse' or 'allow', not {self.unknown_price!r}")
        if not isinstance(self.prices, Mapping):
            raise UsageError(f"Budget(prices=…) is a mapping of names of models to prices, not {self.prices!r}")
        for model, price in self.prices.items():
            if not isinstance(model, str):
                raise UsageError(f"Budget(prices=…) is by the name of the model, a text, not {model!r}")
            if not isinstance(price, Price):
                raise UsageError(f"Budget(prices={{{model!r}: …}}) is a Price(input, output), not {price!r}")

    @property
    def limits(self) -> Mapping[str, int | float | None]:
        """What it limits, as it is stored."""
        given = {name: getattr(self, name) for name in get_args(Measure)}
        return check_limits({name: value for name, value in given.items() if value is not None})

    @property
    def declared(self) -> str:
        """What is stored with its account: the limits, and the terms that agents in other runs are held to as well."""
        prices = {model: [str(price.input), str(price.output)] for model, price in self.prices.items()}
        terms = {"answer_tokens": self.answer_tokens, "unknown_price": self.unknown_price, "prices": prices}
        return json.dumps({**self.limits, TERMS: terms}, sort_keys=True)


@dataclass(frozen=True)
class BudgetTerms:
    """What several budgets say together: which measures are limited, and on which terms."""

    limited: frozenset[str]
    answer_tokens: int | None
    allows_unknown_price: bool
    prices: Mapping[str, Price]


def read_terms(charged: Iterable[Charge]) -> BudgetTerms:
    """Give what budgets say together; where they differ, the strictest, and of prices the last."""
    limited: set[str] = set()
    bounds: list[int] = []
    allowed: list[bool] = []
    prices: dict[str, Price] = {}
    for one in charged:
        declared = json.loads(one.declared or "{}")
        terms = declared.pop(TERMS, {})
        limited |= set(declared)
        prices |= {model: Price(*price) for model, price in terms.get("prices", {}).items()}
        if not {"usd", "tokens"}.isdisjoint(declared):
            bounds.append(terms.get("answer_tokens", Budget.answer_tokens))
        if "usd" in declared:
            allowed.append(terms.get("unknown_price") == "allow")
    return BudgetTerms(frozenset(limited), min(bounds, default=None), all(allowed), prices)


def check_budgets(given: Any) -> tuple[Budget, ...]:
    """Give the budgets of an agent as a tuple; UsageError for what is none."""
    budgets = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    if wrong := [one for one in budgets if not isinstance(one, Budget)]:
        raise UsageError(f"budget=… is a Budget(…) or several, not {wrong[0]!r}")
    accounts = [one.account for one in budgets]
    if len(accounts) != len(set(accounts)):
        raise UsageError("budget=[…] has two budgets of one account: put their limits into one")
    return budgets


class Charges:
    """What the units of one run of an agent are charged to: its own budgets, and those of all agents around it."""

    def __init__(self, run: LiveRun, scope: str, budgets: tuple[Budget, ...], outer: Charges | None) -> None:
        self.scope = scope
        self._outer = outer
        self._row = run.row
        own = f"{run.id}/{scope.removesuffix('/')}"
        self._own = [_charge(budget, own, run) for budget in budgets]
        self.has_parent = run.claimed.parent is not None  # which may have budgets that its code alone knows
        self._above: list[Charge] | None = None if outer is None and self.has_parent else []

    def known(self) -> list[Charge]:
        """Give those that the code of this run declares."""
        return [*(self._outer.known() if self._outer is not None else ()), *self._own]

    async def find(self, store: Store) -> dict[str, Charge]:
        """Give all of them by account, as declared; asks the store, once, what the runs above are charged to."""
        if self._above is None:
            self._above = await store.list_charged(self._row)
        found = {} if self._outer is None else await self._outer.find(store)
        return {one.account: one for one in (*self._above, *found.values(), *self._own)}


def _charge(budget: Budget, own: str, run: LiveRun) -> Charge:
    if budget.account is not None:
        return Charge(budget.account, budget.per, budget.declared)
    return Charge(own, None, budget.declared, run.row, run.generation, run.loop.time())


current_charges: contextvars.ContextVar[Charges | None] = contextvars.ContextVar("outlive_charges", default=None)


def open_charges(run: LiveRun, scope: str, budgets: tuple[Budget, ...]) -> Charges | None:
    """Give what a run of an agent is charged to, None where there is no budget: then nothing is asked of the store."""
    outer = current_charges.get()
    if not budgets and (outer is not None or run.claimed.parent is None):
        return outer
    return Charges(run, scope, budgets, outer)


@contextmanager
def charged_to(charges: Charges | None) -> Iterator[None]:
    """Let the units asked for here be charged to these."""
    token = current_charges.set(charges)
    try:
        yield
    finally:
        current_charges.reset(token)
