"""An MCP server of tools with a ledger: `python -m tests.agents.tools_server LEDGER`, over its standard streams.

What it did stands in the ledger, with the key of the call; it dies where a file of the name of a point says so, and
describes a tool as the file `description` says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import Tool, ToolAnnotations

LEDGER = Path(sys.argv[1] if len(sys.argv) > 1 else os.devnull)


class Server(MCPServer):
    """Passes a point whenever it is asked for its tools."""

    async def list_tools(self) -> list[Tool]:
        pass_point("listing")
        return await super().list_tools()


server = Server("tools", instructions="Be careful.")


def book(line: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{line}\n")


def pass_point(point: str) -> None:
    """Die here, once, if a file says so."""
    where = LEDGER.with_name(point)
    if where.exists():
        where.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def key_of(ctx: Context[Any, Any]) -> str:
    return str((ctx.request_context.meta or {}).get("outlive/key"))


def describe() -> str:
    told = LEDGER.with_name("description")
    return told.read_text() if told.exists() else "Read something."


@server.tool(description=describe(), annotations=ToolAnnotations(read_only_hint=True))
async def read(ctx: Context[Any, Any]) -> str:
    """Read something."""
    book(f"read {key_of(ctx)}")
    pass_point("after-read")
    return f"read by {os.getpid()}"


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
async def put(name: str, ctx: Context[Any, Any]) -> str:
    """Put something somewhere."""
    book(f"put {name} {key_of(ctx)}")
    pass_point("after-put")
    return f"put {name}"


@server.tool()
async def send(name: str) -> str:
    """Send something."""
    pass_point("before-send")
    book(f"send {name}")
    pass_point("after-send")
    return f"sent {name}"


@server.tool()
async def refuse() -> str:
    """Refuse."""
    book("refuse")
    raise ValueError("not today")


@server.tool()
async def wait(seconds: float) -> str:
    """Wait."""
    book("wait")
    await asyncio.sleep(seconds)
    return "waited"


if __name__ == "__main__":
    book(f"begun {os.getpid()}")
    if len(sys.argv) > 2:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run("stdio")
