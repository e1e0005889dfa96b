"""Starts a run inside a transaction that belongs to the user, on whatever connection he has.

Takes connections of asyncpg, psycopg and SQLAlchemy, and our own transactions,
by what they can do; the driver's modules are imported only if the object came
from them. Invariant: commits nothing, so the run exists if the user commits.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from outlive.errors import SchemaMismatch, UsageError
from outlive.model.writes import ExistingRun, NewRun
from outlive.store.blobs import Blobs
from outlive.store.interface import RowTaken, WriteRefused
from outlive.store.postgres.statements import named_block, statement

Fetch = Callable[[str, dict[str, str]], Awaitable[Any]]

_FIELDS = (
    "row", "id", "workflow", "version", "codec", "queue", "priority", "key", "attributes", "input", "parent",
    "parent_key", "parent_close", "deadline_at", "delay_s",
)  # fmt: skip
_NAMED = re.compile(r"(?<!:):([a-z_]+)")


async def start_in(connection: Any, run: NewRun) -> ExistingRun | None:
    """Insert the run through the user's connection; give the run that has its id already, or None."""
    fetch = _find_way(connection)
    blobs = Blobs()
    run = blobs.move_out_of_run(run)
    facts = {field: getattr(run, field) for field in _FIELDS} | {"blob": next((blob.text for blob in blobs), None)}
    document = json.dumps(facts, ensure_ascii=False)
    try:
        if await fetch("start_run", {"run": document}) is not None:
            return None
        found = await fetch("find_started", {"id": run.id})
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise
        raise explained from error
    if found is None:
        raise RowTaken([run.row])
    return None if found[0] == run.row else ExistingRun(*found)


def _find_way(connection: Any) -> Fetch:
    """Give the function that sends a named statement through this connection and fetches one row."""
    roots = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    if "sqlalchemy" in roots:
        return _through_sqlalchemy(connection)
    if "psycopg" in roots:
        return _through_psycopg(connection)
    if callable(getattr(connection, "fetchrow", None)):  # asyncpg, its pool's proxies, and our own transaction
        return _through_asyncpg(connection)
    raise UsageError(
        f"tx= cannot be a {type(connection).__name__}: pass the tx of a transaction step, or a connection of asyncpg, "
        "psycopg or SQLAlchemy to the same PostgreSQL database"
    )


def _through_asyncpg(connection: Any) -> Fetch:
    async def fetch(name: str, values: dict[str, str]) -> Any:
        query = statement(name)
        return await connection.fetchrow(query.text, *query.arguments(values))

    return fetch


def _through_psycopg(connection: Any) -> Fetch:
    from psycopg.rows import tuple_row

    async def fetch(name: str, values: dict[str, str]) -> Any:
        cursor = connection.cursor(row_factory=tuple_row)
        try:
            await _settled(cursor.execute(_NAMED.sub(r"%(\1)s", named_block(name)), values))
            return await _settled(cursor.fetchone())
        finally:
            await _settled(cursor.close())

    return fetch


def _through_sqlalchemy(connection: Any) -> Fetch:
    from sqlalchemy import text

    async def fetch(name: str, values: dict[str, str]) -> Any:
        result = await _settled(connection.execute(text(named_block(name)), values))
        return result.fetchone()

    return fetch


async def _settled(result: Any) -> Any:
    """Await what an asynchronous connection gives; a blocking one has given the result itself."""
    return await result if inspect.isawaitable(result) else result


def _explain(error: Exception) -> Exception | None:
    """Tell refused data and a wrong database from what is the transaction's own affair."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or ""
    if state[:2] in ("22", "23", "54"):
        return WriteRefused(f"PostgreSQL refused the run: {origin}")
    if state in ("3F000", "42P01", "42703"):
        return SchemaMismatch(f"the connection given as tx= leads to a database that this app does not use: {origin}")
    return None
