"""`outlive runs`: list, count and show runs, say why one does not move, act on many. On one: control.py."""

from __future__ import annotations

import re
from typing import Any

import click

from outlive import Entry, Outlive, RunInfo, Status
from outlive.cli.output import as_json, cut, lasted, print_json, print_table, when
from outlive.cli.settings import OK, RUN_FAILED, Settings, audited, common_options, with_client
from outlive.errors import OutliveError, PayloadError, RunFailed
from outlive.run import Outcome

_STATUSES = [status.value for status in Status]


class QueryCommand(click.Command):
    """A command whose arguments are a query: `-status:failed` is a condition of it, and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let the conditions with a minus stand behind all options."""
        negated = [arg for arg in args if re.match(r"-[^-].*:", arg)]
        return super().parse_args(ctx, [arg for arg in args if arg not in negated] + ["--", *negated] * bool(negated))


@click.group()
def runs() -> None:
    """List and show runs, and act on them."""


@runs.command("ls", cls=QueryCommand)
@click.argument("query", nargs=-1)
@click.option(
    "--status", multiple=True, type=click.Choice(_STATUSES), help="Only runs of this status; may be repeated."
)
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option("--queue", metavar="NAME", help="Only runs of this queue.")
@click.option("--id-prefix", metavar="TEXT", help="Only runs whose id begins so.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@click.option("--after", metavar="CURSOR", type=int, help="Go on behind the page that gave this cursor.")
@common_options
def ls(settings: Settings, query: tuple[str, ...], status: tuple[str, ...], **filters: Any) -> None:
    """List the runs that QUERY means, newest first: status:failed workflow:checkout age:<1h tenant:42."""
    statuses = [Status(one) for one in status] or None
    page = with_client(settings, lambda client: client.runs(" ".join(query), status=statuses, **filters))
    rows = [
        [run.id, run.workflow, run.status.value, when(run.created_at), lasted(run.started_at, run.finished_at)]
        for run in page.items
    ]
    settings.print_page("runs", page, ["ID", "WORKFLOW", "STATUS", "CREATED (UTC)", "LASTED"], rows)


@runs.command(cls=QueryCommand)
@click.argument("query", nargs=-1)
@click.option("--limit", default=10_000, show_default=True, type=click.IntRange(1), help="Count no further.")
@common_options
def count(settings: Settings, query: tuple[str, ...], limit: int) -> None:
    """Count the runs that QUERY means."""
    found = with_client(settings, lambda client: client.count(" ".join(query), limit=limit))
    settings.say(str(found), {"runs": found})


@runs.command()
@click.argument("workflow", required=False)
@common_options
def versions(settings: Settings, workflow: str | None) -> None:
    """Count the unfinished runs of each version of WORKFLOW, or of all; the oldest version first.

    Code may go when no run of its version is left.
    """
    counts = with_client(settings, lambda client: client.versions(workflow))
    if settings.json:
        print_json({"versions": counts})
        return
    rows = [
        [
            count.workflow,
            f"{count.version or '-'}{' (pinned)' if count.pinned else ''}",
            str(count.runs),
            ", ".join(f"{runs} {status.value}" for status, runs in count.statuses.items()),
        ]
        for count in counts
    ]
    print_table(["WORKFLOW", "VERSION", "UNFINISHED", "STATUS"], rows)


@runs.command(cls=QueryCommand)
@click.argument("query", nargs=-1)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this run; may be repeated.")
@common_options
def export(settings: Settings, query: tuple[str, ...], ids: tuple[str, ...]) -> None:
    """Write the journals of the runs that QUERY means as lines of JSON, for `outlive replay` and for tests.

    Payloads are written as they are stored.
    """

    async def write(client: Outlive) -> None:
        async for journal in client.journals(" ".join(query), ids=ids):
            click.echo(journal.to_line())

    with_client(settings, write)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--generation", type=int, metavar="N", help="The journal as it was before a later retry or rewind.")
@common_options
def show(settings: Settings, run_id: str, generation: int | None) -> int:
    """Show a run, its result and its journal. Exit code 1 if it failed."""

    async def read(client: Outlive) -> tuple[RunInfo, Any, Outcome | None, PayloadError | None, list[Entry]]:
        run = await client.get(run_id)
        info = await run.info()
        given, outcome = None, None
        try:
            outcome = await run._find_outcome()
            given = await run.input()
            return info, given, outcome, None, await run.entries(generation)
        except PayloadError as failure:  # of an app with a codec of its own
            return info, given, outcome, failure, []

    info, given, outcome, unread, entries = with_client(settings, read)
    error = (outcome and outcome.error) or unread
    if settings.json:
        told = {"type": error.type, "message": error.text} if isinstance(error, RunFailed) else error
        value = outcome and outcome.value
        print_json({"run": info, "input": given, "result": value, "error": told, "entries": entries})
    else:
        _print_run(info, given, outcome, error)
        _print_entries(entries)
    return RUN_FAILED if info.status is Status.FAILED else OK


def _print_run(info: RunInfo, given: Any, outcome: Outcome | None, error: OutliveError | None) -> None:
    click.echo(f"{info.id}  {info.workflow}  {info.status.value}")
    facts = {
        "version": info.version,
        "queue": info.queue,
        "key": info.key,
        "priority": str(info.priority) if info.priority else "",
        "parent": info.parent,
        "fork of": info.forked_from,
        "generation": str(info.generation) if info.generation else "",
        "input": as_json(given) if given not in (None, {"args": [], "kwargs": {}}) else "",
        "attributes": as_json(info.attributes) if info.attributes else "",
        "created": when(info.created_at),
        "starts": when(info.starts_at),
        "deadline": when(info.deadline),
        "finished": when(info.finished_at),
        "lasted": lasted(info.started_at, info.finished_at),
        "result": as_json(outcome.value) if outcome is not None and outcome.status is Status.SUCCEEDED else "",
        "error": (outcome and outcome.explain()) or (f"{type(error).__qualname__}: {error}" if error else ""),
    }
    for name, fact in facts.items():
        if fact:
            click.echo(f"  {name:<10} {fact}")
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {'note':<10} {cut(note)}")


def _print_entries(entries: list[Entry]) -> None:
    rows = [
        [
            "" if entry.seq is None else str(entry.seq),
            entry.kind,
            entry.key,
            entry.outcome,
            str(entry.attempts),
            lasted(entry.started_at, entry.finished_at),
            _outcome(entry),
        ]
        for entry in entries
    ]
    if rows:
        click.echo()
        print_table(["SEQ", "KIND", "KEY", "OUTCOME", "ATTEMPTS", "TOOK", "VALUE"], rows)


def _outcome(entry: Entry) -> str:
    if entry.error is not None:
        return cut(f"{entry.error['type']}: {entry.error['text']}")
    return as_json(entry.value) if entry.outcome == "ok" else ""


@runs.command()
@click.argument("run_id", metavar="ID")
@common_options
def why(settings: Settings, run_id: str) -> None:
    """Say why a run does not move, and what helps."""

    async def ask(client: Outlive) -> str:
        return await (await client.get(run_id)).why()

    sentence = with_client(settings, ask)
    settings.say(sentence, {"id": run_id, "why": sentence})


@runs.command(cls=QueryCommand)
@click.argument("action", type=click.Choice(["cancel", "pause", "resume", "retry"]))
@click.argument("query", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only count the runs.")
@audited
@common_options
def each(settings: Settings, action: str, query: tuple[str, ...], dry_run: bool, **noted: str | None) -> None:
    """Act on each run that QUERY means; `all` means every run."""
    reached = with_client(settings, lambda client: getattr(client, action)(" ".join(query), dry_run=dry_run, **noted))
    done = f"would {action}" if dry_run else f"{action}:"
    settings.say(f"{done} {reached} runs", {"action": action, "runs": reached, "dry_run": dry_run})
