"""What tools may declare of their effects, and what becomes of wrong declarations and of tools that fail."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext, ToolFailed
from pydantic_ai.toolsets import DynamicToolset, FunctionToolset

import outlive
from outlive import Outlive, Retry, UsageError, step, transaction, workflow
from outlive.agents import at_most_once, durable, idempotent, inline, pure, transactional, tx
from outlive.agents.servers import Interrupted
from outlive.codec import Codec, JsonCodec
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import waits_for
from tests.engine.test_codecs import Sealed

LIMIT_S = 20.0


@step
async def nothing() -> None: ...


@transaction
async def make_table(tx: Any) -> None:
    await tx.execute("create table rows (name text)")


@transaction
async def list_rows(tx: Any) -> list[str]:
    return [name for (name,) in await tx.fetch("select name from rows order by name")]


def with_table(clerk: Any) -> Any:
    """Give a workflow that runs an agent and tells its output and the rows that there are then."""

    @workflow(name="with_table")
    async def body() -> list[Any]:
        await make_table()
        try:
            said = (await clerk.run("go")).output
        except ValueError as error:
            said = str(error)
        return [said, await list_rows()]

    return body


@pytest.mark.parametrize(
    "failure", [ModelRetry("no"), ToolFailed("no"), ValueError("no")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_transactional_tool_that_fails_leaves_no_rows(url: str, failure: Exception, is_async: bool) -> None:
    agent = Agent(scripted([call("put", "c1", name="a")], [call("put", "c2", name="b")], "{results}"), name="clerk")

    if is_async:

        @agent.tool_plain(metadata=transactional())
        async def put(name: str) -> str:
            await tx().execute("insert into rows values ($1)", name)
            if name == "a":
                raise failure
            return "put"
    else:

        @agent.tool_plain(name="put", metadata=transactional())
        def put_plainly(name: str) -> str:
            tx().execute("insert into rows values ($1)", name)
            if name == "a":
                raise failure
            return "put"

    async with Outlive(url) as app:
        run = await app.start(with_table(durable(agent)))
        said, rows = await run.result(timeout=LIMIT_S)
    if isinstance(failure, ValueError):
        assert (said, rows) == ("no", [])
    else:
        assert "no" in said
        assert said.endswith("'put']")
        assert rows == ["b"]


@pytest.mark.parametrize("codec", [JsonCodec(), Sealed()], ids=lambda codec: codec.id)
@pytest.mark.parametrize("length", [20_000, 1_500_000])
async def test_what_a_transactional_tool_tells_the_model_may_be_long(url: str, codec: Codec, length: int) -> None:
    agent = Agent(scripted([call("put", "c1", name="a")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=transactional())
    async def put(name: str) -> str:
        await tx().execute("insert into rows values ($1)", name)
        raise ToolFailed("no" * (length // 2))

    async with Outlive(url, codec=codec) as app:
        run = await app.start(with_table(durable(agent)))
        said, rows = await run.result(timeout=LIMIT_S)
    assert said.count("no") == length // 2
    assert rows == []


async def test_a_pure_tool_is_tried_again(url: str) -> None:
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")
    attempts: list[int] = []

    @agent.tool_plain(metadata=pure(retry=Retry(attempts=3, first_delay=0.01)))
    async def look() -> str:
        info = outlive.info()
        assert isinstance(info, outlive.StepInfo)
        attempts.append(info.attempt)
        if info.attempt < 3:
            raise OSError("not yet")
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert attempts == [1, 2, 3]


async def test_a_failed_model_request_is_tried_again(url: str) -> None:
    asked: list[int] = []

    def stumble(turn: int) -> None:
        asked.append(turn)
        if len(asked) < 3:
            raise ConnectionError("the line is cut")

    agent = Agent(scripted("hello", heard=stumble), name="clerk")
    patient = durable(agent, model_retry=Retry(attempts=3, first_delay=0.01))
    async with Outlive(url) as app:
        assert await (await app.start(patient, "hi")).result(timeout=LIMIT_S) == "hello"
        assert asked == [0, 0, 0]
        asked.clear()
        with pytest.raises(ConnectionError, match="the line is cut"):
            await (await app.start(durable(agent, name="hasty", model_retry=Retry(attempts=1)), "hi")).result(
                timeout=LIMIT_S
            )
        assert asked == [0]


async def test_a_strict_agent_refuses_tools_without_a_class(url: str) -> None:
    """Before its model is asked, and whether that would call them or not."""
    told: list[Any] = []
    agent = Agent(scripted("nothing to look for", heard=told.append), name="clerk")

    @agent.tool_plain
    async def look() -> str:
        told.append("look")
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent, strict=True), "look")
        with pytest.raises(outlive.UsageError, match=r"tool 'look' declares no effect class.*strict"):
            await run.result(timeout=LIMIT_S)
    assert told == []


async def test_a_strict_agent_goes_on_when_its_tools_have_classes(url: str) -> None:
    """Code is mended and deployed; what the run has done by then stays done."""
    told: list[Any] = []

    def make(*undeclared: str) -> Any:
        agent = Agent(scripted([call("look", "c1")], [call("ask", "c2")], "{results}", heard=told.append), name="clerk")

        async def look() -> str:
            told.append("look")
            return "seen"

        async def ask() -> str:
            return "asked"

        agent.tool_plain(look, metadata=None if "look" in undeclared else pure())
        agent.tool_plain(ask, metadata=None if "ask" in undeclared else at_most_once())
        return durable(agent, strict=True)

    for undeclared in (["look"], ["ask"]):
        careless = make(*undeclared)
        async with Outlive(url, include=[careless]) as app:
            run = await app.start(careless, "go", id="one")
            if undeclared == ["ask"]:
                await run.retry()
            with pytest.raises(UsageError, match=f"tool '{undeclared[0]}' declares no effect class"):
                await run.result(timeout=LIMIT_S)
            assert told == []
    careful = make()
    async with Outlive(url, include=[careful]) as app:
        run = await app.get("one")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen', 'asked']"
    assert told == [0, "look", 1, 2]


async def test_a_toolset_that_has_another_id_after_a_deploy(url: str) -> None:
    """The run is paused, and says where; it goes on with the id that its journal knows."""
    told: list[int] = []

    def make(id: str) -> Any:
        tools = DynamicToolset(lambda ctx: FunctionToolset([plain], id="inner"), id=id)
        model = scripted([call("plain", "c1"), call("wait", "c2")], "{results}", heard=told.append)
        agent = Agent(model, name="clerk", toolsets=[tools])

        @agent.tool_plain(metadata=inline())
        async def wait() -> str:
            return str(await outlive.receive("go on"))

        return durable(agent)

    before, after = make("shelves"), make("racks")
    async with Outlive(url, include=[before]) as app:
        run = await app.start(before, "go", id="one")
        await waits_for(run, "receive")
    async with Outlive(url, include=[after]) as app:
        run = await app.get("one")
        await run.send("go on", "yes")
        async with asyncio.timeout(LIMIT_S):
            while await run.status() != "paused":
                await asyncio.sleep(0.01)
        assert re.search(r"its journal has .*tools\(shelves\).*, the code asks for .*tools\(racks\)", await run.why())
    async with Outlive(url, include=[before]) as app:
        run = await app.get("one")
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "['plain', 'yes']"
    assert told == [0, 1]


async def test_metadata_that_is_no_class(url: str) -> None:
    agent = Agent(scripted("nothing to look for"), name="clerk")

    @agent.tool_plain(metadata={"outlive": "pure"})
    async def look() -> str:
        return "seen"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        with pytest.raises(
            outlive.UsageError, match="tool 'look' has metadata 'outlive' that is no effect class: 'pure'"
        ):
            await run.result(timeout=LIMIT_S)


async def test_other_metadata_stands_beside_the_class(url: str) -> None:
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata={**pure(), "team": "shelves"})
    async def look() -> str:
        return "seen"

    async with Outlive(url) as app:
        assert await (await app.start(durable(agent, strict=True), "look")).result(timeout=LIMIT_S) == "['seen']"


@pytest.mark.parametrize("declare", [pure, idempotent, at_most_once, inline, None])
async def test_a_transaction_is_for_transactional_tools(url: str, declare: Any) -> None:
    agent = Agent(scripted([call("put", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=declare() if declare else None)
    async def put() -> str:
        await tx().execute("select 1")
        return "put"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "put")
        with pytest.raises(outlive.UsageError, match="is for tools with metadata=transactional"):
            await run.result(timeout=LIMIT_S)


def test_a_transaction_outside_of_tools() -> None:
    with pytest.raises(outlive.UsageError, match="is for tools with metadata=transactional"):
        tx()


def test_verify_is_a_function() -> None:
    with pytest.raises(outlive.UsageError, match="takes a function of the tool's arguments"):
        at_most_once("bank")  # type: ignore[arg-type]


class Opaque:
    pass


async def test_what_validates_arguments_is_no_call_of_the_tool(url: str) -> None:
    agent = Agent(scripted([call("put", "c1", n=1)], [call("put", "c2", n=2)], "{results}"), name="clerk")

    def check(ctx: RunContext[None], n: int) -> None:
        with pytest.raises(outlive.UsageError):
            tx()
        if n == 1:
            raise ModelRetry("not one")

    @agent.tool_plain(metadata=transactional(), args_validator=check)
    async def put(n: int) -> str:
        return f"put {n} {await tx().fetchval('select 1')}"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "put")
        assert (await run.result(timeout=LIMIT_S)).endswith("'put 2 1']")
        assert [(entry.kind, entry.name) for entry in await run.entries()] == [
            ("step", "model"),
            ("step", "validate:put"),
            ("step", "model"),
            ("step", "validate:put"),
            ("transaction", "tool:put"),
            ("step", "model"),
        ]


async def test_a_result_that_cannot_be_stored_fails_the_run(url: str) -> None:
    """Pydantic AI 7157: what could not be stored was tried again for ever."""
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain
    async def look() -> Any:
        return Opaque()

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        with pytest.raises(outlive.EncodeFailed, match=r"a result within an agent.*Opaque"):
            await run.result(timeout=LIMIT_S)
        assert [entry.outcome for entry in await run.entries()] == ["ok", "error"]


async def test_characters_that_no_database_stores_are_replaced(url: str) -> None:
    agent = Agent(scripted([call("look", "c1"), call("peek", "c2")], "{results}"), name="clerk")

    @agent.tool_plain
    async def look() -> dict[str, str]:
        return {"file": "a\x00b", "key\x00": "\u00e4"}

    @agent.tool_plain
    async def peek() -> str:
        return "half \ud83d of a smile"

    async with Outlive(url) as app:
        said = await (await app.start(durable(agent), "look")).result(timeout=LIMIT_S)
    assert "a\ufffdb" in said
    assert "key\ufffd" in said
    assert "half ? of a smile" in said


async def test_what_verify_has_found_is_stored_whatever_characters_it_has(url: str) -> None:
    agent = Agent(scripted([call("pay", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=at_most_once(verify=lambda: "paid \ud83d"))
    async def pay() -> str:
        raise Interrupted("its server is gone", again=True)

    async with Outlive(url) as app:
        assert await app.run(durable(agent), "pay") == "['paid ?']"


async def test_a_plain_workflow_has_no_durable_agent(url: str) -> None:
    clerk = durable(Agent(scripted("hi"), name="clerk"))

    @workflow
    def plain() -> str:
        import asyncio

        return asyncio.run(clerk.run("hi")).output

    async with Outlive(url) as app:
        run = await app.start(plain)
        with pytest.raises(outlive.UsageError, match="is for async workflow functions"):
            await run.result(timeout=LIMIT_S)


@pytest.mark.parametrize("declares", ["tool", "agent", "prefix"])
async def test_an_inline_tool_has_keys_of_its_own_wherever_it_is_declared(url: str, declares: str) -> None:
    @step
    async def look(name: str) -> str:
        return f"saw {name}"

    async def put(name: str) -> str:
        return await look(name)

    toolset: FunctionToolset[Any] = FunctionToolset(id="tools")
    toolset.add_function(put, metadata=inline() if declares == "tool" else None)
    seen = "my_put" if declares == "prefix" else "put"
    toolsets = [toolset.prefixed("my") if declares == "prefix" else toolset]
    model = scripted([call(seen, "c1", name="a"), call(seen, "c2", name="b")], "{results}")
    effects = {} if declares == "tool" else {seen: inline()}
    async with Outlive(url) as app:
        run = await app.start(durable(Agent(model, name="clerk", toolsets=toolsets), effects=effects), "go")
        assert await run.result(timeout=LIMIT_S) == "['saw a', 'saw b']"
        keys = [entry.key for entry in await run.entries() if "look" in entry.key]
    assert keys == [f"clerk#1/tool:{seen}({one})#1/look#1" for one in ("c1", "c2")]


@pytest.mark.parametrize("toolset", ["functions", "dynamic", "prefixed"])
async def test_effects_for_a_tool_that_there_is_not(url: str, toolset: str) -> None:
    heard: list[int] = []
    functions: FunctionToolset[Any] = FunctionToolset([plain], id="tools")
    given: Any = {
        "functions": functions,
        "dynamic": DynamicToolset(lambda ctx: functions, id="dynamic"),
        "prefixed": functions.prefixed("my"),
    }[toolset]
    agent = durable(
        Agent(scripted("done", heard=heard.append), name="clerk", toolsets=[given]),
        effects={"plan" if toolset != "prefixed" else "plain": pure(), "*": idempotent()},
    )
    seen = "my_plain" if toolset == "prefixed" else "plain"
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        with pytest.raises(UsageError, match=f"of agent 'clerk' is for no tool that it has; they are '{seen}'"):
            await run.result(timeout=LIMIT_S)
    assert heard == []


async def test_effects_for_tools_that_a_run_may_not_see(url: str) -> None:
    functions: FunctionToolset[Any] = FunctionToolset([plain], id="tools")
    toolsets = [
        functions.filtered(lambda ctx, tool: False),
        FunctionToolset([plain], id="others").filtered(lambda ctx, tool: False).prefixed("my"),
        DynamicToolset(lambda ctx: functions, id="dynamic").prefixed("your").filtered(lambda ctx, tool: False),
    ]
    effects = {"plain": pure(), "my_plain": pure(), "your_plain": pure()}
    agent = durable(Agent(scripted("done"), name="clerk", toolsets=toolsets), effects=effects)
    async with Outlive(url) as app:
        assert await app.run(agent, "go") == "done"


async def plain() -> str:
    return "plain"
