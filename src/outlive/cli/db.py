"""`outlive db`: bring the schema of a database up to date, or say whether it is."""

from __future__ import annotations

import asyncio

import click

from outlive import Outlive
from outlive.cli.settings import Settings, common_options, with_client


@click.group()
def db() -> None:
    """Create, upgrade and check the tables."""


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
