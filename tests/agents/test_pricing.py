"""What a budget may say, what a request is estimated to use, and which prices count."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import BinaryContent, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

import outlive
from outlive.agents import Budget, Price, durable
from outlive.agents.pricing import FILE_TOKENS, estimate_input, estimate_price, find_price, price_answer
from tests.agents.scripts import paid
from tests.agents.test_durable import LIMIT_S
from tests.agents.thrift import find


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "needs a limit"),
        ({"usd": "much"}, "usd=… is an amount of dollars"),
        ({"usd": -1}, "usd=… is an amount of dollars"),
        ({"usd": float("nan")}, "usd=… is an amount of dollars"),
        ({"tokens": 1.5}, "tokens=… is a whole number"),
        ({"requests": -1}, "requests=… is a whole number"),
        ({"wall": -1}, "duration"),
        ({"tokens": 1, "per": "day"}, "needs account=…"),
        ({"tokens": 1, "per": "week", "account": "a"}, "per=…"),
        ({"wall": 5, "account": "a"}, "does not go with account=…"),
        ({"tokens": 1, "account": "a/b"}, "without '/'"),
        ({"tokens": 1, "answer_tokens": 0}, "answer_tokens=…"),
        ({"tokens": 1, "unknown_price": "guess"}, "unknown_price=…"),
        ({"usd": 1, "prices": {"m": 3}}, "is a Price"),
    ],
)
def test_budgets_that_are_none(wrong: Any, why: str) -> None:
    with pytest.raises(outlive.UsageError, match=why):
        Budget(**wrong)


def test_an_agent_takes_budgets_of_different_accounts() -> None:
    agent = Agent(paid("hello"), name="clerk")
    with pytest.raises(outlive.UsageError, match="two budgets of one account"):
        durable(agent, budget=[Budget(usd=1), Budget(tokens=1)])
    with pytest.raises(outlive.UsageError, match="is a Budget"):
        durable(agent, budget=[5])  # type: ignore[list-item]


class Published(FunctionModel):
    """A model that no network is asked for, with the name and provider of one that has a published price."""

    system = "openai"


def test_published_prices_are_used() -> None:
    async def answer(messages: Any, info: Any) -> ModelResponse:
        raise AssertionError("nobody is asked")

    model = Published(answer, model_name="gpt-4o")
    price_of = find_price(model, {})
    assert price_of is not None
    assert estimate_price(price_of, 1_000_000, 0) == 2_500_000_000  # $2.50
    given = find_price(model, {"gpt-4o": Price(1, 2)})
    assert given is not None
    assert estimate_price(given, 1, 1) == 3_000
    assert find_price(Published(answer, model_name="no such model"), {}) is None


def test_what_is_sent_is_counted_by_bytes_and_by_what_the_model_has_told() -> None:
    ask = ModelRequest(parts=[UserPromptPart("x" * 1_000)])
    answer = ModelResponse(parts=[TextPart("y" * 9_000)], usage=RequestUsage(input_tokens=300, output_tokens=40))
    nothing = ModelRequestParameters()
    first = estimate_input([ask], nothing)
    assert 500 <= first <= 1_000
    later = estimate_input([ask, replace(answer, run_id="one"), replace(ask, run_id="one")], nothing)
    assert 340 + 500 <= later <= 340 + first
    unmeasured = ModelResponse(parts=[TextPart("y" * 9_000)])
    assert estimate_input([ask, unmeasured, ask], nothing) >= 5_500


def test_an_image_counts_as_a_file_and_not_by_its_bytes() -> None:
    image = BinaryContent(data=b"x" * 1_000_000, media_type="image/png")
    seen = estimate_input([ModelRequest(parts=[UserPromptPart(["look", image])])], ModelRequestParameters())
    assert FILE_TOKENS < seen < FILE_TOKENS + 1_000


def test_what_a_provider_says_that_an_answer_has_cost_comes_before_what_is_published() -> None:
    async def answer(messages: Any, info: Any) -> ModelResponse:
        raise AssertionError("nobody is asked")

    price_of = find_price(Published(answer, model_name="gpt-4o"), {})
    usage = RequestUsage(input_tokens=1_000_000)
    plain = ModelResponse(parts=[], usage=usage, model_name="gpt-4o", provider_name="openai")
    assert price_answer(plain, price_of, is_given=False) == 2_500_000_000
    strange = ModelResponse(parts=[], usage=usage, model_name="gpt-4o-by-another-name")
    assert price_answer(strange, price_of, is_given=False) == 2_500_000_000
    assert price_answer(strange, None, is_given=False) == 0
    usage.cost = Decimal("0.25")
    assert price_answer(strange, None, is_given=False) == 250_000_000
    assert price_answer(plain, price_of, is_given=False) == 250_000_000
    assert price_answer(plain, price_of, is_given=True) == 2_500_000_000


def test_the_tools_of_another_agent_are_counted_though_its_history_is_measured() -> None:
    tools = ModelRequestParameters(function_tools=[ToolDefinition(name="look", description="x" * 10_000)])
    usage = RequestUsage(input_tokens=300, output_tokens=40)
    ask = ModelRequest(parts=[UserPromptPart("go on")], run_id="of this agent")
    own = ModelResponse(parts=[TextPart("so")], usage=usage, run_id="of this agent")
    others = ModelResponse(parts=[TextPart("so")], usage=usage, run_id="of another one")
    assert estimate_input([own, ask], tools) < 1_000
    assert estimate_input([others, ask], tools) > 5_000
    assert estimate_input([ModelResponse(parts=[TextPart("so")], usage=usage), ask], tools) > 5_000


async def test_an_answer_with_a_strange_bill_is_paid_for_once_and_kept(url: str) -> None:
    """Cached tokens beside the others instead of among them: as some gateways count, and nobody can price."""
    told: list[str] = []

    async def answer(messages: Any, info: Any) -> ModelResponse:
        told.append("asked")
        usage = RequestUsage(input_tokens=10, cache_read_tokens=90, output_tokens=5)
        return ModelResponse(parts=[TextPart("hello")], usage=usage, model_name="gpt-4o", provider_name="openai")

    clerk = durable(Agent(Published(answer, model_name="gpt-4o"), name="clerk"), budget=Budget(requests=5, usd=1))
    async with outlive.Outlive(url) as app:
        assert await (await app.start(clerk, "go", id="one")).result(timeout=LIMIT_S) == "hello"
        found = await find(app, "one/clerk#1")
    assert told == ["asked"]
    assert (found.spent.requests, found.lost.requests, found.reserved.requests) == (1, 0, 0)
    assert found.spent.usd > 0
