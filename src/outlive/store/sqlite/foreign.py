"""Starts a run through a connection of the user, inside his transaction.

Takes a sqlite3 or apsw connection and, by their methods alone, a SQLAlchemy
connection or session, plain or async. Begins and commits nothing. Invariant: the connection
must be on this store's file, through the same SQLite library, and in a
transaction; else it is refused before anything is written.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from outlive.errors import UsageError
from outlive.model.line import refuse_bounded
from outlive.model.writes import ExistingRun, NewRun
from outlive.store.blobs import Blobs
from outlive.store.refusals import RowTaken, WriteRefused
from outlive.store.sqlite.batch import SQL, attribute_values, blob_values, expand, live_values, run_values
from outlive.store.sqlite.connect import Location
from outlive.store.sqlite.failures import translated

Rows = Callable[[str, Sequence[Any]], list[Any]]


def start_run(rows: Rows, run: NewRun, now: float) -> ExistingRun | None:
    """Insert a run that nobody owns, unless its id is taken; `rows` executes a statement and gives its rows."""
    if run.owned or run.parent is not None:
        raise WriteRefused("a run that is started in a user's transaction has no owner and no parent yet")
    taken = rows(expand(SQL["find_taken"], 1, 2), (run.id, run.row))
    for row, run_id, workflow in taken:
        if run_id == run.id:
            return None if row == run.row else ExistingRun(row, run_id, workflow)
    if taken:
        raise RowTaken({run.row})
    if (run.queue,) in rows(SQL["list_bounded"], ()):
        raise refuse_bounded(run.queue)
    blobs = Blobs()
    run = blobs.move_out_of_run(run)
    attributes = [("insert_attributes", values) for values in attribute_values(run)]
    for block, values in (
        ("insert_runs", run_values(run, now)),
        ("insert_live", live_values(run, None, now)),
        *attributes,
    ):
        rows(expand(SQL[block], 1, len(values)), values)
    for blob in blobs:
        rows(SQL["insert_blobs"], blob_values(blob))
    return None


def start_in(connection: Any, run: NewRun, now: float, place: Location) -> ExistingRun | None:
    """Insert a run through a connection of the user."""
    execute, driver = _executor(connection)
    _check_place(execute, driver, place)
    with translated(place.where):
        return start_run(execute, run, now)


def _executor(connection: Any) -> tuple[Rows, Any]:
    """Give a way to execute on what the user has passed, and the driver's own connection beneath it."""
    if inspect.iscoroutinefunction(getattr(connection, "execute", None)):
        raise UsageError(
            f"tx= is asynchronous ({type(connection).__name__}), which SQLite is not: pass a sqlite3 or apsw "
            "connection, or a SQLAlchemy connection or session"
        )
    if callable(getattr(connection, "connection", None)):
        connection = connection.connection()  # a SQLAlchemy session
    if hasattr(connection, "exec_driver_sql"):

        def execute_driver_sql(sql: str, parameters: Sequence[Any]) -> list[Any]:
            result = connection.exec_driver_sql(sql, tuple(parameters))
            return [tuple(row) for row in result] if result.returns_rows else []

        return execute_driver_sql, connection.connection.driver_connection
    if not isinstance(connection, sqlite3.Connection) and not hasattr(connection, "sqlite3_pointer"):
        raise UsageError(
            f"tx={connection!r} is no connection that a run can be started in: pass the `tx` of a transaction, a "
            "sqlite3 or apsw connection, or a SQLAlchemy connection or session"
        )
    if not connection.in_transaction and getattr(connection, "isolation_level", None) is None:
        raise UsageError("start(tx=…) needs an open transaction on that connection: execute BEGIN IMMEDIATE first")

    def execute(sql: str, parameters: Sequence[Any]) -> list[Any]:
        with closing(connection.cursor()) as cursor:
            if isinstance(connection, sqlite3.Connection):
                cursor.row_factory = None  # the user's
            return list(cursor.execute(sql, parameters))

    return execute, connection


def _check_place(execute: Rows, driver: Any, place: Location) -> None:
    library = "apsw" if hasattr(driver, "sqlite3_pointer") else "stdlib"
    if library != place.driver:
        raise UsageError(
            f"tx= uses the SQLite library of {library}, the app that of {place.driver}: two libraries on one file in "
            f"one process lose locks and commits; use one, with ?driver={library} in the app's URL if need be"
        )
    path = next((row[2] for row in execute("PRAGMA database_list", ()) if row[1] == "main"), "")
    if not place.is_at(path):
        raise UsageError(
            f"tx= is a transaction on {path or 'a database in memory'}, the app's database is "
            f"{place.path or 'private, in memory'}: a run can only be started in the app's own database"
        )
