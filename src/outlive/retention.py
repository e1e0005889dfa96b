"""What becomes of finished runs: pruned by age and status, in batches between which everything else has its turn."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import replace

from outlive.archive import Archive
from outlive.clock import Duration, seconds
from outlive.engine.engine import Engine
from outlive.errors import UsageError
from outlive.limits import PRUNE_BATCH_RUNS, PRUNE_REST
from outlive.model.options import check_limit
from outlive.model.reads import RunQuery
from outlive.model.retention import Prunable, choose_prunable
from outlive.model.status import FINAL
from outlive.opened import Opened

_AHEAD_S = 60.0  # what has just ended may have done so by a clock that is a little ahead of ours


class Retention(Opened):
    """What an app does with history."""

    async def prune(
        self,
        older_than: Duration,
        *,
        status: str | Iterable[str] | None = None,
        limit: int | None = None,
        archive: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete runs that ended longer ago than `older_than`, with their journals; give how many.

        Only finished runs go, of these statuses if any are given; the oldest
        first, at most `limit`. A run stays while one that it has started does,
        and a child while its parent may still need its end. An id is free
        again then. `archive`: a file that gets each run as a line of JSON, on
        disk before the run is deleted. `dry_run`: only count.
        *Again*: it goes on where it was interrupted; the archive may then have
        some runs twice.
        """
        engine = self._engine()
        query = _select(engine, _check_age(older_than), status)
        room = sys.maxsize if limit is None else check_limit(limit)
        pruning = _Pruning(engine, query, None if archive is None else Archive(archive))
        if dry_run:
            return min(await pruning.count(), room)
        return await pruning.prune(room)


def _check_age(older_than: Duration) -> float:
    try:
        return seconds(older_than)
    except UsageError as error:
        raise UsageError(f"older_than=…: {error}") from None


def _select(engine: Engine, age_s: float, status: str | Iterable[str] | None) -> RunQuery:
    statuses = set(FINAL) if status is None else {status} if isinstance(status, str) else set(status)
    for one in statuses - FINAL:
        raise UsageError(
            f"only runs that have ended can be pruned: status=… is one of {', '.join(sorted(FINAL))}, not {one!r}"
        )
    before = max(engine.clock.now() - age_s, 0.0) if age_s else engine.clock.now() + _AHEAD_S
    return RunQuery(statuses=tuple(sorted(statuses)), finished_before=before, oldest_first=True)


class _Pruning:
    """One call of `prune`."""

    def __init__(self, engine: Engine, query: RunQuery, archive: Archive | None) -> None:
        self._engine = engine
        self._query = query
        self._archive = archive

    async def count(self) -> int:
        """Give how many runs would go."""
        found: list[Prunable] = []
        while page := await self._read(PRUNE_BATCH_RUNS, found[-1].row if found else None):
            found += page
        return len(choose_prunable(found))

    async def prune(self, room: int) -> int:
        """Delete at most so many; give how many."""
        if self._archive is not None:
            await asyncio.to_thread(self._archive.open)
        clock, pruned, after = self._engine.clock, 0, None
        some_went = parents_stayed = False
        while pruned < room:
            page = await self._read(min(PRUNE_BATCH_RUNS, room - pruned), after)
            if page:
                began = clock.steady()
                rows = choose_prunable(page)
                gone = await self._delete(rows) if rows else 0
                pruned, after = pruned + gone, page[-1].row
                some_went |= gone > 0
                parents_stayed |= any(run.children for run in page if run.row not in rows)
                await asyncio.sleep((clock.steady() - began) * PRUNE_REST)
            elif some_went and parents_stayed:  # from the beginning: parents come before their children
                some_went, parents_stayed, after = False, False, None
            else:
                break
        return pruned

    async def _read(self, limit: int, after: int | None) -> list[Prunable]:
        return await self._engine.store.list_prunable(replace(self._query, limit=limit, after=after))

    async def _delete(self, rows: list[int]) -> int:
        store, query = self._engine.store, self._query
        if self._archive is not None:
            runs, entries = await store.read_runs(rows), await store.load_entries(rows)
            await asyncio.to_thread(self._archive.add, [(run, list(entries[run.row])) for run in runs])
        assert query.finished_before is not None
        return await store.prune(rows, query.finished_before)
