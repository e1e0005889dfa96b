"""Starts a run inside a transaction that belongs to the user, on whatever connection he has.

Takes connections of asyncpg, psycopg and SQLAlchemy, and our own transactions,
by what they can do; the driver's modules are imported only if the object came
from them. Invariant: commits nothing, so the run exists if the user commits.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec

from outlive.errors import SchemaMismatch, UsageError
from outlive.model.line import refuse_bounded
from outlive.model.writes import ExistingRun, NewRun
from outlive.store.blobs import Blobs
from outlive.store.postgres.commit import combine, list_attributes, name_start_parts
from outlive.store.postgres.endings import sqlstate
from outlive.store.postgres.statements import PARAMETER, named_block, number_parameters
from outlive.store.refusals import RowTaken, WriteRefused


@cache
def start_statement() -> str:
    """Give that of a batch that starts one run, but a row number that is taken does not abort the transaction."""
    text = combine("pass_fence", "skip_entries", *name_start_parts(), "insert_attributes", "insert_blobs")
    return text.replace("on conflict (id) do nothing", "on conflict do nothing")


async def start_in(connection: Any, run: NewRun) -> ExistingRun | None:
    """Insert the run through the user's connection; give the run that has its id already, or None."""
    blobs = Blobs()
    values = {
        "run": msgspec.json.encode([blobs.move_out_of_run(run)]).decode(),
        "blob_row": [blob.row for blob in blobs],
        "blob_name": [blob.name for blob in blobs],
        "blob_text": [blob.text for blob in blobs],
        "worker": None,
        **list_attributes([run]),
    }
    try:
        if (await _fetch_row(connection, start_statement(), values))[1]:
            return None
        found = await _fetch_row(connection, named_block("find_taken"), {"run_id": [run.id], "run_row": []})
        (is_bounded,) = await _fetch_row(connection, named_block("find_bounded"), {"queue": run.queue})
    except Exception as error:
        state = sqlstate(error)
        if state[:2] in ("22", "23", "54"):
            raise WriteRefused(f"PostgreSQL refused the run: {error}") from error
        if state in ("3F000", "42P01", "42703"):
            raise SchemaMismatch(
                f"the connection given as tx= leads to a database that this app does not use: {error}"
            ) from error
        raise  # the transaction's own affair
    if found is None and is_bounded:
        raise refuse_bounded(run.queue)
    if found is None:
        raise RowTaken([run.row])
    return None if found[0] == run.row else ExistingRun(*found)


async def _fetch_row(connection: Any, statement: str, values: dict[str, Any]) -> Any:
    """Send a statement through this connection and fetch one row."""
    roots = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    if "sqlalchemy" in roots:
        from sqlalchemy import text

        return (await _settled(connection.execute(text(statement), values))).fetchone()
    if "psycopg" in roots:
        from psycopg.rows import tuple_row

        cursor = connection.cursor(row_factory=tuple_row)
        await _settled(cursor.execute(PARAMETER.sub(r"%(\1)s", statement), values))
        return await _settled(cursor.fetchone())
    if callable(getattr(connection, "fetchrow", None)):  # asyncpg, its pool's proxies, and our own transaction
        query = number_parameters(statement)
        return await connection.fetchrow(query.text, *query.arguments(values))
    raise UsageError(
        f"tx= cannot be a {type(connection).__name__}: pass the tx of a transaction step, or a connection of asyncpg, "
        "psycopg or SQLAlchemy to the same PostgreSQL database"
    )


async def _settled(result: Any) -> Any:
    """Await what an asynchronous connection gives; a blocking one has given the result itself."""
    return await result if inspect.isawaitable(result) else result
