"""Scripted models: what a model says follows from the history alone, so that a replay that asked again would show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

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

    `heard` is told the number of each turn that the model is really asked for.
    """

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        if heard is not None:
            heard(turn)
        said = turns[turn]
        if isinstance(said, str):
            return ModelResponse(parts=[TextPart(said.format(results=results(messages)))])
        return ModelResponse(parts=list(said))

    return FunctionModel(answer)
