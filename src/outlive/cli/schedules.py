"""`outlive schedules`: list and show schedules, tell their next ticks, pause and resume them, start a run now."""

from __future__ import annotations

from typing import Any

import click

from outlive import Outlive, Run, ScheduleInfo
from outlive.cli.output import print_json, print_table, when
from outlive.cli.settings import Settings, common_options, with_client
from outlive.model.ticks import Timing, tell

_reason = click.option("--reason", metavar="TEXT", help="Kept in the audit.")
_by = click.option("--by", metavar="NAME", help="Who does this, for the audit.")


@click.group()
def schedules() -> None:
    """List, show, pause and run schedules."""


@schedules.command("ls")
@common_options
def ls(settings: Settings) -> None:
    """List schedules by name."""
    found = with_client(settings, lambda client: client.schedules())
    if settings.json:
        print_json({"schedules": found})
        return
    rows = [[one.name, one.workflow, rule(one), state(one), when(one.next_at), when(one.last_at)] for one in found]
    print_table(["NAME", "WORKFLOW", "RULE", "STATE", "NEXT (UTC)", "LAST (UTC)"], rows)


def rule(info: ScheduleInfo) -> str:
    """Give the rule in words."""
    if info.cron is not None:
        return f"{info.cron} {info.zone}"
    return f"every {info.every:g} s" if info.every is not None else f"at {when(info.at)}"


def state(info: ScheduleInfo) -> str:
    """Give in a word where it stands."""
    if info.paused:
        return "paused"
    return (
        "over" if info.next_at is None and not info.waiting else "changed" if info.declared and info.changed else "on"
    )


@schedules.command()
@click.argument("name", metavar="NAME")
@common_options
def show(settings: Settings, name: str) -> None:
    """Show a schedule and its latest runs."""

    async def read(client: Outlive) -> tuple[ScheduleInfo, Any]:
        return await client.get_schedule(name), await client.runs(id_prefix=f"{name}@", limit=10)

    info, page = with_client(settings, read)
    if settings.json:
        print_json({"schedule": info, "runs": page.items})
        return
    click.echo(f"{info.name}  {info.workflow}  {rule(info)}  {state(info)}")
    at = None if info.at is None else info.at.timestamp()
    facts = {
        "rule": tell(Timing(cron=info.cron, every_s=info.every, at=at, zone=info.zone)),
        "next": when(info.next_at),
        "last": when(info.last_at),
        "overlap": info.overlap,
        "catch up": f"{info.catch_up:g} s" if info.catch_up else "",
        "jitter": f"{info.jitter:g} s" if info.jitter else "",
        "queue": info.queue,
        "waiting": str(info.waiting or ""),
        "skipped": str(info.skipped or ""),
        "declared": "by code" + (", changed at run time" if info.changed else "") if info.declared else "at run time",
    }
    for title, fact in facts.items():
        if fact:
            click.echo(f"  {title:<9} {fact}")
    if page.items:
        click.echo()
        print_table(["RUN", "STATUS"], [[run.id, run.status.value] for run in page.items])


@schedules.command("next")
@click.argument("name", metavar="NAME")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@common_options
def next_(settings: Settings, name: str, limit: int) -> None:
    """Tell the next ticks, in the zone of the schedule."""
    ticks = with_client(settings, lambda client: client.next_fires(name, limit))
    if settings.json:
        print_json({"name": name, "ticks": ticks})
        return
    for tick in ticks:
        click.echo(f"{tick.isoformat(' ')}  {tick:%a}")


@schedules.command()
@click.argument("name", metavar="NAME")
@_reason
@_by
@common_options
def pause(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Let no tick start anything until the schedule is resumed."""
    with_client(settings, lambda client: client.pause_schedule(name, reason, by=by))
    settings.say(f"schedule {name!r} is paused", {"name": name, "paused": True})


@schedules.command()
@click.argument("name", metavar="NAME")
@_reason
@_by
@common_options
def resume(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Go on with the first tick from now on."""
    with_client(settings, lambda client: client.resume_schedule(name, reason=reason, by=by))
    settings.say(f"schedule {name!r} goes on", {"name": name, "paused": False})


@schedules.command()
@click.argument("name", metavar="NAME")
@_reason
@_by
@common_options
def run(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Start a run now, though it is no tick."""
    started: Run = with_client(settings, lambda client: client.trigger_schedule(name, reason=reason, by=by))
    settings.say(f"started run {started.id!r}", {"name": name, "run": started.id})
