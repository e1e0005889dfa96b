"""What operators do to many runs at once: to each of those that a query means, what its handle would do.

Nothing is remembered between calls. A run that an action has changed no longer
meets the query as that action narrows it, so calling again goes on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

from outlive.errors import RunError, UsageError
from outlive.limits import BULK_BATCH_RUNS
from outlive.model.query import compile_query, narrow_statuses, parse
from outlive.model.status import FINAL, HELD, Status
from outlive.opened import Opened
from outlive.run import Run

Act = Callable[[Run], Awaitable[object]]

# Which runs an action can change.
_ABLE: dict[str, frozenset[Status]] = {
    "cancel": frozenset(Status) - FINAL,
    "pause": frozenset(Status) - FINAL - HELD,
    "resume": HELD,
    "retry": frozenset({Status.FAILED, Status.CANCELLED}),
}


class Bulk(Opened):
    """The part of an app through which operators act on many runs. Each method gives how many it has acted on.

    `query` says which; `"all"` means every run, an empty one is refused. `dry_run` only counts.
    `reason` and `by` are noted for each run. *Again*: runs that were done before are left alone.
    """

    async def cancel(
        self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None
    ) -> int:
        """Ask every unfinished run that the query means to cancel; give how many."""
        return await self._each("cancel", query, lambda run: run.cancel(reason, by=by), dry_run=dry_run)

    async def pause(
        self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None
    ) -> int:
        """Hold every unfinished run that the query means; give how many."""
        return await self._each("pause", query, lambda run: run.pause(reason, by=by), dry_run=dry_run)

    async def resume(
        self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None
    ) -> int:
        """Let every paused or quarantined run that the query means go on; give how many.

        A query that names no status means those too that were asked to pause and are not held yet: they go on.
        """
        return await self._each("resume", query, lambda run: run.resume(reason=reason, by=by), dry_run=dry_run)

    async def retry(
        self, query: str, *, dry_run: bool = False, reason: str | None = None, by: str | None = None
    ) -> int:
        """Let every failed or cancelled run that the query means go on from where it failed; give how many.

        The oldest first: a parent takes along the child by whose failure it has failed.
        """

        async def act(run: Run) -> bool:
            await run.retry(reason=reason, by=by)
            return True

        return await self._each("retry", query, act, dry_run=dry_run)

    async def _each(self, action: str, query: str, act: Act, *, dry_run: bool) -> int:
        conditions, engine = parse(query), self._engine()
        if not query.strip():
            raise UsageError(f'{action}(…) in bulk needs a query that says which runs; "all" means every run')
        meant = compile_query(conditions, engine.clock.now())
        found = narrow_statuses(meant, _ABLE[action])
        if not found.statuses:
            able = ", ".join(status for status in Status if status in _ABLE[action])
            raise UsageError(
                f"{action}(…) in bulk is for runs that are {able}; the query {query!r} leaves none of them"
            )
        if action == "resume" and meant.statuses is None:
            found = replace(found, pausing=True)
        if dry_run:
            return await engine.store.count_runs(replace(found, limit=sys.maxsize))
        found = replace(found, limit=BULK_BATCH_RUNS, oldest_first=action == "retry")
        done = 0
        while page := await engine.store.list_ids(found):
            runs = [Run(self._engine, run_id, row, None, created=False) for row, run_id in page]
            if action == "retry":  # one after the other: a parent before the child that it takes along
                done += sum([await _try(act, run) for run in runs])
            else:
                done += sum(await asyncio.gather(*(_try(act, run) for run in runs)))
            found = replace(found, after=page[-1][0])
        return done


async def _try(act: Act, run: Run) -> bool:
    """Act on a run; False if it can no longer be: it has ended, moved on or gone since it was found."""
    try:
        return bool(await act(run))
    except RunError:
        return False
