"""The durability engine that Pydantic AI sees: where units are journaled, how it waits, how agent runs are called.

A capability of an agent. Inside a workflow it sends each unit of the agent's work
through `units`; everywhere else the agent is as it was.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, cast, get_args

from pydantic import ValidationError
from pydantic_ai.agent import Agent
from pydantic_ai.agent.abstract import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.capabilities.abstract import (
    CapabilityOrdering,
    WrapRunHandler,
    WrapToolExecuteHandler,
    WrapToolValidateHandler,
)
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetValidateToolArgumentsId,
    conversation_id_from_run_id,
    external_event_scope,
)
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import AgentStreamEvent, ToolCallPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests, DeferredToolResults, RunContext, ToolDefinition
from pydantic_ai.toolsets import FunctionToolset

from outlive.agents.approvals import POLICY_KEY, Ask, Deny, Policy, ToolCall, ask_policy, resolve
from outlive.agents.budget import Budget, charged_to, current_charges, open_charges
from outlive.agents.effects import AT_MOST_ONCE, EFFECT_KEY, PURE, Annotated, Effect, check_names, find_effect
from outlive.agents.places import current_scope, entered, name_call, new_scope
from outlive.agents.questions import PromiseWaiter, answer_calls
from outlive.agents.requests import MODEL_RETRY, RequestRetry, leave_retries_to_us
from outlive.agents.servers import HeldServer, hold_given
from outlive.agents.spending import bound_answer
from outlive.agents.streams import OF_MODEL, show_model, show_once
from outlive.agents.units import UnitBackend, listed_tools
from outlive.ambient import gather
from outlive.clock import to_datetime
from outlive.definitions import current_execution
from outlive.engine.roles import Host, LiveRun
from outlive.errors import EncodeFailed, UsageError
from outlive.model.agentkeys import TOOL
from outlive.model.definition import Retry

# What the model calls the tool whose call is being validated or executed.
_seen_as: contextvars.ContextVar[str | None] = contextvars.ContextVar("outlive_tool_seen_as", default=None)


@dataclass(frozen=True)
class AgentOptions:
    """How an agent is durable, as `durable` was told, and checked."""

    strict: bool = False
    effects: Mapping[str, Effect | Annotated | Literal[False]] = field(default_factory=dict)
    retry: Retry = MODEL_RETRY
    policy: Policy | None = None
    stream: bool = False
    cache_s: float | None = None
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        if self.cache_s == 0:
            raise UsageError("durable(…, cache=…) is how long answers are shared, more than 0")
        if self.policy is not None and (not callable(self.policy) or inspect.iscoroutinefunction(self.policy)):
            raise UsageError(
                "durable(…, policy=…) takes a plain function of a ToolCall that gives Ask(…), Deny(…) or None, not "
                f"{self.policy!r}; what it has to look up belongs into a tool, or into deps, which it sees"
            )
        if not isinstance(self.retry, Retry):
            raise UsageError(f"durable(…, model_retry=…) takes a Retry, not {self.retry!r}")

    def chosen(self) -> list[str]:
        """Give what tells one agent of a name from another: the policy, and what else is not as by default."""
        policy = "no policy" if self.policy is None else f"policy={getattr(self.policy, '__qualname__', self.policy)}"
        others = {"strict": self.strict, "effects": self.effects, "stream": self.stream, "budget": self.budgets}
        return [policy, *(name for name, value in others.items() if value)]


class OutliveDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes an agent durable in the workflows that run it; `durable(agent)` adds it by itself."""

    engine_spec = DurabilityEngineSpec(
        engine_name="Outlive",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=JSON_CODEC,
        # A unit executes on the main loop, its run on a loop of its own: nothing may be entered there and used here.
        # In workflows, `servers` has the sessions.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-outside-durable", "dynamic": "enter-never"},
        tool_config_key=EFFECT_KEY,
        serialization_failure=lambda error: EncodeFailed("a result within an agent", str(error)),
    )

    def __init__(
        self, options: AgentOptions, *, models: Mapping[str, Model] | None = None, name: str | None = None
    ) -> None:
        super().__init__(models=models, name=name)
        self.options = options
        self._models = dict(models or {})
        self._model_effect = Effect("pure", RequestRetry(**vars(options.retry)))
        self._backend: UnitBackend | None = None

    def _bind_to_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        config = RoleBasedOperationConfig(
            model=self._model_effect, event=PURE, capability=PURE, tool=AT_MOST_ONCE, resolve_tool=self._effect_of
        )
        self._backend = UnitBackend(
            agent_name=self.name, config=config, models=self._models, cache_s=self.options.cache_s
        )
        super()._bind_to_agent(agent)

    def _effect_of(self, operation_id: DurableOperationId, tool: Any, name: str) -> Effect | Literal[False]:
        """Give how a unit of a toolset is executed; asked without a tool, for listing tools and the like."""
        if tool is None:
            return PURE
        name = _seen_as.get() or name
        effect = find_effect(tool.tool_def.metadata, name, strict=self.options.strict, effects=self.options.effects)
        is_remote = isinstance(operation_id, ToolsetCallToolId) and operation_id.toolset_kind == "mcp"
        if is_remote and (effect is False or effect.name == "transactional"):
            raise UsageError(f"tool {name!r} is executed by a server: it can be neither inline nor transactional")
        return PURE if effect and isinstance(operation_id, ToolsetValidateToolArgumentsId) else effect

    def _build_mcp_toolset(self, toolset: Any) -> Any:
        built = super()._build_mcp_toolset(HeldServer(toolset))
        built.wrapped = toolset  # by which Pydantic AI finds it; units use the other one
        return built

    def _build_dynamic_toolset(self, toolset: Any) -> Any:
        built = super()._build_dynamic_toolset(hold_given(toolset))
        built.wrapped = toolset
        return built

    def get_durable_operation_backend(self) -> UnitBackend:
        assert self._backend is not None
        return self._backend

    @property
    def in_durable_context(self) -> bool:
        return current_execution() is not None

    def get_model_settings(self) -> Callable[[RunContext[AgentDepsT]], ModelSettings]:
        def settings(ctx: RunContext[AgentDepsT]) -> ModelSettings:
            given = leave_retries_to_us(cast(Model, ctx.model), ctx.model_settings) if self.in_durable_context else {}
            return cast(ModelSettings, given)

        return settings

    def get_default_run_id(self) -> str | None:
        run, scope = current_execution(), current_scope.get()
        return None if run is None or scope is None else f"{run.id}/{scope.scope.removesuffix('/')}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    def get_run_clock(self) -> Callable[[], datetime] | None:
        run = current_execution()
        return None if run is None else lambda: to_datetime(run.loop.time())

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        clock = self.get_run_clock()
        return None if clock is None else clock()

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        run, scope = current_execution(), current_scope.get()
        if run is None or scope is None:
            return await handler()
        with (
            charged_to(open_charges(run, scope.scope, self.options.budgets)),
            external_event_scope(PromiseWaiter(run, self.name)),
            Agent.using_thread_executor(_Callbacks(run.engine)),
            Agent.using_sleep(asyncio.sleep),
        ):
            token = listed_tools.set(set())
            try:
                return await super().wrap_run(ctx, handler=handler)
            finally:
                listed_tools.reset(token)

    async def prepare_tools(self, ctx: RunContext[AgentDepsT], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
        """Refuse effects for tools that there are not, and tools whose own is wrong or missing, when all are listed."""
        listed = listed_tools.get() if self.in_durable_context else None
        if listed is not None and ctx.run_step <= 1:
            seen = {one.name for one in tool_defs}
            check_names(self.name, self.options.effects, seen, listed | _functions_of(ctx.agent))
            for one in tool_defs:
                if one.kind != "external":  # that others execute
                    find_effect(one.metadata, one.name, strict=self.options.strict, effects=self.options.effects)
        return await super().prepare_tools(ctx, tool_defs)

    async def wrap_tool_validate(
        self,
        ctx: RunContext[AgentDepsT],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: Any,
        handler: WrapToolValidateHandler,
    ) -> dict[str, Any]:
        """Let the units of a call know what the model calls the tool."""
        with _called(call.tool_name):
            return await super().wrap_tool_validate(ctx, call=call, tool_def=tool_def, args=args, handler=handler)

    async def prepare_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Let a budget say how long the answer may be, where nobody else does."""
        prepared = await super().prepare_model_request(ctx, request_context)
        charges = current_charges.get() if self.in_durable_context else None
        if charges is not None:
            prepared.model_settings = bound_answer(charges, prepared.model_settings)
        return prepared

    @property
    def has_wrap_run_event_stream(self) -> bool:
        """Whether models are asked to stream."""
        return super().has_wrap_run_event_stream or (self.options.stream and self.in_durable_context)

    def _model_stream_event_handler(self) -> EventStreamHandler[AgentDepsT] | None:
        return show_model if self.options.stream else super()._model_stream_event_handler()

    async def wrap_run_event_stream(
        self, ctx: RunContext[AgentDepsT], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterator[AgentStreamEvent]:
        run, scope = current_execution(), current_scope.get()
        async with aclosing(cast(AsyncGenerator[Any], super().wrap_run_event_stream(ctx, stream=stream))) as events:
            async for event in events:
                if self.options.stream and run is not None and scope is not None and not isinstance(event, OF_MODEL):
                    show_once(run, scope, event)
                yield event

    async def wrap_tool_execute(
        self,
        ctx: RunContext[AgentDepsT],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Let what an inline tool awaits be named by its call: the tasks of Pydantic AI may change with a release."""
        run, scope = current_execution(), current_scope.get()
        if run is None or scope is None:
            return await handler(args)
        if self.options.policy is not None and not ctx.tool_call_approved:
            asked = ToolCall(self.name, call.tool_name, args, ctx.deps)
            with run.loop.within(scope):
                verdict = ask_policy(run, self.options.policy, asked, call.tool_call_id)
            if verdict is not None:
                raise ApprovalRequired({POLICY_KEY: verdict})
        with _called(call.tool_name):
            if self._is_inline(call.tool_name, tool_def):
                return await self._execute_inline(run, call, args, handler)
            return await handler(args)

    def _is_inline(self, name: str, tool_def: ToolDefinition) -> bool:
        return find_effect(tool_def.metadata, name, strict=False, effects=self.options.effects) is False

    async def _execute_inline(
        self, run: LiveRun, call: ToolCallPart, args: dict[str, Any], handler: WrapToolExecuteHandler
    ) -> Any:
        inner = new_scope(run, f"{TOOL}:{name_call(call.tool_name, call.tool_call_id)}")
        with entered(inner), run.loop.within(inner):
            return await handler(args)

    def get_ordering(self) -> CapabilityOrdering:
        """Come before `RequestInput`: whom a policy asks is not for somebody else to say."""
        return replace(super().get_ordering(), wraps=[RequestInput])

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Wait for people where calls need approval, and for what calls wait for elsewhere, unless others do."""
        run = current_execution()
        if run is None:
            return None
        if _has_request_input(ctx):
            ours = [call for call in requests.approvals if POLICY_KEY in requests.metadata.get(call.tool_call_id, {})]
            requests = replace(requests, approvals=ours, calls=[])
        elif _ends_with_requests(ctx.agent):
            requests = replace(requests, calls=[])
        if not requests.approvals and not requests.calls:
            return None
        approvals, answers = await gather(
            resolve(run, self.name, ctx.tools, requests, partial(self._ask_policy_again, run, ctx)),
            answer_calls(run, self.name, requests),
        )
        return DeferredToolResults(approvals=approvals, calls=answers)

    def _ask_policy_again(
        self, run: LiveRun, ctx: RunContext[AgentDepsT], call: ToolCallPart, arguments: Mapping[str, Any]
    ) -> Ask | Deny | None:
        """Ask the policy about arguments that a person has put in place of the model's."""
        if self.options.policy is None or ctx.tool_manager is None or ctx.tool_manager.tools is None:
            return None
        try:
            validator = ctx.tool_manager.tools[call.tool_name].args_validator
            validated = validator.validate_python(dict(arguments), context=ctx.validation_context)
        except ValidationError:  # the model is told so, and the tool not called
            return None
        asked = ToolCall(self.name, call.tool_name, validated, ctx.deps)
        return ask_policy(run, self.options.policy, asked, call.tool_call_id)


@contextmanager
def _called(name: str) -> Iterator[None]:
    token = _seen_as.set(name)
    try:
        yield
    finally:
        _seen_as.reset(token)


def _functions_of(agent: AbstractAgent[Any, Any] | None) -> set[str]:
    """Give the names of an agent's functions, those included that this run may not see."""
    leaves: list[Any] = []
    for toolset in () if agent is None else agent.toolsets:
        toolset.apply(leaves.append)
    return {name for leaf in leaves if isinstance(leaf, FunctionToolset) for name in leaf.tools}


def _has_request_input(ctx: RunContext[Any]) -> bool:
    leaves: list[Any] = []
    if ctx.root_capability is not None:
        ctx.root_capability.apply(leaves.append)
    return any(isinstance(leaf, RequestInput) for leaf in leaves)


def _ends_with_requests(agent: AbstractAgent[Any, Any] | None) -> bool:
    """Say whether an agent gives calls that others make to whoever runs it."""
    wanted: Any = None if agent is None else agent.output_type
    return DeferredToolRequests in (wanted if isinstance(wanted, list | tuple) else [wanted, *get_args(wanted)])


class _Callbacks(Executor):
    """Where an agent's plain functions execute: on a run loop at once, as all of a body does; in units in a thread."""

    at_once = True  # what a run loop asks

    def __init__(self, engine: Host) -> None:
        self._engine = engine

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._engine.bodies.threads.submit(fn, *args, **kwargs)  # type: ignore[no-any-return]
