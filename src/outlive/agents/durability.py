"""The durability engine that Pydantic AI sees: where units are journaled, how it waits, how agent runs are called.

A capability of an agent. Inside a workflow it sends each unit of the agent's work
through `units`; everywhere else the agent is as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from datetime import datetime
from typing import Any, Literal

from pydantic_ai.agent import Agent
from pydantic_ai.agent.abstract import AbstractAgent
from pydantic_ai.capabilities.abstract import WrapRunHandler, WrapToolExecuteHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationId,
    RoleBasedOperationConfig,
    ToolsetValidateToolArgumentsId,
    conversation_id_from_run_id,
)
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests, DeferredToolResults, RunContext, ToolDefinition

from outlive.agents.approvals import VERDICT, Policy, ToolCall, judge, resolve
from outlive.agents.effects import AT_MOST_ONCE, EFFECT_KEY, PURE, Effect, find_effect
from outlive.agents.units import UnitBackend, current_scope, name_agent, name_call
from outlive.clock import to_datetime
from outlive.definitions import current_execution
from outlive.engine.branch import Branch
from outlive.errors import EncodeFailed
from outlive.model.definition import ONCE, Retry


class OutliveDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes an agent durable in the workflows that run it; `durable(agent)` adds it by itself."""

    engine_spec = DurabilityEngineSpec(
        engine_name="Outlive",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=JSON_CODEC,
        # A unit executes on the main loop, its run on a loop of its own: nothing may be entered there and used here.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-never", "dynamic": "enter-never"},
        tool_config_key=EFFECT_KEY,
        serialization_failure=lambda error: EncodeFailed("a result within an agent", str(error)),
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        name: str | None = None,
        strict: bool = False,
        model_retry: Retry = ONCE,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(models=models, name=name)
        self._strict = strict
        self._policy = policy
        self._model_effect = Effect("pure", model_retry)
        self._backend: UnitBackend | None = None

    def _bind_to_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        config = RoleBasedOperationConfig(
            model=self._model_effect, event=PURE, capability=PURE, tool=AT_MOST_ONCE, resolve_tool=self._effect_of
        )
        self._backend = UnitBackend(agent_name=self.name, config=config)
        super()._bind_to_agent(agent)

    def _effect_of(self, operation_id: DurableOperationId, tool: Any, name: str) -> Effect | Literal[False]:
        """Give how a unit of a toolset is executed; asked without a tool, for listing tools and the like."""
        if tool is None:
            return PURE
        effect = find_effect(tool.tool_def.metadata, name, strict=self._strict)
        return PURE if effect and isinstance(operation_id, ToolsetValidateToolArgumentsId) else effect

    def get_durable_operation_backend(self) -> UnitBackend:
        assert self._backend is not None
        return self._backend

    @property
    def in_durable_context(self) -> bool:
        return current_execution() is not None

    def get_default_run_id(self) -> str | None:
        run = current_execution()
        if run is None:
            return None
        around = current_scope.get() or run.loop.branch()
        return f"{run.id}/{around.key(name_agent(self.name))}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    def get_run_clock(self) -> Callable[[], datetime] | None:
        run = current_execution()
        return None if run is None else lambda: to_datetime(run.loop.time())

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        clock = self.get_run_clock()
        return None if clock is None else clock()

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        run = current_execution()
        if run is None:
            return await handler()
        token = current_scope.set(Branch(f"{_scope_of(run.id, self.name, ctx.run_id)}/"))
        try:
            with (
                Agent.using_thread_executor(_Callbacks(run.engine.bodies.threads)),
                Agent.using_sleep(asyncio.sleep),
            ):
                return await super().wrap_run(ctx, handler=handler)
        finally:
            current_scope.reset(token)

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
        if self._policy is not None and not ctx.tool_call_approved:
            asked = ToolCall(self.name, call.tool_name, args)
            verdict = judge(run, scope, self._policy, asked, call.tool_call_id)
            if verdict is not None:
                raise ApprovalRequired({VERDICT: verdict})
        if (tool_def.metadata or {}).get(EFFECT_KEY) is not False:
            return await handler(args)
        inner = Branch(f"{scope.key('tool:' + name_call(call.tool_name, call.tool_call_id))}/")
        token = current_scope.set(inner)
        try:
            with run.loop.within(inner):
                return await handler(args)
        finally:
            current_scope.reset(token)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Wait for people where calls need approval; calls that others execute are left to others."""
        run = current_execution()
        if run is None or not requests.approvals:
            return None
        return await resolve(run, self.name, ctx.tools, requests)


def _scope_of(run_id: str, name: str, agent_run_id: str | None) -> str:
    """Give the scope of an agent run's units: of the place where it began, or of the id that its caller gave it."""
    prefix, given = f"{run_id}/", agent_run_id or ""
    return given.removeprefix(prefix) if given.startswith(prefix) else f"{name_agent(name)}({name_agent(given)})"


class _Callbacks(Executor):
    """Where an agent's plain functions execute: on a run loop at once, as all of a body does; in units in a thread."""

    at_once = True  # what a run loop asks

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(fn, *args, **kwargs)
