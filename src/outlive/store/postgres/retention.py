"""Which finished runs may go, and their end: what a Store does for retention.

Invariant: what was decided from a snapshot is decided again, of locked rows, in
the transaction that deletes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outlive import hooks
from outlive.model.reads import RunQuery, RunRow
from outlive.model.retention import Prunable, choose_prunable
from outlive.store.postgres.database import Database
from outlive.store.postgres.reading import select_runs
from outlive.store.postgres.search import make_composer
from outlive.store.postgres.statements import Statement, named_block, number_parameters, statement


class Retention(Database):
    """What a Store does for retention."""

    async def list_prunable(self, query: RunQuery) -> list[Prunable]:
        composer = make_composer(query)
        listing = _select_prunable(composer.compose("read_found"))
        return _read(await self._pool.fetch(listing.text, listing.arguments(composer.values)))

    async def read_runs(self, rows: Sequence[int]) -> list[RunRow]:
        query = select_runs(named_block("where_rows"))
        return [RunRow(**row) for row in await self._pool.fetch(query.text, query.arguments({"rows": list(rows)}))]

    @hooks.commit_site("prune")
    async def prune(self, rows: Sequence[int], finished_before: float) -> int:
        lock, decide = statement("find_finished"), _select_prunable(named_block("where_rows"))
        values: dict[str, Any] = {"rows": list(rows), "finished_before": finished_before}
        async with self._pool.transaction() as connection:
            values["rows"] = [row["row"] for row in await connection.fetch(lock.text, *lock.arguments(values))]
            chosen = choose_prunable(_read(await connection.fetch(decide.text, *decide.arguments(values))))
            await connection.fetch(statement("delete_runs").text, chosen)
        return len(chosen)


def _select_prunable(where: str) -> Statement:
    return number_parameters(f"{named_block('select_prunable')}\n{where}\norder by r.row")


def _read(rows: Sequence[Any]) -> list[Prunable]:
    return [Prunable(**row) for row in rows]
