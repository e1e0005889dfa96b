"""`outlive schedules`: list and show schedules, tell their next ticks, change them, start runs of them."""

from __future__ import annotations

from typing import Any, get_args

import click

from outlive import Outlive, Run, ScheduleInfo
from outlive.cli.output import print_json, print_table, when
from outlive.cli.settings import Settings, audited, common_options, read_duration, read_json, read_time, with_client
from outlive.model.schedule import Overlap
from outlive.model.ticks import Timing, tell


@click.group()
def schedules() -> None:
    """List and show schedules, change them, and start runs of them."""


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
@audited
@common_options
def pause(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Let no tick start anything until the schedule is resumed."""
    with_client(settings, lambda client: client.pause_schedule(name, reason, by=by))
    settings.say(f"schedule {name!r} is paused", {"name": name, "paused": True})


@schedules.command()
@click.argument("name", metavar="NAME")
@audited
@common_options
def resume(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Go on with the first tick from now on."""
    with_client(settings, lambda client: client.resume_schedule(name, reason=reason, by=by))
    settings.say(f"schedule {name!r} goes on", {"name": name, "paused": False})


@schedules.command()
@click.argument("name", metavar="NAME")
@audited
@common_options
def run(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Start a run now, though it is no tick."""
    started: Run = with_client(settings, lambda client: client.trigger_schedule(name, reason=reason, by=by))
    settings.say(f"started run {started.id!r}", {"name": name, "run": started.id})


@schedules.command()
@click.argument("name", metavar="NAME")
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("args", metavar="[ARG]...", nargs=-1)
@click.option("--cron", metavar="RULE", help="Minute, hour, day of month, month, day of week: '30 2 * * *'.")
@click.option("--every", metavar="DURATION", help="90s, 12h, 1d.")
@click.option("--at", metavar="TIME", help="Once: 2026-05-01T12:00; UTC unless it has an offset.")
@click.option("--zone", metavar="ZONE", default="UTC", show_default=True, help="Of cron: Europe/Berlin.")
@click.option(
    "--overlap",
    type=click.Choice(get_args(Overlap)),
    default="allow",
    show_default=True,
    help="When a tick meets an unfinished run.",
)
@click.option("--catch-up", metavar="DURATION", default="0s", help="How old a tick may be that nobody fired.")
@click.option("--jitter", metavar="DURATION", default="0s", help="A run starts up to so much later.")
@click.option("--queue", metavar="NAME", help="The queue of its runs.")
@click.option("--priority", type=int, default=0, help="Of its runs; smaller is first.")
@audited
@common_options
def put(settings: Settings, name: str, workflow: str, args: tuple[str, ...], **options: Any) -> None:
    """Make a schedule, or change it: it wins over what code declares, until it is reset. Each ARG is JSON."""
    for option in ("every", "catch_up", "jitter"):
        options[option] = read_duration(options[option], f"--{option.replace('_', '-')}")
    options["at"] = None if options["at"] is None else read_time(options["at"], "--at")
    values = [read_json(text, "an argument") for text in args]

    async def change(client: Outlive) -> ScheduleInfo:
        await client.put_schedule(name, workflow, *values, **options)
        return await client.get_schedule(name)

    found = with_client(settings, change)
    settings.say(
        f"schedule {name!r} starts {workflow} {rule(found)}; next {when(found.next_at) or 'never'}", {"schedule": found}
    )


@schedules.command()
@click.argument("name", metavar="NAME")
@audited
@common_options
def reset(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Go back to what code declares, not paused."""
    with_client(settings, lambda client: client.reset_schedule(name, reason=reason, by=by))
    settings.say(f"schedule {name!r} is as code declares it", {"name": name, "reset": True})


@schedules.command()
@click.argument("name", metavar="NAME")
@audited
@common_options
def delete(settings: Settings, name: str, reason: str | None, by: str | None) -> None:
    """Delete a schedule; its runs stay. Code that declares it makes it again."""
    with_client(settings, lambda client: client.delete_schedule(name, reason=reason, by=by))
    settings.say(f"schedule {name!r} is deleted", {"name": name, "deleted": True})


@schedules.command()
@click.argument("name", metavar="NAME")
@click.argument("start", metavar="START")
@click.argument("end", metavar="END")
@audited
@common_options
def backfill(settings: Settings, name: str, start: str, end: str, reason: str | None, by: str | None) -> None:
    """Start a run for each tick from START until before END, both in the past; a tick that has a run starts no other.

    2026-05-01 or 2026-05-01T12:00, UTC unless there is an offset.
    """
    first, last = read_time(start, "START"), read_time(end, "END")
    found = with_client(settings, lambda client: client.backfill_schedule(name, first, last, reason=reason, by=by))
    made = sum(run.created for run in found)
    settings.say(
        f"schedule {name!r}: {len(found)} ticks, {made} runs started",
        {"name": name, "runs": [{"id": run.id, "created": run.created} for run in found]},
    )
