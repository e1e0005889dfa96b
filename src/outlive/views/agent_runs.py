"""Runs of agents as lists and pages show them: what each waits for, what it has used, and its conversation.

Knows the public API of an app, and the inboxes; works in any process that reaches the
database, without the agents' code. Prices that no budget has noted need the extra `agents`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from outlive.app import Outlive
from outlive.approvals import Approval, approvals
from outlive.budgets import BudgetInfo, budgets
from outlive.control import AuditEntry
from outlive.errors import PayloadError, RunNotFound
from outlive.model.agentkeys import AGENT, CHAT
from outlive.model.query import parse
from outlive.model.reads import Match
from outlive.model.status import Status
from outlive.paging import Page
from outlive.questions import Question, questions
from outlive.reviews import Review, reviews
from outlive.run import Entry, Run, RunInfo
from outlive.views.agent_journal import Line, Usage, agents_in, is_answer, read_lines, sum_usage

EVERY_AGENT = f"workflow:{AGENT}.*,{CHAT}.*"
_PAGE = 100  # of inboxes and accounts of one run


@dataclass(frozen=True)
class AgentRun:
    """A run in which agents work: `waits_for` says for whom or what, `usd` is None where nobody knows the price."""

    id: str
    workflow: str
    agents: Sequence[str]
    status: Status
    waits_for: str | None
    usage: Usage
    usd: Decimal | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Waiting:
    """What a run waits for people to decide."""

    approvals: Sequence[Approval]
    questions: Sequence[Question]
    reviews: Sequence[Review]

    def in_order(self) -> list[Approval | Question | Review]:
        """Give all of it in the order in which it was asked."""
        return sorted([*self.approvals, *self.questions, *self.reviews], key=lambda one: one.created_at)

    def describe(self) -> str | None:
        """Give it in a few words; None if nobody is asked."""
        told = [f"approval of {one.tool}" + (f" by {one.role}" if one.role else "") for one in self.approvals]
        told += [f"answer to: {one.question}" for one in self.questions]
        told += [f"review of {one.what}" for one in self.reviews]
        return ", ".join(told) or None


@dataclass(frozen=True)
class AgentRunStory:
    """All that is known of a run's agents: `lines` in the order of the journal, and what was decided, by whom."""

    run: AgentRun
    lines: Sequence[Line]
    waiting: Waiting
    decided: Sequence[AuditEntry]
    budgets: Sequence[BudgetInfo]
    result: Any
    error: str | None


async def list_agent_runs(
    app: Outlive, query: str = "", *, limit: int = 20, after: int | None = None
) -> Page[AgentRun, int]:
    """List the runs of agents and conversations that a query means, newest first; runs of other workflows by name."""
    page = await app.runs(query if _names_workflow(query) else f"{query} {EVERY_AGENT}", limit=limit, after=after)
    found = [await _summarise(app, info) for info in page.items]
    return Page([one for one in found if one is not None], page.next)


def _names_workflow(query: str) -> bool:
    conditions = [one for one in parse(query) if isinstance(one, Match) and not one.is_attribute]
    return any(one.field == "workflow" and not one.negated for one in conditions)


async def _summarise(app: Outlive, info: RunInfo) -> AgentRun | None:
    """Give what a list shows of a run; None if it was deleted meanwhile."""
    try:
        entries = await _read_entries(await app.get(info.id))
        waiting, own = await _waiting_of(app, info), await _own_budgets(app, info.id)
        return await _make(app, info, entries, waiting, own)
    except RunNotFound:
        return None


async def _read_entries(run: Run) -> list[Entry]:
    try:
        return await run.entries()
    except PayloadError:  # of an app with a codec of its own
        return []


async def _make(
    app: Outlive, info: RunInfo, entries: Sequence[Entry], waiting: Waiting, own: Sequence[BudgetInfo]
) -> AgentRun:
    waits_for = waiting.describe()
    if waits_for is None and not info.status.final and info.status != Status.RUNNING:
        waits_for = await (await app.get(info.id)).why()
    kind, _, name = info.workflow.partition(".")
    agents = agents_in(entries) or ([name] if kind in (AGENT, CHAT) else [])
    return AgentRun(
        info.id, info.workflow, agents, info.status, waits_for, sum_usage(entries), _price(entries, own),
        info.created_at, info.finished_at,
    )  # fmt: skip


def _price(entries: Sequence[Entry], own: Sequence[BudgetInfo]) -> Decimal | None:
    """Give what a run has cost: as its own budgets have noted, else as published; None if that is not known of all."""
    if any("usd" in one.limits for one in own):
        return sum((one.spent.usd + one.lost.usd for one in own), Decimal(0))
    answers = [entry.value for entry in entries if is_answer(entry)]
    if any(answer.get("provider_name") is None for answer in answers):
        return None  # a model of the program's own
    if not answers:
        return Decimal(0)
    try:
        from outlive.agents.pricing import price_recorded
    except ImportError:
        return None
    prices = [price_recorded(answer) for answer in answers]
    return None if None in prices else sum((price for price in prices if price is not None), Decimal(0))


async def _waiting_of(app: Outlive, info: RunInfo) -> Waiting:
    return Waiting([], [], []) if info.status.final else await read_waiting(app, info.id)


async def read_waiting(app: Outlive, run_id: str) -> Waiting:
    """Read what a run waits for people to decide, of each kind the oldest first."""
    asked, questioned, stopped = await asyncio.gather(
        approvals(app).list(run_id=run_id, limit=_PAGE),
        questions(app).list(run_id=run_id, limit=_PAGE),
        reviews(app).list(run_id=run_id, limit=_PAGE),
    )
    return Waiting(asked.items, questioned.items, stopped.items)


async def _own_budgets(app: Outlive, run_id: str) -> list[BudgetInfo]:
    """List the budgets that are a run's own: their accounts begin with its id."""
    found: list[BudgetInfo] = []
    after = f"{run_id}/"
    while True:
        page = await budgets(app).list(limit=_PAGE, after=after)
        mine = [one for one in page.items if one.account.startswith(f"{run_id}/")]
        found += [one for one in mine if one.run in (run_id, None)]
        if page.next is None or len(mine) < len(page.items):
            return found
        after = page.next


async def read_agent_run(
    app: Outlive, run_id: str, *, effects: Mapping[str, str] | None = None, generation: int | None = None
) -> AgentRunStory:
    """Read what the agents of a run have said and done; `effects`: the classes of calls by key, where code tells them.

    *Raises* RunNotFound; PayloadError for a run of an app with a codec of its own.
    """
    run = await app.get(run_id)
    info, entries = await run.info(), await run.entries(generation)
    waiting, own = await _waiting_of(app, info), await _own_budgets(app, run_id)
    outcome = await run._find_outcome()
    decided = [one for one in await _read_audit(app, run_id) if one.action == "settle"]
    signed = {one.facts["promise"]: one.by for one in decided}
    return AgentRunStory(
        await _make(app, info, entries, waiting, own),
        read_lines(info.workflow, await run.input(), entries, effects or {}, signed),
        waiting,
        decided,
        own,
        outcome.value if outcome else None,
        outcome.explain() if outcome else None,
    )


async def _read_audit(app: Outlive, run_id: str) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    while page := await app.audit(run_id, limit=_PAGE, after=found[-1].number if found else None):
        found += page
    return found
