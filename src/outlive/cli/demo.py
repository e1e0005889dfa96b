"""`outlive demo`: plays the order service that is killed, and fails if its audit does."""

from __future__ import annotations

import sys

import click

from outlive.cli.settings import OK, RUN_FAILED, Settings, common_options


@click.command()
@click.option("--orders", default=300, show_default=True, type=click.IntRange(1, 100_000), help="How many orders.")
@click.option("--kills", default=5, show_default=True, type=click.IntRange(0, 1_000), help="How many SIGKILLs.")
@click.option("--seed", type=int, help="Draw the same moments and the same trouble again.")
@common_options
def demo(settings: Settings, orders: int, kills: int, seed: int | None) -> int:
    """Work on orders in a process that is killed again and again, then audit what happened.

    Without --url the database is a SQLite file in a temporary folder. Exit code 1 if the audit fails.
    """
    from outlive.demo.parent import ServiceBroken
    from outlive.demo.run import run_demo

    try:
        audit = run_demo(orders, kills, seed, settings.url, sys.stderr if settings.json else sys.stdout)
    except ServiceBroken as error:
        click.echo(f"outlive: {error}", err=True)
        return RUN_FAILED
    settings.say(audit.report(), audit.to_json())
    return OK if audit.passed else RUN_FAILED
