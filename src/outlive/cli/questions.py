"""`outlive questions`: what runs ask people, and the answers. Needs no agent; answers need the extra `agents`."""

from __future__ import annotations

import click

from outlive import Outlive
from outlive.cli.output import as_json, cut, print_json, print_table, when
from outlive.cli.settings import Settings, common_options, read_json, signed, with_client
from outlive.inbox import InboxPage
from outlive.questions import Question, Questions

_QUESTION_MAX_CHARS = 60


@click.group()
def questions() -> None:
    """List the questions that wait for a person, and answer them."""


@questions.command("ls")
@click.option("--run", "run_id", metavar="ID", help="Only those of this run.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@click.option("--after", metavar="CURSOR", help="Go on behind this one.")
@common_options
def ls(settings: Settings, run_id: str | None, limit: int, after: str | None) -> None:
    """List the questions that wait, the oldest first."""

    async def read(client: Outlive) -> InboxPage[Question]:
        return await Questions(client).list(run_id=run_id, limit=limit, after=after)

    page = with_client(settings, read)
    if settings.json:
        print_json({"questions": page.items, "next": page.next})
        return
    rows = [
        [one.agent or "", cut(one.question, _QUESTION_MAX_CHARS), as_json(one.schema), when(one.expires_at), one.id]
        for one in page.items
    ]
    print_table(["AGENT", "QUESTION", "ANSWER", "UNTIL (UTC)", "ID"], rows)
    if page.next is not None:
        click.echo(f"more: --after {page.next}", err=True)


@questions.command()
@click.argument("question_id", metavar="ID")
@click.argument("value", metavar="JSON")
@click.option("--why", "--reason", "why", metavar="TEXT", help="Kept in the audit.")
@signed
@common_options
def answer(settings: Settings, question_id: str, value: str, why: str | None, by: str | None) -> None:
    """Answer a question, once. Exit code 4 if that is no answer to it, or it waits no more."""
    given = read_json(value, "an answer")

    async def send(client: Outlive) -> None:
        await Questions(client).answer(question_id, given, by=by or client.name, why=why)

    with_client(settings, send)
    settings.say("the question is answered", {"answered": True})


@questions.command()
@click.argument("question_id", metavar="ID")
@click.option("--why", "--reason", "why", metavar="TEXT", help="Who asks gets it; kept in the audit.")
@signed
@common_options
def decline(settings: Settings, question_id: str, why: str | None, by: str | None) -> None:
    """Decline to answer a question, once. Exit code 4 if it waits no more."""

    async def send(client: Outlive) -> None:
        await Questions(client).decline(question_id, by=by or client.name, why=why)

    with_client(settings, send)
    settings.say("the question is declined", {"declined": True})
