"""Promises on the command line: `outlive promises` lists those that wait for somebody, `outlive settle` settles one."""

from __future__ import annotations

import click

from outlive.cli.output import as_json, cut, when
from outlive.cli.settings import Settings, audited, common_options, listing, read_json, with_client
from outlive.errors import UsageError


@click.command()
@click.argument("topic", metavar="TOPIC")
@listing
def promises(settings: Settings, topic: str, run_id: str | None, limit: int, after: str | None) -> None:
    """List the promises of a topic that wait to be settled, the oldest first."""
    page = with_client(settings, lambda client: client.promises(topic, run_id=run_id, limit=limit, after=after))
    rows = [
        [one.run_id, one.key, when(one.created_at), when(one.expires_at), cut(as_json(one.about), 40), one.token]
        for one in page.items
    ]
    settings.print_page("promises", page, ["RUN", "KEY", "SINCE (UTC)", "UNTIL (UTC)", "ABOUT", "TOKEN"], rows)


@click.command()
@click.argument("token", metavar="TOKEN")
@click.option("--value", metavar="JSON", help="What the run gets.")
@click.option("--error", metavar="TEXT", help="The run gets this error instead.")
@audited
@common_options
def settle(
    settings: Settings, token: str, value: str | None, error: str | None, reason: str | None, by: str | None
) -> None:
    """Settle a promise, once. Exit code 3 if there is none, 4 if it is settled or has expired."""
    if (value is None) == (error is None):
        raise UsageError("say --value JSON or --error TEXT")
    given = None if value is None else read_json(value, "--value")
    with_client(settings, lambda client: client.settle(token, given, error, by=by or client.name, reason=reason))
    settings.say("the promise is settled", {"settled": True})
