"""An agent that is watched, by spans and by a handler of its events, in processes that die: `… watched URL LEDGER`.

Its tools are a function and an MCP server. What the server did, which spans have ended and what the handler has heard
stand in files of no database; `OUTLIVE_TEST_DIES` says where a process dies.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import FunctionToolResultEvent, PartStartEvent
from pydantic_ai.models.instrumented import InstrumentationSettings

from outlive import Outlive, hooks, workflow
from outlive.agents import durable, idempotent, pure
from tests.agents.scripts import call, scripted
from tests.agents.shop import LEDGER, book, pass_point, provider
from tests.house.source import ROOT
from tests.support.size import CALM_LEASE_S


def serve() -> MCPToolset[Any]:
    words = ["-m", "tests.agents.tools_server", os.environ[LEDGER] + ".server"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return MCPToolset(StdioTransport(sys.executable, words, env=env, cwd=str(ROOT)), id="tools")


def hear(turn: int) -> None:
    pass_point("before-model")
    book(f"model {turn}")
    pass_point("after-model")


async def listen(_: Any, events: AsyncIterable[Any]) -> None:
    """Note where parts of an answer begin, and what tools have given."""
    async for event in events:
        if isinstance(event, PartStartEvent | FunctionToolResultEvent):
            book(f"heard {event.event_kind} {event.part.part_kind}")
            pass_point("heard")


turns = [[call("put", "p1", name="a")], [call("look", "l1"), call("send", "s1", name="b")], "{results}"]


def make() -> Any:
    agent = Agent(
        scripted(*turns, heard=hear),
        name="watched",
        toolsets=[serve()],
        capabilities=[Instrumentation(InstrumentationSettings(tracer_provider=provider))],
    )

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        pass_point("in-look")
        return "seen"

    return durable(agent, effects={"*": idempotent()})


async def main(url: str) -> None:
    hooks.arm(pass_point)
    agent = make()

    @workflow(name="watched day")
    async def day() -> str:
        return str((await agent.run("go", event_stream_handler=listen)).output)

    async with Outlive(url, lease=CALM_LEASE_S, include=[day]) as app:
        run = await app.start(day, id="watched")
        print(await run.result(timeout=30), flush=True)


if __name__ == "__main__":
    Path(os.environ[LEDGER] + ".server").touch()
    asyncio.run(main(sys.argv[1]))
