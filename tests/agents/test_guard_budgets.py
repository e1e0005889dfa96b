"""One budget for all attempts, votes or answers of a guard: what is counted, where it ends, and on which account."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import FunctionModel

import outlive
from outlive import BudgetExceeded, Outlive, UsageError, workflow
from outlive.agents import (
    Budget,
    Grade,
    Guarded,
    Judge,
    Verifier,
    budgets,
    durable,
    guarded,
    inline,
    reviews,
    validated,
)
from tests.agents.fixer import BARE, RIGHT, WRONG, fixer, lay_out, write
from tests.agents.scripts import call, paid
from tests.agents.test_durable import Told, leave_memory, waits_for
from tests.agents.test_guards import LIMIT_S, stopped, verdicts
from tests.agents.test_judge import TEXT, model
from tests.agents.thrift import find


async def test_all_attempts_are_charged_to_the_budget_of_their_loop(url: str, tmp_path: Path) -> None:
    workspace = lay_out(tmp_path / "project")
    plays = [[write("calc.py", WRONG.replace("-", "*", 1))], [write("calc.py", RIGHT)], [write("calc.py", RIGHT)]]
    heard: list[str] = []
    agent = fixer(workspace, plays, heard=heard.append)

    @workflow
    async def fix() -> Guarded:
        numbers = itertools.count()

        async def attempt(feedback: str) -> None:
            await agent.run(str(next(numbers)))

        check = Verifier(environment=BARE)
        return await guarded(attempt, check=check, workspace=workspace, budget=Budget(requests=2))

    async with Outlive(url) as app:
        run = await app.start(fix, id="one")
        review = await stopped(app)
        assert review.reason.startswith("attempt 2 came to a limit: ")
        assert "one/guarded#1" in review.reason
        await budgets(app).put("one/guarded#1", requests=4, by="ana", reason="nearly there")
        await reviews(app).decide(review.id, "again", by="ana")
        done = await run.result(timeout=LIMIT_S)
        assert verdicts(done.attempts) == ["failed", "failed", "passed"]
        assert (await find(app, "one/guarded#1")).spent.requests == 4
    assert [line for line in heard if line.startswith("model")] == ["model 0.0", "model 0.1", "model 2.0", "model 2.1"]


@pytest.mark.parametrize("way", ["attempt", "tool"])
async def test_child_runs_are_charged_to_the_budget_of_the_loop(url: str, tmp_path: Path, way: str) -> None:
    """Those that an attempt starts, and those that a tool of an agent without a budget does."""
    workspace = lay_out(tmp_path / "project")
    told = Told()
    child = durable(Agent(paid([call("look", "c1")], "{results}", heard=told.model), name="child", tools=[look]))
    agent = Agent(paid([call("delegate", "d1")], "{results}"), name="boss")

    @agent.tool_plain(metadata=inline())
    async def delegate() -> str:
        return str(await child("go"))

    boss = durable(agent)

    @workflow(name="fix")
    async def fix() -> Guarded:
        async def attempt(feedback: str) -> None:
            await (child("go") if way == "attempt" else boss.run("go"))

        check = Verifier(environment=BARE)
        return await guarded(attempt, check=check, workspace=workspace, budget=Budget(requests=1 + (way == "tool")))

    async with Outlive(url, include=[fix, child]) as app:
        run = await app.start(fix, id="one")
        review = await stopped(app)
        assert "one/guarded#1" in review.reason
        assert told == ["model 0"]
        found = await find(app, "one/guarded#1")
        assert found.spent.requests == 1 + (way == "tool")
        assert found.reserved.requests == 0
        await leave_memory(app)
        await reviews(app).decide(review.id, "reject", by="ana")
        with pytest.raises(outlive.GuardRefused):
            await run.result(timeout=LIMIT_S)
        assert await find(app, "one/guarded#1") == found


async def look() -> str:
    return "seen"


def answers(*given: Any) -> Any:
    """Give an agent whose outputs are these, one after the other."""
    left = iter(given)

    async def answer(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart("final_result", {"response": next(left)}, tool_call_id="c1")])

    return durable(Agent(FunctionModel(answer), name="clerk", output_type=int))


def even(number: int) -> str | None:
    return None if number % 2 == 0 else f"{number} is odd"


async def test_all_answers_are_charged_once_and_replay_charges_nothing(url: str) -> None:
    clerk = answers(1, 3, 4)

    @workflow
    async def asks() -> int:
        said: int = await validated(clerk, "A number.", checks=[even], budget=Budget(requests=3))
        await outlive.receive("go on")
        return said

    async with Outlive(url) as app:
        run = await app.start(asks, id="one")
        await waits_for(run, "receive")
        before = await find(app, "one/validated#1")
        await leave_memory(app)
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == 4
        assert before.spent.requests == 3
        assert await find(app, "one/validated#1") == before


async def test_validation_ends_where_its_budget_does(url: str) -> None:
    clerk = answers(1, 3, 4)

    @workflow
    async def asks() -> int:
        said: int = await validated(clerk, "A number.", checks=[even], budget=Budget(requests=2))
        return said

    async with Outlive(url) as app:
        with pytest.raises(BudgetExceeded, match="one/validated#1"):
            await app.run(asks, id="one")
        assert (await find(app, "one/validated#1")).spent.requests == 2


async def test_votes_and_the_judged_may_be_charged_to_one_account(url: str) -> None:
    team = Budget(requests=4, account="team")
    clerk = answers(2)
    judge = Judge(model(lambda rules, prompt, n: ("pass", ["costs 17 euros"], "so")), "Is it good?", budget=team)

    @workflow
    async def asks() -> Grade:
        await validated(clerk, "A number.", budget=team)
        return await judge.grade(TEXT)

    async with Outlive(url) as app:
        assert (await app.run(asks)).verdict == "pass"
        assert (await find(app, "team")).spent.requests == 4
        with pytest.raises(BudgetExceeded, match="team"):
            await app.run(asks)
        assert (await find(app, "team")).spent.requests == 4


async def test_each_grade_has_the_budget_of_its_own(url: str) -> None:
    judge = Judge(
        model(lambda rules, prompt, n: ("pass", ["costs 17 euros"], "so")), "Is it good?", budget=Budget(requests=3)
    )

    @workflow
    async def asks() -> list[str]:
        return [(await judge.grade(TEXT)).verdict for _ in range(2)]

    async with Outlive(url) as app:
        assert await app.run(asks, id="one") == ["pass", "pass"]
        spent = [(await find(app, f"one/judge#{n}")).spent.requests for n in (1, 2)]
    assert spent == [3, 3]


async def test_what_is_no_budget_is_refused_where_it_is_written() -> None:
    with pytest.raises(UsageError, match=r"budget=… is a Budget"):
        Judge("test", "Is it good?", budget=3)  # type: ignore[arg-type]
