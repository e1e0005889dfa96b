"""`durable(agent)`: a plain Pydantic AI agent, durable within workflows and startable as a workflow of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

import pydantic_ai
from pydantic_ai.agent.abstract import AbstractAgent
from pydantic_ai.durable_exec import replay_scope
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult

from outlive.agents.approvals import Policy
from outlive.agents.durability import OutliveDurability
from outlive.agents.units import name_agent
from outlive.codec.payload import CallShape
from outlive.definitions import Workflow, current_execution
from outlive.engine.roles import LiveRun
from outlive.engine.threads import current_body
from outlive.errors import UsageError
from outlive.model.definition import ONCE, Retry, WorkflowSpec
from outlive.version import version_of

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")
_NO_DEPS: Any = object()


class DurableAgent(Workflow[[str], Any], Generic[DepsT, OutputT]):
    """An agent whose model requests and tool calls are entries of the run that executes it.

    Within a workflow: `await durable(agent).run(prompt)`. As a workflow of its own, called `agent.<name>`:
    `app.start(durable(agent), prompt)`, whose result is the agent's output.
    """

    def __init__(self, agent: AbstractAgent[DepsT, OutputT], durability: OutliveDurability[DepsT], deps: Any) -> None:
        self.agent = agent
        self._capabilities = () if OutliveDurability.from_agent(agent) else (durability,)
        self._options = {} if deps is _NO_DEPS else {"deps": deps}

        async def answer(prompt: str) -> Any:
            return (await self.run(prompt)).output

        if isinstance(agent.output_type, type):
            answer.__annotations__["return"] = agent.output_type
        super().__init__(
            WorkflowSpec(
                function=answer,
                name=f"agent.{name_agent(durability.name or agent.name)}",
                is_async=True,
                shape=CallShape(answer),
                site=f"{__name__}:{durability.name or agent.name}",
                version=f"{version_of(answer)}-{pydantic_ai.__version__}",
            )
        )

    async def run(self, prompt: Any = None, **options: Any) -> AgentRunResult[OutputT]:
        """Run the agent, with what `agent.run` takes. In a workflow its work is durable, elsewhere it is plain.

        *Durable*: each answer of the model, each result of a tool, one entry each.
        *Again*: replay asks no model and calls no tool; what a crash interrupted goes by its effect class.
        """
        execution = current_execution()
        if current_body.get() is not None and execution is None:
            raise UsageError("a durable agent is for async workflow functions; a plain one starts it as a child run")
        capabilities = [*(options.pop("capabilities", None) or ()), *self._capabilities]
        with nullcontext() if execution is None else replay_scope(is_replaying=lambda: _tells_nothing_new(execution)):
            return await self.agent.run(prompt, capabilities=capabilities, **{**self._options, **options})


def _tells_nothing_new(run: LiveRun) -> bool:
    """Say whether what ends now was told before, or will be: while nothing new is recorded, or as a run only leaves."""
    return run.loop.unwinding or not run.recorder.outcomes


def durable(
    agent: AbstractAgent[DepsT, OutputT],
    *,
    name: str | None = None,
    deps: Any = _NO_DEPS,
    models: Mapping[str, Model] | None = None,
    model_retry: Retry = ONCE,
    strict: bool = False,
    policy: Policy | None = None,
) -> DurableAgent[DepsT, OutputT]:
    """Make a Pydantic AI agent durable; the agent itself stays as it is.

    `name` (else the agent's own) is part of every journal: keep it. `deps` are given to each run that brings none,
    `models` are those that a run may switch to. `model_retry` repeats failed model requests; `strict` refuses tools
    without an effect class. `policy` says of each call of a tool whether it passes (None), is refused (`Deny`) or
    waits for people (`Ask`), see `approvals`. *Raises* UsageError for an agent without a name.
    """
    if not isinstance(agent, AbstractAgent):
        raise UsageError(f"durable() takes an agent of Pydantic AI, not {agent!r}")
    if not (name or agent.name):
        raise UsageError("a durable agent needs a name, which its journals keep: Agent(…, name='support')")
    durability = OutliveDurability[Any](name=name, models=models, model_retry=model_retry, strict=strict, policy=policy)
    try:
        durability.for_agent(agent)  # as each run does: what is wrong with the agent is told here
    except UserError as error:
        raise UsageError(str(error)) from error
    return DurableAgent(agent, durability, deps)
