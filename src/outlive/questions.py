"""Questions: a run asks a person something and waits for the answer; programs list what is asked, and answer.

A question is a promise of the topic `question` that tells the JSON schema of its answer.
Invariant: what a run gets is an answer of the type it has asked for. What does not fit is refused where it is given,
and whatever reaches the run by another way makes it ask again; a question is answered once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from outlive.app import Outlive
from outlive.clock import Duration
from outlive.codec.payload import encode
from outlive.codec.plain import is_pydantic
from outlive.definitions import for_async_bodies, in_workflow
from outlive.errors import AlreadySettled, DecodeFailed, PromiseExpired, PromiseNotFound, RunRefused, UsageError
from outlive.messages import promise
from outlive.promises import OpenPromise

__all__ = ["ask_user"]

TOPIC = "question"
WEEK_S = 7 * 86_400.0


# -- in workflow bodies ---------------------------------------------------------
@for_async_bodies
async def ask_user(question: str, *, as_type: Any = str, expires: Duration = WEEK_S) -> Any:
    """Ask a person, and wait durably for an answer of a type; `questions(app)` lists and answers.

    *Durable*: the question, before the next effect of this run; the answer as an entry. *Again*: replay asks nobody.
    *Raises* PromiseExpired if nobody answers in time, UsageError for a type whose JSON cannot be described.
    """
    if not isinstance(question, str) or not question:
        raise UsageError(f"ask_user(question, …) asks something, not {question!r}")
    return await ask({"question": question}, as_type, expires)


async def ask(about: dict[str, Any], as_type: Any, expires: Duration) -> Any:
    """Wait for an answer; `about` is the question, and which call of which agent's tool it is."""
    run = in_workflow("ask_user")
    told = {"agent": None, "tool": None, "arguments": None, **about, "schema": _schema_of(as_type), "problem": None}
    while True:
        answer = await (await promise(expires, topic=TOPIC, about=told))
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


@dataclass(frozen=True)
class QuestionPage:
    """Some open questions; `next` is the `after` of the following page, None at the end."""

    items: list[Question]
    next: str | None


class Questions:
    """See `questions`."""

    def __init__(self, app: Outlive) -> None:
        if not isinstance(app, Outlive):
            raise UsageError(f"questions(app) takes an outlive.Outlive, open in an event loop, not {app!r}")
        self._app = app

    async def list(self, *, run_id: str | None = None, limit: int = 100, after: str | None = None) -> QuestionPage:
        """List the questions that wait for an answer, the oldest first; of one run, or of all."""
        page = await self._app.promises(TOPIC, run_id=run_id, limit=limit, after=after)
        return QuestionPage([_question(one) for one in page.items], page.next)

    async def find(self, id: str) -> Question | None:
        """Find a question by its id; None if it was answered, has expired, or never was."""
        found = await self._find(id)
        return None if found is None else _question(found)

    async def answer(self, id: str, value: Any, *, by: str, why: str | None = None) -> None:
        """Answer a question, once, with a value that is JSON of its schema.

        *Durable*: the answer, with who and why in the audit, before this returns. *Again*: a second one is refused.
        *Raises* RunRefused, with the reason, for what is no answer, and where nobody waits for one: nothing is changed.
        """
        if not isinstance(by, str) or not by:
            raise UsageError("answer(…, by=…) says who answers")
        found = await self._find(id)
        run_id = id.rpartition(" ")[0]
        if found is None:
            raise RunRefused(run_id, "no such question waits there: it was answered, has expired, or never was")
        problem = _explain(found.about["schema"], value)
        if problem is not None:
            raise RunRefused(run_id, f"this is no answer to {found.about['question']!r}: {problem}")
        try:
            await self._app.settle(found.token, value, by=by, reason=why)
        except AlreadySettled:
            raise RunRefused(run_id, "this question has been answered already") from None
        except (PromiseExpired, PromiseNotFound):
            raise RunRefused(run_id, "nobody waits for an answer to this question any more") from None

    async def _find(self, id: str) -> OpenPromise | None:
        run_id, _, key = id.rpartition(" ") if isinstance(id, str) else ("", "", "")
        if not run_id:
            raise UsageError(f"a question's id is that of its run, a space and its key, not {id!r}")
        found = await self._app.find_promise(run_id, key)
        return found if found is not None and found.topic == TOPIC else None


def questions(app: Outlive) -> Questions:
    """Give the questions of an app, a client or a worker; answers are checked with the extra `agents`."""
    return Questions(app)


def _question(one: OpenPromise) -> Question:
    names = ("question", "schema", "agent", "tool", "arguments", "problem")
    facts = {name: one.about[name] for name in names}
    return Question(
        f"{one.run_id} {one.key}", one.run_id, **facts, created_at=one.created_at, expires_at=one.expires_at
    )


def _explain(schema: dict[str, Any], value: Any) -> str | None:
    """Say what is wrong with an answer, None if nothing is."""
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry
    except ImportError as error:
        raise UsageError("answers are checked with jsonschema: pip install 'outlive[agents]'") from error
    validator = Draft202012Validator(schema, registry=Registry())  # an empty one: no schema is fetched from anywhere
    found = next(iter(validator.iter_errors(value)), None)
    return None if found is None else f"{found.message} ({found.json_path})"
