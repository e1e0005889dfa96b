"""MCP servers behind HTTP, of both protocol eras: they are killed, deployed anew, and not there for a while."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import DynamicToolset

from outlive import Outlive
from outlive.agents import durable, idempotent, pure
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import LIMIT_S
from tests.agents.test_mcp_client import Tools
from tests.house.source import ROOT
from tests.integrations.servers import free_port
from tests.support import nursery
from tests.support.size import SOAK

URLS = pytest.mark.parametrize("url", ["sqlite", "postgres"] if SOAK else ["sqlite"], indirect=True)
ERAS = pytest.mark.parametrize("era", ["auto", "legacy", "own"])  # own: a session for each run, with its credentials


class Web(Tools):
    """A server on a port, which processes follow each other to serve."""

    def __init__(self, folder: Path, era: Any) -> None:
        super().__init__(folder)
        self.era = era
        self.port = free_port()
        self.running: nursery.Fork | None = None

    def toolset(self, **options: Any) -> MCPToolset[Any]:
        here = f"http://127.0.0.1:{self.port}/mcp"
        if self.era == "own":
            return MCPToolset(here, id="tools", headers=lambda ctx: {"whose": ctx.run_id}, **options)
        return MCPToolset(Client(here, mode=self.era), id="tools", **options)

    async def open(self) -> None:
        """Start a server, and wait until it listens."""
        words = ["-m", "tests.agents.tools_server", str(self.ledger), str(self.port)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = self.folder / "log"
        with log.open("ab") as told:
            self.running = nursery.spawn(words, cwd=ROOT, env=env, stdout=told, stderr=told)
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self.running.poll() is None, log.read_text()
                    await asyncio.sleep(0.02)  # there is no event of another process's port
                else:
                    writer.close()
                    return

    def kill(self) -> None:
        """Kill the server, as the power company does."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(LIMIT_S)

    async def gone(self) -> None:
        """Wait until the server has killed itself."""
        assert self.running is not None
        assert await asyncio.to_thread(self.running.wait, LIMIT_S) == -signal.SIGKILL


@pytest.fixture
def web(tmp_path: Path, era: str) -> Iterator[Web]:
    made = Web(tmp_path, era)
    yield made
    made.kill()


@URLS
@ERAS
@pytest.mark.parametrize(("effect", "times", "read"), [(pure(), 2, "sent a"), (None, 1, "OutcomeUnknown")])
async def test_a_server_that_is_killed_in_the_middle_of_a_call(
    url: str, web: Web, effect: Any, times: int, read: str
) -> None:
    agent = web.agent([call("send", "s1", name="a")], "{results}", effects={"send": effect} if effect else {})
    web.die_at("after-send")
    await web.open()
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        await web.gone()
        await web.open()
        assert read in await run.result(timeout=LIMIT_S)
    assert web.done() == {"send": times}


@URLS
@ERAS
async def test_a_server_that_is_deployed_anew_is_connected_anew(url: str, web: Web) -> None:
    agent = web.agent([call("send", "s1", name="a")], [call("read", "r1")], "{results}", effects={"read": pure()})
    await web.open()
    async with Outlive(url) as app:
        assert "sent a" in await app.run(agent, "go")
        for _ in range(2):
            web.kill()
            await web.open()
            said = await app.run(agent, "go")
            assert "read by" in said, "it is no session of the old server for ever"
    assert web.done()["read"] == 3


@URLS
@ERAS
async def test_a_server_that_is_away_for_a_while_is_waited_for(url: str, web: Web) -> None:
    agent = web.agent([call("read", "r1")], "{results}", effects={"read": pure()})
    await web.open()
    async with Outlive(url) as app:
        await app.run(agent, "go")
        web.kill()
        run = await app.start(agent, "go")
        await web.open()
        assert "read by" in await run.result(timeout=LIMIT_S)
    assert web.done() == {"read": 2}


@URLS
@ERAS
async def test_parallel_calls_share_a_session(url: str, web: Web) -> None:
    agent = web.agent([call("wait", f"w{number}", seconds=number / 50) for number in range(5)], "{results}")
    await web.open()
    async with Outlive(url) as app:
        assert await app.run(agent, "go") == str(["waited"] * 5)
    assert web.done() == {"wait": 5}


@URLS
@pytest.mark.parametrize("era", ["auto"])
@pytest.mark.parametrize("new", [False, True], ids=["the-same", "a-new-one"])
@pytest.mark.parametrize("per_run_step", [False, True], ids=["per-run", "per-step"])
async def test_a_server_that_a_function_gives_is_no_other(url: str, web: Web, per_run_step: bool, new: bool) -> None:
    shared = web.toolset()
    given = DynamicToolset[Any](
        lambda ctx: (web.toolset() if new else shared).prefixed("my"), per_run_step=per_run_step, id="given"
    )
    turns = [[call("my_put", "p1", name="a")], [call("my_send", "s1", name="a"), call("my_put", "p2", name="b")]]
    agent = durable(
        Agent(scripted(*turns, "{results}"), name="clerk", toolsets=[given]), effects={"my_put": idempotent()}
    )
    web.die_at("after-put")
    await web.open()
    async with Outlive(url) as app:
        run = await app.start(agent, "go")
        await web.gone()
        web.die_at("after-send")
        await web.open()
        await web.gone()
        await web.open()
        said = await run.result(timeout=LIMIT_S)
        assert said.count("put") == 2
        assert "OutcomeUnknown" in said
        assert web.done()["send"] == 1
        assert "put b" in (await agent.run("go")).output, "outside of workflows it is plain"
    keys = {line.split()[-1] for line in web.lines() if line.startswith("put")}
    assert len(keys) == 3, "a repetition has the key of the first, and plain calls have none"
