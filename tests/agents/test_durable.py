"""A plain agent becomes durable by one call: what it journals, what replay repeats, and where it stays plain."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred
from pydantic_ai.messages import ModelResponse, ToolReturnPart
from pydantic_ai.toolsets import FunctionToolset

import outlive
from outlive import Outlive, Retry, Status, step, workflow
from outlive.agents import approvals, durable, inline, pure
from outlive.agents.durability import AgentOptions, OutliveDurability
from outlive.agents.units import Unit
from outlive.engine.calls import StepCall
from tests.agents.scripts import call, scripted
from tests.house.source import SRC

LIMIT_S = 20.0


class Told(list[str]):
    """What really happened in this process, in order."""

    def model(self, turn: int) -> None:
        self.append(f"model {turn}")


async def leave_memory(app: Outlive) -> None:
    """Let every run that only waits leave memory, as it would after a while."""
    roster = app._engine().roster
    async with asyncio.timeout(LIMIT_S):
        while roster.executions:
            for execution in list(roster.idle):
                roster.suspend(execution)
            await asyncio.sleep(0.01)


async def waits_for(run: outlive.Run, kind: str, times: int = 1) -> None:
    """Wait until the journal says that a run waits for so many of a kind."""
    async with asyncio.timeout(LIMIT_S):
        while sum(entry.kind == kind for entry in await run.entries()) < times:
            await asyncio.sleep(0.01)


async def keys_of(run: outlive.Run) -> list[str]:
    return [entry.key for entry in await run.entries()]


async def test_each_answer_and_each_result_is_an_entry(url: str) -> None:
    told = Told()
    model = scripted([call("look", "c1", word="a"), call("count", "c2", word="bb")], "{results}", heard=told.model)
    agent = Agent(model, name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look(word: str) -> str:
        told.append(f"look {word}")
        await asyncio.sleep(0.02)
        return f"seen {word}"

    @agent.tool_plain(metadata=pure())
    def count(word: str) -> int:
        told.append("count in a thread" if threading.current_thread() is not threading.main_thread() else "count")
        return len(word)

    clerk = durable(agent)

    @workflow
    async def asks(prompt: str) -> str:
        return (await clerk.run(prompt)).output

    async with Outlive(url) as app:
        run = await app.start(asks, "hello")
        assert await run.result(timeout=LIMIT_S) == "['seen a', '2']"
        assert sorted(await keys_of(run)) == [
            "clerk#1/model#1",
            "clerk#1/model#2",
            "clerk#1/tool:count(c2)#1",
            "clerk#1/tool:look(c1)#1",
        ]
    assert told == ["model 0", "look a", "count in a thread", "model 1"]


async def test_replay_asks_nobody_and_calls_nothing(url: str) -> None:
    told = Told()
    model = scripted([call("look", "c1")], [call("look", "c2")], "{results}", heard=told.model)
    agent = Agent(model, name="clerk")

    @agent.tool_plain
    async def look() -> int:
        told.append("look")
        return len(told)

    clerk = durable(agent)

    @workflow
    async def asks() -> list[str]:
        first = (await clerk.run("one")).output
        await outlive.receive("go on")
        return [first, (await clerk.run("two")).output]

    async with Outlive(url) as app:
        run = await app.start(asks)
        await waits_for(run, "receive")
        for _ in range(3):
            await leave_memory(app)
            await run.pause()
            while await run.status() != Status.PAUSED:
                await asyncio.sleep(0.01)
            await run.resume()
        before = list(told)
        await run.send("go on", None)
        first, second = await run.result(timeout=LIMIT_S)
    assert before == ["model 0", "look", "model 1", "look", "model 2"]
    assert told == before + before
    assert (first, second) == ("['2', '4']", "['7', '9']")


async def test_an_agent_is_started_as_a_workflow(url: str) -> None:
    class Answer(BaseModel):
        city: str
        heads: int

    agent = Agent(scripted([call("final_result", "c1", city="Ulm", heads=3)]), name="geo", output_type=Answer)
    async with Outlive(url) as app:
        run = await app.start(durable(agent), "where?", id="trip-1")
        assert await run.result(timeout=LIMIT_S) == Answer(city="Ulm", heads=3)
        assert (await run.info()).workflow == "agent.geo"


@dataclass
class Shop:
    name: str


async def test_deps_are_given_to_each_run(url: str) -> None:
    agent = Agent(scripted([call("where", "c1")], "{results}"), name="clerk", deps_type=Shop)

    @agent.tool
    async def where(ctx: RunContext[Shop]) -> str:
        return ctx.deps.name

    async with Outlive(url) as app:
        run = await app.start(durable(agent, deps=Shop("corner")), "where?")
        assert await run.result(timeout=LIMIT_S) == "['corner']"


async def test_an_inline_tool_waits_as_the_workflow_does(url: str) -> None:
    told = Told()
    agent = Agent(
        scripted([call("ask", "c1", who="ana"), call("ask", "c2", who="bob")], "{results}", heard=told.model),
        name="clerk",
    )

    @step
    async def note(who: str) -> None:
        told.append(f"asked {who}")

    @agent.tool_plain(metadata=inline())
    async def ask(who: str) -> str:
        await note(who)
        return await outlive.receive(f"from {who}", as_type=str)

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "ask them")
        await waits_for(run, "receive", times=2)
        await leave_memory(app)
        await run.send("from bob", "no")
        await run.send("from ana", "yes")
        assert await run.result(timeout=LIMIT_S) == "['yes', 'no']"
        assert {
            "clerk#1/tool:ask(c1)#1/note#1",
            "clerk#1/tool:ask(c1)#1/receive:from ana#1",
            "clerk#1/tool:ask(c2)#1/receive:from bob#1",
        } <= set(await keys_of(run))
    assert sorted(told) == ["asked ana", "asked bob", "model 0", "model 1"]


async def test_a_durable_agent_within_a_tool_of_another(url: str) -> None:
    told = Told()
    searcher = durable(Agent(scripted("found", heard=told.model), name="searcher"))
    agent = Agent(scripted([call("search", "c1"), call("search", "c2")], "{results}"), name="writer")

    @agent.tool_plain(metadata=inline())
    async def search() -> str:
        return (await searcher.run("look")).output

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "write")
        assert await run.result(timeout=LIMIT_S) == "['found', 'found']"
        assert set(await keys_of(run)) == {
            "writer#1/model#1",
            "writer#1/tool:search(c1)#1/searcher#1/model#1",
            "writer#1/tool:search(c2)#1/searcher#1/model#1",
            "writer#1/model#2",
        }
    assert told == ["model 0", "model 0"]


async def test_agents_beside_each_other_in_one_workflow(url: str) -> None:
    """CrewAI 6113: the second task was given the record of the first."""
    told = Told()
    agent = Agent(scripted([call("look", "same id")], "{results}", heard=told.model), name="clerk")

    @agent.tool
    async def look(ctx: RunContext[None]) -> str:
        told.append(f"look {ctx.prompt}")
        return f"{ctx.prompt} is seen"

    clerk = durable(agent)

    @workflow
    async def both() -> list[str]:
        said = await outlive.gather(clerk.run("one"), clerk.run("two"))
        await outlive.receive("go on")
        return [each.output for each in said]

    async with Outlive(url) as app:
        run = await app.start(both)
        await waits_for(run, "receive")
        await leave_memory(app)
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == ["['one is seen']", "['two is seen']"]
        keys = await keys_of(run)
        assert len(keys) == len(set(keys)) == 7
    assert sorted(told) == ["look one", "look two", "model 0", "model 0", "model 1", "model 1"]


async def test_ids_of_calls_that_are_not_unique_or_not_fit_for_keys(url: str) -> None:
    told: list[int] = []
    odd = "a/b#c\n" + "x" * 200
    model = scripted([call("look", "c1", n=1)], [call("look", "c1", n=2)], [call("look", odd, n=3)], "{results}")
    agent = Agent(model, name="clerk / #1")

    @agent.tool_plain
    async def look(n: int) -> int:
        told.append(n)
        return n

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        result = await run.result(timeout=LIMIT_S)
        keys = await keys_of(run)
    assert told == [1, 2, 3]
    assert result == "['1', '2', '3']"
    assert len(keys) == len(set(keys)) == 7
    assert all(len(key) < 250 and key.isprintable() for key in keys)


async def test_agent_runs_of_one_id_are_told_apart(url: str) -> None:
    told: list[int] = []

    async def ask() -> list[str]:
        first = await clerk.run("look")
        second = await clerk.run("look", run_id="mine")
        third = await clerk.run("look", run_id="mine")
        fourth = await clerk.run("look", run_id=first.run_id)
        return [one.output for one in (first, second, third, fourth)]

    clerk = durable(Agent(scripted("{results}", heard=told.append), name="clerk"))
    asks = workflow(name="asks")(ask)
    async with Outlive(url) as app:
        run = await app.start(asks)
        assert await run.result(timeout=LIMIT_S) == ["[]"] * 4
        assert await keys_of(run) == [f"clerk#{number}/model#1" for number in (1, 2, 3, 4)]
    assert told == [0, 0, 0, 0]


async def test_plain_callbacks_execute_in_the_workflow(url: str) -> None:
    agent = Agent(scripted("{results}"), name="clerk")
    threads: list[str] = []

    @agent.instructions
    def instruct() -> str:
        threads.append(threading.current_thread().name)
        return "be short"

    @agent.output_validator
    def check(text: str) -> str:
        threads.append(threading.current_thread().name)
        return text

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "hello")
        assert await run.result(timeout=LIMIT_S) == "[]"
    assert set(threads) == {threading.main_thread().name}


async def test_a_tool_that_asks_the_model_to_try_again(url: str) -> None:
    """Pydantic AI 6640: what a tool tells the model was taken for a failure of the step, which was tried again."""
    agent = Agent(scripted([call("look", "c1", n=1)], [call("look", "c2", n=2)], "{results}"), name="clerk")

    looked: list[int] = []

    @agent.tool_plain(metadata=pure(retry=Retry(attempts=3, first_delay=0.01)))
    async def look(n: int) -> str:
        looked.append(n)
        if n == 1:
            raise ModelRetry("not that one")
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        assert "not that one" in await run.result(timeout=LIMIT_S)
        entry = next(entry for entry in await run.entries() if "c1" in entry.key)
        assert (entry.outcome, entry.value) == ("ok", {"message": "not that one", "kind": "model_retry"})
        assert entry.attempts == 1
    assert looked == [1, 2], "a retry is for failures"


@pytest.mark.parametrize("asks", [ApprovalRequired, CallDeferred])
async def test_a_tool_that_asks_people_is_executed_once_before_they_say(url: str, asks: Any) -> None:
    """Pydantic AI 6640, again: so was the wish of a tool to be approved, or to be answered elsewhere."""
    agent = Agent(scripted([call("look", "c1", n=1)], "{results}"), name="clerk")
    looked: list[bool] = []

    @agent.tool(metadata=pure(retry=Retry(attempts=3, first_delay=0.01)))
    async def look(ctx: RunContext[Any], n: int) -> str:
        looked.append(ctx.tool_call_approved)
        if not ctx.tool_call_approved:
            raise asks
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        async with asyncio.timeout(LIMIT_S):
            while not (made := [entry.key for entry in await run.entries() if entry.kind == "promise"]):
                await asyncio.sleep(0.01)
        assert looked == [False]
        (entry,) = [entry for entry in await run.entries() if entry.name == "tool:look"]
        assert (entry.outcome, entry.attempts) == ("ok", 1)
        if asks is ApprovalRequired:
            await approvals(app).decide(f"{run.id} {made[0]}", approve=True, by="ana")
            assert await run.result(timeout=LIMIT_S) == "['seen']"
            assert looked == [False, True]


async def test_an_error_of_a_tool_fails_the_run_and_is_retried_by_an_operator(url: str) -> None:
    told = Told()
    agent = Agent(scripted([call("look", "c1")], "{results}", heard=told.model), name="clerk")
    broken = [True]

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        if broken.pop() if broken else False:
            raise ValueError("the shelf is locked")
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        with pytest.raises(ValueError, match="the shelf is locked"):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert told == ["model 0", "model 1"]


async def test_a_cancelled_run_cancels_what_its_agent_does(url: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain
    async def look() -> str:
        begun.set()
        try:
            await asyncio.sleep(LIMIT_S)
        finally:
            ended.set()
        return "never"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert ended.is_set()


async def test_a_run_leaves_the_collector_little_to_find(url: str) -> None:
    """Cycles through the run would keep all that its agent has said until then."""
    agent = Agent(scripted([call("look", "c1"), call("look", "c2")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        await asyncio.sleep(0)
        return "a lamp"

    clerk = durable(agent)
    async with Outlive(url, include=[clerk]) as app:
        await app.run(clerk, "go")
        gc.collect()
        gc.disable()
        try:
            run = await app.start(clerk, "go")
            assert await run.result() == "['a lamp', 'a lamp']"
            async with asyncio.timeout(LIMIT_S):
                while app._engine().roster.executions:
                    await asyncio.sleep(0.01)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = Counter(type(one).__name__ for one in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    kept = {Unit, StepCall, ModelResponse, ToolReturnPart, RunContext}
    assert {one.__name__ for one in kept} & found.keys() == set()
    assert found["RunTask"] <= 1  # of the workflow itself, which its run holds


async def test_outside_a_workflow_the_agent_is_plain(url: str) -> None:
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain
    async def look() -> str:
        return "seen"

    clerk = durable(agent)

    @step
    async def asks() -> str:
        return (await clerk.run("look")).output

    @workflow
    async def by_a_step() -> str:
        return await asks()

    assert (await clerk.run("look")).output == "['seen']"
    async with Outlive(url) as app:
        run = await app.start(by_a_step)
        assert await run.result(timeout=LIMIT_S) == "['seen']"
        assert await keys_of(run) == ["asks#1"]


@pytest.mark.parametrize("wrong", [None, "agent", object()])
def test_only_agents_are_made_durable(wrong: Any) -> None:
    with pytest.raises(outlive.UsageError, match="takes an agent of Pydantic AI"):
        durable(wrong)


def test_an_agent_needs_a_name() -> None:
    with pytest.raises(outlive.UsageError, match="needs a name"):
        durable(Agent(scripted("hi")))
    assert durable(Agent(scripted("hi")), name="given").spec.name == "agent.given"


def test_an_agent_that_has_our_capability_already_is_refused() -> None:
    made = Agent(scripted("hello"), name="twice", capabilities=[OutliveDurability(AgentOptions())])
    with pytest.raises(outlive.UsageError, match=r"durable\(agent\) adds OutliveDurability by itself"):
        durable(made, stream=True)


def test_a_toolset_needs_an_id() -> None:
    tools = FunctionToolset[None]()
    tools.add_function(lambda: "seen", name="look")
    with pytest.raises(outlive.UsageError, match="need to have a unique `id`"):
        durable(Agent(scripted("hi"), name="clerk", toolsets=[tools]))


def test_without_pydantic_ai_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pydantic_ai'] = None; import outlive\n"
        "try:\n import outlive.agents\nexcept ImportError as error:\n print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SRC)
    assert "pip install 'outlive[agents]'" in told.stdout
