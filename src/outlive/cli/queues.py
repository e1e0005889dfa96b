"""`outlive queues`: list queues, show one, pause, resume and drain it, change its limits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click

from outlive import Outlive, QueueInfo
from outlive.cli.output import print_json, print_table
from outlive.cli.settings import CONFLICT, NOT_FOUND, OK, Settings, audited, common_options, read_duration, with_client
from outlive.errors import UsageError
from outlive.model.line import NAMES

_COUNTS = ("concurrency", "per_worker", "per_key", "backlog")
_RATES = ("rate", "rate_per_key")


@click.group()
def queues() -> None:
    """List queues, pause them, change their limits."""


@queues.command("ls")
@common_options
def ls(settings: Settings) -> None:
    """List the queues that were declared or have runs."""
    found = with_client(settings, lambda client: client.queues())
    if settings.json:
        print_json({"queues": found})
        return
    rows = [[q.name, _state(q), str(q.delayed), str(q.waiting), str(q.running), describe(q)] for q in found]
    print_table(["QUEUE", "STATE", "DELAYED", "WAITING", "RUNNING", "LIMITS"], rows)


@queues.command()
@click.argument("name")
@common_options
def show(settings: Settings, name: str) -> int:
    """Show a queue. Exit code 3 if nobody has declared it and it has no runs."""
    found = with_client(settings, lambda client: _find(client, name))
    if found is None:
        return _miss(name)
    if settings.json:
        print_json({"queue": found})
        return OK
    click.echo(f"{found.name}  {_state(found)}" + ("  changed by an operator" if found.is_changed else ""))
    click.echo(f"  runs      {found.delayed} delayed, {found.waiting} waiting, {found.running} running")
    click.echo(f"  limits    {describe(found) or 'none'}")
    return OK


@queues.command()
@click.argument("name")
@audited
@common_options
def pause(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Admit nothing more; what was admitted goes on."""

    async def change(client: Outlive) -> None:
        await client.pause_queue(name, reason, by=by)

    _change(settings, name, change, lambda _: f"queue {name!r} admits nothing more")


@queues.command()
@click.argument("name")
@audited
@common_options
def resume(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Admit runs again."""

    async def change(client: Outlive) -> None:
        await client.resume_queue(name, reason=reason, by=by)

    _change(settings, name, change, lambda _: f"queue {name!r} admits runs again")


@queues.command()
@click.argument("name")
@click.option("--timeout", metavar="DURATION", help="Give up after so long: 90s, 10m. Exit code 4.")
@common_options
def drain(settings: Settings, name: str, timeout: str | None) -> int:
    """Wait until nothing of a queue waits or runs; of a paused one, until nothing runs."""
    limit_s = read_duration(timeout, "--timeout")

    async def wait(client: Outlive) -> bool:
        try:
            await client.drain_queue(name, limit_s)
        except TimeoutError:
            return False
        return True

    if not with_client(settings, wait):
        click.echo(f"outlive: queue {name!r} is not empty after {timeout}; `outlive queues show` tells", err=True)
        return CONFLICT
    settings.say(f"queue {name!r} is empty", {"name": name, "drained": True})
    return OK


@queues.command()
@click.argument("name")
@click.option("--concurrency", metavar="N|none", help="Runs admitted and not ended, over all workers.")
@click.option("--per-worker", metavar="N|none", help="Of those, of one worker.")
@click.option("--per-key", metavar="N|none", help="Of those, of one key.")
@click.option("--rate", metavar="N/SECONDS|none", help="Runs admitted in any window of so many seconds.")
@click.option("--rate-per-key", metavar="N/SECONDS|none", help="The same for each key.")
@click.option("--backlog", metavar="N|none", help="Runs that may wait.")
@click.option("--on-full", metavar="reject|drop_oldest", help="What becomes of a start beyond the backlog.")
@click.option("--reset", is_flag=True, help="Go back to what code declares.")
@audited
@common_options
def limit(settings: Settings, name: str, reset: bool, reason: str | None, by: str | None, **given: str | None) -> None:
    """Change limits of a queue, at once and for all workers; what is not named stays."""
    limits = {option: parse_limit(option, text) for option, text in given.items() if text is not None}
    if reset == bool(limits):
        raise UsageError("name at least one limit to change, or --reset alone")

    async def change(client: Outlive) -> None:
        said: dict[str, Any] = {"reason": reason, "by": by}
        await (client.reset_queue(name, **said) if reset else client.put_queue(name, **limits, **said))

    _change(settings, name, change, lambda found: f"queue {name!r} is held to {describe(found) or 'no limit'}")


def _change(
    settings: Settings,
    name: str,
    change: Callable[[Outlive], Coroutine[Any, Any, None]],
    tell: Callable[[QueueInfo], str],
) -> None:
    async def act(client: Outlive) -> QueueInfo | None:
        await change(client)
        return await _find(client, name)

    found = with_client(settings, act)
    assert found is not None  # it was put
    settings.say(tell(found), {"queue": found})


async def _find(client: Outlive, name: str) -> QueueInfo | None:
    return next((found for found in await client.queues() if found.name == name), None)


def _miss(name: str) -> int:
    click.echo(f"outlive: no queue {name!r} was declared, and no run waits for it", err=True)
    return NOT_FOUND


def parse_limit(option: str, text: str) -> Any:
    """Read a limit as it is written on the command line."""
    if text == "none" and option != "on_full":
        return None
    try:
        if option in _COUNTS:
            return int(text)
        if option in _RATES:
            count, _, window_s = text.partition("/")
            return int(count), float(window_s)
    except ValueError:
        form = "a whole number" if option in _COUNTS else "N/SECONDS, for example 100/60"
        raise UsageError(f"--{option.replace('_', '-')} is {form} or none, not {text!r}") from None
    return text


def _state(queue: QueueInfo) -> str:
    return "paused" if queue.paused else "open"


def describe(queue: QueueInfo) -> str:
    """Give the limits of a queue in one line."""
    parts = []
    for name in NAMES:
        value = getattr(queue, name)
        if value is None or (name == "on_full" and queue.backlog is None):
            continue
        parts.append(f"{name}={value[0]}/{value[1]:g}" if name in _RATES else f"{name}={value}")
    return " ".join(parts)
