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
from typing import Any, TypedDict

import msgspec

try:
    from pydantic_ai.mcp import MCPToolset
except ImportError as error:
    raise ImportError("outlive.agents.mcp needs FastMCP's client: pip install 'outlive[mcp]'") from error

from outlive.errors import Permanent, UsageError
from outlive.inbox import visible
from outlive.limits import MCP_CHANGES_MAX_CHARS


class Catalogue(TypedDict):
    """What a server tells about itself and its tools."""

    instructions: str | None
    tools: list[dict[str, Any]]


_OFFERED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "_meta")


class CatalogueChanged(Permanent):
    """An MCP server offers something else than is pinned; no model has seen it, and nothing was called.

    `server` is the id of its toolset, `changes` the difference: which tool, and what of it. A long one is cut off.
    """

    def __init__(self, server: str, changes: str) -> None:
        if len(changes) > MCP_CHANGES_MAX_CHARS:
            changes = f"{changes[:MCP_CHANGES_MAX_CHARS]}…\n(`outlive pins check` shows the rest)"
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
        self._checked: tuple[Any, ...] = ()

    async def list_tools(self) -> Any:
        """Give the tools. *Raises* CatalogueChanged."""
        async with self:
            tools = await super().list_tools()
            self._check(tools)
        return tools

    async def get_instructions(self, ctx: Any) -> Any:
        """Give the server's instructions. *Raises* CatalogueChanged."""
        if self.include_instructions:
            await self.list_tools()
        return await super().get_instructions(ctx)

    async def call_tool(self, *args: Any, **named: Any) -> Any:
        """Call a tool. *Raises* CatalogueChanged before anything is sent."""
        async with self:
            await self.list_tools()  # what a session has told is kept until the server says that it has changed
            return await super().call_tool(*args, **named)

    def _check(self, tools: Any) -> None:
        """Raise CatalogueChanged unless this is pinned. What was found well is not looked at again for each call."""
        try:
            about = self.pins.stat()
        except FileNotFoundError:
            file: tuple[int, ...] = ()
        else:
            file = (about.st_ino, about.st_size, about.st_mtime_ns)
        if self._checked and self._checked[0] is tools and self._checked[1:] == (self.instructions, file):
            return
        check(self.id or "", self.pins, describe(self.instructions, tools))
        self._checked = (tools, self.instructions, file)

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


def check(server: str, path: Path, catalogue: Catalogue) -> None:
    """Raise CatalogueChanged unless a catalogue is the one that a file of pins has for a server."""
    pinned = read_pins(path).get(server)
    if pinned is None:
        raise CatalogueChanged(server, f"it is not pinned in {path.absolute()}: {len(catalogue['tools'])} tools")
    if digest_of(pinned) != digest_of(catalogue):
        raise CatalogueChanged(server, "\n".join(difference(pinned, catalogue)))


def difference(pinned: Catalogue | None, catalogue: Catalogue) -> list[str]:
    """Give the lines in which a catalogue differs from the pinned one: which tool, and what of it."""
    if pinned is None:
        return ["not pinned yet", *difference({"instructions": None, "tools": []}, catalogue)]
    lines = _compare("instructions", pinned["instructions"], catalogue["instructions"])
    old, new = _by_name(pinned), _by_name(catalogue)
    for name in sorted({*old, *new}):
        ours, theirs = old.get(name, []), new.get(name, [])
        if len(ours) == len(theirs) == 1:
            for part in sorted({*ours[0], *theirs[0]}):
                lines += _compare(f"tool {name!r}: {part}", ours[0].get(part), theirs[0].get(part))
        else:
            became = "is new" if not ours else "is gone" if not theirs else "is there several times"
            lines += _compare(f"tool {name!r} {became}", ours, theirs)
    return [visible(line) for line in lines]


def _by_name(catalogue: Catalogue) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for tool in catalogue["tools"]:
        found.setdefault(str(tool.get("name")), []).append(tool)
    return found


def _compare(title: str, before: Any, now: Any) -> list[str]:
    if json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True):  # 1 is not 1.0, as in digests
        return []
    changed = difflib.unified_diff(_lines(before), _lines(now), n=1, lineterm="")
    return [title, *(f"  {line}" for line in changed if not line.startswith(("---", "+++", "@@")))]


def _lines(value: Any) -> list[str]:
    """Give a value as lines: a text as those it has, so that one word in a long one is found."""
    if value in (None, []):
        return []
    if isinstance(value, str):
        return [line.replace("\r", "\\r") for line in value.split("\n")]
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


def read_pins(path: Path) -> dict[str, Catalogue]:
    """Read a file of pins; without one nothing is pinned. Raises UsageError for what is none."""
    try:
        found: dict[str, Catalogue] = msgspec.json.decode(path.read_bytes(), type=dict[str, Catalogue])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path} cannot be read as pins of MCP servers: {error}") from None
    return found


def write_pins(path: Path, pins: Mapping[str, Catalogue]) -> None:
    """Write a file of pins; whoever reads it meanwhile finds the old one or the new one. Raises UsageError."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path.absolute()} cannot be written: {error}") from None
