"""What operators do to runs from the command line: commands of `outlive runs`, and `outlive audit`.

Each one is a method of the handle with a note of who acts and why. A refusal
is one sentence and exit code 4.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import click

from outlive import Outlive, Run, Status
from outlive.cli.output import as_json, cut, when
from outlive.cli.runs import runs
from outlive.cli.settings import CONFLICT, OK, Settings, audited, common_options, read_duration, read_time, with_client
from outlive.errors import UsageError
from outlive.paging import make_page, one_more

Facts = dict[str, Any]


def acting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the run that it is about, and who acts and why."""
    return click.argument("run_id", metavar="ID")(audited(common_options(command)))


def _act(settings: Settings, run_id: str, act: Callable[[Run], Awaitable[Any]], sentence: str, facts: Facts) -> int:
    """Do something to a run that it allows or raises; say that it is done."""

    async def use(client: Outlive) -> None:
        await act(await client.get(run_id))

    with_client(settings, use)
    settings.say(sentence, {"id": run_id, **facts})
    return OK


def _ask(settings: Settings, run_id: str, ask: Callable[[Run], Awaitable[bool]], name: str, *said: str) -> int:
    """Ask for something that a run may be past: exit code 4 then."""
    sentence, refusal = said

    async def use(client: Outlive) -> tuple[bool, Status]:
        run = await client.get(run_id)
        return await ask(run), await run.status()

    asked, status = with_client(settings, use)
    if asked or settings.json:
        settings.say(f"run {run_id!r} {sentence}", {"id": run_id, name: asked, "status": status.value})
    if not asked:
        click.echo(f"outlive: run {run_id!r} {refusal}, {status.value}", err=True)
    return OK if asked else CONFLICT


@runs.command()
@acting
def cancel(settings: Settings, run_id: str, reason: str | None, by: str | None) -> int:
    """Ask a run to stop: it is cancelled at its next wait. Exit code 4 if it has ended already."""
    said = "will be cancelled at its next wait", "cannot be cancelled: it has ended"
    return _ask(settings, run_id, lambda run: run.cancel(reason=reason, by=by), "cancelling", *said)


@runs.command()
@acting
def pause(settings: Settings, run_id: str, reason: str | None, by: str | None) -> int:
    """Ask a run's owner to hold it. Exit code 4 if it has ended already."""
    said = "will be held", "cannot be paused: it has ended"
    return _ask(settings, run_id, lambda run: run.pause(reason=reason, by=by), "pausing", *said)


@runs.command()
@acting
def resume(settings: Settings, run_id: str, reason: str | None, by: str | None) -> int:
    """Let a paused or quarantined run go on. Exit code 4 if it is not held."""
    said = "goes on", "cannot be resumed: it is not held"
    return _ask(settings, run_id, lambda run: run.resume(reason=reason, by=by), "resumed", *said)


@runs.command()
@acting
@click.option("--delay", metavar="DURATION", help="From now: 90s, 1h30m, 2d; 0s means now.")
@click.option("--at", metavar="TIME", help="At an instant: 2027-01-15T08:00; UTC unless it has an offset.")
@click.option("--priority", type=int, metavar="N", help="Smaller ones first.")
def reschedule(
    settings: Settings,
    run_id: str,
    delay: str | None,
    at: str | None,
    priority: int | None,
    reason: str | None,
    by: str | None,
) -> int:
    """Change when a run that has not begun starts, or its priority. Exit code 4 if it has begun."""
    when_s = read_duration(delay, "--delay")
    instant = None if at is None else read_time(at, "--at")
    said = "is rescheduled", "cannot be rescheduled: it no longer waits for its start"
    return _ask(
        settings,
        run_id,
        lambda run: run.reschedule(when_s, instant, priority, reason=reason, by=by),
        "rescheduled",
        *said,
    )


@runs.command()
@acting
def retry(settings: Settings, run_id: str, reason: str | None, by: str | None) -> int:
    """Let a failed or cancelled run go on from where it failed. Exit code 4 if it has not failed."""
    sentence = f"run {run_id!r} goes on from where it failed"
    return _act(settings, run_id, lambda run: run.retry(reason=reason, by=by), sentence, {"retried": True})


