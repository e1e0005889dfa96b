"""Who may execute what: workers and their leases, claims, takeover, requests and wake-ups.

Knows the tables of workers, live rows and requests. Invariant: a run changes
owner here only from nobody to a claimer, or from a worker that is gone to
nobody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, TypeVar

from outlive.hooks import commit_site
from outlive.limits import QUARANTINE_CRASHES, SUSPECT_CRASHES, SUSPECT_GROUPS
from outlive.model.reads import Claimed, TakenOver, WorkerRow
from outlive.model.writes import Fence, Note
from outlive.store.refusals import WriteRefused
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.connect import FIRST_SAFE_LIBRARY, dotted, library_version
from outlive.store.sqlite.control import write_audit
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.writer import write

log = logging.getLogger("outlive.store")

T = TypeVar("T")

assert SUSPECT_CRASHES == 2, "the indexes of ol_live say 2: change them by a migration"

FORGET_WORKER_S = 7 * 86_400.0  # how long a fence row stays after a takeover, for people to read
_SWEEP_OVERLAP_S = 60.0  # children that ended so long before the last sweep are looked at again
_SWEEPS_PER_FULL = 60  # every so many, all waiting runs are looked at


class Ownership(Database):
    """What a Store does for workers, claims, requests and wake-ups."""

    _warned = False
    _sweeps = 0
    _swept_at = 0.0

    # -- workers --------------------------------------------------------------
    @commit_site("register")
    @writing
    def register(self, db: Connection, worker: WorkerRow, lease_s: float) -> Fence:
        now = self._wall()
        facts = (worker.epoch, worker.host, worker.pid, worker.name, worker.lock_path)
        db.run(SQL["insert_worker"], (worker.worker, *facts, now))
        if db.rows(SQL["find_worker"], (worker.worker,)) != [facts]:
            raise WriteRefused(f"worker id {worker.worker} is taken by another process; draw another")
        _put_beat(db, worker.worker, now, lease_s)
        return Fence(worker.worker, worker.epoch)

    def _warn_of_old_library(self, db: Connection, worker: int, now: float) -> None:
        version = library_version(self._place.driver)
        if self._warned or version >= FIRST_SAFE_LIBRARY:
            return
        ((others,),) = db.rows(SQL["count_other_processes"], (worker, now))
        if others:
            self._warned = True
            log.warning(
                "other processes (%d) use %s, and the SQLite library of this one is %s: before %s two processes that "
                "write at the same moment may damage the file; pip install 'outlive[apsw]' and add ?driver=apsw to "
                "the URL", others, self._place.where, dotted(version), dotted(FIRST_SAFE_LIBRARY),
            )  # fmt: skip

    @commit_site("beat")
    @writing
    def beat(self, db: Connection, fence: Fence, lease_s: float) -> float:
        """Renew a lease; give the database's time. From any loop: it goes to the writer thread like all writes."""
        check_fence(db, fence)
        now = self._wall()
        _put_beat(db, fence.worker, now, lease_s)
        self._warn_of_old_library(db, fence.worker, now)  # not when registering: the dead are taken over after that
        return now

    @commit_site("unregister")
    @writing
    def unregister(self, db: Connection, fence: Fence) -> None:
        check_fence(db, fence)
        db.run(SQL["release_owned"], (self._wall(), fence.worker))
        db.run(SQL["delete_beat"], (fence.worker,))
        db.run(SQL["delete_worker"], (fence.worker,))

    @commit_site("release_strays")
    @writing
    def release_strays(self, db: Connection, fence: Fence, kept: Sequence[int]) -> int:
        check_fence(db, fence)
        return db.run(SQL["release_strays"], (self._wall(), fence.worker, _json(kept)))

    @commit_site("take_over")
    async def take_over(self, dead: Sequence[int]) -> TakenOver:
        def take(db: Connection) -> TakenOver:
            now = self._wall()
            taken = TakenOver([worker for (worker,) in db.rows(SQL["list_dead"], (now, listed))], 0, [])
            for worker in taken.workers:
                db.run(SQL["bump_epoch"], (worker,))
                db.run(SQL["delete_beat"], (worker,))
                quarantined = db.rows(SQL["quarantine_owned"], (worker, QUARANTINE_CRASHES))
                taken.quarantined += [run_id for (run_id,) in quarantined]
                taken.released += db.run(SQL["take_owned"], (now, worker))
            db.run(SQL["forget_workers"], (now - FORGET_WORKER_S,))
            return taken

        listed = _json(dead)
        return await self._write_if(
            lambda db: bool(db.rows(SQL["list_dead"], (self._wall(), listed))), take, TakenOver([], 0, [])
        )

    # -- claims ---------------------------------------------------------------
    @commit_site("claim")
    async def claim(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool = False
    ) -> list[Claimed]:
        def choose(db: Connection) -> list[int]:
            check_fence(db, fence)
            rooms = dict(db.rows(SQL["list_rooms"], (fence.worker,)))
            return _choose(db, self._wall(), rooms, workflows, queues, limit, suspect=suspect)

        def take(db: Connection) -> list[Claimed]:
            now, rows = self._wall(), _json(choose(db))
            claimed = read_claimable(db, now, rows, suspect=suspect)
            db.run(SQL["claim_runs"], (fence.worker, suspect, now, rows))
            return claimed

        return await self._write_if(choose, take, [])

    async def _write_if(self, look: Callable[[Connection], object], body: Callable[[Connection], T], nothing: T) -> T:
        """Write only if there is something to do: a look does not lock the file."""

        def job(db: Connection) -> T:
            return write(db, lambda: body(db), self._place.where) if look(db) else nothing

        return await self._writer.run(job)

    # -- requests, wake-ups ---------------------------------------------------
    @commit_site("add_request")
    @writing
    def add_request(
        self, db: Connection, run_id: str, kind: str, payload: str | None, note: Note | None = None
    ) -> bool:
        row = find_unfinished(db, run_id)
        if row is None:
            return False
        now = self._wall()
        db.run(SQL["insert_request"], (row, kind, payload, now))
        db.run(SQL["wake_requested"], {"now": now, "row": row})
        if note is not None:
            write_audit(db, note, now)
        return True

    @commit_site("resume")
    @writing
    def resume(
        self,
        db: Connection,
        run_id: str,
        note: Note | None = None,
        *,
        decision: str | None = None,
        claim: int | None = None,
    ) -> bool:
        row, now = find_unfinished(db, run_id), self._wall()
        if row is None:
            return False
        withdrawn = decision is None and db.run(SQL["delete_pauses"], (row,))
        resumed = db.run(SQL["resume_run"], {"row": row, "claim": claim, "now": now})
        if not (withdrawn or resumed):
            return False
        if decision is not None:
            db.run(SQL["insert_request"], (row, "resolve", decision, now))
        if note is not None:
            write_audit(db, note, now)
        return True

    @commit_site("wake")
    @writing
    def wake(self, db: Connection, rows: Sequence[int]) -> None:
        now = self._wall()
        db.many(SQL["wake_run"], [{"now": now, "row": row} for row in rows])

    @commit_site("sweep")
    async def sweep(self) -> int:
        full = self._sweeps % _SWEEPS_PER_FULL == 0
        since, swept_at = None if full else self._swept_at - _SWEEP_OVERLAP_S, self._wall()
        rows = await self._list_forgotten(since)
        woken = await self._wake_requested(rows) if rows else 0
        self._sweeps, self._swept_at = self._sweeps + 1, swept_at
        return woken

    @reading
    def _list_forgotten(self, db: Connection, since: float | None) -> set[int]:
        """Give waiting runs whose wake-up may have been lost: through all that wait, or the children ended since."""
        now = self._wall()
        rows = db.rows(SQL["list_requested"], (now,))
        rows += db.rows(SQL["list_mailed"], {"now": now, "since": since or 0.0})
        if since is None:
            rows += db.rows(SQL["list_awaited"], (now,))
        else:
            rows += db.rows(SQL["list_newly_awaited"], (since, now))
        return {row for (row,) in rows}

    @writing
    def _wake_requested(self, db: Connection, rows: set[int]) -> int:
        now = self._wall()
        return db.many(SQL["wake_requested"], [{"now": now, "row": row} for row in sorted(rows)])


