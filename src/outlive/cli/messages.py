"""What the command line tells and asks runs: `outlive runs start`, `result`, `send`, `call`, `value`, `stream`.

Values are JSON on the way in and out.
"""

from __future__ import annotations

import json
from typing import Any

import click

from outlive import Outlive
from outlive.cli.output import print_json
from outlive.cli.runs import runs
from outlive.cli.settings import Settings, common_options, read_duration, read_json, with_client
from outlive.errors import OutliveError, StepFailed, UsageError


@runs.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("args", metavar="[ARG]...", nargs=-1)
@click.option("--id", metavar="ID", help="Of the run; one that has it already is not started again.")
@click.option("--queue", metavar="NAME", help="Where it waits for its turn.")
@click.option("--key", metavar="KEY", help="Whose run it is, for limits and turns.")
@click.option("--priority", type=int, default=0, help="Smaller is first.")
@click.option("--delay", metavar="DURATION", help="It starts so much later: 90s, 12h.")
@click.option("--deadline", metavar="DURATION", help="It is cancelled if it has not ended by then.")
@click.option("--attribute", "attributes", metavar="NAME=JSON", multiple=True, help="For searching; may be repeated.")
@common_options
def start(
    settings: Settings, workflow: str, args: tuple[str, ...], attributes: tuple[str, ...], **options: Any
) -> None:
    """Start a run of WORKFLOW, given by its name; a worker executes it. Each ARG is JSON: '"tea"' 3 '[1, 2]'."""
    values = [read_json(text, "an argument") for text in args]
    pairs = dict(_read_pair(text) for text in attributes)
    for option in ("delay", "deadline"):
        options[option] = read_duration(options[option], f"--{option}")
    run = with_client(settings, lambda client: client.start(workflow, *values, attributes=pairs or None, **options))
    said = f"started run {run.id!r}" if run.created else f"run {run.id!r} was started before"
    settings.say(said, {"id": run.id, "created": run.created})


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--timeout", metavar="DURATION", help="Give up after so long: 90s, 10m. Exit code 4.")
@common_options
def result(settings: Settings, run_id: str, timeout: str | None) -> None:
    """Wait for the end of a run and print its result as JSON. Exit code 1 if it failed, was cancelled or is held."""
    limit_s = read_duration(timeout, "--timeout")

    async def wait(client: Outlive) -> Any:
        outcome = await (await client.get(run_id))._outcome(limit_s, stop_on_hold=True)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    found = with_client(settings, wait)
    print_json({"id": run_id, "result": found} if settings.json else found)


def _read_pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--attribute {text!r}: say NAME=JSON, for example 'tenant=42'")
    return name, read_json(value, f"--attribute {name}=…")


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("topic", metavar="TOPIC")
@click.argument("value", metavar="JSON")
@click.option("--key", metavar="KEY", help="A run gets one message of each key.")
@common_options
def send(settings: Settings, run_id: str, topic: str, value: str, key: str | None) -> None:
    """Send a message to a run. Exit code 4 if it has ended."""
    message = read_json(value, "the message")
    with_client(settings, lambda client: client.send(run_id, topic, message, key))
    settings.say(f"run {run_id!r} has a message on {topic}", {"id": run_id, "topic": topic, "sent": True})


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="NAME")
@common_options
def value(settings: Settings, run_id: str, name: str) -> None:
    """Print the latest value that a run has published under NAME, as JSON; null if there is none."""

    async def read(client: Outlive) -> Any:
        return await (await client.get(run_id)).value(name)

    found = with_client(settings, read)
    print_json({"id": run_id, "name": name, "value": found} if settings.json else found)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="NAME")
@click.argument("args", metavar="[ARG]...", nargs=-1)
@click.option("--timeout", metavar="DURATION", help="Give up after so long; the call may be answered all the same.")
@common_options
def call(settings: Settings, run_id: str, name: str, args: tuple[str, ...], timeout: str | None) -> None:
    """Ask a running workflow, and print its answer as JSON. Each ARG is JSON."""
    values = [read_json(text, "an argument") for text in args]
    limit_s = read_duration(timeout, "--timeout")

    async def ask(client: Outlive) -> Any:
        run = await client.get(run_id)
        try:
            return await run.call(name, *values, timeout=limit_s)
        except OutliveError:
            raise
        except Exception as error:  # noqa: BLE001 - a workflow may refuse with anything
            raise StepFailed(type(error).__qualname__, str(error)) from None

    answer = with_client(settings, ask)
    print_json({"id": run_id, "name": name, "answer": answer} if settings.json else answer)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="NAME")
@click.option("--after", default=0, type=click.IntRange(0), metavar="SEQ", help="Only items behind this one.")
@common_options
def stream(settings: Settings, run_id: str, name: str, after: int) -> None:
    """Print the items of a stream as lines of JSON, past and future, until the run has ended."""

    async def follow(client: Outlive) -> None:
        async for item in (await client.get(run_id)).stream(name, after):
            click.echo(json.dumps({"seq": item.seq, "value": item.value}, ensure_ascii=False))

    with_client(settings, follow)
