"""`durable(agent)`: a plain Pydantic AI agent, durable within workflows and startable as a workflow of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from inspect import CO_COROUTINE
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar

import pydantic_ai
from pydantic_ai.agent.abstract import AbstractAgent
from pydantic_ai.durable_exec import replay_scope
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult

from outlive.agents.approvals import Policy
from outlive.agents.budget import Budget, check_budgets
from outlive.agents.durability import AgentOptions, OutliveDurability
from outlive.agents.effects import check_effects
from outlive.agents.places import entered, name_agent, new_scope
from outlive.agents.requests import MODEL_RETRY
from outlive.clock import Duration, seconds
from outlive.codec.payload import CallShape
from outlive.definitions import Workflow, current_execution, declared
from outlive.engine.roles import LiveRun
from outlive.engine.threads import current_body
from outlive.errors import UsageError
from outlive.model.agentkeys import AGENT
from outlive.model.definition import Retry, WorkflowSpec
from outlive.version import version_of

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")
_NO_DEPS: Any = object()


class DurableAgent(Workflow[[str], Any], Generic[DepsT, OutputT]):
    """An agent whose model requests and tool calls are entries of the run that executes it.

    Within a workflow: `await durable(agent).run(prompt)`. As a workflow of its own, called `agent.<name>`:
    `app.start(durable(agent), prompt)`, whose result is the agent's output.
    """

    def __init__(
        self, agent: AbstractAgent[DepsT, OutputT], durability: OutliveDurability[DepsT], deps: Any, made_by: FrameType
    ) -> None:
        self.agent = agent
        self.name = durability.name or agent.name or ""
        self._name = name_agent(self.name)
        self._durability = durability
        self._options = {} if deps is _NO_DEPS else {"deps": deps}

        async def answer(prompt: str) -> Any:
            return (await self.run(prompt)).output

        answer.__qualname__ = f"{AGENT}.{self._name}"  # as whoever starts it without a prompt is told
        if isinstance(agent.output_type, type):
            answer.__annotations__["return"] = agent.output_type
        site, is_only_one = self._find_site(made_by)
        super().__init__(
            WorkflowSpec(
                function=answer,
                name=f"{AGENT}.{self._name}",
                is_async=True,
                shape=CallShape(answer),
                site=site,
                version=f"{version_of(answer)}-{pydantic_ai.__version__}",
                is_only_one=is_only_one,
            )
        )

    def _find_site(self, made_by: FrameType) -> tuple[str, bool]:
        """Give where this agent is made durable, and how, and whether others of its name are refused.

        Made durable alike in several places it is one and the same; of those that running code makes the latest counts.
        """
        options = self._durability.options
        for other in list(declared.get(f"{AGENT}.{self._name}", {}).values()):
            if isinstance(other, DurableAgent) and other.agent is self.agent and other._durability.options == options:
                return other.spec.site, other.spec.is_only_one
        if not _is_in_module(made_by):
            return f"{__name__}:{self.name}", False
        return f"{made_by.f_code.co_filename}:{made_by.f_lineno} ({', '.join(options.chosen())})", True

    async def run(self, prompt: Any = None, **options: Any) -> AgentRunResult[OutputT]:
        """Run the agent, with what `agent.run` takes. In a workflow its work is durable, elsewhere it is plain.

        *Durable*: each answer of the model, each result of a tool, one entry each.
        *Again*: replay asks no model and calls no tool; what a crash interrupted goes by its effect class.
        """
        execution = current_execution()
        if current_body.get() is not None and execution is None:
            raise UsageError("a durable agent is for async workflow functions; a plain one starts it as a child run")
        capabilities = [*(options.pop("capabilities", None) or ()), self._durability]
        with nullcontext() if execution is None else _scope(execution, self._name):
            return await self.agent.run(prompt, capabilities=capabilities, **{**self._options, **options})

    def run_stream(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to stream to the caller, who may die: *Raises* UsageError, which says what does not."""
        raise UsageError(
            f"{self.spec.name} streams to whoever follows its run: durable(agent, stream=True), "
            "then events(run) in any program; a workflow awaits run(…)"
        )

    run_stream_events = iter = run_stream


def _is_in_module(frame: FrameType | None) -> bool:
    """Say whether a module executes this, be it through functions: what it makes is there as long as its process."""
    own = None if frame is None else frame.f_globals
    while frame is not None and not frame.f_code.co_flags & CO_COROUTINE:
        if frame.f_code.co_name == "<module>":
            is_imported_now = getattr(frame.f_globals.get("__spec__"), "_initializing", False)
            return is_imported_now or frame.f_globals is own
        frame = frame.f_back
    return False


@contextmanager
def _scope(run: LiveRun, name: str) -> Iterator[None]:
    """Let the units of an agent's run be named by the place where it begins; any id may be given to several runs."""
    with entered(new_scope(run, name)), replay_scope(is_replaying=lambda: _tells_nothing_new(run)):
        yield


def _tells_nothing_new(run: LiveRun) -> bool:
    """Say whether what ends now was told before, or will be: while nothing new is recorded, or as a run only leaves."""
    return run.loop.unwinding or not run.recorder.outcomes


def durable(
    agent: AbstractAgent[DepsT, OutputT],
    *,
    name: str | None = None,
    deps: Any = _NO_DEPS,
    models: Mapping[str, Model] | None = None,
    model_retry: Retry = MODEL_RETRY,
    strict: bool = False,
    effects: Mapping[str, Any] | None = None,
    policy: Policy | None = None,
    stream: bool = False,
    cache: Duration | None = None,
    budget: Budget | Sequence[Budget] | None = None,
) -> DurableAgent[DepsT, OutputT]:
    """Make a Pydantic AI agent durable; the agent itself stays as it is.

    `name` (else the agent's own) is part of every journal: keep it. `deps` are given to each run that brings none,
    `models` are those that a run may switch to. `model_retry` repeats model requests after failures that may pass,
    or those of its `on=`; `strict` refuses tools without an effect class. `effects` gives classes, by the name that
    the model sees, to tools that have none of their own, such as those of MCP servers; "*" is for all others, see
    `annotated`. A name that no tool has fails a run with UsageError before its first model request. `policy` says
    of each call of a tool whether it passes (None), is refused (`Deny`) or waits for people (`Ask`), see
    `approvals`. With `cache` the answer to a model request is given, for so long, to equal requests of all runs; of
    those at one time one is sent. With `stream` models are asked to stream, and programs follow what they say, and
    what tools answer, with `events(run)`. `budget` limits what the agent may use, see `Budget`: what exceeds that
    is not done, and raises BudgetExceeded there.
    *Raises* UsageError for an agent without a name, or one that is durable by itself.
    """
    if not isinstance(agent, AbstractAgent):
        raise UsageError(f"durable() takes an agent of Pydantic AI, not {agent!r}")
    if not (name or agent.name):
        raise UsageError("a durable agent needs a name, which its journals keep: Agent(…, name='support')")
    if OutliveDurability.from_agent(agent):
        raise UsageError("durable(agent) adds OutliveDurability by itself: give it an agent that has none")
    cache_s = None if cache is None else seconds(cache)
    budgets = check_budgets(budget)
    options = AgentOptions(strict, check_effects(effects or {}), model_retry, policy, stream, cache_s, budgets)
    durability = OutliveDurability[Any](options, models=models, name=name)
    try:
        durability.for_agent(agent)  # as each run does: what is wrong with the agent is told here
    except UserError as error:
        raise UsageError(str(error)) from error
    return DurableAgent(agent, durability, deps, sys._getframe(1))
