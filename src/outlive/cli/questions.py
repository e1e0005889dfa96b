"""`outlive questions`: what runs ask people, and the answers. Needs no agent; answers need the extra `agents`."""

from __future__ import annotations

import click

from outlive.cli.output import as_json, cut, when
from outlive.cli.settings import Settings, common_options, listing, person, read_json, signed, with_client
from outlive.questions import questions as inbox

_QUESTION_MAX_CHARS = 60


@click.group()
def questions() -> None:
    """List the questions that wait for a person, and answer them."""


@questions.command("ls")
@listing
def ls(settings: Settings, run_id: str | None, limit: int, after: str | None) -> None:
    """List the questions that wait, the oldest first."""
    page = with_client(settings, lambda client: inbox(client).list(run_id=run_id, limit=limit, after=after))
    rows = [
        [one.agent or "", cut(one.question, _QUESTION_MAX_CHARS), as_json(one.schema), when(one.expires_at), one.id]
        for one in page.items
    ]
    settings.print_page("questions", page, ["AGENT", "QUESTION", "ANSWER", "UNTIL (UTC)", "ID"], rows)


@questions.command()
@click.argument("question_id", metavar="ID")
@click.argument("value", metavar="JSON")
@click.option("--why", "--reason", "why", metavar="TEXT", help="Kept in the audit.")
@signed
@common_options
def answer(settings: Settings, question_id: str, value: str, why: str | None, by: str | None) -> None:
    """Answer a question, once. Exit code 4 if that is no answer to it, or it waits no more."""
    given = read_json(value, "an answer")
    with_client(settings, lambda client: inbox(client).answer(question_id, given, by=person(by), why=why))
    settings.say("the question is answered", {"answered": True})


@questions.command()
@click.argument("question_id", metavar="ID")
@click.option("--why", "--reason", "why", metavar="TEXT", help="Who asks gets it; kept in the audit.")
@signed
@common_options
def decline(settings: Settings, question_id: str, why: str | None, by: str | None) -> None:
    """Decline to answer a question, once. Exit code 4 if it waits no more."""
    with_client(settings, lambda client: inbox(client).decline(question_id, by=person(by), why=why))
    settings.say("the question is declined", {"declined": True})
