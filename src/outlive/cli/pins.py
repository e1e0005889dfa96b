"""`outlive pins`: what MCP servers offer, and what of it a person has read."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from outlive.cli.output import print_json
from outlive.cli.settings import OK, Settings, common_options
from outlive.cli.worker import import_object
from outlive.errors import UsageError

_DIFFERENT = 1


@click.group()
def pins() -> None:
    """Compare what MCP servers offer with what is pinned, and pin it."""


@pins.command()
@click.argument("targets", metavar="MODULE:OBJECT...", nargs=-1, required=True)
@common_options
def check(settings: Settings, targets: tuple[str, ...]) -> int:
    """Tell whether the servers offer what is pinned. Exit code 1 if one of them does not, with the difference.

    MODULE:OBJECT is a PinnedMCPToolset, an agent that has some, or durable(agent). Needs the extra `mcp`.
    """
    changed = asyncio.run(_compare(targets))
    if settings.json:
        print_json({"changed": [{"server": one.id, "difference": lines} for one, _, lines in changed if lines]})
    else:
        _show(changed)
    return _DIFFERENT if any(lines for _, _, lines in changed) else OK


@pins.command()
@click.argument("targets", metavar="MODULE:OBJECT...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask: the difference was read elsewhere.")
@common_options
def approve(settings: Settings, targets: tuple[str, ...], *, yes: bool) -> None:
    """Show what is different, and pin what the servers offer now. Exit code 130 if that is not wanted."""
    from outlive.agents.mcp import read_pins, write_pins

    if settings.json and not yes:
        raise UsageError(
            "with --json nobody is asked: give --yes where the difference was read, as in `outlive pins check`"
        )
    compared = asyncio.run(_compare(targets))
    changed = [(toolset, offered) for toolset, offered, lines in compared if lines]
    if not settings.json:
        _show(compared)
    if changed and not yes:
        click.confirm("Has a person read this, and is it well?", abort=True, err=True)
    for toolset, offered in changed:
        write_pins(toolset.pins, {**read_pins(toolset.pins), toolset.id: offered})
    settings.say(f"pinned: {', '.join(one.id for one, _ in changed) or 'nothing new'}", {
        "pinned": [one.id for one, _ in changed],
    })  # fmt: skip


def _show(compared: list[tuple[Any, Any, list[str]]]) -> None:
    for toolset, offered, lines in compared:
        if lines:
            click.echo(f"{toolset.id}: offers something else than {toolset.pins} says")
            click.echo("\n".join(lines))
        else:
            click.echo(f"{toolset.id}: {len(offered['tools'])} tools, as pinned")


async def _compare(targets: tuple[str, ...]) -> list[tuple[Any, Any, list[str]]]:
    """Give each pinned toolset, what its server offers, and the difference."""
    try:
        from outlive.agents.mcp import difference, read_pins
    except ImportError as error:
        raise UsageError(str(error)) from None
    compared = []
    for toolset in {id(one): one for target in targets for one in _toolsets_of(target)}.values():
        offered = await _ask(toolset)
        pinned = read_pins(toolset.pins).get(toolset.id)
        compared.append((toolset, offered, difference(pinned, offered)))
    return compared


async def _ask(toolset: Any) -> Any:
    try:
        offered = await toolset.read_catalogue()
        await toolset.client.close()
    except Exception as error:
        raise UsageError(f"MCP server {toolset.id!r} cannot be asked what it offers: {error}") from error
    return offered


def _toolsets_of(target: str) -> list[Any]:
    from outlive.agents.durable import DurableAgent
    from outlive.agents.mcp import PinnedMCPToolset

    found: list[Any] = []
    named = import_object(target)
    named = named.agent if isinstance(named, DurableAgent) else named
    for toolset in getattr(named, "toolsets", [named]):
        if hasattr(toolset, "apply"):
            toolset.apply(found.append)
    found = [one for one in found if isinstance(one, PinnedMCPToolset)]
    if not found:
        raise UsageError(f"{target} is no PinnedMCPToolset, and no agent that has one")
    return found
