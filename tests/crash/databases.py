"""Reads and writes the database behind Outlive's back: what a person with psql or sqlite3 would see.

Through the same SQLite library as the app where it is in the same process,
since a second one on the same file would lose its locks. Drivers are imported
where they are used: the many child processes need none of the parent's.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def is_sqlite(url: str) -> bool:
    """Say which of the two stores a URL means."""
    return url.startswith("sqlite")


def path_of(url: str) -> Path:
    """Give the file of a SQLite URL."""
    return Path(unquote(urlsplit(url).path[1:]))


def connect(url: str) -> Any:
    """Open a connection of one's own, in autocommit mode."""
    if not is_sqlite(url):
        import psycopg

        return psycopg.connect(url, autocommit=True, options="-c search_path=outlive,public")
    if parse_qs(urlsplit(url).query).get("driver") == ["apsw"]:
        import apsw

        connection = apsw.Connection(str(path_of(url)))
        connection.set_busy_timeout(10_000)
        return connection
    return sqlite3.connect(path_of(url), timeout=10, isolation_level=None, check_same_thread=False)


def read(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Give the rows of a query."""
    connection = connect(url)
    try:
        return [tuple(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def read_live(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Read while processes use the database, which may be locked for a moment."""
    while True:
        try:
            return read(url, sql)
        except Exception as error:
            if "locked" not in str(error):
                raise


def create_table(url: str, sql: str) -> None:
    """Prepare the user's part of an empty database."""
    connection = connect(url)
    try:
        connection.execute(sql)
    finally:
        connection.close()


def read_untouched(url: str, sql: str, *, alive: bool = False) -> list[tuple[Any, ...]]:
    """Read what a dead process has left, without doing the next one's recovery for it; nothing if there is no schema.

    One that is only stopped (`alive`) keeps its sessions.
    """
    if is_sqlite(url):
        with tempfile.TemporaryDirectory() as folder:
            path = path_of(url)
            for suffix in ("", "-wal"):
                if Path(f"{path}{suffix}").exists():
                    shutil.copy(f"{path}{suffix}", folder)
            try:
                return read(f"sqlite:///{folder}/{path.name}", sql)
            except sqlite3.OperationalError:
                return []
    import psycopg

    _await_statements_done(url, alive=alive)
    try:
        return read(url, sql)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def _await_statements_done(url: str, *, alive: bool) -> None:
    """Wait until the server has done what its clients had sent before they died, and has noticed that they did.

    Of one that stands still (`alive`), what waits for a lock of its own cannot be done before it goes on.
    """
    others = f"""select state, wait_event_type, query from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
        and {"state = 'active' and coalesce(wait_event_type, '') not in ('Client', 'Lock')" if alive else "true"}"""
    for _ in range(500):
        left = read(url, others)
        if not left:
            return
        time.sleep(0.01)
    raise AssertionError(f"still executing: {left}")
