"""`outlive replay`: tries the code at hand on recorded journals, before it is deployed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, BinaryIO

import click

from outlive import JournalMismatch, Outlive
from outlive.cli.output import print_json
from outlive.cli.settings import OK, RUN_FAILED, Settings, common_options, refuse_missing_file
from outlive.cli.worker import import_object, import_target
from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import Codec
from outlive.definitions import Definition
from outlive.engine.rehearsal import Report, rehearse
from outlive.errors import UsageError
from outlive.model.frozen import FrozenJournal, read_lines
from outlive.model.status import FINAL
from outlive.registry import Registry

_UNFINISHED = f"-status:{','.join(sorted(FINAL))}"


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--check", is_flag=True, help="Exit code 1 if a run would break: for CI and before a deployment.")
@click.option("--strict", is_flag=True, help="Count edits that another version tolerates as breaking too.")
@click.option(
    "--journals",
    type=click.File("rb"),
    metavar="FILE",
    help="Of `outlive runs export` or `db prune --archive`; - is stdin.",
)
@click.option("--query", metavar="QUERY", help="Which runs of the database; all unfinished ones if not given.")
@common_options
def replay(
    settings: Settings, target: str, check: bool, strict: bool, journals: BinaryIO | None, query: str | None
) -> int:
    """Replay recorded journals with the code of MODULE, without any effect, and tell which runs would break.

    The journals are those of FILE, else of all unfinished runs in the database of --url, which is only read.
    """
    if journals is not None and query is not None:
        raise UsageError("--query chooses runs of a database; all journals of a file are replayed")
    definitions, codec, own_url = load_code(target)
    logging.getLogger("outlive").setLevel(logging.CRITICAL)  # what replay finds is told below

    async def replay_all() -> list[Report]:
        source: Any = nullcontext()
        if journals is None:
            url = settings.url or own_url or settings.require_url()
            refuse_missing_file(url)
            source = Outlive(url, worker=False, migrate=False, include=[])
        async with source as client:
            return [
                await rehearse(one, definitions, codec) async for one in _read(client, journals, query or _UNFINISHED)
            ]

    reports = asyncio.run(replay_all())
    if check and journals is not None and not reports:
        raise UsageError(f"{journals.name} holds no journal: nothing was checked")
    broken = [report for report in reports if not report.ok or (strict and report.verdict == "edited")]
    if settings.json:
        print_json({"ok": not broken, "runs": [_facts(report) for report in reports]})
    else:
        _print(reports)
    return RUN_FAILED if check and broken else OK


def load_code(target: str) -> tuple[Registry, Codec, str | None]:
    """Give the definitions of a module or app, the codec that reads their journals, and the database of the app."""
    found = import_object(target)
    if isinstance(found, Definition):
        return Registry([found]), JsonCodec(), None
    found = import_target(target)
    if isinstance(found, Outlive):
        return Registry(found._include), found._options.codec, found._url
    return Registry([found]), JsonCodec(), None


async def _read(client: Outlive | None, lines: BinaryIO | None, query: str) -> AsyncIterator[FrozenJournal]:
    if client is not None:
        async for journal in client.journals(query):
            yield journal
    else:
        for journal in read_lines(lines or (), lines.name if lines else ""):
            yield journal


def _print(reports: list[Report]) -> None:
    for report in reports:
        if report.verdict == "fits":
            continue
        click.echo(str(report))
    counts = Counter(report.verdict for report in reports)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    click.echo(f"{len(reports)} runs: {told}" if reports else "no runs to replay")


def _facts(report: Report) -> dict[str, Any]:
    error = report.error
    facts: dict[str, Any] = {name: getattr(report, name) for name in Report.__match_args__}
    if isinstance(error, JournalMismatch):
        facts["difference"] = {"expected": error.expected, "got": error.got, "where": error.where}
    return facts