@runs.command()
@acting
@click.option("--to", metavar="KEY", required=True, help="The entry from which on it executes again.")
def rewind(settings: Settings, run_id: str, to: str, reason: str | None, by: str | None) -> int:
    """Execute a run again from an entry of its journal. Waits until its owner has let go of it."""
    sentence = f"run {run_id!r} executes again from {to}"
    return _act(settings, run_id, lambda run: run.rewind(to, reason=reason, by=by), sentence, {"to": to})


@runs.command()
@acting
@click.option("--at", metavar="KEY", required=True, help="The first entry that is not reused.")
@click.option("--patch", multiple=True, metavar="KEY=JSON", help="Another value in the place of a recorded one.")
@click.option("--id", "new_id", metavar="ID", help="Of the new run.")
@click.option("--deadline", metavar="DURATION", help="Of the new run, from now: 90s, 12h. Without it there is none.")
def fork(
    settings: Settings,
    run_id: str,
    at: str,
    patch: tuple[str, ...],
    new_id: str | None,
    deadline: str | None,
    reason: str | None,
    by: str | None,
) -> int:
    """Start a new run that reuses the entries of this one before a key."""
    values = dict(_patched(one) for one in patch)
    left_s = read_duration(deadline, "--deadline")

    async def use(client: Outlive) -> Run:
        run = await client.get(run_id)
        return await run.fork(at, values, id=new_id, deadline=left_s, reason=reason, by=by)

    made = with_client(settings, use)
    facts = {"id": made.id, "forked_from": run_id, "at": at, "created": made.created}
    settings.say(f"run {made.id!r} is a fork of {run_id!r} at {at}", facts)
    return OK


def _patched(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        if equals:
            return key, json.loads(value)
    except ValueError as error:
        raise UsageError(f"--patch {text!r}: the value is no JSON: {error}") from None
    raise UsageError(f"--patch {text!r}: say KEY=JSON, for example 'charge#1=null'")


@runs.command()
@acting
@click.argument("key", metavar="KEY")
@click.option("--value", metavar="JSON", help="The step had this value.")
@click.option("--error", metavar="TEXT", help="The step failed with this message.")
@click.option("--retry", is_flag=True, help="Execute the step again.")
def resolve(
    settings: Settings,
    run_id: str,
    key: str,
    value: str | None,
    error: str | None,
    retry: bool,
    reason: str | None,
    by: str | None,
) -> int:
    """Decide what became of a step whose outcome is unknown. Exit code 4 if the run does not wait for that."""
    if (value is not None) + (error is not None) + retry != 1:
        raise UsageError("say one of --value, --error and --retry")
    decision: Facts = {"error": error, "retry": retry}
    if value is not None:
        decision["value"] = _patched(f"{key}={value}")[1]
    said = f"goes on: {key} is decided", "cannot be resolved: it is not held"
    return _ask(settings, run_id, lambda run: run.resolve(key, **decision, reason=reason, by=by), "resolved", *said)


@runs.command()
@acting
@click.option("--children", is_flag=True, help="With its descendants, if all of them have ended.")
def delete(settings: Settings, run_id: str, children: bool, reason: str | None, by: str | None) -> int:
    """Delete a run that has ended, with its journal. Exit code 4 if it has not ended."""

    async def remove(run: Run) -> None:
        await run.delete(children=children, reason=reason, by=by)

    return _act(settings, run_id, remove, f"run {run_id!r} is deleted", {"deleted": True})


@click.command()
@click.argument("target", metavar="[ID]", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@click.option("--after", metavar="NUMBER", type=int, help="Go on behind this one.")
@common_options
def audit(settings: Settings, target: str | None, limit: int, after: int | None) -> None:
    """List what operators have done, the latest first: all, or to one run."""
    entries = with_client(settings, lambda client: client.audit(target, limit=one_more(limit), after=after))
    page = make_page(entries, limit, lambda entry: entry, lambda entry: entry.number)
    rows = [
        [when(entry.at), entry.by, entry.action, entry.target, cut(entry.reason or "", 40),
         as_json(entry.facts) if entry.facts is not None else ""]
        for entry in page.items
    ]  # fmt: skip
    settings.print_page("audit", page, ["AT (UTC)", "BY", "ACTION", "TARGET", "REASON", "FACTS"], rows)
