"""Calls of tools of which nobody knows what became: a retry finds out, and repeats none that has ended."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from pydantic_ai import Agent

from outlive import BudgetExceeded, Outlive, Retry, workflow
from outlive.agents import Budget, at_most_once, budgets, durable, pure
from outlive.agents.servers import Interrupted
from tests.agents.scripts import call, paid, scripted
from tests.agents.test_durable import LIMIT_S, Told
from tests.agents.thrift import find

BOTH = [call("look", "c1"), call("pay", "c2")]


async def until(told: list[str], word: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while word not in told:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("has_verify", [True, False])
async def test_a_payment_beside_a_tool_that_fails_is_not_made_again_by_a_retry(url: str, has_verify: bool) -> None:
    """Pydantic AI cancels it, but its thread goes on and pays."""
    told = Told()
    agent = Agent(scripted(BOTH, "{results}", heard=told.model), name="clerk")

    def was_paid() -> str:
        if "paid" not in told:
            raise LookupError("not paid")
        return "paid before"

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        await asyncio.sleep(0.1)
        if "looked" not in told:
            told.append("looked")
            raise ValueError("dark")
        return "seen"

    @agent.tool_plain(metadata=at_most_once(verify=was_paid if has_verify else None))
    def pay() -> str:
        time.sleep(0.3)
        told.append("paid")
        return "paid"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "pay", id="one")
        with pytest.raises(ValueError, match="dark"):
            await run.result(timeout=LIMIT_S)
        await until(told, "paid")
        await run.retry()
        said = await run.result(timeout=LIMIT_S)
    assert told.count("paid") == 1
    assert "seen" in said
    assert ("paid before" if has_verify else "OutcomeUnknown") in said


async def test_a_payment_that_ended_beside_a_tool_that_fails_is_kept_by_a_retry(url: str) -> None:
    told = Told()
    agent = Agent(scripted(BOTH, "{results}", heard=told.model), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        await until(told, "paid")
        if told.count("looked") == 0:
            told.append("looked")
            raise ValueError("dark")
        return "seen"

    @agent.tool_plain
    async def pay() -> str:
        told.append("paid")
        return "paid"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "pay", id="one")
        with pytest.raises(ValueError, match="dark"):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen', 'paid']"
    assert told.count("paid") == 1


async def test_a_lost_server_is_not_called_again_while_nobody_can_look_it_up(url: str) -> None:
    told = Told()
    agent = Agent(scripted([call("pay", "c1")], "{results}", heard=told.model), name="clerk")
    answers = iter([ConnectionError("the bank is down"), ConnectionError("the bank is down")])

    def was_paid() -> str:
        told.append("asked")
        if (problem := next(answers, None)) is not None:
            raise problem
        return "paid before"

    @agent.tool_plain(metadata=at_most_once(verify=was_paid, retry=Retry(attempts=4, first_delay=0.01)))
    async def pay() -> str:
        told.append("paid")
        raise Interrupted("the server is gone", again=True)

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "pay", id="one")
        assert await run.result(timeout=LIMIT_S) == "['paid before']"
    assert told.count("paid") == 1
    assert told.count("asked") == 3


async def test_the_wall_time_holds_for_later_attempts_of_a_tool(url: str) -> None:
    told = Told()
    agent = Agent(paid([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure(retry=Retry(attempts=3, first_delay=1.0, jitter=0)))
    async def look() -> str:
        told.append("looked")
        raise ConnectionError("dark")

    async with Outlive(url) as app:
        run = await app.start(durable(agent, budget=Budget(wall=timedelta(seconds=0.7), tools=5)), "go", id="one")
        with pytest.raises(BudgetExceeded) as caught:
            await run.result(timeout=LIMIT_S)
        assert caught.value.measure == "wall"
        assert (await find(app, "one/clerk#1")).spent.tools == 1
    assert told == ["looked"]


async def test_a_payment_that_the_wall_time_has_cut_off_is_not_made_again(url: str) -> None:
    told = Told()
    agent = Agent(paid([call("pay", "c1")], "{results}"), name="clerk")

    @agent.tool_plain
    async def pay() -> str:
        told.append("paid")
        await asyncio.sleep(30)
        return "paid"

    async with Outlive(url) as app:
        run = await app.start(durable(agent, budget=Budget(wall=timedelta(seconds=0.5))), "go", id="one")
        with pytest.raises(BudgetExceeded) as caught:
            await run.result(timeout=LIMIT_S)
        assert caught.value.measure == "wall"
        await budgets(app).put("one/clerk#1", wall=3600)
        await run.retry()
        assert "OutcomeUnknown" in await run.result(timeout=LIMIT_S)
    assert told == ["paid"]


async def test_a_process_that_stood_still_repeats_nothing_for_a_lost_server(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer may have gone on with the run meanwhile."""
    told, is_alive = Told(), True
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        nonlocal is_alive
        told.append("look")
        if len(told) == 1:
            is_alive = False
            raise Interrupted("the server is gone", again=True)
        return "seen"

    async with Outlive(url) as app:
        monkeypatch.setattr(app._engine().lease, "alive", lambda: is_alive)
        run = await app.start(durable(agent), "go", id="one")
        await until(told, "look")
        await asyncio.sleep(0.2)
        assert told == ["look"]
        is_alive = True
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert told == ["look", "look"]


async def test_a_look_up_needs_no_room_in_the_budget(url: str) -> None:
    """The call has been paid for when it began; whether it took effect is found out at no cost."""
    told = Told()
    agent = Agent(paid([call("pay", "c1")], "{results}"), name="clerk")

    def was_paid() -> str:
        return "paid before"

    @agent.tool_plain(metadata=at_most_once(verify=was_paid, timeout=0.1))
    async def pay() -> str:
        told.append("paid")
        await asyncio.sleep(LIMIT_S)
        return "never"

    clerk = durable(agent, budget=Budget(tools=1))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(TimeoutError):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['paid before']"
        assert (await find(app, "one/clerk#1")).spent.tools == 1
    assert told == ["paid"]


async def test_an_agent_that_went_on_beside_one_that_failed_is_not_paid_again(url: str) -> None:
    """Neither its requests to the model nor its tools."""
    told = Told()
    good = Agent(scripted([call("pay", "c1")], [call("pay", "c2")], "{results}", heard=told.model), name="good")
    bad = Agent(scripted([call("look", "c1")], "{results}", heard=Told().model), name="bad")

    @good.tool_plain
    async def pay() -> str:
        await asyncio.sleep(0.05)
        told.append("paid")
        return "paid"

    @bad.tool_plain(metadata=pure())
    async def look() -> str:
        if "looked" not in told:
            told.append("looked")
            raise ValueError("dark")
        return "seen"

    clerks = [durable(bad), durable(good)]

    @workflow
    async def both() -> list[str]:
        said = await asyncio.gather(*(clerk.run("go") for clerk in clerks), return_exceptions=True)
        for one in said:
            if isinstance(one, BaseException):
                raise one
        return [one.output for one in said]

    async with Outlive(url) as app:
        run = await app.start(both)
        with pytest.raises(ValueError, match="dark"):
            await run.result(timeout=LIMIT_S)
        assert sorted(told) == ["looked", "model 0", "model 1", "model 2", "paid", "paid"]
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == ["['seen']", "['paid', 'paid']"]
    assert sorted(told) == ["looked", "model 0", "model 1", "model 2", "paid", "paid"]
