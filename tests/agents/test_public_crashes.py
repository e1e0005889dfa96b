"""What users of other frameworks have reported of crashes, replays and journals, played here: each test tells one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel

import outlive
from outlive import Outlive, Status
from outlive.agents import Ask, Budget, approvals, budgets, durable, inline, pure
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import asks, waiting
from tests.agents.test_durable import LIMIT_S, Told, leave_memory
from tests.agents.thrift import find, used
from tests.crash.databases import is_sqlite, read
from tests.house.source import ROOT, SRC
from tests.support import nursery

TURNS = 12


async def test_what_was_accepted_is_carried_out_though_nobody_had_begun(url: str) -> None:
    """LangGraph 5899, 8764: a crash before the first checkpoint lost a run that had been accepted."""
    env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}"}
    done = nursery.run(["-m", "tests.agents.test_public_crashes", url], cwd=ROOT, env=env, timeout=LIMIT_S)
    assert done.returncode == -signal.SIGKILL, done.stderr
    accepted = done.stdout.split()
    assert len(accepted) == 3
    told = Told()
    async with Outlive(url, include=[greeter(told)]) as app:
        for run_id in accepted:
            assert await (await app.get(run_id)).result(timeout=LIMIT_S) == "hello"
    assert told == ["model 0"] * 3


def greeter(told: Told) -> Any:
    return durable(Agent(scripted("hello", heard=told.model), name="greeter"))


async def test_what_an_agent_below_has_finished_is_not_done_again(url: str) -> None:
    """LangGraph 6792: resumed in a subgraph, tasks that had finished were executed again, with what they do outside."""
    told = Told()
    below = Agent(scripted([call("pay", "p1")], [call("confirm", "p2")], "{results}"), name="below")

    @below.tool_plain
    async def pay() -> str:
        told.append("paid")
        return "paid"

    @below.tool_plain
    async def confirm() -> str:
        return "confirmed"

    policy = asks()
    lower = durable(below, policy=lambda one: policy(one) if one.tool == "confirm" else None)
    above = Agent(scripted([call("delegate", "d1")], "{results}", heard=told.model), name="above")

    @above.tool_plain(metadata=inline())
    async def delegate() -> str:
        return (await lower.run("pay")).output

    upper = durable(above)
    async with Outlive(url, include=[upper]) as app:
        await app.start(upper, "go", id="run")
        await waiting(app)
    async with Outlive(url, include=[upper]) as app:
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana")
        said = await (await app.get("run")).result(timeout=LIMIT_S)
    assert said == str([str(["paid", "confirmed"])])
    assert told == ["model 0", "paid", "model 1"]


async def test_a_journal_grows_with_what_is_new(url: str) -> None:
    """LangGraph (js) 1138, Temporal 1890: each step stored the whole conversation anew, until histories were killed.

    So did deer-flow 4138, 4189, 3011, caipe 1238 and Pydantic AI 3359.
    """

    async def size_after(turns: int) -> int:
        model = scripted(*([call("look", f"c{turn}")] for turn in range(turns)), "done")
        agent = Agent(model, name=f"clerk-{turns}")

        @agent.tool_plain(metadata=pure())
        async def look() -> str:
            return "x" * 1_000

        run = await app.start(durable(agent), "look")
        assert await run.result(timeout=LIMIT_S) == "done"
        return sum(len(json.dumps(entry.value)) for entry in await run.entries())

    async with Outlive(url) as app:
        once, twice = await size_after(TURNS), await size_after(2 * TURNS)
        assert 1_000 * TURNS < once < 2_000 * TURNS
        assert twice < 2.2 * once


async def test_calls_beside_each_other_may_end_in_any_order(url: str) -> None:
    """DBOS 688, Pydantic AI 2853, 4076, 4077: steps at the same time were mixed up by the replay that followed."""
    told, names = Told(), ("a", "b", "c", "d")
    gates = {name: asyncio.Event() for name in names}
    model = scripted([call("look", f"c-{name}", name=name) for name in names], [call("wait", "w")], "{results}")
    agent = Agent(model, name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look(name: str) -> str:
        await gates[name].wait()
        told.append(name)
        if (after := "dbca".index(name) + 1) < len(names):
            gates["dbca"[after]].set()
        return f"seen {name}"

    @agent.tool_plain
    async def wait() -> str:
        return "waited"

    policy = asks()
    clerk = durable(agent, policy=lambda one: policy(one) if one.tool == "wait" else None)
    gates["d"].set()
    async with Outlive(url) as app:
        run = await app.start(clerk, "look")
        (one,) = await waiting(app)
        for _ in range(3):
            await leave_memory(app)
            assert (await approvals(app).find(one.id)) == one
            await run.pause()
            await run.resume()
        await approvals(app).decide(one.id, approve=True, by="ana")
        said = await run.result(timeout=LIMIT_S)
    assert said == str([*(f"seen {name}" for name in names), "waited"])
    assert told == list("dbca")


async def test_what_a_person_said_is_said_once(url: str) -> None:
    """ADK 4506: an invocation that was tried again had the user's message twice in its history."""
    histories, fails = list[list[str]](), [True, False]

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        histories.append([part.part_kind for message in messages for part in message.parts])
        said: Any = await script.function(messages, info)  # type: ignore[misc]
        return said  # type: ignore[no-any-return]

    script = scripted([call("look", "c1")], "{results}")
    agent = Agent(FunctionModel(answer), name="clerk")

    @agent.tool_plain(metadata=pure(retry=outlive.Retry(attempts=1)))
    async def look() -> str:
        if fails.pop(0):
            raise OSError("the line is dead")
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        with pytest.raises(OSError, match="the line is dead"):
            await run.result(timeout=LIMIT_S)
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert histories == [["user-prompt"], ["user-prompt", "tool-call", "tool-return"]]


