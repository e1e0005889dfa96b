"""Questions of agents: a tool by which the model asks a person, calls whose results come from outside, external events.

Each waits for a promise of the topic `question`, as `outlive.questions` does in a workflow.
Invariant: whatever becomes of a question, the model reads it; a wait that nobody ends fails the call, not the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from pydantic import JsonValue
from pydantic_ai import RunContext
from pydantic_ai.durable_exec import ExternalEventError, ExternalEventWaiter
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, Tool

from outlive.agents.effects import inline
from outlive.agents.places import name_call, within
from outlive.agents.units import Unit, execute
from outlive.clock import Duration
from outlive.engine.roles import LiveRun
from outlive.errors import PromiseExpired, StepFailed
from outlive.limits import ASK_FOR_S
from outlive.messages import await_or_withdraw, promise, withdraw
from outlive.model.agentkeys import QUESTION
from outlive.questions import TOPIC, ask

UNANSWERED = "Unanswered: nobody answered in time."


def question_tool(as_type: Any = str, *, expires: Duration = ASK_FOR_S, name: str = "ask_user") -> Tool[Any]:
    """Give a tool by which the model asks a person: `Agent(…, tools=[question_tool()])`. The answer is of a type.

    `questions(app)` lists what is asked and answers; the model reads when nobody does in time.
    *Durable*: the question, and the answer, in the run of a durable agent; elsewhere the tool is a UsageError.
    """

    async def ask_user(ctx: RunContext[Any], question: str) -> Any:
        about = {"question": question, "agent": ctx.agent.name if ctx.agent else None, "tool": name}
        return await _answered(ask({**about, "arguments": {"question": question}}, as_type, expires))

    return Tool(ask_user, name=name, description="Ask the user, and wait for the answer.", metadata=inline())


async def answer_calls(run: LiveRun, agent: str, requests: DeferredToolRequests) -> dict[str, Any]:
    """Wait for the results of calls that are made elsewhere, or are questions; all wait at the same time."""

    async def answer(call: ToolCallPart) -> Any:
        arguments = call.args_as_dict()
        given = requests.metadata.get(call.tool_call_id, {})
        question = given.get("question") or f"What is the result of {call.tool_name}?"
        about = {"question": question, "agent": agent, "tool": call.tool_name, "arguments": arguments}
        with within(run, f"{QUESTION}:{name_call(call.tool_name, call.tool_call_id)}"):
            try:
                return await _answered(ask(about, Any, ASK_FOR_S))
            except ToolFailed as failed:
                return failed

    answers = await asyncio.gather(*map(answer, requests.calls))
    return {call.tool_call_id: one for call, one in zip(requests.calls, answers, strict=True)}


class PromiseWaiter(ExternalEventWaiter):
    """External events of Pydantic AI, as `RequestInput` waits for them: the token is that of a promise."""

    def __init__(self, run: LiveRun, agent: str) -> None:
        self._run = run
        self._agent = agent

    async def wait(
        self, name: str, *, ask: Callable[[str], Awaitable[JsonValue]], timeout: timedelta | None
    ) -> JsonValue:
        about: dict[str, Any] = {
            "question": name, "agent": self._agent, "tool": None, "arguments": None, "schema": {}, "problem": None,
        }  # fmt: skip
        with within(self._run, f"event:{name_call(name, '')}") as scope:
            made = await promise(timeout, topic=TOPIC, about=about)
            unit = Unit(lambda: ask(made.token), tool=name)
            try:
                answered: JsonValue = await execute(self._run, scope.key("ask"), "ask", unit)
            except (Exception, asyncio.CancelledError):
                withdraw(made)
                raise
            if answered is not None:
                withdraw(made)
                return answered
            try:
                return await await_or_withdraw(made)  # type: ignore[no-any-return]
            except PromiseExpired:
                raise ExternalEventError(f"nobody answered within {timeout}") from None
            except StepFailed as rejected:
                raise ExternalEventError(str(rejected)) from None


async def _answered(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except PromiseExpired:
        raise ToolFailed(UNANSWERED) from None
    except StepFailed as rejected:
        raise ToolFailed(f"Unanswered: {rejected}") from None
