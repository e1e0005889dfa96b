"""Brings the schema `outlive` to the version of this code, in one transaction, one process at a time.

What to apply is decided by outlive.store.migrate; here it is read and done.
Invariant: a migration and its number are committed together.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from outlive.store.migrate import list_pending, number_of, refuse_pending
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Connection

_FOLDER = files("outlive.store.postgres").joinpath("migrations")


async def is_current(connection: Connection, where: str) -> bool:
    """Say whether nothing has to be applied; raises SchemaMismatch if a newer Outlive was here."""
    return not list_pending(await _find_applied(connection), _shipped(), where)


async def bring_up(connection: Connection, where: str, *, apply: bool) -> None:
    """Apply what is pending, or raise SchemaMismatch if it may not be."""
    async with connection.transaction(isolation="read_committed"):
        if apply:
            await connection.execute(statement("lock_schema").text)
        found = await _find_applied(connection)
        pending = list_pending(found, _shipped(), where)
        if not apply:
            refuse_pending(pending, found, where)
        for filename in pending:
            if number_of(filename) == 1 and not await _has_schema(connection):
                await connection.execute("create schema outlive")
            await connection.execute(_FOLDER.joinpath(filename).read_text(encoding="utf-8"))
            await connection.execute(statement("insert_version").text, f"{number_of(filename):04}")


def _shipped() -> list[str]:
    return sorted(file.name for file in _FOLDER.iterdir() if file.name.endswith(".sql"))


async def _has_schema(connection: Connection) -> bool:
    row = await connection.fetchrow(statement("find_meta").text)
    return bool(row and row[0])


async def _find_applied(connection: Connection) -> list[int]:
    row = await connection.fetchrow(statement("find_meta").text)
    if not row or not row[1]:
        return []
    return [found[0] for found in await connection.fetch(statement("list_versions").text)]
