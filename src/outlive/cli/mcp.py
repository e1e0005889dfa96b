"""`outlive mcp`: serves the MCP client that has started it, over its standard streams."""

from __future__ import annotations

import asyncio

import click

from outlive.cli.worker import import_object
from outlive.errors import UsageError


@click.command()
@click.argument("target", metavar="MODULE:SERVER")
def mcp(target: str) -> None:
    """Serve one MCP client over stdin and stdout, until it closes them.

    MODULE:SERVER names what mcp_server(...) has given. The database is that of its app. Needs the extra `mcp`.
    """
    try:
        from outlive.integrations.mcp import serve_stdio
    except ImportError as error:
        raise UsageError(str(error)) from None
    server = import_object(target)
    if not hasattr(server, "create_initialization_options"):
        raise UsageError(f"{target} is {server!r}, not a server; make one with outlive.integrations.mcp.mcp_server(…)")
    asyncio.run(serve_stdio(server))
