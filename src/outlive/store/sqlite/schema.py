"""Brings the schema of a file up to date, or says that it is not.

Reads the migration files of this package; `outlive.store.migrate` decides which
ones are due. Invariant: all due migrations are applied in one transaction,
under the write lock, so that of several processes one does the work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from outlive.store.migrate import list_pending, number_of, refuse_pending
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.drivers import Connection

_FOLDER = "migrations"


def is_current(db: Connection, where: str, *, migrate: bool) -> bool:
    """Whether there is nothing to migrate; SchemaMismatch if there is, and it must not be."""
    found = _versions(db)
    pending = list_pending(found, _shipped(), where)
    if not migrate:
        refuse_pending(pending, found, where)
    return not pending


def migrate(db: Connection, where: str, now: float) -> None:
    """Apply what is due; call it under the write lock."""
    db.run(SQL["create_meta"])
    for filename in list_pending(_versions(db), _shipped(), where):
        for statement in _statements(filename):
            db.run(statement)
        db.run(SQL["insert_version"], (f"{number_of(filename):04}", str(now)))


def _versions(db: Connection) -> list[int]:
    if not db.rows(SQL["find_meta"]):
        return []
    return [version for (version,) in db.rows(SQL["list_versions"])]


@cache
def _shipped() -> tuple[str, ...]:
    folder = files("outlive.store.sqlite") / _FOLDER
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql")))


def _statements(filename: str) -> Iterator[str]:
    """Split a script: sqlite3's executescript would commit first."""
    script = (files("outlive.store.sqlite") / _FOLDER / filename).read_text(encoding="utf-8")
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
