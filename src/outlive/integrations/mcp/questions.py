"""What a run asks of people, as elicitation: open promises of the topics `question` and `approval`.

A question is the workflow's own promise, `promise(topic="question", about={"message": …, "schema": …})`; an approval is
made by the policy of an agent. Invariant: one form stands for one promise, by a key that no other promise
of the run has; an answer to one that is settled already changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ElicitRequest, ElicitRequestFormParams, ElicitResult

from outlive import Outlive
from outlive.approvals import TOPIC, approvals
from outlive.codec.payload import digest
from outlive.errors import PromiseError, RunRefused
from outlive.integrations.mcp.caller import Caller
from outlive.promises import OpenPromise

QUESTION = "question"
_ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
_DECISION = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve"}, "why": {"type": "string", "title": "Why"}},
    "required": ["approve"],
}


@dataclass(frozen=True)
class Question:
    """One open promise, as a form that its answer has to fit."""

    promise: OpenPromise
    message: str
    schema: Mapping[str, Any]

    @property
    def request(self) -> ElicitRequest:
        """The form as a request to a client."""
        return ElicitRequest(params=ElicitRequestFormParams(message=self.message, requested_schema=dict(self.schema)))


async def list_questions(app: Outlive, run_id: str, caller: Caller) -> dict[str, Question]:
    """Give what a run asks that this caller may answer, by keys that are those of these promises for ever."""
    asked: dict[str, Question] = {}
    for topic, read in ((QUESTION, _read_question), (TOPIC, _read_approval)):
        for promise in (await app.promises(topic, run_id=run_id)).items:
            question = read(promise, caller)
            if question is not None:
                asked[digest(promise.token)] = question
    return asked


def _read_question(promise: OpenPromise, _: Caller) -> Question | None:
    about = promise.about
    if not isinstance(about, Mapping) or not isinstance(about.get("message"), str):
        return None  # a question to somebody else
    return Question(promise, about["message"], about.get("schema") or _ANSWER)


def _read_approval(promise: OpenPromise, caller: Caller) -> Question | None:
    about = promise.about
    if about["role"] not in (None, *caller.roles) or caller.name in about["votes"]:
        return None
    call = f"{about['tool']}({json.dumps(about['arguments'], ensure_ascii=False)})"
    return Question(promise, f"May the agent {about['agent']} call {call}?", _DECISION)


async def answer(app: Outlive, question: Question, response: ElicitResult, caller: Caller) -> None:
    """Settle a promise with what a person answered. A form that was closed without a choice leaves it open.

    *Durable*: the answer, before this returns. *Raises* MCPError for an answer that does not fit the form.
    """
    if response.action == "cancel":
        return
    accepted = response.action == "accept"
    content = (response.content or {}) if accepted else {}  # of a form that was declined nothing counts
    if accepted:
        try:
            jsonschema.validate(content, question.schema)
        except jsonschema.ValidationError as problem:
            raise MCPError(INVALID_PARAMS, f"this is no answer to {question.message!r}: {problem.message}") from None
    try:
        if question.promise.topic == TOPIC:
            await _decide(app, question.promise, content, caller)
        elif accepted:
            await app.settle(question.promise.token, content, by=caller.name)
        else:
            await app.settle(question.promise.token, error=f"{caller.name} declined to answer", by=caller.name)
    except (PromiseError, RunRefused):
        pass  # it was settled meanwhile, or nobody waits for it any more


async def _decide(app: Outlive, promise: OpenPromise, content: Mapping[str, Any], caller: Caller) -> None:
    await approvals(app).decide(
        f"{promise.run_id} {promise.key}",
        approve=content.get("approve", False),
        by=caller.name,
        why=content.get("why"),
        roles=caller.roles,
        digest=promise.about["digest"],
    )
