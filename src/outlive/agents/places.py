"""Where in a run an agent works, and what its work is called there.

Invariant: the key of a unit depends on its agent run, its operation, and for a
tool call on the model's id of that call; never on the tasks that Pydantic AI
makes. So a journal outlives the releases of both libraries.
"""

from __future__ import annotations

import contextvars
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_ai.durable_exec import (
    CapabilityOperationId,
    DurableOperationId,
    EventStreamHandlerId,
    ModelCancelSuspendedResponseId,
    ModelCompactMessagesId,
    ModelRequestId,
    ToolsetCallToolId,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)

from outlive.codec.payload import digest
from outlive.engine.branch import Branch
from outlive.engine.roles import LiveRun
from outlive.model.agentkeys import MODEL, TOOL

# The agent run that is executing: it alone counts the names of its units.
current_scope: contextvars.ContextVar[Branch | None] = contextvars.ContextVar("outlive_agent_scope", default=None)

_LABEL_MAX_CHARS = 80
_UNFIT = re.compile(r"[^\w.:-]")


def new_scope(run: LiveRun, name: str) -> Branch:
    """Give a place of its own for what is named by it: in the agent run that is executing, else where the body is."""
    around = current_scope.get() or run.loop.branch()
    return Branch(f"{around.key(name)}/")


@contextmanager
def entered(scope: Branch) -> Iterator[None]:
    """Let units be named by this place."""
    token = current_scope.set(scope)
    try:
        yield
    finally:
        current_scope.reset(token)


@contextmanager
def within(run: LiveRun, name: str) -> Iterator[Branch]:
    """Let what is awaited here be named by a new place, whatever tasks Pydantic AI makes."""
    scope = new_scope(run, name)
    with run.loop.within(scope):
        yield scope


def name_unit(operation_id: DurableOperationId, cache_key: tuple[Any, ...]) -> tuple[str, str]:
    """Give what the journal calls a unit, and what tells it from others of that name. Persisted: never to change."""
    match operation_id:
        case ModelRequestId(model_id=model, streaming=streaming):
            return MODEL[streaming], _fit(model or "")
        case ToolsetCallToolId():
            return f"{TOOL}:{_fit(cache_key[0])}", _call_id(cache_key)
        case ToolsetValidateToolArgumentsId():
            return f"validate:{_fit(cache_key[0])}", _call_id(cache_key)
        case ToolsetGetToolsId(toolset_id=toolset):
            return "tools", _fit(toolset)
        case ToolsetGetInstructionsId(toolset_id=toolset):
            return "instructions", _fit(toolset)
        case ModelCompactMessagesId(model_id=model):
            return "compact", _fit(model or "")
        case ModelCancelSuspendedResponseId(model_id=model):
            return "model.cancel", _fit(model or "")
        case EventStreamHandlerId():
            return "event", ""
        case CapabilityOperationId(capability_id=capability, operation=operation):
            return f"capability:{_fit(capability)}", _fit(operation)
    return _fit(type(operation_id).__name__), ""  # the union may grow in minor releases


def name_agent(name: str) -> str:
    """Give an agent's name as part of keys."""
    return _fit(name)


def name_call(tool: str, call_id: str) -> str:
    """Give a call of a tool as part of keys."""
    return f"{_fit(tool)}({_fit(call_id)})"


def _call_id(cache_key: tuple[Any, ...]) -> str:
    return _fit(cache_key[2].tool_call_id or "")


def _fit(text: Any) -> str:
    """Give a text as part of a key; what had to be changed or cut off keeps a digest, so that no two become one."""
    fit = _UNFIT.sub("_", str(text))
    return fit if fit == text and len(fit) <= _LABEL_MAX_CHARS else f"{fit[:_LABEL_MAX_CHARS]}-{digest(str(text))}"
