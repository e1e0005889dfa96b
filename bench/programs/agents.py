"""The agent that both systems make durable: its model is scripted, so what is measured is what lies around it.

Both environments have Pydantic AI; this imports nothing else.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from bench.programs.system import tally

CALLS = 5  # of the tool in each run, one after the other: six answers of the model


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    tally.steps += 1
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    if turn < CALLS:
        return ModelResponse(parts=[ToolCallPart("add_one", {"number": turn}, tool_call_id=f"call-{turn}")])
    return ModelResponse(parts=[TextPart("done")])


async def add_one(number: int) -> int:
    tally.steps += 1
    return number + 1


def make_agent(tool: Any = add_one, *, metadata: dict[str, Any] | None = None, **options: Any) -> Agent[None, str]:
    """Make the agent, with the tool as the system wants it."""
    agent = Agent(FunctionModel(answer), name="bench", **options)
    agent.tool_plain(name="add_one", metadata=metadata)(tool)
    return agent
