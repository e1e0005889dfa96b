"""`validated(…)`: an agent's output is asked for until it has its type, keeps the rules and fits the facts.

What does not comes back to the model, so many times; then a person decides. The type
is Pydantic AI's business, what the checks look up is theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar, Union, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_ai import NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.run import AgentRunResult
from pydantic_core import to_jsonable_python

from outlive.agents.budget import Budget, check_budgets
from outlive.agents.durable import DurableAgent
from outlive.agents.guards.checks import Check, find_complaints
from outlive.agents.guards.together import together
from outlive.clock import Duration, seconds
from outlive.definitions import in_workflow
from outlive.engine.roles import LiveRun
from outlive.errors import ValidationExhausted
from outlive.limits import ASK_FOR_S
from outlive.model.options import check_count
from outlive.reviews import Decision, ask_for_review

OutputT = TypeVar("OutputT")
_WHAT = "validation of output"


async def validated(
    agent: DurableAgent[Any, OutputT],
    prompt: Any,
    *,
    checks: Sequence[Check] = (),
    attempts: int = 3,
    expires: Duration = ASK_FOR_S,
    budget: Budget | Sequence[Budget] | None = None,
    **options: Any,
) -> OutputT:
    """Run a durable agent, in a workflow, until its output passes all checks; give the output.

    A check is a function of the output that gives None, or a text that says what is wrong: the model reads it and
    tries again. After `attempts` a person has until `expires` to accept the last output as it is or a corrected
    `value`, to let the agent try again, or to reject, see `reviews`. `budget` limits what all attempts may use
    together, see `Budget`. `options` are what `agent.run` takes.
    *Durable*: the agent's work, what each check said, and the decision, as entries. *Again*: replay asks nobody.
    *Raises* ValidationExhausted if a person rejects, or nobody decides in time; BudgetExceeded.
    """
    run = in_workflow("agents.validated")
    check_count("validated(attempts=…)", attempts)
    seconds(expires)
    async with together(run, "validated", check_budgets(budget)):
        return await _loop(run, agent, prompt, checks, attempts, expires, options)


async def _loop(
    run: LiveRun,
    agent: DurableAgent[Any, OutputT],
    prompt: Any,
    checks: Sequence[Check],
    attempts: int,
    expires: Duration,
    options: dict[str, Any],
) -> OutputT:
    history = options.pop("message_history", None)
    failed: list[dict[str, Any]] = []
    left, said = attempts, prompt
    while True:
        result, complaints = await _attempt(agent, said, history, checks, options)
        if result is not None and not complaints:
            return result.output
        output = None if result is None else to_jsonable_python(result.output)
        failed.append({"output": output, "complaints": complaints})
        advice = "Your answer was checked and does not pass:\n" + "\n".join(f"- {text}" for text in complaints)
        left -= 1
        if left == 0:
            decision, accepted = await _decide(agent, result, failed, complaints, expires)
            if decision.verdict == "accept":
                return cast(OutputT, accepted)
            if decision.verdict == "reject":
                raise ValidationExhausted(run.id, _WHAT, "; ".join(complaints), decision.by, decision.why)
            left, advice = attempts, "\n\n".join(filter(None, [decision.why, advice]))
        if result is not None:
            history, said = result.all_messages(), advice
        else:  # there is no conversation to go on with
            said = [*([prompt] if isinstance(prompt, str) else prompt or ()), advice]


async def _attempt(
    agent: DurableAgent[Any, OutputT], said: Any, history: Any, checks: Sequence[Check], options: dict[str, Any]
) -> tuple[AgentRunResult[OutputT] | None, list[str]]:
    try:
        result = await agent.run(said, message_history=history, **options)
    except UnexpectedModelBehavior as error:
        return None, [f"there is no output of the type asked for: {error.message}"]
    return result, await find_complaints(checks, result.output)


async def _decide(
    agent: DurableAgent[Any, OutputT],
    result: AgentRunResult[OutputT] | None,
    failed: list[dict[str, Any]],
    complaints: list[str],
    expires: Duration,
) -> tuple[Decision, Any]:
    """Ask a person, again if what he accepts is no output; give the decision, and what is accepted."""
    reason = "; ".join(complaints)
    while True:
        decision = await ask_for_review(_WHAT, reason, {"agent": agent.agent.name, "attempts": failed}, expires)
        if decision.verdict != "accept":
            return decision, None
        if decision.value is None:
            if result is not None:
                return decision, result.output
            reason = "there is no output to accept as it is: give value=…"
            continue
        try:
            return decision, _read(agent, decision.value)
        except ValidationError as error:
            reason = f"the value that {decision.by} gave is no output of this agent: {error}"


def _read(agent: DurableAgent[Any, Any], value: Any) -> Any:
    return TypeAdapter(_type_of(agent.agent.output_type)).validate_python(value)


def _type_of(kind: Any) -> Any:
    """Give the type of what an agent with this `output_type` gives; what a function gives is anybody's guess."""
    if isinstance(kind, list | tuple):
        return Union[tuple(map(_type_of, kind))]  # noqa: UP007 - of so many as there are
    if isinstance(kind, NativeOutput | PromptedOutput):
        return _type_of(kind.outputs)
    if isinstance(kind, ToolOutput):
        return _type_of(kind.output)
    return Any if isinstance(kind, TextOutput) or inspect.isroutine(kind) else kind
