"""Which finished runs may go, and their end: what a Store does for retention.

Invariant: what was decided from a snapshot is decided again under the write lock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from outlive.hooks import commit_site
from outlive.model.reads import RunQuery, RunRow
from outlive.model.retention import Prunable, choose_prunable
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection, Parameters
from outlive.store.sqlite.reading import read_runs
from outlive.store.sqlite.search import make_composer


class Retention(Database):
    """What a Store does for retention."""

    @reading
    def list_prunable(self, db: Connection, query: RunQuery) -> list[Prunable]:
        composer = make_composer(query)
        return _read_prunable(db, composer.compose("read_found"), composer.values)

    @reading
    def read_runs(self, db: Connection, rows: Sequence[int]) -> list[RunRow]:
        return read_runs(db, self._wall(), SQL["where_rows"], {"rows": json.dumps(list(rows))})

    @commit_site("prune")
    @writing
    def prune(self, db: Connection, rows: Sequence[int], finished_before: float) -> int:
        where = SQL["read_found"].replace("{walk}", SQL["find_finished"])
        values = {"rows": json.dumps(list(rows)), "finished_before": finished_before}
        chosen = choose_prunable(_read_prunable(db, where, values))
        db.run(SQL["delete_runs"], (json.dumps(chosen),))
        return len(chosen)


def _read_prunable(db: Connection, where: str, values: Parameters) -> list[Prunable]:
    found = db.rows(f"{SQL['select_prunable']}\n{where}\nORDER BY r.row", values)
    return [Prunable(row, parent, children, bool(awaited)) for row, parent, children, awaited in found]
