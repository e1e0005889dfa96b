"""Changing code under runs that are under way: what a body asks, and what an operator sees of each version.

Replay and divergence are the engine's; which worker may continue a run is the
claim's business. Invariant: what a body is answered here, its replay is answered too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from outlive.definitions import for_async_bodies, in_workflow
from outlive.engine.continuing import continue_as_new as go_on_as_new
from outlive.engine.invoke import patched as is_patched
from outlive.errors import RunNotFound, UsageError
from outlive.ids import check_id
from outlive.model.frozen import FrozenJournal
from outlive.model.options import check_mapping, check_name
from outlive.model.query import compile_query, parse
from outlive.model.reads import EntryRow, RunRow
from outlive.model.status import Status
from outlive.opened import Opened

__all__ = ["VersionCount", "continue_as_new", "patched"]


@dataclass(frozen=True)
class VersionCount:
    """How many unfinished runs of one version of a workflow there are, by status.

    `version` is that of whoever started them; of a run that was started by name, that of
    the code that has executed it, None if none has.
    `is_current`: the code of this process is of that version.
    """

    workflow: str
    version: str | None
    pinned: bool
    is_current: bool
    statuses: Mapping[Status, int]

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(self.statuses.values())


_PAGE_RUNS = 50  # whose journals are read at once


class Versions(Opened):
    """What an app knows of the versions of its code."""

    async def versions(self, workflow: str | None = None) -> list[VersionCount]:
        """Count the unfinished runs of each version of a workflow, or of all; the oldest version first.

        Code may go when no run of its version is left: workers of pinned versions,
        old paths beside `patched`.
        """
        engine = self._engine()
        counts: dict[tuple[str, str | None, bool], dict[Status, int]] = {}
        for row in await engine.store.count_versions(None if workflow is None else check_name(workflow)):
            counts.setdefault((row.workflow, row.version, row.pinned), {})[Status(row.status)] = row.runs
        served = {name: spec.version for name, _, _ in counts if (spec := engine.definitions.find(name)) is not None}
        return [
            VersionCount(name, version, pinned, served.get(name, "") == version, statuses)
            for (name, version, pinned), statuses in counts.items()
        ]

    async def journals(self, query: str = "", *, ids: Iterable[str] = ()) -> AsyncIterator[FrozenJournal]:
        """Give what replay needs of the runs that a query means, newest first, or of those with these ids.

        `outlive.testing.replay` tries code on them, now or as `to_line()` in a file, without any effect.
        """
        engine, store = self._engine(), self._engine().store
        asked = replace(compile_query(parse(query), engine.clock.now()), limit=_PAGE_RUNS)
        ids = [ids] if isinstance(ids, str) else list(ids)
        if ids and query:
            raise UsageError("journals of runs by query=… or by ids=…, not by both")
        for run_id in ids:
            row = await store.find_run(check_id(run_id))
            if row is None:
                raise RunNotFound(run_id)
            yield _freeze(row, await store.list_entries(run_id))
        rows = [] if ids else await store.list_runs(asked)
        while rows:
            entries = await store.load_entries([row.row for row in rows])
            for row in rows:
                yield _freeze(row, entries[row.row])
            asked = replace(asked, after=rows[-1].row)
            rows = await store.list_runs(asked)


def _freeze(row: RunRow, entries: Sequence[EntryRow]) -> FrozenJournal:
    return FrozenJournal(
        id=row.id,
        row=row.row,
        workflow=row.workflow,
        version=row.version,
        pinned=bool(row.pinned),
        status=row.status,
        codec=row.codec,
        input=row.input,
        output=row.output,
        error=row.error,
        started_at=row.began_at if row.began_at is not None else row.created_at,
        salt=row.salt,
        generation=row.generation,
        continued=row.continued,
        deadline_at=row.deadline_at,
        entries=list(entries),
    )


@for_async_bodies
def patched(name: str, /) -> bool:
    """Say whether this run takes the new path: `if outlive.patched("fee"): … else: …`. A plain call.

    False for a run that went past this point under the code before the change,
    so that it repeats what it did; True for new runs and those that have not come
    here yet. In a loop each pass is a point of its own: ask before the loop to
    decide for all of it.
    *Durable*: the answer, as an entry of kind `patch`.
    *Again*: replay gives the same answer. Once no unfinished run has started
    before the change (`app.versions()`), delete the old path and the call;
    answers that the code no longer asks for are no divergence.
    """
    return is_patched(in_workflow("patched"), check_name(name))


@for_async_bodies
async def continue_as_new(*args: Any, kwargs: Mapping[str, Any] | None = None) -> NoReturn:
    """End this body and let the run go on with these arguments, from the top and with an empty journal.

    Never returns. The id, the deadline, the messages that were not received and
    whoever waits for the result stay; the result is that of the last generation.
    `finally` blocks run, as at a return, and children that end with their parent are asked to.
    *Durable*: the arguments, and the version of the code that is executing.
    *Again*: a crash before that is on disk replays up to this call; after it nothing of the old journal is read.
    *Raises* UsageError in a branch, EncodeFailed for arguments that cannot be stored.
    """
    await go_on_as_new(in_workflow("continue_as_new"), args, check_mapping(kwargs, "kwargs=…"))
