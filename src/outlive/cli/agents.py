"""`outlive agents`: what agents of runs have asked and were answered; `budgets` adds what they may use."""

from __future__ import annotations

import asyncio

import click

from outlive import Outlive
from outlive.cli.replay import load_code
from outlive.cli.settings import OK, Settings, common_options, refuse_missing_file


@click.group()
def agents() -> None:
    """See and steer what agents do."""


@agents.command("export")
@click.argument("target", metavar="MODULE[:APP]")
@click.argument("run_id", metavar="RUN")
@common_options
def export(settings: Settings, target: str, run_id: str) -> int:
    """Print the cassette of a run, for ReplayModel: its journal, and what the code of MODULE asks along it."""
    from outlive.agents.cassette import make_cassette, read_journal

    definitions, codec, own_url = load_code(target)
    url = settings.url or own_url or settings.require_url()
    refuse_missing_file(url)

    async def make() -> str:
        async with Outlive(url, worker=False, migrate=False, include=[]) as client:
            journal = await read_journal(client, run_id)
        return (await make_cassette(journal, definitions, codec)).to_json()

    click.echo(asyncio.run(make()), nl=False)
    return OK
