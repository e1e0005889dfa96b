"""What all commands share: the database's URL, the choice of output, and how a client is opened."""

from __future__ import annotations

import asyncio
import getpass
import json
import shlex
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from outlive import Outlive
from outlive.cli.output import print_json, print_table
from outlive.errors import StoreError, UsageError
from outlive.model.query import parse_duration
from outlive.paging import Page

T = TypeVar("T")

OK, RUN_FAILED, USAGE, NOT_FOUND, CONFLICT, STORE = range(6)


@dataclass
class Settings:
    """The global options as given; a command's own `--url` and `--json` win over the ones before it."""

    url: str | None = None
    json: bool = False

    def require_url(self) -> str:
        """Give the URL, or say how to name one."""
        if not self.url:
            raise UsageError("no database: pass --url or set OUTLIVE_URL, for example sqlite:///shop.db")
        return self.url

    def say(self, sentence: str, facts: Any) -> None:
        """Print the sentence, or the facts as JSON."""
        if self.json:
            print_json(facts)
        else:
            click.echo(sentence)

    def print_page(self, noun: str, page: Page[Any, Any], titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a page of what is listed, and how to go on behind it."""
        if self.json:
            print_json({noun: page.items, "next": page.next})
            return
        print_table(titles, rows)
        if page.next is not None:
            click.echo(f"more: --after {shlex.quote(str(page.next))}", err=True)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        setattr(context.ensure_object(Settings), option.name or "", value)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its settings: `--url` and `--json`, which may stand before or behind its name."""
    url = "sqlite:///file.db or postgresql://…; default: OUTLIVE_URL."
    for option in (
        click.option("--json", is_flag=True, expose_value=False, callback=_keep, help="Print JSON for programs."),
        click.option("--url", metavar="URL", expose_value=False, callback=_keep, help=url),
        click.make_pass_decorator(Settings, ensure=True),
    ):
        command = option(command)
    return command


def listing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command which part it lists of what waits."""
    for option in (
        click.option("--after", metavar="CURSOR", help="Go on behind this one."),
        click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many."),
        click.option("--run", "run_id", metavar="ID", help="Only those of this run."),
    ):
        command = option(command)
    return common_options(command)


def signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command who acts."""
    who = "Who acts; default: the user of this machine."
    return click.option("--by", metavar="NAME", callback=_name_user, help=who)(command)


def audited(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what the audit keeps of it: why, and who acts."""
    return click.option("--reason", metavar="TEXT", help="Why; kept in the audit.")(signed(command))


def person(by: str | None) -> str:
    """Give who decides. Whoever has no name would be another person with each command."""
    if by is None:
        raise UsageError("the user of this machine has no name here: say --by NAME, for a decision is a person's")
    return by


def _name_user(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given is not None:
        if not given.strip():
            raise UsageError("--by is the name of who acts, and it is empty")
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return None


def read_duration(text: str | None, what: str) -> float | None:
    """Read a duration in seconds as it is written on the command line, if it was."""
    return None if text is None else parse_duration(text, what)


def read_time(text: str, what: str) -> datetime:
    """Read a day or an instant as it is written on the command line, in UTC unless it has an offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{what} is a day or a time, 2026-05-01 or 2026-05-01T12:00+02:00, not {text!r}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def read_json(text: str, what: str) -> Any:
    """Read a value as it is written on the command line."""
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(f"{what} is JSON, not {text!r}; a text is written with its quotes: '\"tea\"'") from None


def refuse_missing_file(url: str) -> None:
    """Raise StoreError for a SQLite file that is not there: opening it would create it."""
    scheme, _, path = url.partition("?")[0].partition(":///")
    if scheme == "sqlite" and path and not Path(path).exists():
        raise StoreError(f"there is no SQLite database {path}; `outlive db migrate` creates it")


def with_client(settings: Settings, use: Callable[[Outlive], Awaitable[T]]) -> T:
    """Run `use` with a client of the database, which executes nothing and never changes the schema."""
    url = settings.require_url()

    async def connect() -> T:
        async with Outlive(url, worker=False, migrate=False) as client:
            return await use(client)

    refuse_missing_file(url)
    return asyncio.run(connect())
