"""Which runs a query means: what a Store does for listing and counting. Each is one statement, so one snapshot."""

from __future__ import annotations

import json
from typing import Any

from outlive.model.reads import RunQuery, RunRow
from outlive.store.search import Composer
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.database import Database, reading
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.reading import read_runs

_BLOCKS = {**SQL, "has_status": SQL["has_status"].replace("{status}", SQL["derive_status"])}


class Search(Database):
    """The methods of a Store that take a query."""

    @reading
    def list_runs(self, db: Connection, query: RunQuery) -> list[RunRow]:
        if query.statuses == ():
            return []
        composer = make_composer(query)
        where = f"{composer.compose('read_found')}\nORDER BY r.row {composer.direction}"
        return read_runs(db, self._wall(), where, composer.values)

    @reading
    def list_ids(self, db: Connection, query: RunQuery) -> list[tuple[int, str]]:
        return [(row, run_id) for row, run_id in self._query(db, query, "list_ids")]

    @reading
    def count_runs(self, db: Connection, query: RunQuery) -> int:
        return sum(count for (count,) in self._query(db, query, "count_runs"))

    def _query(self, db: Connection, query: RunQuery, block: str) -> list[tuple[Any, ...]]:
        if query.statuses == ():
            return []
        composer = make_composer(query)
        sql = composer.compose(block)
        return db.rows(sql, {**composer.values, "now": self._wall()})


def make_composer(query: RunQuery) -> Composer:
    """Give what composes the statements about a query."""
    return Composer(query, _BLOCKS, lambda texts: json.dumps(list(texts), ensure_ascii=False))
