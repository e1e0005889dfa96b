"""Which runs a query means: what a Store does for listing and counting. Each is one statement, so one snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outlive.model.reads import RunQuery, RunRow
from outlive.store.postgres.database import Database
from outlive.store.postgres.reading import select_runs
from outlive.store.postgres.statements import number_parameters
from outlive.store.search import Composer
from outlive.store.sqlfile import load_sql


class Search(Database):
    """The methods of a Store that take a query."""

    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        return [RunRow(**row) for row in await self._query(query, "read_found")]

    async def list_ids(self, query: RunQuery) -> list[tuple[int, str]]:
        return [(row, run_id) for row, run_id in await self._query(query, "list_ids")]

    async def count_runs(self, query: RunQuery) -> int:
        rows = await self._query(query, "count_runs")
        return int(rows[0][0]) if rows else 0

    async def _query(self, query: RunQuery, block: str) -> list[Any]:
        return [] if query.statuses == () else await self._pool.fetch(*compose(query, block))


def compose(query: RunQuery, block: str) -> tuple[str, list[Any]]:
    """Give the statement of this block that answers a query, and its arguments."""
    composer = make_composer(query)
    text = composer.compose(block)
    if block == "read_found":
        made = select_runs(text)
        made = replace(made, text=f"{made.text} order by v.row {composer.direction}")
    else:
        made = number_parameters(text)
    return made.text, made.arguments(composer.values)


def make_composer(query: RunQuery) -> Composer:
    """Give what composes the statements about a query."""
    return Composer(query, load_sql("outlive.store.postgres"), list)
