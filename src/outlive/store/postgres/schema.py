"""Brings the schema `outlive` to the version of this code, in one transaction, one process at a time.

What to apply is decided by outlive.store.migrate; here it is read and done.
Invariant: a migration and its number are committed together.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from outlive import hooks
from outlive.store.migrate import list_pending, number_of, refuse_pending
from outlive.store.postgres.statements import statement

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Connection

_FOLDER = files("outlive.store.postgres").joinpath("migrations")


async def bring_up(connection: Connection, where: str, *, apply: bool) -> None:
    """Apply what is pending, or raise SchemaMismatch if it may not be, or if a newer Outlive was here."""
    found = await _find_applied(connection)
    pending = list_pending(found, _shipped(), where)
    if pending and apply:
        await _migrate(connection, where)
    else:
        refuse_pending(pending, found, where)


@hooks.commit_site("migrate")
async def _migrate(connection: Connection, where: str) -> None:
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(statement("lock_schema").text)
        if not (await connection.fetch(statement("find_meta").text))[0]["has_schema"]:
            await connection.execute("create schema outlive")  # else its owner has made it for this user
        for filename in list_pending(await _find_applied(connection), _shipped(), where):
            await connection.execute(_FOLDER.joinpath(filename).read_text(encoding="utf-8"))
            await connection.execute(statement("insert_version").text, f"{number_of(filename):04}")


def _shipped() -> list[str]:
    return sorted(file.name for file in _FOLDER.iterdir() if file.name.endswith(".sql"))


async def _find_applied(connection: Connection) -> list[int]:
    if not (await connection.fetch(statement("find_meta").text))[0]["has_meta"]:
        return []
    return [found[0] for found in await connection.fetch(statement("list_versions").text)]
