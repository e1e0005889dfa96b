"""What all commands share: the database's URL, the choice of output, and how a client is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from outlive import Outlive
from outlive.errors import StoreError, UsageError

F = TypeVar("F", bound=Callable[..., Any])
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


def _set_url(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Settings).url = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Settings).json = True


def common_options(command: F) -> F:
    """Give a command `--url` and `--json`, so that they may stand before or behind its name."""
    command = click.option(
        "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON for programs."
    )(command)
    return click.option(
        "--url",
        metavar="URL",
        expose_value=False,
        callback=_set_url,
        help="sqlite:///file.db or postgresql://…; default: OUTLIVE_URL.",
    )(command)


def refuse_missing_file(url: str) -> None:
    """Raise StoreError for a SQLite file that is not there: opening it would create it."""
    scheme, _, path = url.partition("?")[0].partition(":///")
    if scheme == "sqlite" and path and not Path(path).exists():
        raise StoreError(f"there is no SQLite database {path}; `outlive db migrate` creates it")


def with_client(settings: Settings, use: Callable[[Outlive], Coroutine[Any, Any, T]]) -> T:
    """Run `use` with a client of the database, which executes nothing and never changes the schema."""
    url = settings.require_url()

    async def connect() -> T:
        async with Outlive(url, worker=False, migrate=False) as client:
            return await use(client)

    refuse_missing_file(url)
    return asyncio.run(connect())
