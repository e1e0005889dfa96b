"""Gathers what is known of a run that does not move, for model/why.py to explain."""

from __future__ import annotations

import json

from outlive.codec.failure import error_facts
from outlive.engine.engine import Engine
from outlive.errors import DecodeFailed
from outlive.model.line import decode_limits
from outlive.model.reads import RunRow
from outlive.model.status import Status
from outlive.model.why import Facts, explain, find_before

_CHAIN_MAX = 20


async def explain_run(engine: Engine, run: RunRow) -> str:
    """Say in one sentence why a run does not move, and what helps."""
    return explain(await _gather(engine, run, ()))


async def _gather(engine: Engine, run: RunRow, chain: tuple[str, ...]) -> Facts:
    """Read the facts; `chain`: the runs that wait for this one, one for the other."""
    store, chain = engine.store, (*chain, run.id)
    facts = Facts(run, await store.now(), problem=_read_problem(run.error or run.hold_reason))
    if Status(run.status).final:
        return facts
    facts.workers = await store.list_workers()
    entries = await store.list_entries(run.id)
    facts.open_entries = [entry for entry in entries if entry.outcome == "started"]
    facts.last = next((entry for entry in reversed(entries) if entry.outcome != "started"), None)
    facts.open_problem = next((_read_problem(entry.error) for entry in facts.open_entries if entry.error), None)
    notes = await store.list_audit(run.id, 20, None)
    facts.by = next((note.who for note in notes if note.action == "pause"), None) if run.status == "paused" else None
    facts.cancelling = bool(notes) and notes[0].action == "cancel"
    made = [entry for entry in entries if entry.kind == "promise"]
    facts.expiries = {entry.key: at for entry in made if (at := json.loads(entry.value or "{}").get("expires_at"))}
    if run.line is not None and run.status in (Status.SCHEDULED, Status.QUEUED):
        await _gather_line(engine, facts, chain)
    awaited = {entry.key for entry in facts.open_entries if entry.kind == "child"}
    if awaited and len(chain) <= _CHAIN_MAX:
        children = [one for one in await store.list_children(run.row, unfinished=False) if one.parent_key in awaited]
        if children:
            facts.child = await _gather(engine, children[0], chain)
    return facts


async def _gather_line(engine: Engine, facts: Facts, chain: tuple[str, ...]) -> None:
    """Read what stands in front of a run in a line, and of the run that is in its way what holds up that one."""
    store, run = engine.store, facts.run
    facts.queue = next(iter(await store.list_queues(run.queue)), None) if run.queue else None
    if facts.queue is not None and facts.queue.paused:
        notes = await store.list_audit(run.queue, 20, None)
        facts.queue_by = next((note.who for note in notes if (note.noun, note.action) == ("queue", "pause")), None)
    facts.line = await store.read_line(run.row, decode_limits(facts.queue.limits if facts.queue is not None else "{}"))
    before = find_before(facts)
    if before is not None and before not in chain and len(chain) <= _CHAIN_MAX:
        found = await store.find_run(before)
        facts.before = None if found is None else await _gather(engine, found, chain)


def _read_problem(record: str | None) -> tuple[str, str] | None:
    if record is None:
        return None
    try:
        facts = error_facts(record)
    except DecodeFailed:
        return None
    return facts["type"], facts["text"]
