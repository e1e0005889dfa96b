"""What operators do to runs: another generation, a fork, a deletion; and the audit of all that they do.

Invariant: an action and its note are one transaction. `write_audit` is for
every action of an operator, wherever it is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from outlive.hooks import commit_site
from outlive.model.reads import AuditRow, EntryRow
from outlive.model.writes import ExistingRun, Fork, Note, Reopening
from outlive.store.refusals import GenerationEnded, RowTaken, SingletonTaken
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection


def write_audit(db: Connection, note: Note, now: float) -> None:
    """Note an action within its transaction."""
    db.run(SQL["insert_audit"], {**asdict(note), "now": now})


class Control(Database):
    """What a Store does for operators."""

    @commit_site("reopen")
    @writing
    def reopen(self, db: Connection, reopenings: Sequence[Reopening], note: Note) -> bool:
        now = self._wall()
        if not all(_may_reopen(db, reopening) for reopening in reopenings):
            return False
        for reopening in reopenings:
            _reopen(db, reopening, now)
        write_audit(db, note, now)
        return True

    @commit_site("fork")
    @writing
    def fork(self, db: Connection, fork: Fork, note: Note) -> ExistingRun | None:
        now, origin = self._wall(), fork.origin
        for row, run_id, workflow, _ in db.rows(SQL["find_fork"], (fork.id,)):
            return ExistingRun(row, run_id, workflow)
        if db.rows(SQL["lock_run"], (fork.row,)):
            raise RowTaken([fork.row])
        if [generation for generation, _ in db.rows(SQL["lock_run"], (origin,))] != [fork.generation]:
            raise GenerationEnded
        _check_singleton(db, origin)
        deadline_at = None if fork.deadline_s is None else now + fork.deadline_s
        new = {"row": fork.row, "origin": origin, "now": now}
        db.run(SQL["insert_fork"], {**new, "id": fork.id, "deadline_at": deadline_at})
        db.run(SQL["copy_entries"], {"row": fork.row, "origin": origin, "keys": json.dumps(fork.kept)})
        db.run(SQL["copy_blobs"], {"row": fork.row, "origin": origin})
        db.run(SQL["copy_attributes"], {"row": fork.row, "origin": origin})
        for key, value in fork.patch.items():
            db.run(SQL["patch_entry"], {"row": fork.row, "key": key, "value": value})
        db.run(SQL["place_fork"], new)
        write_audit(db, note, now)
        return None

    @commit_site("delete_runs")
    @writing
    def delete_runs(self, db: Connection, rows: Sequence[int], note: Note) -> tuple[list[str], list[str]]:
        in_the_way = db.rows(SQL["list_undeletable"], {"rows": json.dumps(list(rows))})
        if not in_the_way:
            db.run(SQL["delete_runs"], (json.dumps(list(rows)),))
            write_audit(db, note, self._wall())
        unfinished = [run_id for run_id, is_unfinished in in_the_way if is_unfinished]
        return unfinished, [run_id for run_id, is_unfinished in in_the_way if not is_unfinished]

    @reading
    def list_descendants(self, db: Connection, row: int) -> list[int]:
        return [descendant for (descendant,) in db.rows(SQL["list_descendants"], (row,))]

    @reading
    def list_past(self, db: Connection, row: int, generation: int) -> list[EntryRow]:
        return [EntryRow(*facts) for facts in db.rows(SQL["list_past"], {"row": row, "generation": generation})]

    @reading
    def list_audit(self, db: Connection, target: str | None, limit: int, after: int | None) -> list[AuditRow]:
        filters = {"target": target, "limit": limit, "after": after}
        return [AuditRow(*facts) for facts in db.rows(SQL["list_audit"], filters)]


def _may_reopen(db: Connection, reopening: Reopening) -> bool:
    live = db.rows(SQL["lock_live"], (reopening.row,))
    for generation, last_claim in db.rows(SQL["lock_run"], (reopening.row,)):
        owner, claim = live[0] if live else (None, last_claim)
        return owner is None and (generation, claim) == (reopening.generation, reopening.claim)
    return False


def _check_singleton(db: Connection, row: int) -> None:
    """Refuse to make a singleton, or a fork of it, unfinished beside another one."""
    for (other,) in db.rows(SQL["find_singleton"], (row,)):
        raise SingletonTaken(other)


def _reopen(db: Connection, reopening: Reopening, now: float) -> None:
    row = {"row": reopening.row}
    ended = not db.rows(SQL["lock_live"], (reopening.row,))
    if ended:
        _check_singleton(db, reopening.row)
    db.run(SQL["insert_generation"], {**row, "action": reopening.action, "now": now})
    db.run(SQL["keep_past"], {**row, "keys": json.dumps([*reopening.dropped, *reopening.awaited])})
    for block in ("delete_entries", "return_messages", "delete_promises"):
        db.run(SQL[block], {**row, "keys": json.dumps(reopening.dropped)})
    for key, value in reopening.awaited.items():
        db.run(SQL["await_again"], {**row, "key": key, "value": value})
    db.run(SQL["begin_generation"], {**row, "now": now})
    if ended:
        db.run(SQL["delete_requests"], row)
        db.run(SQL["place_again"], {**row, "now": now})
    else:
        db.run(SQL["release_again"], {**row, "now": now, "resume": reopening.resume})
        if reopening.resume:
            db.run(SQL["delete_pauses"], (reopening.row,))
    children = {"rows": json.dumps(reopening.cancelled), "now": now, "payload": json.dumps("its parent was rewound")}
    db.run(SQL["cancel_children"], children)
    for child in reopening.cancelled:
        db.run(SQL["wake_requested"], {"now": now, "row": child})
