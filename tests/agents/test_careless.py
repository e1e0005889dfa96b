"""Careless and hostile input to approvals and budgets: refused where it is written, or counted as what it is."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from outlive import BudgetExceeded, Outlive, RunRefused, UsageError
from outlive.agents import Ask, Budget, DurableAgent, Price, approval_links, approvals, durable, pure
from tests.agents.test_approvals import asks, refunder, waiting
from tests.agents.test_durable import LIMIT_S, Told, waits_for
from tests.agents.thrift import find, looking, used

JOSE = "Jos\u00e9 Ortiz"
SPELLINGS = [
    "Jose\u0301 Ortiz",
    "jos\u00e9 ortiz",
    " Jos\u00e9  Ortiz ",
    "\uff2aos\u00e9 Ortiz",
    "JOS\u00c9\u00a0ORTIZ",
    "jose ortiz",
    "Jos\u00e9 Or\u200btiz",
]


async def test_who_writes_his_name_otherwise_is_still_one_person(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks(quorum=2)), "refund", id="one")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by=JOSE)
        while (two := (await waiting(app))[0]).votes != [JOSE]:
            await waits_for(run, "promise")
        for name in SPELLINGS:
            with pytest.raises(RunRefused, match="approved this call of refund already, and another one has to"):
                await approvals(app).decide(two.id, approve=True, by=name)
        assert "refund 17" not in told
        await approvals(app).decide(two.id, approve=True, by="Joseph Ortiz")
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def ask_later(call: Any) -> Any:
    return Ask()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda agent: durable(agent, policy=Ask(role="boss")), r"policy=…\) takes a plain function .* not Ask\("),
        (lambda agent: durable(agent, policy=ask_later), r"policy=…\) takes a plain function .* not <function ask_l"),
        (lambda agent: durable(agent, model_retry=3), r"model_retry=…\) takes a Retry, not 3"),
        (lambda _: pure(retry=3), r"pure\(retry=…\) takes a Retry, such as Retry\(attempts=3\), not 3"),
        (lambda _: approval_links(Outlive("sqlite://"), None, url="https://a.b"), "secret=… is a text of at least"),
    ],
)
def test_what_only_looks_like_a_setting(make: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make(Agent(TestModel(), name="clerk"))


async def test_an_agent_that_is_started_without_a_prompt(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(TypeError, match=r"^agent\.clerk\(\): missing a required argument: 'prompt'"):
            await app.start(durable(Agent(TestModel(), name="clerk")))


@pytest.mark.parametrize("by", ["", "  ", "\u00a0", "x" * 1_001, None, 7])
async def test_nobody_decides(url: str, by: Any) -> None:
    async with Outlive(url) as app:
        await app.start(refunder(Told(), asks()), "refund", id="one")
        (one,) = await waiting(app)
        with pytest.raises(UsageError, match="by=… says who it is") as refused:
            await approvals(app).decide(one.id, approve=True, by=by)
        assert len(str(refused.value)) < 250
        with pytest.raises(UsageError, match="by=… says who it is"):
            approval_links(app, "s" * 32, url="https://desk.example").url(one, by=by)
        with pytest.raises(UsageError, match="arguments, by name"):
            await approvals(app).decide(one.id, approve=True, by="ana", edit={7: 1})  # type: ignore[dict-item]
        assert (await waiting(app))[0].votes == []


def billed(usage: RequestUsage, budget: Budget) -> DurableAgent[None, str]:
    """Give an agent whose provider bills its only answer so."""

    async def answer(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse(parts=[TextPart("hello")], usage=usage)

    return durable(Agent(FunctionModel(answer, model_name="odd"), name="clerk"), budget=budget)


ODD = {"odd": Price(input=1, output=10)}


@pytest.mark.parametrize(
    "usage",
    [
        RequestUsage(input_tokens=-1_000, output_tokens=10),
        RequestUsage(input_tokens=10, output_tokens=-1_000),
        RequestUsage(input_tokens=10, output_tokens=10, cost=Decimal(-5)),
    ],
    ids=["sent", "answered", "cost"],
)
async def test_a_bill_below_zero_makes_no_room(url: str, usage: RequestUsage) -> None:
    async with Outlive(url) as app:
        run = await app.start(billed(usage, Budget(usd=1, answer_tokens=100, prices=ODD)), "go", id="one")
        assert await run.result(timeout=LIMIT_S) == "hello"
        found = await find(app, "one/clerk#1")
        assert found.spent.usd >= Decimal("0.001")  # what was reserved for the answer alone
        assert found.spent.tokens >= 100


async def test_a_bill_that_no_database_can_hold_ends_the_budget_and_not_the_run(url: str) -> None:
    account = Budget(tokens=10_000, account="team")
    async with Outlive(url) as app:
        run = await app.start(billed(RequestUsage(input_tokens=10**19, output_tokens=10), account), "go")
        assert await run.result(timeout=LIMIT_S) == "hello"
        assert (await find(app, "team")).spent == used(0, 10**15, 1)
        again = await app.start(billed(RequestUsage(input_tokens=1, output_tokens=1), account), "go")
        with pytest.raises(BudgetExceeded):
            await again.result(timeout=LIMIT_S)


async def test_a_bound_that_no_database_can_hold_is_reserved_as_the_most_there_is(url: str) -> None:
    clerk = durable(
        looking("hello", answered=1), budget=Budget(requests=1, usd=10**9, answer_tokens=10**15, unknown_price="allow")
    )
    async with Outlive(url) as app:
        assert await (await app.start(clerk, "go")).result(timeout=LIMIT_S) == "hello"


async def test_a_cost_that_the_provider_tells_counts_where_no_price_is_known(url: str) -> None:
    usage = RequestUsage(input_tokens=10, output_tokens=10, cost=Decimal("0.25"))
    async with Outlive(url) as app:
        run = await app.start(billed(usage, Budget(usd=1, unknown_price="allow")), "go", id="one")
        assert await run.result(timeout=LIMIT_S) == "hello"
        assert (await find(app, "one/clerk#1")).spent.usd == Decimal("0.25")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"usd": math.nan}, "amount of dollars"),
        ({"usd": True}, "amount of dollars"),
        ({"wall": math.inf}, "a time with an end"),
        ({"usd": 1, "answer_tokens": True}, "answer_tokens"),
        ({"usd": 1, "answer_tokens": 10**30}, "answer_tokens"),
        ({"usd": 1, "prices": [1]}, "mapping of names of models"),
        ({"usd": 1, "prices": {7: Price(1, 1)}}, "name of the model, a text"),
        ({"usd": 1, "account": "team "}, "looks like 'team'"),
        ({"usd": 1, "account": "e\u0301quipe"}, "looks like '\u00e9quipe'"),
    ],
)
def test_a_budget_that_means_something_else_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Budget(**settings)


def test_a_question_that_means_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match="nobody is asked any more"):
        Ask(expires=math.inf)
    with pytest.raises(UsageError, match="quorum"):
        Ask(quorum=True)
    with pytest.raises(UsageError, match="a Budget"):
        durable(looking("hello"), budget=3)  # type: ignore[arg-type]
