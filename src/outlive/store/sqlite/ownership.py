"""Who may execute what: workers and their leases, claims, takeover, requests and wake-ups.

Functions of a connection; those that write count on the caller's write lock.
They know the tables of workers, live rows and requests. Invariant: a run
changes owner here only from nobody to a claimer, or from a worker that is gone
to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby, islice

from outlive.limits import QUARANTINE_CRASHES, SUSPECT_CRASHES, SUSPECT_GROUPS
from outlive.model.reads import Claimed, TakenOver, WorkerRow
from outlive.model.writes import Fence
from outlive.store.interface import WriteRefused
from outlive.store.sqlite.batch import SQL, check_fence
from outlive.store.sqlite.drivers import Connection

assert SUSPECT_CRASHES == 2, "the indexes of ol_live say 2: change them by a migration"

FORGET_WORKER_S = 7 * 86_400.0  # how long a fence row stays after a takeover, for people to read


def register(db: Connection, worker: WorkerRow, lease_s: float, now: float) -> Fence:
    """Insert the fence row of a new incarnation, and its first beat."""
    facts = (worker.epoch, worker.host, worker.pid, worker.name, worker.lock_path)
    db.run(SQL["insert_worker"], (worker.worker, *facts, now))
    if db.rows(SQL["find_worker"], (worker.worker,)) != [facts]:
        raise WriteRefused(f"worker id {worker.worker} is taken by another process; draw another")
    db.run(SQL["put_beat"], {"worker": worker.worker, "now": now, "expires_at": now + lease_s})
    return Fence(worker.worker, worker.epoch)


def beat(db: Connection, fence: Fence, lease_s: float, now: float) -> float:
    """Renew a lease; give the time of the beat."""
    check_fence(db, fence)
    db.run(SQL["put_beat"], {"worker": fence.worker, "now": now, "expires_at": now + lease_s})
    return now


def unregister(db: Connection, fence: Fence, now: float) -> None:
    """Let a worker leave in good order."""
    check_fence(db, fence)
    db.run(SQL["release_owned"], (now, fence.worker))
    db.run(SQL["delete_beat"], (fence.worker,))
    db.run(SQL["delete_worker"], (fence.worker,))


def release_strays(db: Connection, fence: Fence, kept: Sequence[int], now: float) -> int:
    """Let go of the runs that a worker owns but does not keep in memory."""
    check_fence(db, fence)
    return db.run(SQL["release_strays"], (now, fence.worker, _json(kept)))


def list_dead(db: Connection, dead: Sequence[int], now: float) -> list[int]:
    """Give the workers that a takeover would take over."""
    return [worker for (worker,) in db.rows(SQL["list_dead"], (now, _json(dead)))]


def take_over(db: Connection, dead: Sequence[int], now: float) -> TakenOver:
    """Fence out the dead and release their runs."""
    taken = TakenOver(list_dead(db, dead, now), 0, [])
    for worker in taken.workers:
        db.run(SQL["bump_epoch"], (worker,))
        db.run(SQL["delete_beat"], (worker,))
        taken.quarantined += [run_id for (run_id,) in db.rows(SQL["quarantine_owned"], (worker, QUARANTINE_CRASHES))]
        taken.released += db.run(SQL["take_owned"], (now, worker))
    if taken.workers:
        db.run(SQL["forget_workers"], (now - FORGET_WORKER_S,))
    return taken


class Choice:
    """Which rows a claim would take: by priority, then due time; suspects only if asked, in groups."""

    def __init__(self, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool) -> None:
        self.suspect = suspect
        self._limit = limit
        self._served = None if queues is None else set(queues)
        self._filters = {"workflows": _json(workflows), "queues": None if queues is None else _json(queues)}

    def rows(self, db: Connection, now: float) -> list[int]:
        """Give the rows in the order in which they would be taken."""
        if self._limit <= 0:
            return []
        limits = {"suspect": self.suspect, "limit": 1 if self.suspect else self._limit}
        held = db.rows(SQL["list_held_cancels"], {**self._filters, **limits})
        rows = [row for (row,) in held]
        if self.suspect and not rows:
            return self._group(db, now)
        if not self.suspect:
            rows += islice(self._due(db, now), self._limit - len(rows))
        return rows

    def _group(self, db: Connection, now: float) -> list[int]:
        """Give suspects that have crashed as often as the first of them: the oftener, the fewer."""
        limits = {"now": now, "limit": self._limit}
        found = db.rows(SQL["list_suspects"], {**self._filters, **limits})
        same = [row for row, crashes in found if crashes == found[0][1]]
        return same[: SUSPECT_GROUPS.get(found[0][1], 1)] if found else []

    def _due(self, db: Connection, now: float) -> Iterable[int]:
        lanes = db.rows(SQL["list_lanes"])
        for priority, same in groupby(lanes, key=lambda lane: lane[1]):
            due = []
            for queue, _ in same:
                if self._served is None or queue in self._served:
                    due += db.rows(SQL["list_due"], (queue, priority, now, self._filters["workflows"], self._limit))
            yield from (row for _, row in sorted(due))


def has_choice(db: Connection, fence: Fence, choice: Choice, now: float) -> bool:
    """Whether there is anything to claim, asked without the write lock."""
    check_fence(db, fence)
    return bool(choice.rows(db, now))


def claim(db: Connection, fence: Fence, choice: Choice, now: float) -> list[Claimed]:
    """Give the chosen rows to a worker."""
    check_fence(db, fence)
    rows = _json(choice.rows(db, now))
    found = db.rows(SQL["read_claimable"], (now, rows))
    db.run(SQL["claim_runs"], (fence.worker, choice.suspect, now, rows))
    return [Claimed(*(*facts[:8], bool(facts[8]), choice.suspect, *facts[9:-1], bool(facts[-1]))) for facts in found]


def wake(db: Connection, rows: Iterable[int], now: float) -> int:
    """Make waiting runs due; give how many were."""
    return sum(db.run(SQL["wake_run"], {"now": now, "row": row}) for row in rows)


def wake_requested(db: Connection, rows: Iterable[int], now: float) -> int:
    """Make due what waits, delayed starts included; give how many were."""
    return sum(db.run(SQL["wake_requested"], {"now": now, "row": row}) for row in rows)


def find_unfinished(db: Connection, run_id: str) -> int | None:
    """Give the row of an unfinished run, None if it has ended; KeyError if there is none."""
    found = db.rows(SQL["find_row"], (run_id,))
    if not found:
        raise KeyError(run_id)
    ((row, ended),) = found
    return None if ended else row


def add_request(db: Connection, run_id: str, kind: str, payload: str | None, now: float) -> bool:
    """Record a request for an unfinished run."""
    row = find_unfinished(db, run_id)
    if row is None:
        return False
    db.run(SQL["insert_request"], (row, kind, payload, now))
    wake_requested(db, [row], now)
    return True


def resume(db: Connection, run_id: str, now: float) -> bool:
    """Let a held run go on."""
    row = find_unfinished(db, run_id)
    if row is None or not db.run(SQL["resume_run"], (now, row)):
        return False
    db.run(SQL["delete_pauses"], (row,))
    return True


def list_forgotten(db: Connection, now: float, since: float | None) -> list[int]:
    """Give waiting runs whose wake-up may have been lost: through all that wait, or the children ended since."""
    rows = {row for (row,) in db.rows(SQL["list_requested"], (now,))}
    if since is None:
        rows.update(row for (row,) in db.rows(SQL["list_awaited"], (now,)))
    else:
        rows.update(row for (row,) in db.rows(SQL["list_newly_awaited"], (since, now)))
    return sorted(rows)


def _json(values: Iterable[int] | Iterable[str]) -> str:
    return json.dumps(list(values))
