"""What operators do to a whole run: resolve, retry, rewind, fork, delete. Reads, plans, asks for one transaction.

It works on runs that nobody owns: the owner is asked to let go first, and a
death in between leaves the run paused. Invariant: what was planned is written
only if nobody has owned the run since it was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from outlive.codec.failure import error_facts
from outlive.codec.payload import codec_for
from outlive.engine.roles import Host
from outlive.errors import RunNotFound, RunRefused
from outlive.limits import CHILDREN_END_S, POLL_BUSY_S, POLL_IDLE_S
from outlive.model import control
from outlive.model.reads import RunRow
from outlive.model.status import Status
from outlive.model.writes import Fork, Note, Reopening
from outlive.store.refusals import GenerationEnded, RowTaken, SingletonTaken


class Control:
    """See the module's text."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._store = engine.store

    async def find(self, run_id: str) -> RunRow:
        """Read a run; RunNotFound if there is none."""
        run = await self._store.find_run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def retry(self, run_id: str, note: Note) -> None:
        """Let a failed or cancelled run go on from where it failed, with the children that made it fail."""
        wait_s, waited_s = POLL_BUSY_S, 0.0
        while True:
            run = await self.find(run_id)
            if run.status not in (Status.FAILED, Status.CANCELLED):
                raise RunRefused(run_id, f"it is {run.status}, and only a failed or cancelled run can be retried")
            unended: list[RunRow] = []
            planned = await self._plan_retries(run, unended)
            if unended and waited_s >= CHILDREN_END_S:
                raise RunRefused(run_id, _unended(unended[0]))
            if unended:
                await asyncio.sleep(wait_s)
                waited_s += wait_s
                wait_s = min(2 * wait_s, POLL_IDLE_S)
            elif await self._reopen(run_id, planned, note):
                return

    async def _plan_retries(self, run: RunRow, unended: list[RunRow]) -> list[Reopening]:
        """Plan for a run and its children that are retried with it; tell which were cancelled with it and go on."""
        entries = await self._store.list_entries(run.id)
        if control.has_rolled_back(entries):
            raise RunRefused(
                run.id,
                "its compensations have been executed; rewind() it to before what they undid",
            )
        children = await self._store.list_children(run.row, unfinished=False)
        cut = control.plan_retry(run, error_facts(run.error or "{}"), entries, children)
        if cut.doubtful:
            raise RunRefused(run.id, _doubtful(cut.doubtful))
        unended += cut.unended
        planned = [self._reopening(run, "retry", cut)]
        for child in cut.retried:
            planned += await self._plan_retries(child, unended)
        return planned

    async def rewind(self, run_id: str, key: str, note: Note) -> None:
        """Execute a run again from an entry on; it is held meanwhile, and goes on if it was not held before."""
        run = await self.find(run_id)
        was_held, wait_s = Status(run.status).held, POLL_BUSY_S
        while True:
            entries = await self._store.list_entries(run_id)
            children = await self._store.list_children(run.row, unfinished=False)
            cut = control.plan_rewind(run, key, entries, children)
            if cut is None:
                raise RunRefused(run_id, _unknown(key))
            if run.worker is None:
                reopening = self._reopening(run, "rewind", cut)
                reopening.resume = not was_held
                if await self._reopen(run_id, [reopening], note):
                    return
            else:  # each time: somebody may have resumed it meanwhile
                await self._engine.request(run_id, "pause", f"to be rewound to {key} by {note.who}")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, POLL_IDLE_S)
            run = await self.find(run_id)

    async def _reopen(self, run_id: str, reopenings: Sequence[Reopening], note: Note) -> bool:
        try:
            reopened = await self._store.reopen(reopenings, note)
        except SingletonTaken as taken:
            raise RunRefused(run_id, _beside(taken)) from None
        if reopened:
            self._engine.hint()
        return reopened

    def _reopening(self, run: RunRow, action: Any, cut: control.Cut) -> Reopening:
        return Reopening(run.row, run.generation, run.claim, action, cut.dropped, cut.awaited, cut.cancelled)

    async def fork(
        self, run_id: str, key: str, patch: Mapping[str, Any], new_id: str, deadline_s: float | None, note: Note
    ) -> tuple[RunRow, bool]:
        """Start a run with the entries before a key, some of them patched; say whether it is new."""
        engine = self._engine
        while True:
            run = await self.find(run_id)
            entries = control.plan_fork(key, await self._store.list_entries(run_id))
            if entries is None:
                raise RunRefused(run_id, _unknown(key))
            kept = {entry.key: entry for entry in entries}
            texts = {}
            for place, value in patch.items():
                entry = kept.get(place)
                if entry is None or entry.outcome != "ok" or entry.kind not in control.PATCHABLE:
                    raise RunRefused(run_id, f"{place!r} cannot be patched: no value is recorded there before {key!r}")
                codec = codec_for(run.codec, [engine.codec], what=f"the journal of run {run_id!r}")
                texts[place] = codec.encode(value, where=f"patch of {place}")
            fork = Fork(engine.new_row(), new_id, run.row, run.generation, list(kept), texts, deadline_s)
            try:
                existing = await self._store.fork(fork, note)
            except (GenerationEnded, RowTaken):
                continue
            except SingletonTaken as taken:
                raise RunRefused(run_id, _beside(taken)) from None
            found = await self.find(new_id)
            if found.forked_from != run_id:
                raise RunRefused(run_id, f"the id {new_id!r} belongs to a run that is no fork of it")
            engine.hint()
            return found, existing is None

    async def resolve(self, run_id: str, key: str, decision: str, note: Note) -> bool:
        """Let a run that is held for the unknown outcome at a key go on with a decision; False if it is not held."""
        run = await self.find(run_id)
        if not Status(run.status).held:
            return False
        entries = await self._store.list_entries(run_id)
        if not any(entry.key == key for entry in entries):
            raise RunRefused(run_id, _unknown(key))
        held = error_facts(run.hold_reason or "{}")
        if not control.is_undecided(held, key, entries):
            raise RunRefused(
                run_id, f"it is {run.status} for something else than the outcome of {key!r}: {held['text']}"
            )
        resumed = await self._store.resume(run_id, note, decision=decision, claim=run.claim)
        if resumed:
            self._engine.hint()
        return resumed

    async def delete(self, run_id: str, note: Note, *, children: bool) -> None:
        """Delete a run that has ended, with its descendants if asked."""
        run = await self.find(run_id)
        rows = await self._list_family(run) if children else [run.row]
        unfinished, awaited = await self._store.delete_runs(rows, note)
        if unfinished:
            raise RunRefused(run_id, f"only what has ended can be deleted; not ended yet: {', '.join(unfinished)}")
        if awaited:
            raise RunRefused(run_id, f"a parent waits for the result of {', '.join(awaited)}")

    async def _list_family(self, run: RunRow) -> list[int]:
        """Give the rows of a run and its descendants, seen again after all had ended: who has ended starts nobody."""
        rows: list[int] = []
        while True:
            found = [run.row, *await self._store.list_descendants(run.row)]
            if sorted(found) == sorted(rows):
                return rows
            rows = found
            ended = {one.row for one in await self._store.list_ended(rows) if Status(one.status).final}
            unfinished = [] if run.row in ended else [run.id]
            for row in () if len(ended) == len(rows) else rows:
                unfinished += [child.id for child in await self._store.list_children(row, unfinished=True)]
            if unfinished:
                raise RunRefused(run.id, f"not ended yet: {', '.join(unfinished)}")


def _unknown(key: str) -> str:
    return f"its journal has no entry {key!r}; run.entries() lists the keys"


def _doubtful(keys: Sequence[str]) -> str:
    return (
        f"after its failure it went on to {', '.join(keys)}, and nobody knows whether that took effect; find out, then "
        "rewind() it to where it is to go on from, which executes all after that again"
    )


def _unended(child: RunRow) -> str:
    return (
        f"its child {child.id!r} was asked to cancel and is {child.status}, so what that has done is not known yet; "
        "let it end first: it needs a worker that serves it, or resume() if it is held"
    )


def _beside(taken: SingletonTaken) -> str:
    return f"it is a singleton and run {taken.other!r} of its key has not ended; wait for the end of that, or cancel it"
