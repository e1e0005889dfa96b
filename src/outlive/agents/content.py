"""What a model request says, as plain JSON data: two requests that say the same have the same content.

Times, ids that are generated, prices and settings of the transport are left out;
the ids of tool calls are numbered in the order in which they appear. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

_OF_TRANSPORT = {"max_retries", "timeout", "request_timeout", "first_event_timeout", "extra_headers"}
_OF_MESSAGES = ("kind", "instructions", "parts")
_COMPACTION = "compaction"  # a part whose content may be for the provider alone, in `provider_details`
_NOT_OF_PARTS = {"timestamp", "id", "provider_name", "provider_details", "provider_url", "metadata"}


def content_of(
    messages: Sequence[ModelMessage], settings: Mapping[str, Any] | None, parameters: ModelRequestParameters
) -> dict[str, Any]:
    """Give what a request says to whatever model it is sent."""
    schema = parameters.output_object.json_schema if parameters.output_object is not None else None
    content = {
        "messages": _messages(messages),
        "settings": {name: value for name, value in (settings or {}).items() if name not in _OF_TRANSPORT},
        "tools": [_tool(tool) for tool in parameters.function_tools],
        "native_tools": [tool.unique_id for tool in parameters.native_tools],
        "output_tools": [_tool(tool) for tool in parameters.output_tools],
        "output": {"mode": parameters.output_mode, "schema": schema, "text": parameters.allow_text_output},
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=repr))
    return plain


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}


def _messages(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    numbers: dict[str, str] = {}
    said = []
    for message in ModelMessagesTypeAdapter.dump_python(list(messages), mode="json"):
        kept = {name: message[name] for name in _OF_MESSAGES if message.get(name) is not None}
        said.append(kept | {"parts": [_part(part, numbers) for part in message["parts"]]})
    return said


def _part(part: dict[str, Any], numbers: dict[str, str]) -> dict[str, Any]:
    kept = {name: value for name, value in part.items() if name not in _NOT_OF_PARTS and value is not None}
    if part["part_kind"] == _COMPACTION and part.get("provider_details") is not None:
        kept["provider_details"] = part["provider_details"]
    if "tool_call_id" in kept:
        kept["tool_call_id"] = numbers.setdefault(kept["tool_call_id"], f"call-{len(numbers) + 1}")
    return kept