def read_claimable(db: Connection, now: float, rows: str, *, suspect: bool = False) -> list[Claimed]:
    """Give what a claimer needs of the rows that it is about to take."""
    found = db.rows(SQL["read_claimable"], (now, rows))
    return [
        Claimed(
            *(*facts[:8], bool(facts[8]), suspect, *facts[9:17], bool(facts[17]), *facts[18:22], *map(bool, facts[22:]))
        )
        for facts in found
    ]


def _choose(
    db: Connection,
    now: float,
    rooms: dict[str, int],
    workflows: Sequence[str],
    queues: Sequence[str] | None,
    limit: int,
    *,
    suspect: bool,
) -> list[int]:
    """Give the rows that a claim takes: by priority, then due time; suspects only if asked, in groups."""
    filters = {"workflows": _json(workflows), "queues": None if queues is None else _json(queues), "now": now}
    cancels = {**filters, "suspect": suspect, "limit": 1 if suspect else limit}
    held = list(_within(rooms, db.rows(SQL["list_held_cancels"], cancels)))
    if not suspect:
        due = _list_due(db, now, rooms, filters["workflows"], queues, limit)
        return [*held, *islice(due, limit - len(held))]
    if held:
        return held
    suspects = db.rows(SQL["list_suspects"], {**filters, "limit": limit})
    same = [(row, *line) for row, crashes, *line in suspects if crashes == suspects[0][1]]  # the oftener, the fewer
    return list(_within(rooms, same[: SUSPECT_GROUPS.get(suspects[0][1], 1)])) if suspects else []


def _within(rooms: dict[str, int], found: Iterable[tuple[Any, ...]]) -> Iterator[int]:
    """Give of rows, with queue and line, those that this worker has room for; takes the room."""
    for row, queue, line in found:
        if line == "admitted" and queue in rooms:
            if rooms[queue] <= 0:
                continue
            rooms[queue] -= 1
        yield row


def _list_due(
    db: Connection, now: float, rooms: dict[str, int], workflows: Any, queues: Sequence[str] | None, limit: int
) -> Iterator[int]:
    lanes = db.rows(SQL["walk_lanes"] + "\n" + SQL["list_lanes"])
    for priority, same in groupby(lanes, key=lambda lane: lane[1]):
        due = []
        for queue, _ in same:
            if queues is None or queue in queues:
                lane = {"queue": queue, "priority": priority, "room": rooms.get(queue, 1) > 0}
                due += db.rows(SQL["list_due"], {**lane, "now": now, "workflows": workflows, "limit": limit})
        yield from _within(rooms, (facts[1:] for facts in sorted(due, key=lambda facts: facts[:2])))


def _put_beat(db: Connection, worker: int, now: float, lease_s: float) -> None:
    db.run(SQL["put_beat"], {"worker": worker, "now": now, "expires_at": now + lease_s})


def find_unfinished(db: Connection, run_id: str) -> int | None:
    """Give the row of an unfinished run, None if it has ended; KeyError if there is none."""
    found = db.rows(SQL["find_row"], (run_id,))
    if not found:
        raise KeyError(run_id)
    ((row, ended),) = found
    return None if ended else row


def _json(values: Iterable[int] | Iterable[str]) -> str:
    return json.dumps(list(values))
