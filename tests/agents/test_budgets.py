"""Budgets: what is refused before it is sent, and what counts."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel

from outlive import BudgetExceeded, Outlive, Retry, UnknownPrice, hooks, workflow
from outlive.agents import Budget, budgets, durable, inline, pure, transactional, tx
from tests.agents.scripts import call, paid
from tests.agents.test_durable import Told
from tests.agents.thrift import ANSWER, CHEAP, LIMIT_S, find, looking, used


async def test_what_was_used_is_told(url: str) -> None:
    clerk = durable(looking([call("look", "c1")], "{results}"), budget=Budget(usd=1, tools=5, prices=CHEAP))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        assert await run.result(timeout=LIMIT_S) == "['seen']"
        (found,) = (await budgets(app).list()).items
        assert (found.account, found.run, found.per, found.period, found.stopped) == (
            "one/clerk#1",
            "one",
            None,
            None,
            False,
        )
        assert dict(found.limits) == {"usd": Decimal(1), "tools": 5}
        assert (found.spent, found.reserved, found.lost) == (used(2 * ANSWER, 220, 2, 1), used(), used())
        shares = await budgets(app).shares("one/clerk#1")
        assert [(one.model, one.state, one.amounts.requests, one.amounts.tools) for one in shares] == [
            (None, "spent", 0, 1), ("paid", "spent", 2, 0),
        ]  # fmt: skip
        page = await budgets(app).ledger("one/clerk#1", limit=2)
        assert [one.key for one in page.items] == ["clerk#1/model#2", "clerk#1/tool:look(c1)#1"]
        rest = await budgets(app).ledger("one/clerk#1", before=page.next)
        assert [(one.key, one.amounts.usd) for one in rest.items] == [("clerk#1/model#1", ANSWER)]


async def test_without_a_budget_nothing_is_asked_of_the_store(url: str) -> None:
    passed: list[str] = []
    below = durable(looking("hello"))
    agent = Agent(paid([call("ask", "c1")], "{results}"), name="boss")

    @agent.tool_plain(metadata=inline())
    async def ask() -> str:
        return str(await below("go"))

    async with Outlive(url) as app:
        hooks.arm(passed.append)
        try:
            assert await (await app.start(durable(agent), "go")).result(timeout=LIMIT_S) == "['hello']"
        finally:
            hooks.arm(None)
        assert (await budgets(app).list()).items == []
    assert "commit.after" in passed
    assert "reserve.before" not in passed


async def test_a_budget_of_no_calls_lets_the_model_speak_and_no_tool_act(url: str) -> None:
    told = Told()
    clerk = durable(looking([call("look", "c1")], "{results}", heard=told.model), budget=Budget(tools=0))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(BudgetExceeded, match=r"run 'one' stopped before clerk#1/tool:look\(c1\)") as caught:
            await run.result(timeout=LIMIT_S)
        assert (caught.value.measure, caught.value.limit, caught.value.spent) == ("tools", 0, 0)
        assert (await find(app, "one/clerk#1")).spent.tools == 0
        await budgets(app).put("one/clerk#1", tools=1)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert told == ["model 0", "model 1"]


@pytest.mark.parametrize(
    ("limits", "measure"),
    [({"usd": 0}, "usd"), ({"tokens": 0}, "tokens"), ({"requests": 0}, "requests"), ({"wall": 0}, "wall")],
    ids=["usd", "tokens", "requests", "wall"],
)
async def test_a_budget_of_zero_is_refused_before_anything_is_sent(url: str, limits: Any, measure: str) -> None:
    told = Told()
    clerk = durable(looking("hello", heard=told.model), budget=Budget(**limits, prices=CHEAP))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(
            BudgetExceeded, match=r"run 'one' stopped before clerk#1/model#1: budget 'one/clerk#1'"
        ) as caught:
            await run.result(timeout=LIMIT_S)
        assert (caught.value.measure, caught.value.limit, caught.value.spent) == (measure, 0, 0)
        assert told == []
        assert (await find(app, "one/clerk#1")).spent == used()


async def test_a_tool_beyond_the_budget_is_not_called(url: str) -> None:
    told: list[str] = []
    agent = Agent(paid([call("look", "c1"), call("put", "c2")], [call("look", "c3")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure(retry=Retry(attempts=3, first_delay=0.01)))
    async def look() -> str:
        told.append("look")
        if len(told) < 3:
            raise OSError("not yet")
        return "seen"

    @agent.tool_plain(metadata=transactional())
    async def put() -> str:
        return str(await tx().fetchval("select 7"))

    clerk = durable(agent, budget=Budget(tools=2))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(BudgetExceeded, match=r"stopped before clerk#1/tool:look\(c3\)#1.*spent 2 tools"):
            await run.result(timeout=LIMIT_S)
        assert told == ["look"] * 3  # attempts of one call count once
        assert (await find(app, "one/clerk#1")).spent.tools == 2
        await budgets(app).put("one/clerk#1", tools=None)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen', '7', 'seen']"


async def test_the_price_of_a_model_that_nobody_knows(url: str) -> None:
    told = Told()
    agent = looking("hello", heard=told.model)
    async with Outlive(url) as app:
        run = await app.start(durable(agent, budget=Budget(usd=5)), "go", id="one")
        with pytest.raises(
            UnknownPrice, match=r"price of model 'paid' is unknown.*Budget\(prices=.*unknown_price='allow'"
        ):
            await run.result(timeout=LIMIT_S)
        assert told == []
    priced = durable(agent, budget=Budget(usd=5, prices=CHEAP))
    async with Outlive(url, include=[priced]) as app:  # the next release knows one: nothing was lost
        run = await app.get("one")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "hello"
    async with Outlive(url) as app:
        run = await app.start(durable(agent, name="lax", budget=Budget(usd=5, unknown_price="allow")), "go", id="two")
        assert await run.result(timeout=LIMIT_S) == "hello"
        assert (await find(app, "two/lax#1")).spent == used(0, 110, 1)
        run = await app.start(durable(agent, name="poor", budget=Budget(tokens=9_000)), "go", id="three")
        assert await run.result(timeout=LIMIT_S) == "hello"


async def test_the_model_is_told_how_long_its_answer_may_be(url: str) -> None:
    asked: list[Any] = []

    def note(info: Any) -> None:
        asked.append((info.model_settings or {}).get("max_tokens"))

    agent = Agent(paid("hello", told=note), name="clerk")
    terse = Agent(paid("hello", told=note), name="terse", model_settings={"max_tokens": 7})
    async with Outlive(url) as app:
        for number, one in enumerate(
            [
                durable(agent, budget=Budget(tokens=9_000, answer_tokens=500)),
                durable(agent, name="counted", budget=Budget(requests=5)),
                durable(terse, budget=Budget(tokens=9_000, answer_tokens=500)),
            ]
        ):
            await (await app.start(one, "go", id=f"run-{number}")).result(timeout=LIMIT_S)
        boss = Agent(paid([call("ask", "c1")], "{results}"), name="boss")
        child = durable(agent, name="child")

        @boss.tool_plain(metadata=inline())
        async def ask() -> str:
            return str(await child("go"))

        for number, limit in enumerate([Budget(usd=1, unknown_price="allow"), Budget(requests=9)]):
            run = await app.start(durable(boss, budget=limit, name=f"boss-{number}"), "go")
            await run.result(timeout=LIMIT_S)
    assert asked == [500, None, 7, 4096, None]


async def test_more_than_was_reserved_counts_all_the_same(url: str) -> None:
    agent = looking([call("look", "c1")], "{results}", answered=5_000)
    clerk = durable(agent, budget=Budget(tokens=2_000, answer_tokens=100))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(BudgetExceeded, match=r"of 2,000 tokens it has spent 5,100 tokens"):
            await run.result(timeout=LIMIT_S)


async def test_a_request_that_failed_counts_by_what_is_known_of_it(url: str) -> None:
    errors: list[Exception] = [
        ModelHTTPError(429, "paid"),
        ConnectionError("cut"),
        ModelHTTPError(500, "paid", in_stream=True),  # what it had streamed before may be billed
        ModelHTTPError(500, "paid"),
    ]

    def stumble(turn: int) -> None:
        if errors:
            raise errors.pop(0)

    agent = looking("hello", heard=stumble)
    patient, once = Retry(attempts=5, first_delay=0.01), Retry(attempts=1)
    clerk = durable(agent, budget=Budget(usd=1, prices=CHEAP), model_retry=patient)
    async with Outlive(url) as app:
        assert await (await app.start(clerk, "go", id="one")).result(timeout=LIMIT_S) == "hello"
        found = await find(app, "one/clerk#1")
        assert found.spent == used(ANSWER, 110, 3)  # the refused ones were requests, and cost nothing
        assert found.lost.requests == 2
        assert found.lost.tokens > 2 * 4_096  # nobody knows: all that was reserved
        errors.append(ConnectionError("cut"))
        run = await app.start(durable(agent, name="hasty", budget=Budget(requests=5), model_retry=once), "go", id="two")
        with pytest.raises(ConnectionError):
            await run.result(timeout=LIMIT_S)
        assert (await find(app, "two/hasty#1")).lost.requests == 1


async def test_models_that_stand_in_for_one_another_and_all_refuse_have_sold_nothing(url: str) -> None:
    asked: list[int] = []

    def refuse(turn: int) -> None:
        asked.append(turn)
        if len(asked) <= 4:
            raise ModelHTTPError(503, "paid")
        if len(asked) == 5:
            raise ModelHTTPError(503, "paid", in_stream=True)
        if len(asked) == 6:
            raise ModelHTTPError(503, "paid")

    model = FallbackModel(paid("hello", heard=refuse), paid("hello", heard=refuse))
    patient = Retry(attempts=5, first_delay=0.01)
    prices = {model.model_name: CHEAP["paid"]}
    clerk = durable(Agent(model, name="clerk"), budget=Budget(usd=1, prices=prices), model_retry=patient)
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        assert await run.result(timeout=LIMIT_S) == "hello"
        found = await find(app, "one/clerk#1")
    assert found.spent == used(ANSWER, 110, 3)
    assert found.lost.requests == 1  # one of the two had begun to stream


async def test_an_answer_that_was_given_before_costs_nothing(url: str) -> None:
    clerk = durable(looking("hello"), cache=60, budget=Budget(usd=1, requests=9, account="team", prices=CHEAP))
    async with Outlive(url) as app:
        for _ in range(3):
            assert await app.run(clerk, "go") == "hello"
        found = await find(app, "team")
    assert (found.spent, found.lost, found.reserved) == (used(ANSWER, 110, 1), used(), used())


async def test_a_streamed_answer_counts_as_any_other(url: str) -> None:
    heard: list[Any] = []

    async def speak(messages: Any, info: Any) -> AsyncIterator[str]:
        yield "hel"
        yield "lo"

    async def listen(context: Any, events: AsyncIterable[Any]) -> None:
        heard.extend([event async for event in events])

    clerk = durable(Agent(FunctionModel(stream_function=speak), name="clerk"), budget=Budget(tokens=9_000))

    @workflow
    async def asks() -> str:
        return (await clerk.run("go", event_stream_handler=listen)).output

    async with Outlive(url) as app:
        run = await app.start(asks, id="one")
        assert await run.result(timeout=LIMIT_S) == "hello"
        assert next(entry.name for entry in await run.entries()) == "model.stream"
        found = await find(app, "one/clerk#1")
        assert (found.spent.requests, found.lost.requests, found.reserved.requests) == (1, 0, 0)
        assert 0 < found.spent.tokens < 1_000
    assert heard
