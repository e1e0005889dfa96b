"""Queues: what limits them, and the claim from their lines.

Knows the tables of queues, admissions and live rows. What a queue may admit is
counted and given away in one write transaction, so no two claims count the same
slot. Invariant: the rows that are read are as many as are admitted and as there
are keys without room, however long the lines are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outlive.hooks import commit_site
from outlive.limits import PRIORITY_MAX
from outlive.model.line import QueueLimits, decode_limits, list_rates, put_together, room_left
from outlive.model.reads import Claimed, LineClaim, LineRow, QueueRow
from outlive.model.writes import Fence, Note
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.control import write_audit
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.ownership import find_unfinished, read_claimable
from outlive.store.sqlite.writer import write

_LINE_PARTS = ("key > :served", "key <= :served")  # behind the key that was served last, then from the first one


class Queues(Database):
    """What a Store does for queues."""

    @commit_site("claim_line")
    async def claim_line(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, after: str
    ) -> LineClaim:
        def take(db: Connection) -> LineClaim:
            turn = _Admission(db, fence, self._wall(), workflows, queues, limit, after)
            turn.end_delays()
            turn.admit()
            return turn.result()

        def job(db: Connection) -> LineClaim:
            turn = _Admission(db, fence, self._wall(), workflows, queues, limit, after)
            return write(db, lambda: take(db), self._place.where) if turn.can_move() else turn.result()

        return await self._writer.run(job)

    @commit_site("put_queue")
    @writing
    def put_queue(
        self,
        db: Connection,
        queue: str,
        *,
        declared: str | None = None,
        changed: str | None = None,
        reset: bool = False,
        paused: bool | None = None,
        note: Note | None = None,
    ) -> None:
        found = db.rows(SQL["find_queue"], (queue,))
        before: tuple[str, str, int] = found[0] if found else ("{}", "{}", 0)
        after = (
            before[0] if declared is None else declared,
            put_together("{}" if reset else before[1], changed or "{}"),
            before[2] if paused is None else int(paused),
        )
        if not found or after != before:
            db.run(SQL["put_queue"], (queue, *after[:2], put_together(*after[:2]), after[2]))
        if note is not None:
            write_audit(db, note, self._wall())

    @commit_site("reschedule")
    @writing
    def reschedule(
        self,
        db: Connection,
        run_id: str,
        *,
        delay_s: float | None = None,
        at: float | None = None,
        priority: int | None = None,
        note: Note | None = None,
    ) -> bool:
        row, now = find_unfinished(db, run_id), self._wall()
        due = at if delay_s is None else now + delay_s
        if row is None or not db.run(SQL["reschedule_run"], {"row": row, "due": due, "priority": priority, "now": now}):
            return False
        if priority is not None:
            db.run(SQL["set_priority"], {"row": row, "priority": priority})
        if note is not None:
            write_audit(db, note, now)
        return True

    @reading
    def list_queues(self, db: Connection, queue: str | None = None) -> list[QueueRow]:
        rows = db.rows(SQL["list_queues"], {"queue": queue})
        return [
            QueueRow(name, limits, changed, bool(paused), *counts) for name, limits, changed, paused, *counts in rows
        ]

    @reading
    def read_line(self, db: Connection, row: int, limits: QueueLimits) -> LineRow | None:
        facts = {"row": row, "now": self._wall(), **list_rates(limits)}
        return next((LineRow(*found) for found in db.rows(SQL["read_line"], facts)), None)


@dataclass
class _Admission:
    """One claim from the lines, under the write lock but for its first look."""

    db: Connection
    fence: Fence
    now: float
    workflows: Sequence[str]
    queues: Sequence[str] | None
    most: int
    after: str
    claimed: list[Claimed] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)  # when a line moves by itself

    def __post_init__(self) -> None:
        check_fence(self.db, self.fence)
        self.served_queues = None if self.queues is None else json.dumps(list(self.queues))
        self.known = json.dumps(list(self.workflows))

    def can_move(self) -> bool:
        """Whether there is anything to write."""
        ((ended, *_),) = self.db.rows(SQL["find_delays"], {"now": self.now})
        return bool(ended) or any(
            self._room(queue, decode_limits(limits), self.most) > 0 for queue, limits, *_ in self._lines()
        )

    def end_delays(self) -> None:
        """Let delayed runs join their lines."""
        self.db.run(SQL["end_delays"], {"now": self.now})

    def admit(self) -> None:
        """Go round the queues; one that fills this worker is behind the others the next time."""
        for queue, text, served, _ in self._lines():
            limits = decode_limits(text)
            room = self._room(queue, limits, self.most - len(self.claimed))
            if room <= 0:
                continue
            self._admit(queue, limits, served, room)
            self.after = queue
            windows = [rate[1] for rate in (limits.rate, limits.rate_per_key) if rate is not None]
            if windows:
                self.db.run(SQL["delete_admissions"], (queue, self.now - max(windows)))

    def _lines(self) -> list[tuple[Any, ...]]:
        return self.db.rows(SQL["list_lines"], {"queues": self.served_queues, "after": self.after, "now": self.now})

    def _room(self, queue: str, limits: QueueLimits, most: int) -> int:
        rate_count, rate_s = limits.rate or (None, None)
        facts = {
            "queue": queue,
            "worker": self.fence.worker,
            "now": self.now,
            "concurrency": limits.concurrency,
            "per_worker": limits.per_worker,
            "rate_count": rate_count,
            "rate_s": rate_s,
        }
        ((admitted, owned, recent, next_at),) = self.db.rows(SQL["count_admitted"], facts)
        if limits.rate is not None and recent >= limits.rate[0]:
            self.moments.append(next_at)
        return room_left(limits, most, admitted=admitted, owned=owned, recent=recent)

    def _admit(self, queue: str, limits: QueueLimits, served: str, room: int) -> None:
        line = {"queue": queue, "priority": -PRIORITY_MAX - 1, "workflows": self.known, "now": self.now}
        before = served
        while room > 0 and (found := self.db.rows(SQL["next_priority"], line)):
            ((line["priority"],),) = found
            while room > 0 and (keys := self._walk_keys(line, limits, served, room)):
                turns = max(1, room // len(keys))
                rows = self.db.rows(SQL["list_first"], {**line, "turns": turns, "keys": json.dumps(keys)})
                self._give([row for row, _ in rows], noted=limits.rate is not None or limits.rate_per_key is not None)
                served = rows[-1][1]
                room -= len(rows)
        if served != before:
            self.db.run(SQL["serve_key"], (queue, served))

    def _walk_keys(self, line: dict[str, Any], limits: QueueLimits, served: str, most: int) -> list[tuple[str, int]]:
        """Give the keys whose turn it is, in order, with their room."""
        key_count, key_s = limits.rate_per_key or (None, None)
        facts = {"served": served, "most": most, "per_key": limits.per_key, "key_count": key_count, "key_s": key_s}
        keys: list[tuple[str, int]] = []
        for part in _LINE_PARTS:
            if len(keys) < most:
                sql = SQL["walk_keys"].replace("{room}", SQL["room_for_key"]).replace("{keys}", part)
                for key, room, next_at in self.db.rows(sql, {**line, **facts, "limit": most - len(keys)}):
                    if room > 0:
                        keys.append((key, room))
                    elif next_at is not None:
                        self.moments.append(next_at)
        return keys

    def _give(self, rows: list[int], *, noted: bool) -> None:
        listed = json.dumps(rows)
        given = read_claimable(self.db, self.now, listed)
        for run in given:
            run.ending = False
        self.claimed += given
        self.db.run(SQL["admit_runs"], {"worker": self.fence.worker, "now": self.now, "rows": listed})
        if noted:
            self.db.run(SQL["insert_admissions"], {"now": self.now, "rows": listed})

    def result(self) -> LineClaim:
        """Say what was claimed, and when to look again."""
        ((_, blocked, delayed_at),) = self.db.rows(SQL["find_delays"], {"now": self.now})
        moments = self.moments if delayed_at is None else [*self.moments, delayed_at]
        return LineClaim(self.claimed, bool(blocked or self._lines()), min(moments, default=None), self.after)
