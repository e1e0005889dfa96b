"""What a run asks of people, as elicitation: the questions and approvals that wait.

Invariant: one form stands for one item of an inbox, by a key that no other one of the run has; an answer to
one that was answered already changes nothing. What no form can ask is left to other ways of answering.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ElicitRequest, ElicitRequestFormParams, ElicitResult

from outlive import Outlive
from outlive.approvals import Approval, Approvals, approvals
from outlive.codec.payload import digest
from outlive.errors import PayloadError, RunRefused, StoreUnavailable, UsageError
from outlive.inbox import is_person
from outlive.integrations.mcp.caller import Caller
from outlive.limits import POLL_IDLE_S
from outlive.questions import Question, Questions, questions
from outlive.views.agent_runs import read_waiting

_DECISION = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve"}, "why": {"type": "string", "title": "Why"}},
    "required": ["approve"],
}
_FLAT = {"string", "number", "integer", "boolean"}  # what a property of a form may be, and a choice of such
_ANSWER = "answer"  # the one property of a form for an answer that is no object


@dataclass(frozen=True)
class Form:
    """What waits, as the form that asks for it."""

    item: Question | Approval
    message: str
    schema: Mapping[str, Any]
    only: str | None = None  # the one property that is the answer; else all of them are, as an object

    @property
    def request(self) -> ElicitRequest:
        """The form as a request to a client."""
        return ElicitRequest(params=ElicitRequestFormParams(message=self.message, requested_schema=dict(self.schema)))


async def list_forms(app: Outlive, run_id: str, caller: Caller) -> dict[str, Form]:
    """Give what a run asks that this caller may answer, by keys that are those of these items for ever."""
    waiting = await read_waiting(app, run_id)
    asked = [_form_of_question(one) for one in waiting.questions]
    asked += [_form_of_approval(one, caller) for one in waiting.approvals]
    return {digest(f"{form.item.id} {form.item.created_at.isoformat()}"): form for form in asked if form is not None}


def _form_of_question(question: Question) -> Form | None:
    """Give the form of a question; None where its answer is nothing that a form can hold."""
    definitions = question.schema.get("$defs", {})

    def resolve(schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
        return found

    answer = resolve(question.schema)
    is_object = answer.get("type") == "object"
    properties = answer.get("properties", {}) if is_object else {_ANSWER: answer}
    flat = {name: resolve(one) for name, one in properties.items()}
    if not all(map(_is_flat, flat.values())):
        return None
    required = answer.get("required", []) if is_object else [_ANSWER]
    schema = {"type": "object", "properties": flat, "required": required}
    return Form(question, question.question, schema, None if is_object else _ANSWER)


def _is_flat(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") in _FLAT or all(isinstance(one, str) for one in schema.get("enum", [None]))


def _form_of_approval(approval: Approval, caller: Caller) -> Form | None:
    if approval.role not in (None, *caller.roles) or is_person(caller.name, approval.votes):
        return None
    call = f"{approval.tool}({json.dumps(approval.arguments, ensure_ascii=False)})"
    return Form(approval, f"May the agent {approval.agent} call {call}?", _DECISION)


async def answer(app: Outlive, form: Form, response: ElicitResult, caller: Caller) -> None:
    """Take a person's answer to a form. One that was closed without a choice leaves it open.

    *Durable*: the answer, before this returns; a store that does not answer is asked again, as nobody gives it twice.
    *Raises* MCPError for an answer that does not fit the form.
    """
    if response.action == "cancel":
        return None
    content = (response.content or {}) if response.action == "accept" else None  # what was declined has none
    while True:
        try:
            return await _settle(app, form, content, caller)
        except StoreUnavailable:
            await asyncio.sleep(POLL_IDLE_S)


async def _settle(app: Outlive, form: Form, content: Mapping[str, Any] | None, caller: Caller) -> None:
    item, by = form.item, caller.name
    if isinstance(item, Approval):
        inbox: Approvals | Questions
        inbox = approvals(app)
        given: Mapping[str, Any] = {"approve": False} if content is None else content
        approve, why = given.get("approve"), given.get("why")
        settling = inbox.decide(item.id, approve=approve, why=why, by=by, roles=caller.roles, digest=item.digest)  # type: ignore[arg-type]
    else:
        inbox = questions(app)
        value = content if form.only is None else (content or {}).get(form.only)
        settling = inbox.decline(item.id, by=by) if content is None else inbox.answer(item.id, value, by=by)
    try:
        await settling
    except (RunRefused, UsageError, PayloadError) as refused:
        if await inbox.find(item.id) is not None:  # else somebody has answered meanwhile, or nobody waits any more
            raise MCPError(INVALID_PARAMS, str(refused)) from None
