"""`outlive doctor`: looks at everything that Outlive stands on and says what to do about it.

Each check gives one line: `ok`, `warn` (works, but read it) or `fail`. Nothing is changed and no
file is created.
"""

from __future__ import annotations

import asyncio
import platform
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import click

from outlive.cli.output import print_json
from outlive.cli.settings import STORE, Settings, common_options, refuse_missing_file
from outlive.clock import SystemClock
from outlive.errors import OutliveError, SchemaMismatch
from outlive.store.factory import make_store
from outlive.store.interface import Store

FIRST_SAFE_SQLITE = "3.51.3"
_SKEW_WARN_S = 2.0
_ANSWER_WARN_S = 0.1
_EXTRAS = {"asyncpg": "postgres", "apsw": "apsw", "sqlalchemy": "sqlalchemy", "psycopg": "psycopg"}


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str


@click.command()
@common_options
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check Python, SQLite, drivers, and the database of --url. Exit code 5 if something fails."""
    settings = context.ensure_object(Settings)
    checks = [*_check_process(), *asyncio.run(_check_database(settings.url))]
    healthy = all(check.state != "fail" for check in checks)
    if settings.json:
        print_json({"ok": healthy, "checks": checks})
    else:
        for check in checks:
            click.echo(f"{check.state:<4}  {check.name:<8}  {check.text}")
    context.exit(0 if healthy else STORE)


def _check_process() -> Iterator[Check]:
    yield Check(
        "python", "ok", f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    )
    yield check_sqlite("sqlite", sqlite3.sqlite_version, "pip install 'outlive[apsw]' and add ?driver=apsw to the URL")
    with suppress(ImportError):
        import apsw

        yield check_sqlite("apsw", apsw.sqlite_lib_version(), "upgrade apsw")
    yield Check("drivers", "ok", ", ".join(f"{name} {_installed(name)}" for name in _EXTRAS))


def check_sqlite(name: str, library: str, cure: str) -> Check:
    """Judge a SQLite library by its version."""
    if _numbers(library) >= _numbers(FIRST_SAFE_SQLITE):
        return Check(name, "ok", f"SQLite library {library}")
    return Check(
        name,
        "warn",
        f"SQLite library {library} is older than {FIRST_SAFE_SQLITE}: where several processes write one file it can "
        f"corrupt the file when the write-ahead log starts over. One process per file is safe; for more, {cure}",
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing (extra {_EXTRAS[package]!r})"


async def _check_database(url: str | None) -> list[Check]:
    if url is None:
        return [Check("database", "warn", "not looked at: pass --url or set OUTLIVE_URL")]
    try:
        refuse_missing_file(url)
        store = make_store(url, clock=SystemClock(), chance=random.Random(), pool_size=2)
    except OutliveError as error:
        return [Check("database", "fail", str(error))]
    try:
        return [check async for check in _ask(store)]
    finally:
        await store.close()


async def _ask(store: Store) -> AsyncIterator[Check]:
    try:
        await store.open(migrate=False)
    except SchemaMismatch as error:
        yield Check("database", "ok", f"{store.url} answers")
        yield Check("schema", "fail", str(error))
        return
    except OutliveError as error:
        yield Check("database", "fail", str(error))
        return
    sent, sent_at = time.perf_counter(), time.time()
    now = await store.now()
    answer_s = time.perf_counter() - sent
    slow = answer_s > _ANSWER_WARN_S
    yield Check("database", "warn" if slow else "ok", f"{store.url} answers within {answer_s * 1000:.1f} ms")
    yield Check("schema", "ok", "fits this version")
    yield _check_clock(now - (sent_at + answer_s / 2))
    yield Check("workers", "ok", f"{len(await store.list_workers())} hold a lease")


def _check_clock(ahead_s: float) -> Check:
    text = f"the database's clock is {abs(ahead_s):.3f} s {'ahead of' if ahead_s >= 0 else 'behind'} this host's"
    if abs(ahead_s) <= _SKEW_WARN_S:
        return Check("clock", "ok", text)
    return Check("clock", "warn", text + "; leases and timers follow the database, so set the wrong one right")