async def test_what_ended_agents_leave_is_deleted_and_accounts_keep_their_sums(url: str) -> None:
    """LlamaIndex 1088: 572 MB of checkpoints, with nothing that deleted them."""
    agent = Agent(scripted([call("pay", "c1", n=1)], "{results}"), name="clerk")

    @agent.tool_plain
    async def pay(n: int) -> str:
        return f"paid {n}"

    budget = [Budget(requests=10), Budget(requests=100, account="team")]
    clerk = durable(agent, policy=lambda _: Ask(), stream=True, budget=budget)
    tables = ("runs", "live", "entries", "stream_items", "promises", "budget_ledger", "blobs", "run_values")
    prefix = "ol_" if is_sqlite(url) else "outlive."

    def count() -> dict[str, int]:
        return {table: int(read(url, f"select count(*) from {prefix}{table}")[0][0]) for table in tables}

    async with Outlive(url, include=[clerk]) as app:
        before = count()
        runs = [await app.start(clerk, "go") for _ in range(3)]
        for run in runs:
            async with asyncio.timeout(LIMIT_S):
                while not (found := (await approvals(app).list(run_id=run.id)).items):
                    await asyncio.sleep(0.01)
            await approvals(app).decide(found[0].id, approve=True, by="ana")
            assert await run.result(timeout=LIMIT_S) == "['paid 1']"
        full, spent = count(), (await find(app, "team")).spent
        assert all(full[table] > 0 for table in ("runs", "entries", "stream_items", "promises", "budget_ledger")), full
        assert await app.prune(0) == 3
        left = count()
        assert left.pop("budget_ledger") <= 1, "the last row of an account goes when its next one comes"
        assert left.items() <= before.items()
        assert (await find(app, "team")).spent == spent == used(0, spent.tokens, 6, 0)
        assert [one.account for one in (await budgets(app).list()).items] == ["team"]


async def test_a_run_outlives_any_number_of_deploys(url: str) -> None:
    """Cloudflare 1615: each deploy used up an attempt at recovery, and the fifth one ended the run."""
    hold = asyncio.Event()

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.set()
        await hold.wait()
        said: Any = await script.function(messages, info)  # type: ignore[misc]
        return said  # type: ignore[no-any-return]

    script = scripted("done")
    slow = durable(Agent(FunctionModel(answer), name="slow"))
    for deploy in range(7):
        asked = asyncio.Event()
        if deploy == 6:
            hold.set()
        async with Outlive(url, include=[slow], grace=0) as app:
            run = await app.start(slow, "go", id="run")
            async with asyncio.timeout(LIMIT_S):
                await asked.wait()
            if hold.is_set():
                assert await run.result(timeout=LIMIT_S) == "done"
            else:
                assert await run.status() is Status.RUNNING


async def main(url: str) -> None:
    """Accept runs as a client does, and die of the last one."""
    agent = greeter(Told())
    async with Outlive(url, worker=False) as app:
        for number in range(3):
            run = await app.start(agent, "hello", id=f"accepted-{number}")
            print(run.id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
