"""Starts that look first for what stands in their way: full queues, and runs that there may be only one of.

Each is a write transaction of its own. Invariant: it inserts a run, or gives the
one that stands in its way, or has changed nothing.
"""

from __future__ import annotations

import json

from outlive.errors import QueueFull
from outlive.hooks import commit_site, point
from outlive.model.line import decode_limits
from outlive.model.writes import Batch, ExistingRun, NewRun, Terms
from outlive.store.blobs import Blobs
from outlive.store.sqlite.batch import SQL, attribute_values, blob_values, expand, write_batch
from outlive.store.sqlite.database import Database, writing
from outlive.store.sqlite.drivers import Connection


class Starting(Database):
    """What a Store does for a run that is started alone."""

    @commit_site("start_alone")
    async def start_alone(self, run: NewRun, terms: Terms, dropped: str) -> ExistingRun | None:
        existing = await self._start_alone(run, terms, dropped)
        point("start_alone.committed")
        return None if existing is None or existing.row == run.row else existing

    @writing
    def _start_alone(self, db: Connection, run: NewRun, terms: Terms, dropped: str) -> ExistingRun | None:
        blobs = Blobs()
        run, now = blobs.move_out_of_run(run), self._wall()
        once = {"workflow": run.workflow, "key": run.key or ""}
        if terms.once == "debounce":
            for facts in db.rows(SQL["find_debounced"], once):
                _replace_arguments(db, facts[0], run, blobs, terms, now)
                return ExistingRun(*facts)
        existing = _find_same(db, run)
        others = db.rows(SQL["list_singletons"], once) if terms.once == "singleton" else []
        if existing is not None or (others and not terms.replaces):
            return existing or ExistingRun(*others[0])
        for row, *_ in others:
            reason = json.dumps(f"run {run.id!r} takes its place")
            db.run(SQL["insert_request"], (row, "cancel", reason, now))
            db.run(SQL["wake_requested"], {"now": now, "row": row})
        _make_room(db, run.queue, dropped, now)
        write_batch(db, Batch(starts=[run]), None, now, blobs, bounded=False)
        if terms.once is not None:
            is_delayed = terms.once == "debounce" or bool(others)
            facts = {"once": terms.once, "wait_s": max(terms.wait_s, run.delay_s), "cap_s": terms.cap_s}
            db.run(SQL["mark_once"], {**facts, "row": run.row, "is_delayed": is_delayed, "now": now})
        if terms.once == "singleton":
            db.run(SQL["mark_singleton"], (run.row,))
        return None


def _find_same(db: Connection, run: NewRun) -> ExistingRun | None:
    """Give the run that has the id, or is unfinished and has the dedupe."""
    for row, _, workflow in db.rows(SQL["find_id"], (run.id,)):
        return ExistingRun(row, run.id, workflow)
    for row, run_id, workflow in db.rows(SQL["find_duplicate"], (run.queue, run.dedupe)):
        return ExistingRun(row, run_id, workflow)
    return None


def _replace_arguments(db: Connection, row: int, run: NewRun, blobs: Blobs, terms: Terms, now: float) -> None:
    db.run(SQL["postpone_run"], {"row": row, "now": now, "wait_s": terms.wait_s, "claim_name": run.claim_name})
    db.run(SQL["forget_input"], {"row": row})
    facts = {name: getattr(run, name) for name in ("input", "codec", "version", "pinned", "attributes")}
    db.run(SQL["replace_input"], {**facts, "row": row})
    db.run(SQL["delete_attributes"], (row,))
    for _, *found in attribute_values(run):
        db.run(expand(SQL["insert_attributes"], 1, 3), (row, *found))
    for blob in blobs:
        db.run(SQL["insert_blobs"], (row, *blob_values(blob)[1:3], row))


def _make_room(db: Connection, queue: str, dropped: str, now: float) -> None:
    """End who has waited longest for a queue that is full, or refuse."""
    found = db.rows(SQL["find_limits"], (queue,))
    limits = decode_limits(found[0][0] if found else "{}")
    if limits.backlog is None or db.rows(SQL["count_backlog"], (queue, limits.backlog)) < [(limits.backlog,)]:
        return
    oldest = db.rows(SQL["find_oldest"], (queue,)) if limits.on_full == "drop_oldest" else []
    if not oldest:
        raise QueueFull(queue, limits.backlog)
    ((row, parent),) = oldest
    db.run(SQL["drop_run"], {"row": row, "error": dropped, "now": now})
    db.run(SQL["drop_live"], (row,))
    db.run(SQL["delete_ended_requests"], (row,))
    if parent is not None:
        db.run(SQL["wake_run"], {"now": now, "row": parent})
