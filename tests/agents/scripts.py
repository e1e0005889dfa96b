"""Scripted models: what a model says follows from the history alone, so that a replay that asked again would show."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.usage import RequestUsage

Say = str | Sequence[ToolCallPart]


def call(tool: str, call_id: str, **arguments: Any) -> ToolCallPart:
    """Make the call of a tool that a model asks for."""
    return ToolCallPart(tool, arguments, tool_call_id=call_id)


def results(messages: Sequence[ModelMessage]) -> list[str]:
    """Give what the tools of a history have answered, in order."""
    return [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if part.part_kind in ("tool-return", "retry-prompt")
    ]


def scripted(*turns: Say, heard: Callable[[int], object] | None = None) -> FunctionModel:
    """Give a model that says one of these turns after the other: a text, with {results} for what tools said, or calls.

    `heard` is told the number of each turn that the model is really asked for. Asked to stream, it says word by word.
    """

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        if heard is not None:
            heard(turn)
        said = turns[turn]
        if isinstance(said, str):
            return ModelResponse(parts=[TextPart(said.format(results=results(messages)))])
        return ModelResponse(parts=list(said))

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        response = await answer(messages, info)
        for place, part in enumerate(response.parts):
            if isinstance(part, TextPart):
                for word in re.findall(r"\S+\s*|\s+", part.content):
                    yield word
            elif isinstance(part, ToolCallPart):
                yield {place: DeltaToolCall(part.tool_name, json.dumps(part.args), tool_call_id=part.tool_call_id)}

    return FunctionModel(answer, stream_function=stream)


def paid(
    *turns: Say,
    heard: Callable[[int], object] | None = None,
    sent: int = 100,
    answered: int = 10,
    name: str = "paid",
    told: Callable[[AgentInfo], object] | None = None,
) -> FunctionModel:
    """Give a scripted model, called `paid`, that bills each answer: so many tokens sent, so many answered."""
    plain = scripted(*turns, heard=heard)

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if told is not None:
            told(info)
        assert plain.function is not None
        given = plain.function(messages, info)
        response = await given if inspect.isawaitable(given) else given
        return replace(response, usage=RequestUsage(input_tokens=sent, output_tokens=answered))

    return FunctionModel(answer, model_name=name)
