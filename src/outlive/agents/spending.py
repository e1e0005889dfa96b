"""What one unit of an agent's work may use and has used: reserved before each attempt, settled with the unit's entry.

Knows what the unit asks of a model or a tool; must not know how it is executed.
Invariant: nothing that a budget limits is sent before it is reserved on disk; what
an attempt came to is a side row of the entry that ends it, and where nobody knows
what it came to, all that was reserved for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic_ai.durable_exec import (
    JSON_CODEC,
    DurableOperationId,
    ModelCompactMessagesId,
    ModelRequestId,
    ToolsetCallToolId,
)
from pydantic_ai.exceptions import FallbackExceptionGroup, ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from outlive.agents.answers import GIVEN_BEFORE
from outlive.agents.budget import BudgetTerms, Charges, current_charges, read_terms
from outlive.agents.pricing import PriceOf, estimate_input, estimate_price, find_price, price_answer
from outlive.engine.bodies import StillInDoubt, patiently
from outlive.engine.calls import StepCall
from outlive.errors import BudgetExceeded, UnknownPrice
from outlive.limits import ROOM_LOOK_FIRST_S, ROOM_LOOK_GROWTH, ROOM_LOOK_MAX_S, ROOM_WAIT_S
from outlive.model.ledger import Amounts, Granted, Refusal, Reservation, Spent, State, to_units

log = logging.getLogger("outlive.agents")

Work = Callable[[], Awaitable[Any]]


def bound_answer(charges: Charges, given: ModelSettings | None) -> ModelSettings:
    """Give settings of a request's own, with a bound on its answer; None is one that `RequestSpending` settles."""
    settings = ModelSettings(**(given or {}))
    bound = read_terms(charges.known()).answer_tokens
    if settings.get("max_tokens") is None and (bound is not None or charges.has_parent):
        cast(Any, settings)["max_tokens"] = bound
    return settings


class Spending:
    """What one unit spends, attempt by attempt: a call of a tool, which counts as it begins, and once."""

    measures = frozenset({"tools", "wall"})  # where none of these is limited, nothing is reserved
    at_once = True
    model: str | None = None

    def __init__(self, charges: Charges) -> None:
        self._charges = charges
        self._reserved: Reservation | None = None
        self._granted = Granted(None)

    async def reserve(self, call: StepCall) -> None:
        """Reserve what the next attempt may use. Raises BudgetExceeded or UnknownPrice; nothing is reserved then."""
        earlier = next((side for side in call.sides if isinstance(side, Spent)), None)
        run, engine = call.execution, call.execution.engine
        charged = await patiently(call, lambda: self._charges.find(engine.store))
        terms = read_terms(charged.values())
        self.agree(terms)
        if terms.limited.isdisjoint(self.measures):
            return
        amounts = self.ask(call, terms)
        known = self._charges.known()
        charges = [one if one in known else replace(one, declared=None) for one in charged.values()]
        self._reserved = asked = Reservation(
            engine.new_row(), run.row, run.id, self._charges.scope, call.key, run.generation, self.model, amounts,
            charges, self.at_once,
        )  # fmt: skip
        # Whoever is cancelled before he knows has sent nothing: what may be reserved by then is given back.
        call.sides = (*([] if earlier is None else [earlier]), self._spent(call, "spent", Amounts()))
        self._granted = await _ask_for(call, asked, earlier)
        if self._granted.refusal is not None:
            raise _exceeded(call, self._granted.refusal)
        call.sides = ()
        self.settle(call, "lost", amounts)  # unless something better is known in the end

    async def spend(self, call: StepCall, work: Work) -> Any:
        """Do the work of an attempt, within the time that is left; note what it came to."""
        limit = asyncio.timeout(self._granted.left_s)
        try:
            async with limit:
                payload = await work()
        except Exception as error:
            if limit.expired() and self._granted.overtime is not None:
                raise StillInDoubt from _exceeded(call, self._granted.overtime, within=True)
            if _has_sold_nothing(error):
                self.settle(call, "spent", Amounts(requests=1))
            raise
        if self._reserved is not None:
            self.settle(call, "spent", self.weigh(payload, self._reserved.amounts))
        return payload

    def settle(self, call: StepCall, state: State, amounts: Amounts) -> None:
        """Let what the attempt came to be written with the entry of the unit, if it ends it."""
        if self._reserved is not None and not self.at_once:
            call.sides = (self._spent(call, state, amounts),)

    def _spent(self, call: StepCall, state: State, amounts: Amounts) -> Spent:
        assert self._reserved is not None
        return Spent(call.execution.row, call.key, self._reserved.reservation, state, *amounts)

    def agree(self, terms: BudgetTerms) -> None:
        """Take note of what all budgets say together."""

    def ask(self, call: StepCall, terms: BudgetTerms) -> Amounts:
        """Give what an attempt may use at most."""
        return Amounts(tools=1)

    def weigh(self, payload: Any, reserved: Amounts) -> Amounts:
        """Give what an attempt with this result has used."""
        return reserved


