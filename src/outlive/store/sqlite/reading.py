"""The store's reads: runs, entries, ends, requests and workers as plain values.

Each is one statement on the reader, so one snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from outlive.model.reads import EndedRun, EntryRow, RequestRow, RunRow, WorkerRow
from outlive.model.writes import Fence
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.database import Database, reading
from outlive.store.sqlite.drivers import Connection


class Reading(Database):
    """The reads of a Store."""

    @reading
    def find_run(self, db: Connection, run_id: str) -> RunRow | None:
        runs = read_runs(db, self._wall(), SQL["where_id"], {"id": run_id})
        return runs[0] if runs else None

    @reading
    def list_children(self, db: Connection, row: int, *, unfinished: bool) -> list[RunRow]:
        return read_runs(db, self._wall(), SQL["where_parent"], {"parent": row, "unfinished": unfinished})

    @reading
    def load_entries(self, db: Connection, rows: Sequence[int]) -> Mapping[int, list[EntryRow]]:
        journals: dict[int, list[EntryRow]] = {row: [] for row in rows}
        for row, *facts in db.rows(SQL["load_entries"], (json.dumps(list(rows)),)):
            journals[row].append(EntryRow(*facts))
        return journals

    @reading
    def list_entries(self, db: Connection, run_id: str) -> list[EntryRow]:
        return [EntryRow(*facts) for facts in db.rows(SQL["list_entries"], (run_id,))]

    @reading
    def list_ended(self, db: Connection, rows: Sequence[int]) -> list[EndedRun]:
        return [EndedRun(*facts) for facts in db.rows(SQL["list_ended"], (json.dumps(list(rows)),))]

    @reading
    def list_requests(self, db: Connection, fence: Fence) -> list[RequestRow]:
        check_fence(db, fence)
        return [RequestRow(*facts) for facts in db.rows(SQL["list_requests"], (fence.worker,))]

    @reading
    def list_workers(self, db: Connection) -> list[WorkerRow]:
        return [WorkerRow(*facts) for facts in db.rows(SQL["list_workers"])]

    @reading
    def has_suspects(self, db: Connection) -> bool:
        return bool(db.rows(SQL["has_suspects"], (self._wall(),)))

    @reading
    def next_due(self, db: Connection) -> float | None:
        ((due_at,),) = db.rows(SQL["walk_lanes"] + "\n" + SQL["next_due"])
        return None if due_at is None else float(due_at)


def read_runs(db: Connection, now: float, where: str, parameters: dict[str, Any]) -> list[RunRow]:
    """Read runs by a condition, which names few of them."""
    head = SQL["select_runs"].replace("{status}", SQL["derive_status"])
    return [RunRow(*facts) for facts in db.rows(f"{head}\n{where}", {**parameters, "now": now})]
