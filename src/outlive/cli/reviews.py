"""`outlive reviews`: what guards have stopped and people decide on. Needs no agent and no extra."""

from __future__ import annotations

from typing import get_args

import click

from outlive.cli.output import as_json, cut, print_json, when
from outlive.cli.settings import (
    NOT_FOUND,
    OK,
    Settings,
    common_options,
    listing,
    person,
    read_json,
    signed,
    with_client,
)
from outlive.errors import UsageError
from outlive.inbox import tell_gone, visible
from outlive.reviews import Reviews, Verdict
from outlive.reviews import reviews as inbox

_REASON_MAX_CHARS = 60
_FACT_MAX_CHARS = 600


@click.group()
def reviews() -> None:
    """List what guards have stopped, and decide on it."""


@reviews.command("ls")
@listing
def ls(settings: Settings, run_id: str | None, limit: int, after: str | None) -> None:
    """List the reviews that wait, the oldest first."""
    page = with_client(settings, lambda client: inbox(client).list(run_id=run_id, limit=limit, after=after))
    rows = [[cut(one.what), cut(one.reason, _REASON_MAX_CHARS), when(one.expires_at), one.id] for one in page.items]
    settings.print_page("reviews", page, ["WHAT", "REASON", "UNTIL (UTC)", "ID"], rows)


@reviews.command()
@click.argument("review_id", metavar="ID")
@click.option("--full", is_flag=True, help="Cut no fact.")
@common_options
def show(settings: Settings, review_id: str, *, full: bool) -> int:
    """Show why something was stopped, and the facts by which to decide. Exit code 3 if it waits no more."""
    found = with_client(settings, lambda client: inbox(client).find(review_id))
    if found is None:
        click.echo(f"outlive: {tell_gone(Reviews, review_id)}", err=True)
        return NOT_FOUND
    if settings.json:
        print_json({"review": found})
        return OK
    click.echo(visible(f"{found.what}  of run {found.run_id!r}"))
    click.echo(f"  {'reason':<10} {visible(found.reason)}")
    for name, value in found.facts.items():
        click.echo(f"  {visible(name):<10} {as_json(value, max_chars=None if full else _FACT_MAX_CHARS)}")
    click.echo(f"  since      {when(found.created_at)}")
    click.echo(f"  until      {when(found.expires_at)}")
    return OK


@reviews.command()
@click.argument("review_id", metavar="ID")
@click.argument("verdict", type=click.Choice(get_args(Verdict)))
@click.option("--value", metavar="JSON", help="Accepted in place of what there is.")
@click.option("--why", "--reason", "why", metavar="TEXT", help="With again, the agent reads it; kept in the audit.")
@signed
@common_options
def decide(
    settings: Settings, review_id: str, verdict: Verdict, *, value: str | None, why: str | None, by: str | None
) -> None:
    """Accept what was stopped, let the agent try again, or reject it; once. Exit code 4 if it waits no more."""
    if value is not None and verdict != "accept":
        raise UsageError("--value is for what is accepted")
    given = None if value is None else read_json(value, "--value")
    with_client(
        settings,
        lambda client: inbox(client).decide(review_id, verdict, by=person(by), why=why, value=given),
    )
    said = {"accept": "it is accepted", "again": "the agent tries again", "reject": "it is rejected"}
    settings.say(said[verdict], {"verdict": verdict})
