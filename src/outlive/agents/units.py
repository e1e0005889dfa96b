"""Units of an agent's work as entries of a run: a model request, a tool call, a listing of tools.

Knows how the body of each effect class executes; must not know what a tool or a model does.
Invariant: a unit has the key that `places` gives it, whatever tasks Pydantic AI makes.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_ai.durable_exec import (
    JSON_CODEC,
    CallToolResult,
    DurableOperationId,
    JournalCallableOperationBackend,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetGetToolsId,
    record_durable_unit,
)
from pydantic_ai.models import Model

from outlive.agents.answers import name_answer, share
from outlive.agents.effects import PURE, Effect, current_tx
from outlive.agents.places import current_scope, name_unit
from outlive.agents.requests import ask, name_model, revive
from outlive.agents.servers import Interrupted
from outlive.agents.spending import Spending, spending_of
from outlive.codec.payload import CallShape
from outlive.codec.plain import storable
from outlive.definitions import in_workflow
from outlive.engine.bodies import StillInDoubt, current_step, executing_step, had_no_effect
from outlive.engine.calls import StepCall
from outlive.engine.invoke import wait_for
from outlive.engine.roles import LiveRun
from outlive.engine.transactions import Undone, current_transaction
from outlive.errors import StepFailed
from outlive.limits import INTERRUPTIONS_MAX
from outlive.model.definition import StepSpec

# Who wants to know of each unit as it is asked for: its key, what it is, and its effect class.
told_of_units: contextvars.ContextVar[Callable[[str, DurableOperationId, tuple[Any, ...], Effect], object] | None] = (
    contextvars.ContextVar("outlive_told_of_units", default=None)
)

# The names of the tools that toolsets have listed in the agent run that is executing.
listed_tools: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("outlive_listed_tools", default=None)

log = logging.getLogger("outlive.agents")


@dataclass
class Unit:
    """What a step of an agent executes: a body, in the context of whoever asked for it."""

    body: Callable[[], Awaitable[Any]]
    effect: Effect = PURE
    is_call: bool = False  # of a tool, so a model reads what becomes of it
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False  # it may have begun before, in another process or generation
    spending: Spending | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class UnitBackend(JournalCallableOperationBackend[Effect]):
    """Executes each unit as a step of the run whose body is executing; `cache_s`: how long answers are shared."""

    def __init__(
        self,
        *,
        agent_name: str,
        config: RoleBasedOperationConfig[Effect],
        models: Mapping[str, Model],
        cache_s: float | None,
    ) -> None:
        super().__init__(agent_name=agent_name, config=config)
        self._models = models
        self._cache_s = cache_s

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,  # what Pydantic AI would call it; `name_unit` is shorter
        body: Callable[[], Awaitable[Any]],
        cache_key: tuple[Any, ...],
        config: Effect,
    ) -> object:
        run, scope = in_workflow("agents"), current_scope.get()
        assert scope is not None
        kind, label = name_unit(operation_id, cache_key)
        key = scope.key(f"{kind}({label})" if label else kind)
        if (tell := told_of_units.get()) is not None:
            tell(key, operation_id, cache_key, config)
        is_tool = isinstance(operation_id, ToolsetCallToolId)
        tool, arguments = cache_key[:2] if is_tool else (kind, {})
        if isinstance(operation_id, ModelRequestId):
            body = self._request(operation_id, cache_key, body)
        spending = spending_of(operation_id, cache_key)
        unit = Unit(body, config, is_tool, tool, arguments, again=_may_have_begun(run), spending=spending)
        value = await execute(run, key, kind, unit)
        if isinstance(operation_id, ToolsetGetToolsId) and (listed := listed_tools.get()) is not None:
            listed.update(value["tools"] if operation_id.toolset_kind == "dynamic" else value)
        return value

    def _request(
        self, operation_id: ModelRequestId, cache_key: tuple[Any, ...], body: Callable[[], Awaitable[Any]]
    ) -> Callable[[], Awaitable[Any]]:
        """Give the body of a model request that heeds what its provider has told others, and shares its answer."""
        own = cache_key[-1].model
        model = name_model(operation_id, own, self._models)
        body = partial(ask, model, body)
        if self._cache_s is None:
            return body
        sent_to = own if operation_id.model_id is None else self._models.get(operation_id.model_id)
        return partial(share, name_answer(model, sent_to, cache_key), self._cache_s, body)


async def execute(run: LiveRun, key: str, kind: str, unit: Unit) -> Any:
    """Execute a unit as the step of a key, or give what is recorded there."""
    call = StepCall(run, key, None, _spec(kind, unit.effect), (unit,), {})
    try:
        return await wait_for(run, call)
    except StepFailed as failed:
        raise revive(failed) from None
    finally:
        record_durable_unit(executed=call.begun)


def _may_have_begun(run: LiveRun) -> bool:
    """Say whether a unit may have begun in a run that was then held, handed over or rewound, which is no attempt.

    What began had all that led to it on disk: so it is asked for before anything new is recorded.
    """
    return run.generation > run.claimed.continued or (run.claim > 1 and not run.recorder.outcomes)


# -- bodies of the effect classes ------------------------------------------------
async def _execute(unit: Unit) -> Any:
    """Execute a unit in the context that asked for it, as a task of its own; what a step's body can ask is added."""
    told: tuple[contextvars.ContextVar[Any], ...] = (current_step, current_transaction, current_tx)
    context = unit.context.copy()  # which knows the step, and the step the unit: a cycle, were it the unit's own
    for variable in told:
        context.run(variable.set, variable.get())
    if unit.spending is None:
        return await _execute_body(unit, context)
    return await unit.spending.spend(executing_step(), partial(_execute_body, unit, context))


