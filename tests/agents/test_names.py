"""Names and keys of units are persisted: what is listed here is in journals, and may never be called otherwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
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

from outlive.agents.units import name_unit

CALL = ("refund", {"order": 1}, SimpleNamespace(tool_call_id="call-1"), None)
FROZEN: list[tuple[Any, tuple[Any, ...], tuple[str, str]]] = [
    (ModelRequestId(model_name="gpt"), (), ("model", "")),
    (ModelRequestId("fast", model_name="gpt"), (), ("model", "fast")),
    (ModelRequestId(model_name="gpt", streaming=True), (), ("model.stream", "")),
    (ModelCompactMessagesId(model_name="gpt"), (), ("compact", "")),
    (ModelCancelSuspendedResponseId(model_name="gpt"), (), ("model.cancel", "")),
    (CapabilityOperationId("memory", operation="recall"), (), ("capability:memory", "recall")),
    (EventStreamHandlerId(), (), ("event", "")),
    (ToolsetGetToolsId("mcp", toolset_id="files"), (), ("tools", "files")),
    (ToolsetGetInstructionsId("files"), (), ("instructions", "files")),
    (ToolsetValidateToolArgumentsId("function", toolset_id="shop"), CALL, ("validate:refund", "call-1")),
    (ToolsetCallToolId("function", toolset_id="shop"), CALL, ("tool:refund", "call-1")),
    (ToolsetCallToolId("mcp", toolset_id="files"), CALL, ("tool:refund", "call-1")),
]


@pytest.mark.parametrize(("operation", "cache_key", "name"), FROZEN, ids=[str(each[2]) for each in FROZEN])
def test_names_are_frozen(operation: DurableOperationId, cache_key: tuple[Any, ...], name: tuple[str, str]) -> None:
    assert name_unit(operation, cache_key) == name


def test_every_operation_of_this_release_is_listed() -> None:
    assert {type(operation) for operation, _, _ in FROZEN} == set(get_args(DurableOperationId))


def test_what_does_not_fit_a_key_is_told_apart_by_a_digest() -> None:
    names = {name_unit(ToolsetGetToolsId("mcp", toolset_id=odd), ())[1] for odd in ("a/b", "a#b", "a b", "a_b")}
    assert len(names) == 4
    assert "a_b" in names
    assert all(name.startswith("a_b") for name in names)
