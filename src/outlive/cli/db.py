"""`outlive db`: bring the schema of a database up to date, or say whether it is; prune its history."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from outlive import Outlive
from outlive.cli.settings import Settings, common_options, with_client
from outlive.model.query import parse_duration
from outlive.model.status import FINAL


@click.group()
def db() -> None:
    """Create, upgrade and check the tables; prune what is old."""


@db.command()
@common_options
def migrate(settings: Settings) -> None:
    """Create the tables or upgrade them to this version. Safe to repeat, and from several machines at once."""

    async def apply() -> None:
        async with Outlive(settings.require_url(), worker=False, migrate=True):
            pass

    asyncio.run(apply())
    settings.say("the schema is up to date", {"ok": True})


@db.command()
@common_options
def check(settings: Settings) -> None:
    """Say whether the tables fit this version; changes nothing. Exit code 5 if they do not."""

    async def connect(_: Outlive) -> None:
        """Opening has compared the versions."""

    with_client(settings, connect)
    settings.say("the schema fits this version", {"ok": True})


@db.command()
@click.option("--older-than", required=True, metavar="DURATION", help="Only runs that ended longer ago: 90s, 12h, 30d.")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(sorted(status.value for status in FINAL)),
    help="Only runs of this status; may be repeated.",
)
@click.option("--limit", type=click.IntRange(1), help="How many at most; the oldest go first.")
@click.option("--archive", metavar="FILE", type=click.Path(dir_okay=False), help="Add each run to this file first.")
@click.option("--dry-run", is_flag=True, help="Only count the runs.")
@common_options
def prune(settings: Settings, older_than: str, status: tuple[str, ...], dry_run: bool, **options: Any) -> None:
    """Delete finished runs with their journals. Safe to interrupt and to repeat, and while workers work."""
    age_s = parse_duration(older_than, "--older-than")

    async def apply(client: Outlive) -> int:
        return await client.prune(age_s, status=status or None, dry_run=dry_run, **options)

    count = with_client(settings, apply)
    settings.say(f"{'would prune' if dry_run else 'pruned'} {count} runs", {"runs": count, "dry_run": dry_run})
