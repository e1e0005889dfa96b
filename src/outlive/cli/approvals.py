"""`outlive approvals`: which calls of tools wait for a person, and his decision. Needs no agent and no extra."""

from __future__ import annotations

import click

from outlive.approvals import Approval, Approvals
from outlive.approvals import approvals as inbox
from outlive.cli.output import as_json, print_json, when
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


@click.group()
def approvals() -> None:
    """List the calls of tools that wait for a person, and decide on them."""


@approvals.command("ls")
@listing
def ls(settings: Settings, run_id: str | None, limit: int, after: str | None) -> None:
    """List the calls that wait, the oldest first."""
    page = with_client(settings, lambda client: inbox(client).list(run_id=run_id, limit=limit, after=after))
    rows = [
        [one.agent, one.tool, as_json(one.arguments), one.role or "", _votes(one), when(one.expires_at), one.id]
        for one in page.items
    ]
    settings.print_page("approvals", page, ["AGENT", "TOOL", "ARGUMENTS", "ROLE", "VOTES", "UNTIL (UTC)", "ID"], rows)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@common_options
def show(settings: Settings, approval_id: str) -> int:
    """Show one call with all of its arguments. Exit code 3 if it waits no more."""
    found = with_client(settings, lambda client: inbox(client).find(approval_id))
    if found is None:
        click.echo(f"outlive: {tell_gone(Approvals, approval_id)}", err=True)
        return NOT_FOUND
    if settings.json:
        print_json({"approval": found})
        return OK
    click.echo(f"{visible(found.tool)}  asked for by {visible(found.agent)}, run {found.run_id!r}")
    for name, value in found.arguments.items():
        click.echo(f"  {_on_a_line(name):<10} {as_json(value, max_chars=None)}")
    click.echo(f"  role       {visible(found.role or 'anybody')}")
    click.echo(f"  votes      {_votes(found)}")
    click.echo(f"  since      {when(found.created_at)}")
    click.echo(f"  until      {when(found.expires_at)}")
    click.echo(f"  digest     {found.digest}")
    return OK


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--approve", is_flag=True, help="The decision, or")
@click.option("--deny", is_flag=True, help="this one.")
@click.option("--edit", metavar="JSON", help="Approve the call with these arguments.")
@click.option("--why", "--reason", "why", metavar="TEXT", help="The model reads it; kept in the audit.")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="A role of whoever decides; may be repeated.")
@click.option("--digest", metavar="TEXT", help="Only if the arguments are still those that `show` has shown.")
@signed
@common_options
def decide(
    settings: Settings,
    approval_id: str,
    *,
    approve: bool,
    deny: bool,
    edit: str | None,
    why: str | None,
    roles: tuple[str, ...],
    digest: str | None,
    by: str | None,
) -> None:
    """Approve or deny a call, once. Exit code 4 if the decision does not count; nothing is changed then."""
    if approve == deny:
        raise UsageError("say --approve or --deny, one of them")
    arguments = None if edit is None else read_json(edit, "--edit")
    with_client(
        settings,
        lambda client: inbox(client).decide(
            approval_id, approve=approve, by=person(by), why=why, roles=roles, edit=arguments, digest=digest
        ),
    )
    settings.say("the call is approved" if approve else "the call is denied", {"approved": approve})


def _on_a_line(name: str) -> str:
    return visible(name).replace("\n", "\\n")


def _votes(one: Approval) -> str:
    names = f": {visible(', '.join(one.votes))}" if one.votes else ""
    return f"{len(one.votes)} of {one.quorum}{names}"
