"""`outlive runs`: list runs, show one with its journal, ask for its cancellation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from outlive import Entry, Outlive, RunInfo, Status
from outlive.cli.output import cut, lasted, print_json, print_table, shorten, when
from outlive.cli.settings import CONFLICT, RUN_FAILED, Settings, common_options, with_client
from outlive.errors import PayloadError, RunError


@click.group()
def runs() -> None:
    """List, show and cancel runs."""


@runs.command("ls")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="Only runs of this status; may be repeated.",
)
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option("--queue", metavar="NAME", help="Only runs of this queue.")
@click.option("--id-prefix", metavar="TEXT", help="Only runs whose id begins so.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@click.option("--after", metavar="CURSOR", type=int, help="Go on behind the page that gave this cursor.")
@common_options
@click.pass_context
def ls(context: click.Context, /, statuses: tuple[str, ...], limit: int, after: int | None, **filters: Any) -> None:
    """List runs, newest first."""
    settings = context.ensure_object(Settings)
    wanted = [Status(status) for status in statuses] or None

    async def read(client: Outlive) -> Any:
        return await client.runs(status=wanted, limit=limit, after=after, **filters)

    page = with_client(settings, read)
    if settings.json:
        print_json({"runs": [asdict(info) for info in page.items], "next": page.next})
        return
    print_table(
        ["ID", "WORKFLOW", "STATUS", "CREATED (UTC)", "LASTED"],
        [_row(info) for info in page.items],
    )
    if page.next is not None:
        click.echo(f"more: --after {page.next}", err=True)


def _row(info: RunInfo) -> list[str]:
    return [
        info.id,
        info.workflow,
        info.status.value,
        when(info.created_at),
        lasted(info.started_at, info.finished_at),
    ]


@runs.command()
@click.argument("run_id", metavar="ID")
@common_options
@click.pass_context
def show(context: click.Context, run_id: str) -> None:
    """Show a run, its result and its journal. Exit code 1 if it failed."""
    settings = context.ensure_object(Settings)

    async def read(client: Outlive) -> tuple[RunInfo, Any, BaseException | None, list[Entry]]:
        run = await client.get(run_id)
        info = await run.info()
        value, error = None, None
        if info.status.final or info.status.held:
            try:
                value = await run.result(stop_on_hold=True)
            except Exception as failure:  # noqa: BLE001 - a run may have failed with anything
                error = failure
        try:
            return info, value, error, await run.entries()
        except PayloadError as failure:  # of an app with a codec of its own
            return info, value, error or failure, []

    info, value, error, entries = with_client(settings, read)
    if settings.json:
        print_json({"run": asdict(info), "result": value, "error": error, "entries": [asdict(e) for e in entries]})
    else:
        _print_run(info, value, error)
        _print_entries(entries)
    context.exit(RUN_FAILED if info.status is Status.FAILED else 0)


def _print_run(info: RunInfo, value: Any, error: BaseException | None) -> None:
    click.echo(f"{info.id}  {info.workflow}  {info.status.value}")
    facts = {
        "version": info.version,
        "queue": info.queue,
        "parent": info.parent,
        "created": when(info.created_at),
        "finished": when(info.finished_at),
        "lasted": lasted(info.started_at, info.finished_at),
        "result": shorten(value) if info.status is Status.SUCCEEDED else "",
        "error": _sentence(error),
    }
    for name, fact in facts.items():
        if fact:
            click.echo(f"  {name:<9} {fact}")


def _sentence(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, RunError) else f"{type(error).__qualname__}: {error}"


def _print_entries(entries: list[Entry]) -> None:
    if not entries:
        return
    click.echo()
    print_table(
        ["SEQ", "KIND", "NAME", "OUTCOME", "ATTEMPTS", "TOOK", "VALUE"],
        [
            [
                "" if entry.seq is None else str(entry.seq),
                entry.kind,
                entry.name,
                entry.outcome,
                str(entry.attempts),
                lasted(entry.started_at, entry.finished_at),
                _outcome(entry),
            ]
            for entry in entries
        ],
    )


def _outcome(entry: Entry) -> str:
    if entry.outcome == "started":
        return ""
    return shorten(entry.value) if entry.error is None else cut(f"{entry.error['type']}: {entry.error['text']}")


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="Kept with the run.")
@common_options
@click.pass_context
def cancel(context: click.Context, run_id: str, reason: str | None) -> None:
    """Ask a run to stop: it is cancelled at its next wait. Exit code 4 if it has ended already."""
    settings = context.ensure_object(Settings)

    async def ask(client: Outlive) -> tuple[bool, Status]:
        run = await client.get(run_id)
        return await run.cancel(reason), await run.status()

    asked, status = with_client(settings, ask)
    if settings.json:
        print_json({"id": run_id, "cancelling": asked, "status": status.value})
    elif asked:
        click.echo(f"run {run_id!r} will be cancelled at its next wait")
    if not asked:
        click.echo(f"outlive: run {run_id!r} cannot be cancelled, it has {status.value}", err=True)
        context.exit(CONFLICT)
