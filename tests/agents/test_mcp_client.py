"""Tools of MCP servers in durable agents: what is an entry, who holds a session, what the loss of a server means."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

import outlive
from outlive import CassetteMiss, Outlive, UsageError
from outlive.agents import (
    Ask,
    ReplayModel,
    annotated,
    approvals,
    at_most_once,
    cassette,
    durable,
    idempotent,
    inline,
    pure,
    servers,
    transactional,
)
from outlive.agents.mcp import PinnedMCPToolset, describe, write_pins
from outlive.integrations.mcp import server
from tests.agents import tools_server
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import asks, waiting
from tests.agents.test_durable import LIMIT_S, Told, keys_of, leave_memory
from tests.house.source import ROOT
from tests.support.size import SOAK

STORES = ("sqlite", "postgres")


class Tools:
    """A server as a file, and what it has done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def toolset(self, **options: Any) -> MCPToolset[Any]:
        """Make the toolset, as each process of a user does; a pinned one with `pins`."""
        words = ["-m", "tests.agents.tools_server", str(self.ledger)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        transport = StdioTransport(sys.executable, words, env=env, cwd=str(ROOT))
        return (PinnedMCPToolset if "pins" in options else MCPToolset)(transport, **{"id": "tools", **options})

    def agent(self, *turns: Any, heard: Any = None, options: Any = (), toolset: Any = None, **given: Any) -> Any:
        """Make an agent that has the tools."""
        model = scripted(*turns, heard=heard)
        return durable(Agent(model, name="clerk", toolsets=[toolset or self.toolset(**dict(options))]), **given)

    def die_at(self, point: str) -> None:
        """Let the server die, once, where it passes by."""
        (self.folder / point).touch()

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines()

    def begun(self) -> list[int]:
        """Give the servers that have begun, in order."""
        return [int(line.split()[1]) for line in self.lines() if line.startswith("begun")]

    def done(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.lines() if not line.startswith("begun"))


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_listings_and_calls_are_entries_and_one_session_serves_them(url: str, tools: Tools) -> None:
    agent = tools.agent([call("read", "r1"), call("put", "p1", name="a")], [call("send", "s1", name="b")], "{results}")
    async with Outlive(url) as app:
        for number in range(2):
            run = await app.start(agent, "go", id=f"run-{number}")
            said = await run.result(timeout=LIMIT_S)
        (server,) = tools.begun()
        assert said == str([f"read by {server}", "put a", "sent b"])
        assert await keys_of(run) == [
            "clerk#1/tools(tools)#1",
            "clerk#1/model#1",
            "clerk#1/tool:read(r1)#1",
            "clerk#1/tool:put(p1)#1",
            "clerk#1/model#2",
            "clerk#1/tool:send(s1)#1",
            "clerk#1/model#3",
        ]
        assert is_alive(server)
    assert not is_alive(server), "the server ends with the app"
    assert tools.done() == {"read": 2, "put": 2, "send": 2}
    keys = [line.split()[-1] for line in tools.lines() if line.startswith(("read", "put"))]
    assert len(set(keys)) == 4, "each call has a key of its own"
    assert "None" not in keys


async def test_replay_asks_no_server(url: str, tools: Tools) -> None:
    told = Told()
    turns = ([call("read", "r1")], [call("send", "s1", name="b")], "{results}")
    policy = asks()

    def make() -> Any:
        return tools.agent(*turns, heard=told.model, policy=lambda one: policy(one) if one.tool == "send" else None)

    async with Outlive(url, include=[make()]) as app:
        await app.start("agent.clerk", "go", id="run")
        await waiting(app)
    for _ in range(2):
        async with Outlive(url, include=[make()]) as app:
            (one,) = await waiting(app)
            await leave_memory(app)
    assert len(tools.begun()) == 1
    async with Outlive(url, include=[make()]) as app:
        await approvals(app).decide(one.id, approve=True, by="ana")
        await (await app.get("run")).result(timeout=LIMIT_S)
    assert (len(tools.begun()), tools.done()) == (2, {"read": 1, "send": 1})
    assert told == ["model 0", "model 1", "model 2"]


# which tool, where its server dies, what it is declared as, how often it took effect, what the model reads
LOSSES = [
    ("read", "after-read", pure(), 2, "read by"),
    ("read", "after-read", annotated(), 2, "read by"),
    ("put", "after-put", annotated(), 2, "put a"),
    ("put", "after-put", idempotent(), 2, "put a"),
    ("send", "before-send", None, 0, "OutcomeUnknown"),
    ("send", "after-send", None, 1, "OutcomeUnknown"),
    ("send", "after-send", annotated(), 1, "OutcomeUnknown"),
    ("send", "after-send", "verify", 1, "sent a, says the ledger"),
    ("send", "before-send", "verify", 1, "sent a"),
]


PLAYED = [
    (store, *loss)
    for number, loss in enumerate(LOSSES)
    for store in (STORES if SOAK else STORES[number % 2 :][:1])  # each on one store at small size
]


@pytest.mark.parametrize(
    ("url", "tool", "dies", "effect", "times", "read"),
    PLAYED,
    indirect=["url"],
    ids=[f"{store}-{dies}-{number}" for number, (store, _, dies, *_) in enumerate(PLAYED)],
)
async def test_a_server_that_dies_in_the_middle_of_a_call(
    url: str, tools: Tools, tool: str, dies: str, effect: Any, times: int, read: str
) -> None:
    def look_up(name: str) -> str:
        if f"send {name}" not in tools.lines():
            raise LookupError(name)
        return f"sent {name}, says the ledger"

    if effect == "verify":
        effect = at_most_once(verify=look_up)
    arguments = {} if tool == "read" else {"name": "a"}
    agent = tools.agent(
        [call(tool, "c1", **arguments)], [call("read", "r2")], "{results}", effects={tool: effect} if effect else {}
    )
    tools.die_at(dies)
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        said = await run.result(timeout=LIMIT_S)
    assert read in said
    assert len(tools.begun()) == 2
    assert tools.done()[tool] == times + (tool == "read")
    keys = [line.split()[-1] for line in tools.lines() if line.startswith(("put", "read"))]
    assert len(set(keys)) == 2 - (tool == "send"), "a repetition has the key of the first"


async def test_a_server_that_died_between_two_calls_is_opened_anew(url: str, tools: Tools) -> None:
    agent = tools.agent([call("send", "s1", name="a")], "{results}")
    async with Outlive(url) as app:
        assert "sent a" in await app.run(agent, "go")
        (server,) = tools.begun()
        os.kill(server, signal.SIGKILL)
        async with asyncio.timeout(LIMIT_S):
            while is_alive(server):
                await asyncio.sleep(0.01)
        (session,) = servers.sessions_of(app._engine())._sessions.values()
        session._used_at = 0.0  # a while ago
        assert "sent a" in await app.run(agent, "go")
    assert tools.done() == {"send": 2}


async def test_a_server_that_dies_when_it_is_asked_for_instructions_is_asked_again(url: str, tools: Tools) -> None:
    pins = tools.folder / "pins.json"
    write_pins(pins, {"tools": describe("Be careful.", await tools_server.server.list_tools())})
    toolset = tools.toolset(pins=pins, include_instructions=True, cache_tools=False)
    ask = toolset.get_instructions

    async def die(ctx: Any) -> Any:
        if len(tools.begun()) == 1:
            tools.die_at("listing")
        return await ask(ctx)

    toolset.get_instructions = die  # type: ignore[method-assign]
    agent = tools.agent([call("read", "r1")], "{results}", toolset=toolset)
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        assert "read by" in await run.result(timeout=LIMIT_S)
        attempts = {entry.key: entry.attempts for entry in await run.entries()}
    assert attempts["clerk#1/instructions(tools)#1"] == 1
    assert len(tools.begun()) == 2


async def test_many_runs_and_agents_share_a_server(url: str, tools: Tools) -> None:
    toolset = tools.toolset(include_instructions=True)
    turns = [[call("wait", "w1", seconds=0.05), call("refuse", "c1")], [call("put", "p1", name="a")], "{results}"]
    agent = tools.agent(*turns, toolset=toolset)
    careless = tools.agent([call("read", "r1")], "{results}", toolset=toolset, name="careless", strict=True)
    careful = tools.agent(
        [call("read", "r1")], "{results}", toolset=toolset, name="careful", strict=True, effects={"*": annotated()}
    )
    async with Outlive(url, include=[agent, careless, careful]) as app:
        runs = await asyncio.gather(*(app.start(agent, "go") for _ in range(8)))
        for run in runs:
            assert await run.result(timeout=LIMIT_S) == "['waited', 'Error executing tool refuse', 'put a']"
        assert "clerk#1/instructions(tools)#1" in await keys_of(run)
        assert "Be careful." in str([entry.value for entry in await run.entries()])
        with pytest.raises(UsageError, match="declares no effect class"):
            await app.run(careless, "go")
        assert "read by" in await app.run(careful, "go")
        for name, effect in (("inline", inline()), ("transactional", transactional())):
            wrong = tools.agent([call("read", "r1")], "", toolset=toolset, name=name, effects={"*": effect})
            async with Outlive(url, include=[wrong]) as other:
                with pytest.raises(UsageError, match="'read' is executed by a server"):
                    await other.run(wrong, "go")
    assert len(tools.begun()) == 1
    assert tools.done() == {"wait": 8, "refuse": 8, "put": 8, "read": 1}


async def test_outside_of_workflows_the_toolset_is_plain(tools: Tools) -> None:
    toolset = tools.toolset()
    agent = durable(
        Agent(scripted([call("read", "r1")], [call("read", "r2")], "{results}"), toolsets=[toolset]), name="a"
    )
    said = (await agent.run("go")).output
    (server,) = tools.begun()
    assert said == str([f"read by {server}"] * 2)
    await toolset.client.close()


async def test_a_server_that_is_not_there_fails_the_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlive.agents.servers.MCP_CONNECT_S", 0.3)
    toolset: MCPToolset[Any] = MCPToolset(StdioTransport(str(tmp_path / "nothing"), []), id="tools")
    agent = durable(Agent(scripted("done"), name="clerk", toolsets=[toolset]))
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        with pytest.raises(ConnectionError, match=r"MCP server 'tools' cannot be reached.*nothing"):
            await run.result(timeout=LIMIT_S)


@pytest.mark.parametrize(
    ("effects", "told"),
    [
        ("pure", "maps names of tools"),
        ({"read": "pure"}, "takes what pure"),
        ({"read": {}}, "takes what pure"),
        ({"read": pure}, "takes what pure"),
    ],
    ids=["text", "name", "empty", "function"],
)
def test_effects_that_are_none(effects: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        durable(Agent(scripted("done"), name="clerk"), effects=effects)


def test_our_own_server_knows_the_key_that_is_sent() -> None:
    assert servers.KEY == server.KEY


def test_a_server_needs_an_id(tmp_path: Path) -> None:
    toolset: MCPToolset[Any] = MCPToolset(StdioTransport(str(tmp_path / "nothing"), []))
    with pytest.raises(UsageError, match="id"):
        durable(Agent(scripted("done"), name="clerk", toolsets=[toolset]))


def test_without_the_extra_agents_are_durable_all_the_same() -> None:
    code = """
import sys
sys.modules["fastmcp"] = sys.modules["mcp"] = None
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from outlive.agents import durable
durable(Agent(TestModel(), name="clerk"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})


async def test_a_cassette_has_servers_approvals_and_streams(url: str, tools: Tools) -> None:
    """What was edited stands in it as it was executed; a model that replays it asks for the same, and shows a miss."""

    def make(model: Any) -> Any:
        agent = Agent(model, name="clerk", toolsets=[tools.toolset()])
        return durable(agent, policy=lambda asked: Ask() if asked.tool == "put" else None, stream=True)

    async def work(app: Outlive, agent: Any, edit: str) -> outlive.Run:
        run = await app.start(agent, "go")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana", edit={"name": edit})
        return run

    recorded = make(scripted([call("send", "s1", name="a"), call("put", "p1", name="a")], "{results}"))
    async with Outlive(url, include=[recorded]) as app:
        run = await work(app, recorded, "b")
        said = await run.result(timeout=LIMIT_S)
        tape = await cassette(app, run.id)
    assert {one["tool"]: one["arguments"] for one in tape.calls} == {"send": {"name": "a"}, "put": {"name": "b"}}
    assert [one["key"] for one in tape.requests] == ["clerk#1/model.stream#1", "clerk#1/model.stream#2"]
    played = make(ReplayModel(tape))
    async with Outlive(url, include=[played]) as app:
        assert await (await work(app, played, "b")).result(timeout=LIMIT_S) == said == "['sent a', 'put b']"
    missed = make(ReplayModel(tape))
    async with Outlive(url, include=[missed]) as app:
        with pytest.raises(CassetteMiss, match="put c"):
            await (await work(app, missed, "c")).result(timeout=LIMIT_S)
