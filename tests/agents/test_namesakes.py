"""Two agents of one name: which of them had the policy is in no journal, so neither takes the other's runs over."""

from __future__ import annotations

import importlib
import importlib.machinery
import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent

from outlive import Outlive, UsageError, workflow
from outlive.agents import Ask, ToolCall, approvals, conversation, durable
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import waiting
from tests.agents.test_durable import LIMIT_S


@workflow
async def greet() -> str:
    return "hello"


def ask(_: ToolCall) -> Ask:
    return Ask(role="finance")


def clerk(paid: list[int]) -> Agent[None, str]:
    agent = Agent(scripted([call("refund", "c1", cents=17)], "{results}"), name="clerk")

    @agent.tool_plain
    async def refund(cents: int) -> str:
        paid.append(cents)
        return "refunded"

    return agent


NAMESAKES = """from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from outlive.agents import Ask, conversation, durable
from tests.agents.test_namesakes import make

agent = Agent(TestModel(), name="{name}")
careful = durable(agent, policy=lambda call: Ask(role="finance"))
careless = make(agent)
chats = [conversation(careful), conversation(careless)]
"""


def make(agent: Any) -> Any:
    return durable(agent)


def defined(agent: Any, **options: Any) -> Any:
    """Make an agent durable as a function that a module calls while it is imported."""
    spec = importlib.machinery.ModuleSpec("defines", None)
    spec._initializing = True  # type: ignore[attr-defined]  # as the import system says
    names = {"make": lambda: durable(agent, **options), "__spec__": spec}
    exec(compile("made = make()", "defines.py", "exec"), names)
    return names["made"]


async def test_neither_of_two_agents_of_one_name_is_started(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"namesakes_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(NAMESAKES.replace("{name}", module))
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module(module)
    async with Outlive(url) as app:
        for one in (found.careful, found.careless):
            with pytest.raises(
                UsageError, match=rf"'agent.{module}': .*{module}.py:\d \(policy=.*\(no policy\)|no policy.*policy="
            ):
                await app.start(one, "refund")
            with pytest.raises(UsageError, match=rf"'chat.{module}'"):
                await app.start(conversation(one))
        assert await app.count() == 0
    async with Outlive(url, include=[found.careful]) as app:  # this app serves one of them
        with pytest.raises(UsageError, match=rf"'agent.{module}'"):
            await app.start(found.careless, "refund")
        await app.run(found.careful, "hello")


async def test_a_run_is_not_taken_over_by_what_another_part_of_a_program_makes(url: str) -> None:
    """Of agents that running code makes the latest counts, as before; one that a module defines takes precedence."""
    agent = clerk(paid := [])
    name = f"clerk_{uuid.uuid4().hex}"  # what a module defines, stays
    careful = defined(agent, name=name, policy=ask)
    async with Outlive(url, worker=False) as client:
        run = await client.start(careful, "refund")
    careless = durable(agent, name=name)
    async with Outlive(url) as app:
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=False, by="ana", roles={"finance"})
        assert "ana denied" in await (await app.get(run.id)).result(timeout=LIMIT_S)
        await app.start(careful, "refund")
        with pytest.raises(UsageError, match=rf"two workflows are called 'agent.{name}': at .*_namesakes.py:\d+ \(pol"):
            await app.start(careless, "refund")
    assert paid == []


async def test_an_agent_that_was_defined_anew_takes_the_place_of_the_one_before(url: str) -> None:
    """As where a cell of a notebook is run again."""
    agent = clerk(paid := [])
    name = f"clerk_{uuid.uuid4().hex}"
    defined(agent, name=name)
    careful = defined(agent, name=name, policy=ask)
    async with Outlive(url) as app:
        run = await app.start(careful, "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=False, by="ana", roles={"finance"})
        assert "ana denied" in await run.result(timeout=LIMIT_S)
    assert paid == []


async def test_a_run_waits_where_two_agents_have_its_name(url: str, caplog: pytest.LogCaptureFixture) -> None:
    agent = clerk(paid := [])
    name = f"clerk_{uuid.uuid4().hex}"
    careful, careless = defined(agent, name=name, policy=ask), defined(agent, name=name)
    async with Outlive(url, worker=False, include=[careful]) as client:
        run = await client.start(careful, "refund")
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match="two workflows are called"):
            await app.start(careless, "refund")
        assert await app.run(greet) == "hello"
        assert await (await app.get(run.id)).status() == "queued"
        assert "two workflows are called" in caplog.text
    async with Outlive(url, include=[careful]) as app:
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=False, by="ana", roles={"finance"})
        assert "ana denied" in await (await app.get(run.id)).result(timeout=LIMIT_S)
    assert paid == []


async def test_an_agent_made_durable_alike_in_two_places_is_one(url: str) -> None:
    paid: list[int] = []
    agent = clerk(paid)
    first = durable(agent)
    second = durable(agent)
    async with Outlive(url) as app:
        assert await app.run(first, "refund") == "['refunded']"
        assert await app.run(second, "refund") == "['refunded']"


async def test_what_a_workflow_makes_durable_for_itself_takes_no_other_runs(url: str) -> None:
    paid: list[int] = []
    agent = clerk(paid)
    careful = durable(agent, policy=ask)

    @workflow
    async def refunds_at_once() -> str:
        return (await durable(agent).run("refund")).output

    async with Outlive(url) as app:
        run = await app.start(careful, "refund")
        (one,) = await waiting(app)
        assert await app.run(refunds_at_once) == "['refunded']"
        await approvals(app).decide(one.id, approve=False, by="ana", roles={"finance"})
        assert "ana denied" in await run.result(timeout=LIMIT_S)
    assert paid == [17]
