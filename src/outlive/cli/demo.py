"""`outlive demo`: plays the order service that is killed, and fails if its audit does."""

from __future__ import annotations

import sys

import click

from outlive.cli.output import print_json
from outlive.cli.settings import RUN_FAILED, Settings, common_options


@click.command()
@click.option("--orders", default=300, show_default=True, type=click.IntRange(1, 100_000), help="How many orders.")
@click.option("--kills", default=5, show_default=True, type=click.IntRange(0, 1_000), help="How many SIGKILLs.")
@click.option("--seed", type=int, help="Draw the same moments and the same trouble again.")
@common_options
@click.pass_context
def demo(context: click.Context, orders: int, kills: int, seed: int | None) -> None:
    """Work on orders in a process that is killed again and again, then audit what happened.

    Without --url the database is a SQLite file in a temporary folder. Exit code 1 if the audit fails.
    """
    from outlive.demo.parent import ServiceBroken
    from outlive.demo.run import Plan, run_demo

    settings = context.ensure_object(Settings)
    try:
        audit = run_demo(Plan(orders, kills, seed, settings.url), sys.stderr if settings.json else sys.stdout)
    except ServiceBroken as error:
        click.echo(f"outlive: {error}", err=True)
        context.exit(RUN_FAILED)
    if settings.json:
        print_json(audit.to_json())
    else:
        click.echo("audit")
        for line in audit.lines():
            click.echo(line)
        times = "once" if audit.deaths == 1 else f"{audit.deaths} times"
        click.echo(
            f"The process died {times}; the work outlived it." if audit.passed else "The audit failed: this is a bug."
        )
    context.exit(0 if audit.passed else RUN_FAILED)