class RequestSpending(Spending):
    """What a request to a model spends; `settings` are its own, and are told how long the answer may be."""

    measures = frozenset({"usd", "tokens", "requests", "tools", "wall"})
    at_once = False

    def __init__(
        self,
        charges: Charges,
        model: Model,
        messages: Sequence[ModelMessage],
        settings: dict[str, Any] | None,
        parameters: ModelRequestParameters,
    ) -> None:
        super().__init__(charges)
        self.model = model.model_name
        self._messages = messages
        self._settings: Any = {} if settings is None else settings
        self._parameters = parameters
        self._model = model
        self._price_of: PriceOf | None = None
        self._is_given = False

    def agree(self, terms: BudgetTerms) -> None:
        if self._settings.get("max_tokens", 0) is None:  # nobody knew what is limited above
            del self._settings["max_tokens"]
            if terms.answer_tokens is not None:
                self._settings["max_tokens"] = terms.answer_tokens

    def ask(self, call: StepCall, terms: BudgetTerms) -> Amounts:
        self._is_given = self.model in terms.prices
        self._price_of = find_price(self._model, terms.prices)
        if self._price_of is None and "usd" in terms.limited and not terms.allows_unknown_price:
            raise UnknownPrice(call.execution.id, call.key, self.model or "")
        sent = estimate_input(self._messages, self._parameters)
        answered = self._settings.get("max_tokens") or terms.answer_tokens or 0
        usd = 0 if self._price_of is None else estimate_price(self._price_of, sent, answered)
        return Amounts(usd, sent + answered, 1).bounded

    def weigh(self, payload: Any, reserved: Amounts) -> Amounts:
        answer = JSON_CODEC.load(ModelResponse, payload)
        if (answer.metadata or {}).get(GIVEN_BEFORE):
            return Amounts()
        usage = answer.usage
        # The provider has not told, or what cannot be: less than nothing would be room for others.
        if not usage.has_values() or min(usage.input_tokens, usage.output_tokens, usage.cost or 0) < 0:
            return reserved
        try:
            usd = price_answer(answer, self._price_of, is_given=self._is_given)
        except Exception as error:  # noqa: BLE001 - the answer is paid for, whatever its bill looks like
            log.warning(
                "nobody can say what an answer of %s has cost, so what was reserved counts: %s", self.model, error
            )
            usd = reserved.usd
        return Amounts(usd, usage.total_tokens, 1).bounded


def spending_of(operation_id: DurableOperationId, cache_key: tuple[Any, ...]) -> Spending | None:
    """Give what a unit spends in the run of an agent that executes here, None if that is nothing a budget counts."""
    charges = current_charges.get()
    if charges is None:
        return None
    match operation_id:
        case ModelRequestId():
            _, messages, settings, parameters, context = cache_key
            return RequestSpending(charges, context.model, messages, settings, parameters)
        case ModelCompactMessagesId():
            asked = cache_key[1]
            return RequestSpending(
                charges, asked.model, asked.messages, asked.model_settings, asked.model_request_parameters
            )
        case ToolsetCallToolId():
            return Spending(charges)
    return None


def _has_sold_nothing(error: Exception) -> bool:
    """Say whether the provider, or each of those that stand in for one another, was asked and has refused at once."""
    if isinstance(error, FallbackExceptionGroup):
        return all(map(_has_sold_nothing, error.exceptions))
    return isinstance(error, ModelHTTPError) and not error.in_stream


async def _ask_for(call: StepCall, asked: Reservation, earlier: Spent | None) -> Granted:
    """Reserve; for a while again where only what others have reserved is in the way, since they may not use it."""
    engine = call.execution.engine
    waited_s, pause_s = 0.0, ROOM_LOOK_FIRST_S
    while True:
        granted = await patiently(call, lambda: engine.store.reserve(engine.fence(), asked, earlier))
        if not _may_pass(granted.refusal) or waited_s >= ROOM_WAIT_S:
            return granted
        engine.roster.waits_for_others(call.execution)
        await engine.bodies.rest(pause_s)
        waited_s += pause_s
        pause_s = min(pause_s * ROOM_LOOK_GROWTH, ROOM_LOOK_MAX_S)


def _may_pass(refusal: Refusal | None) -> bool:
    return (
        refusal is not None
        and refusal.measure not in (None, "wall")
        and refusal.reserved > 0
        and refusal.spent + refusal.asked <= refusal.limit
    )


def _exceeded(call: StepCall, refusal: Refusal, *, within: bool = False) -> BudgetExceeded:
    numbers = (refusal.limit, refusal.spent, refusal.reserved, refusal.asked)
    units = [to_units(refusal.measure, number) for number in numbers]
    return BudgetExceeded(call.execution.id, call.key, refusal.account, refusal.measure, units, within=within)
