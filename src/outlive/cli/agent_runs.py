"""`outlive agents ls` and `show`: runs of agents, what they wait for and cost, and what was said in one of them."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import click

from outlive import Outlive
from outlive.cli.agents import agents
from outlive.cli.budgets import describe, describe_limits
from outlive.cli.output import as_json, cut, lasted, print_json
from outlive.cli.replay import load_code
from outlive.cli.runs import QueryCommand
from outlive.cli.settings import OK, RUN_FAILED, Settings, common_options, with_client
from outlive.inbox import visible
from outlive.model.status import Status
from outlive.views.agent_journal import Line
from outlive.views.agent_runs import (
    AgentRun,
    AgentRunStory,
    list_agent_runs,
    read_agent_run,
)

_WAITS_MAX_CHARS = 50
_TEXT_MAX_CHARS = 600


@agents.command("ls", cls=QueryCommand)
@click.argument("query", nargs=-1)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How many at most.")
@click.option("--after", metavar="CURSOR", type=int, help="Go on behind the page that gave this cursor.")
@common_options
def ls(settings: Settings, query: tuple[str, ...], limit: int, after: int | None) -> None:
    """List the runs of agents and the conversations that QUERY means, newest first: status:suspended age:<1d.

    Runs of your own workflows in which agents work are found by name: workflow:write.
    """
    page = with_client(settings, lambda client: list_agent_runs(client, " ".join(query), limit=limit, after=after))
    now = datetime.now(UTC)
    rows = [
        [
            one.id,
            ", ".join(one.agents),
            one.status.value,
            str(one.usage.requests),
            str(one.usage.tokens),
            _dollars(one),
            lasted(one.created_at, now),
            cut(one.waits_for or "", _WAITS_MAX_CHARS),
        ]
        for one in page.items
    ]
    settings.print_page("runs", page, ["ID", "AGENT", "STATUS", "REQUESTS", "TOKENS", "USD", "AGE", "WAITS FOR"], rows)


@agents.command()
@click.argument("run_id", metavar="RUN")
@click.option("--full", is_flag=True, help="Cut no text.")
@click.option("--generation", type=int, metavar="N", help="The journal as it was before a later retry or rewind.")
@click.option(
    "--code", metavar="MODULE[:APP]", help="The code of the agents, which tells the effect class of each tool."
)
@common_options
def show(settings: Settings, run_id: str, *, full: bool, generation: int | None, code: str | None) -> int:
    """Show what the agents of a run have said and done, from its journal. Exit code 1 if the run failed."""
    definitions, codec, own_url = (None, None, None) if code is None else load_code(code)
    settings.url = settings.url or own_url

    async def read(client: Outlive) -> AgentRunStory:
        effects = {} if code is None else await _find_effects(client, run_id, definitions, codec)
        return await read_agent_run(client, run_id, effects=effects, generation=generation)

    story = with_client(settings, read)
    if settings.json:
        print_json(story)
    else:
        _print(story, full=full)
    return RUN_FAILED if story.run.status is Status.FAILED else OK


async def _find_effects(client: Outlive, run_id: str, definitions: Any, codec: Any) -> dict[str, str]:
    from outlive.agents.cassette import find_effects, read_journal

    return await find_effects(await read_journal(client, run_id), definitions, codec)


def _dollars(one: AgentRun) -> str:
    return "?" if one.usd is None else f"{one.usd.normalize():f}"


def _print(story: AgentRunStory, *, full: bool) -> None:
    run = story.run
    click.echo(visible(f"{run.id}  {run.workflow}  {run.status.value}"))
    used = run.usage
    click.echo(f"  used       requests={used.requests} tokens={used.tokens} tools={used.tools} usd={_dollars(run)}")
    for one in story.budgets:
        click.echo(f"  budget     {visible(one.account)}: {describe_limits(one)}; spent {describe(one.spent)}")
    if run.waits_for:
        click.echo(f"  waits for  {cut(run.waits_for)}")
    click.echo()
    limit = None if full else _TEXT_MAX_CHARS
    was_cut = False
    for line in story.lines:
        who, told = describe_line(line)
        shown = visible(told)
        was_cut |= limit is not None and len(shown) > limit
        _print_text(who, shown if limit is None else shown[:limit] + ("…" if len(shown) > limit else ""))
    for approval in story.waiting.approvals:
        role = f" by {approval.role}" if approval.role else ""
        _print_wait(f"for approval{role}: {approval.tool} {_arguments(approval.arguments)}", approval.id)
    for question in story.waiting.questions:
        _print_wait(f"for an answer: {question.question}", question.id)
    for review in story.waiting.reviews:
        _print_wait(f"for a review of {review.what}: {review.reason}", review.id)
    if story.error is not None:
        _print_text("error", visible(story.error))
    if was_cut:
        click.echo("long texts were cut: --full shows all of them", err=True)


def _print_text(who: str, text: str) -> None:
    first, *rest = text.split("\n")
    click.echo(f"{cut(who, 12):<12} {first}".rstrip())
    for line in rest:
        click.echo(f"{'':<12} {line}".rstrip())


def _print_wait(what: str, place: str) -> None:
    _print_text("waits", visible(f"{what} ({place})"))


def describe_line(line: Line) -> tuple[str, str]:
    """Give who speaks in a line of a conversation, and the words for it."""
    call = f"{line.tool}({line.call_id})" if line.call_id else f"{line.tool}"
    tries = f", {line.attempts} attempts" if line.attempts > 1 else ""
    match line.kind:
        case "prompt":
            return "person", line.text or ""
        case "text":
            return line.agent, line.text or ""
        case "thinking":
            return line.agent, f"(thinks) {line.text}"
        case "call":
            return line.agent, f"calls {call} {_arguments(line.value)}"
        case "result":
            effect = f" [{line.effect}]" if line.effect else ""
            if line.state == "open":
                return "tool", f"{call}{effect} has begun{tries}"
            said = line.text if line.value is None and line.text else _plain(line.value)
            return "tool", f"{call}{effect} {line.state}{tries}: {said}"
        case "decision":
            by = f" by {line.by}" if line.by else ""
            said = f": {_plain(line.value)}" if line.state == "answered" else f": {line.text}" if line.text else ""
            edit = f", with {_arguments(line.value)}" if line.state == "approved" and line.value is not None else ""
            return "decision", f"{call} {line.state}{by}{edit}{said}"
        case "failure":
            return line.agent, f"failed{tries}: {line.text}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value, max_chars=None)


def _arguments(value: Any) -> str:
    if isinstance(value, str):  # as the model has written them
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    return as_json(value, max_chars=None)
