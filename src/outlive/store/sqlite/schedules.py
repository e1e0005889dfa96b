"""Schedules: read, written against a revision together with the runs that they start, deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

from outlive.hooks import commit_site
from outlive.model.schedule import ScheduleRow, ScheduleWrite
from outlive.model.writes import Batch, Note
from outlive.store.blobs import Blobs
from outlive.store.sqlite.batch import SQL, write_batch
from outlive.store.sqlite.control import write_audit
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection

_COLUMNS = [one.name for one in fields(ScheduleWrite) if one.name not in ("starts", "cancels", "reason")]


class Schedules(Database):
    """What a Store does for schedules."""

    @commit_site("write_schedules")
    @writing
    def write_schedules(self, db: Connection, writes: Sequence[ScheduleWrite], note: Note | None = None) -> list[bool]:
        now = self._wall()
        written = [_write(db, write, now) for write in writes]
        if note is not None and any(written):
            write_audit(db, note, now)
        return written

    @commit_site("delete_schedule")
    @writing
    def delete_schedule(self, db: Connection, name: str, note: Note) -> bool:
        deleted = bool(db.run(SQL["delete_schedule"], (name,)))
        if deleted:
            write_audit(db, note, self._wall())
        return deleted

    @reading
    def list_schedules(self, db: Connection, name: str | None = None) -> list[ScheduleRow]:
        return _list(db, "where_schedule", name=name, now=self._wall())

    @reading
    def list_due_schedules(self, db: Connection, but: Sequence[str], limit: int) -> list[ScheduleRow]:
        return _list(db, "where_schedule_due", but=json.dumps(list(but)), limit=limit, now=self._wall())

    @reading
    def next_tick(self, db: Connection, but: Sequence[str]) -> float | None:
        now = self._wall()
        ((due_at,),) = db.rows(SQL["next_tick"], {"but": json.dumps(list(but)), "now": now})
        return None if due_at is None else due_at - now


def _write(db: Connection, write: ScheduleWrite, now: float) -> bool:
    lists = {"waiting": json.dumps(write.waiting), "running": json.dumps(write.running)}
    facts = {name: getattr(write, name) for name in _COLUMNS} | lists
    if not db.run(SQL["insert_schedule" if write.expected is None else "update_schedule"], facts):
        return False
    blobs = Blobs()
    write_batch(db, blobs.move_out_of(Batch(starts=write.starts)), None, now, blobs, bounded=False)
    db.many(SQL["cancel_runs"], [(write.reason, now, row) for row in write.cancels])
    return True


def _list(db: Connection, block: str, **values: object) -> list[ScheduleRow]:
    rows = db.rows(SQL["select_schedules"] + "\n" + SQL[block], values)
    made = [ScheduleRow(*facts) for facts in rows]
    for row in made:
        row.paused = bool(row.paused)
        row.waiting, row.unfinished = json.loads(row.waiting), json.loads(row.unfinished)  # type: ignore[arg-type]
    return made
