"""Reads: runs, entries, ends, requests and workers as plain values.

Functions of a connection; each is one statement, so one snapshot. They write
nothing and may run on the reader.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from outlive.model.reads import EndedRun, EntryRow, RequestRow, RunQuery, RunRow, WorkerRow
from outlive.model.status import FINAL, Status
from outlive.model.writes import Fence
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.drivers import Connection


def find_run(db: Connection, run_id: str, now: float) -> RunRow | None:
    """Read one run."""
    runs = _runs(db, ["where_id"], {"id": run_id}, now)
    return runs[0] if runs else None


def list_children(db: Connection, row: int, unfinished: bool, now: float) -> list[RunRow]:
    """Read the children of a run."""
    return _runs(db, ["where_parent"], {"parent": row, "unfinished": unfinished}, now)


def list_runs(db: Connection, query: RunQuery, now: float) -> list[RunRow]:
    """Read a page of runs, newest first."""
    filters: dict[str, Any] = {
        "after": query.after,
        "workflow": query.workflow,
        "queue": query.queue,
        "id_prefix": query.id_prefix,
        "created_after": query.created_after,
        "created_before": query.created_before,
        "statuses": json.dumps(query.statuses) if query.statuses else None,
        "limit": query.limit,
    }
    return _runs(db, ["where_query", *_narrowing(set(query.statuses)), "order_newest"], filters, now)


def _narrowing(statuses: set[str]) -> list[str]:
    if statuses and not statuses & FINAL:
        return ["narrow_to_live"]
    if statuses and statuses <= {Status.FAILED, Status.CANCELLED}:
        return ["narrow_to_unsuccessful"]
    return []


def _runs(db: Connection, blocks: list[str], parameters: dict[str, Any], now: float) -> list[RunRow]:
    sql = "\n".join(SQL[block] for block in ("select_runs", *blocks))
    return [RunRow(*facts) for facts in db.rows(sql, {**parameters, "now": now})]


def load_entries(db: Connection, rows: Sequence[int]) -> dict[int, list[EntryRow]]:
    """Read the journals of some runs."""
    journals: dict[int, list[EntryRow]] = {row: [] for row in rows}
    for row, *facts in db.rows(SQL["load_entries"], (json.dumps(list(journals)),)):
        journals[row].append(EntryRow(*facts))
    return journals


def list_entries(db: Connection, run_id: str) -> list[EntryRow]:
    """Read the journal of one run."""
    return [EntryRow(*facts) for facts in db.rows(SQL["list_entries"], (run_id,))]


def list_ended(db: Connection, rows: Sequence[int]) -> list[EndedRun]:
    """Read those of some runs that have ended or are held."""
    return [EndedRun(*facts) for facts in db.rows(SQL["list_ended"], (json.dumps(list(rows)),))]


def list_requests(db: Connection, fence: Fence) -> list[RequestRow]:
    """Read the open requests for the runs of a worker."""
    check_fence(db, fence)
    return [RequestRow(*facts) for facts in db.rows(SQL["list_requests"], (fence.worker,))]


def list_workers(db: Connection) -> list[WorkerRow]:
    """Read the workers that hold a lease, or held one until now."""
    return [WorkerRow(*facts) for facts in db.rows(SQL["list_workers"])]


def has_suspects(db: Connection, now: float) -> bool:
    """Say whether a suspect is due that nobody owns."""
    return bool(db.rows(SQL["has_suspects"], (now,)))


def next_due(db: Connection) -> float | None:
    """Give when the next run that nobody owns is due."""
    ((due_at,),) = db.rows(SQL["next_due"])
    return None if due_at is None else float(due_at)


def count_other_processes(db: Connection, now: float) -> int:
    """Count the other processes that hold a lease on this database."""
    ((count,),) = db.rows(SQL["count_other_processes"], (now, socket.gethostname(), os.getpid()))
    return int(count)
