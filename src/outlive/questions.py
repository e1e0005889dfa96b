"""Questions: a run asks a person something and waits for the answer; programs list what is asked, and answer.

A question is a promise of the topic `question` that tells the JSON schema of its answer.
Invariant: what a run gets is an answer of the type it has asked for. What does not fit is refused where it is given,
and whatever reaches the run by another way makes it ask again; a question is answered once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from outlive.app import Outlive
from outlive.clock import Duration
from outlive.codec.payload import encode
from outlive.codec.plain import is_pydantic
from outlive.definitions import for_async_bodies, in_workflow
from outlive.errors import DecodeFailed, RunRefused, UsageError
from outlive.inbox import Inbox, check_person
from outlive.limits import ASK_FOR_S
from outlive.messages import await_or_withdraw, promise

__all__ = ["ask_user"]

TOPIC = "question"


# -- in workflow bodies ---------------------------------------------------------
@for_async_bodies
async def ask_user(question: str, *, as_type: Any = str, expires: Duration = ASK_FOR_S) -> Any:
    """Ask a person, and wait durably for an answer of a type; `questions(app)` lists and answers.

    *Durable*: the question, before the next effect of this run; the answer as an entry. *Again*: replay asks nobody.
    *Raises* PromiseExpired if nobody answers in time, StepFailed if somebody declines to, UsageError for a type whose
    JSON cannot be described.
    """
    if not isinstance(question, str) or not question:
        raise UsageError(f"ask_user(question, …) asks something, not {question!r}")
    return await ask({"question": question}, as_type, expires)


async def ask(about: dict[str, Any], as_type: Any, expires: Duration) -> Any:
    """Wait for an answer; `about` is the question, and which call of which agent's tool it is."""
    run = in_workflow("ask_user")
    told = {"agent": None, "tool": None, "arguments": None, **about, "schema": _schema_of(as_type), "problem": None}
    while True:
        answer = await await_or_withdraw(await promise(expires, topic=TOPIC, about=told))
        text = encode(run.codec, answer, where="an answer")
        try:
            return run.codec.decode(text, as_type, where="an answer")
        except DecodeFailed as problem:  # whoever has the token may settle the promise with anything
            told = {**told, "problem": str(problem)}


def _schema_of(as_type: Any) -> dict[str, Any]:
    try:
        if is_pydantic(as_type):
            return as_type.model_json_schema()  # type: ignore[no-any-return]
        return msgspec.json.schema(as_type)
    except (TypeError, RuntimeError) as error:
        raise UsageError(f"as_type={as_type!r} has no JSON schema: {error}") from None


# -- in programs ----------------------------------------------------------------
@dataclass(frozen=True)
class Question:
    """What a run waits for: an answer of this JSON `schema`; `tool` and `arguments` if a call of an agent asks.

    `problem` says why the answer before was none.
    """

    id: str
    run_id: str
    question: str
    schema: dict[str, Any]
    agent: str | None
    tool: str | None
    arguments: dict[str, Any] | None
    problem: str | None
    created_at: datetime
    expires_at: datetime | None


class Questions(Inbox[Question]):
    """See `questions`."""

    topic, item = TOPIC, Question
    answered = "answered"

    async def answer(self, id: str, value: Any, *, by: str, why: str | None = None) -> None:
        """Answer a question, once, with a value that is JSON of its schema.

        *Durable*: the answer, with who and why in the audit, before this returns. *Again*: a second one is refused.
        *Raises* RunRefused, with the reason, for what is no answer, and where nobody waits for one: nothing is changed.
        """
        check_person(by, why)
        waiting = await self._waiting(id)
        problem = explain_misfit(waiting.about["schema"], value)
        if problem is not None:
            raise RunRefused(waiting.run_id, f"this is no answer to {waiting.about['question']!r}: {problem}")
        await self._settle(waiting, "this question", value, by, why, {"decided": "answer"})

    async def decline(self, id: str, *, by: str, why: str | None = None) -> None:
        """Decline to answer, once: who has asked gets a StepFailed that says who and why; a model reads it.

        *Durable*, *Again*, *Raises*: as `answer`.
        """
        check_person(by, why)
        declined = f"{by} declined to answer{f': {why}' if why else ''}"
        waiting = await self._waiting(id)
        await self._settle(waiting, "this question", None, by, why, {"decided": "decline"}, error=declined)


def questions(app: Outlive) -> Questions:
    """Give the questions of an app, a client or a worker; answers are checked with the extra `agents`."""
    return Questions(app)


def explain_misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """Say what is wrong with what a person has given, None if nothing is: it fits the JSON schema."""
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry
    except ImportError as error:
        raise UsageError("what people answer is checked with jsonschema: pip install 'outlive[agents]'") from error
    validator = Draft202012Validator(schema, registry=Registry())  # an empty one: no schema is fetched from anywhere
    found = next(iter(validator.iter_errors(value)), None)
    return None if found is None else f"{found.message} ({found.json_path})"