async def _execute_body(unit: Unit, context: contextvars.Context) -> Any:
    """Execute it; where a server was lost on the way, do what a crash of this process would mean for its class."""
    once = unit.effect.name == "at_most_once"  # not executed again, unless `verify` says that it had no effect
    left = INTERRUPTIONS_MAX
    execution = executing_step().execution
    while True:
        work = _give_storable(execution, unit.body)
        try:
            return await asyncio.get_running_loop().create_task(work, context=context)
        except Interrupted as interrupted:
            log.warning("%s was interrupted: %s", unit.tool, interrupted)
            left -= 1
            if once:
                try:
                    return await _verify(unit)
                except Exception as error:
                    if not had_no_effect(error):
                        raise StillInDoubt from error
            if left and (once or interrupted.again):
                continue
            if not unit.is_call:
                raise
            return {"kind": "model_retry", "message": interrupted.told}


async def _give_storable(execution: LiveRun, body: Callable[[], Awaitable[Any]]) -> Any:
    await execution.engine.bodies.ready(execution)  # a task begins later than it is made
    return storable(await body())


async def _reserve(unit: Unit) -> None:
    """Reserve what the next attempt of a unit may use, before its transaction is open."""
    if unit.spending is not None:
        await unit.spending.reserve(executing_step())


async def _execute_within(tx: Any, unit: Unit) -> Any:
    """Execute a unit in a transaction, which what the model is to see as a failure rolls back."""
    token = current_tx.set((tx, asyncio.get_running_loop()))
    try:
        payload = await _execute(unit)
    finally:
        current_tx.reset(token)
    if payload["kind"] not in ("tool_return", "tool_content_result"):
        raise Undone(payload)
    return payload


async def _verify(unit: Unit) -> Any:
    """Find out what became of a call that a crash interrupted. Raises LookupError if it did not take effect."""
    if unit.effect.verify is None:
        return {"kind": "tool_failed", "message": describe_unknown(unit.tool)}
    result = await executing_step().execution.engine.bodies.run(unit.effect.verify, (), dict(unit.arguments))
    recorded = JSON_CODEC.load(CallToolResult, {"kind": "tool_return", "result": result})
    return storable(JSON_CODEC.dump(CallToolResult, recorded))


def describe_unknown(tool: str) -> str:
    """Give what the model reads of a call whose outcome nobody knows."""
    return (
        f"OutcomeUnknown: the call of {tool} was cut off before its outcome was known, so it may or may not have taken "
        "effect, and it was not executed again. Find out what happened before you call it again, or ask a person."
    )


_SHAPE = CallShape(_execute)
_specs: dict[tuple[str, Effect], StepSpec] = {}


def _spec(kind: str, effect: Effect) -> StepSpec:
    spec = _specs.get((kind, effect))
    if spec is None:
        transactional = effect.name == "transactional"
        spec = _specs[kind, effect] = StepSpec(
            function=_execute_within if transactional else _execute,
            name=kind,
            is_async=True,
            shape=_SHAPE,
            site=__name__,
            retry=effect.retry,
            timeout_s=effect.timeout_s,
            on_unknown=_verify if effect.name == "at_most_once" else "retry",
            check_arguments=False,
            transactional=transactional,
            prepare=_reserve,
        )
    return spec
