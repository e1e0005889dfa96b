"""Gathers what is known of a run that does not move, for model/why.py to explain."""

from __future__ import annotations

from outlive.codec.failure import error_facts
from outlive.engine.engine import Engine
from outlive.errors import DecodeFailed
from outlive.model.reads import RunRow
from outlive.model.status import Status
from outlive.model.why import Facts, explain

_CHAIN_MAX = 20


async def explain_run(engine: Engine, run: RunRow) -> str:
    """Say in one sentence why a run does not move, and what helps."""
    return explain(await _gather(engine, run, _CHAIN_MAX))


async def _gather(engine: Engine, run: RunRow, left: int) -> Facts:
    store = engine.store
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
    awaited = {entry.key for entry in facts.open_entries if entry.kind == "child"}
    if awaited and left:
        children = [one for one in await store.list_children(run.row, unfinished=False) if one.parent_key in awaited]
        if children:
            facts.child = await _gather(engine, children[0], left - 1)
    return facts


def _read_problem(record: str | None) -> tuple[str, str] | None:
    if record is None:
        return None
    try:
        facts = error_facts(record)
    except DecodeFailed:
        return None
    return facts["type"], facts["text"]
