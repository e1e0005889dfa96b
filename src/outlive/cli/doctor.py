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
from outlive.cli.settings import OK, STORE, Settings, common_options, refuse_missing_file
from outlive.clock import SystemClock
from outlive.errors import OutliveError, SchemaMismatch
from outlive.store.factory import make_store
from outlive.store.sqlite.connect import FIRST_SAFE_LIBRARY

_SKEW_WARN_S = 2.0
_DRIVERS = ("asyncpg", "apsw", "sqlalchemy", "psycopg")


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str


@click.command()
@common_options
def doctor(settings: Settings) -> int:
    """Check Python, SQLite, drivers, and the database of --url. Exit code 5 if something fails."""

    async def look() -> list[Check]:
        return [*_check_process(), *[check async for check in _check_database(settings.url)]]

    checks = asyncio.run(look())
    healthy = all(check.state != "fail" for check in checks)
    if settings.json:
        print_json({"ok": healthy, "checks": checks})
    else:
        for check in checks:
            click.echo(f"{check.state:<4}  {check.name:<8}  {check.text}")
    return OK if healthy else STORE


def _check_process() -> Iterator[Check]:
    system = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    yield Check("python", "ok", system)
    yield _check_sqlite("sqlite", sqlite3.sqlite_version, "pip install 'outlive[apsw]' and add ?driver=apsw to the URL")
    with suppress(ImportError):
        import apsw

        yield _check_sqlite("apsw", apsw.sqlite_lib_version(), "upgrade apsw")
    yield Check("drivers", "ok", ", ".join(f"{name} {_installed(name)}" for name in _DRIVERS))


def _check_sqlite(name: str, library: str, cure: str) -> Check:
    if tuple(map(int, library.split("."))) >= FIRST_SAFE_LIBRARY:
        return Check(name, "ok", f"SQLite library {library}")
    return Check(
        name,
        "warn",
        f"SQLite library {library} is older than {'.'.join(map(str, FIRST_SAFE_LIBRARY))}: where several processes "
        "write one file it can corrupt the file when the write-ahead log starts over. One process per file is safe; "
        f"for more, {cure}",
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


async def _check_database(url: str | None) -> AsyncIterator[Check]:
    if url is None:
        yield Check("database", "warn", "not looked at: pass --url or set OUTLIVE_URL")
        return
    store = None
    try:
        refuse_missing_file(url)
        store = make_store(url, clock=SystemClock(), chance=random.Random(), pool_size=2)
        await store.open(migrate=False)
        yield Check("schema", "ok", "fits this version")
        sent_at = time.time()
        now = await store.now()
        answer_s = time.time() - sent_at
        yield Check("database", "ok", f"{store.url} answers within {answer_s * 1000:.1f} ms")
        yield _check_clock(now - (sent_at + answer_s / 2))
    except OutliveError as error:
        yield Check("schema" if isinstance(error, SchemaMismatch) else "database", "fail", str(error))
    finally:
        if store is not None:
            await store.close()


def _check_clock(ahead_s: float) -> Check:
    text = f"the database's clock is {abs(ahead_s):.3f} s {'ahead of' if ahead_s >= 0 else 'behind'} this host's"
    if abs(ahead_s) <= _SKEW_WARN_S:
        return Check("clock", "ok", text)
    return Check("clock", "warn", f"{text}; leases and timers follow the database, so set the wrong one right")
