"""Catalogues of MCP servers that are pinned: what a server offers is what a person has read, or nothing of it is used.

A file of yours, to be kept with your code, holds what each server has told about
itself and its tools. Invariant: no model sees a tool, and none is called, unless
the server's catalogue in that session is the pinned one, word for word.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

try:
    from pydantic_ai.mcp import MCPToolset
except ImportError as error:
    raise ImportError("outlive.agents.mcp needs FastMCP's client: pip install 'outlive[mcp]'") from error

from outlive.errors import Permanent, UsageError

Catalogue = Mapping[str, Any]
_OFFERED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "_meta")


class CatalogueChanged(Permanent):
    """An MCP server offers something else than is pinned; no model has seen it, and nothing was called.

    `server` is the id of its toolset, `changes` the difference.
    """

    def __init__(self, server: str, changes: str) -> None:
        super().__init__(server, changes)
        self.server, self.changes = server, changes

    def __str__(self) -> str:
        return (
            f"MCP server {self.server!r} offers something else than is pinned; read it, and if it is well, "
            f"`outlive pins approve`, then retry the run:\n{self.changes}"
        )


class PinnedMCPToolset(MCPToolset[Any]):
    """The tools of an MCP server, as long as they are those of the file `pins`; takes what `MCPToolset` takes.

    The server's instructions, and each tool's name, description, schemas and annotations, are compared in every
    session before a model sees them, and again when the server says that they have changed. `outlive pins approve`
    writes the file, `outlive pins check` tells the difference.
    *Raises* CatalogueChanged, with the difference, for a server whose catalogue is another one, or is not pinned.
    """

    def __init__(self, client: Any, *, id: str, pins: str | Path, **options: Any) -> None:
        super().__init__(client, id=id, **options)
        self.pins = Path(pins)

    async def list_tools(self) -> Any:
        """Give the tools. *Raises* CatalogueChanged."""
        async with self:
            tools = await super().list_tools()
            check(self.id or "", read_pins(self.pins), describe(self.instructions, tools))
        return tools

    async def call_tool(self, *args: Any, **named: Any) -> Any:
        """Call a tool. *Raises* CatalogueChanged before anything is sent."""
        async with self:
            await self.list_tools()  # what a session has told is kept until the server says that it has changed
            return await super().call_tool(*args, **named)

    async def read_catalogue(self) -> Catalogue:
        """Ask the server what it offers now, pinned or not."""
        async with self:
            return describe(self.instructions, await super().list_tools())


def describe(instructions: str | None, tools: Any) -> Catalogue:
    """Give a catalogue as it is pinned: whatever a model may read of it, in an order that is not the server's."""
    told = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
    kept = [{name: tool[name] for name in _OFFERED if name in tool} for tool in told]
    return {"instructions": instructions, "tools": sorted(kept, key=lambda tool: str(tool["name"]))}


def digest_of(catalogue: Catalogue) -> str:
    """Give what stands for a catalogue: SHA-256, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(catalogue, sort_keys=True).encode()).hexdigest()


def check(server: str, pins: Mapping[str, Catalogue], catalogue: Catalogue) -> None:
    """Raise CatalogueChanged unless a catalogue is the pinned one."""
    pinned = pins.get(server)
    if pinned is None:
        raise CatalogueChanged(server, f"it is not pinned: {len(catalogue['tools'])} tools")
    if digest_of(pinned) != digest_of(catalogue):
        raise CatalogueChanged(server, "\n".join(difference(pinned, catalogue)))


def difference(pinned: Catalogue | None, catalogue: Catalogue) -> list[str]:
    """Give the lines in which a catalogue differs from the pinned one."""
    before = [] if pinned is None else _lines(pinned)
    return list(difflib.unified_diff(before, _lines(catalogue), "pinned", "offered", n=1, lineterm=""))


def read_pins(path: Path) -> dict[str, Catalogue]:
    """Read a file of pins; without one nothing is pinned. Raises UsageError for what is none."""
    try:
        found: dict[str, Catalogue] = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path} cannot be read as pins of MCP servers: {error}") from None
    return found


def write_pins(path: Path, pins: Mapping[str, Catalogue]) -> None:
    """Write a file of pins; whoever reads it meanwhile finds the old one or the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n")
    beside.replace(path)


def _lines(catalogue: Catalogue) -> list[str]:
    """Give the lines of a catalogue; what no eye sees, or turns a text around, as its number."""
    return json.dumps(catalogue, indent=1, sort_keys=True).splitlines()
