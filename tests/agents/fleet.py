"""Agents on one budget, in processes that are killed: `python -m tests.agents.fleet URL AGENTS`.

What the provider has really sold stands in a ledger, a file that belongs to no database: it is the judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCalls, FunctionModel
from pydantic_ai.usage import RequestUsage

from outlive import BudgetExceeded, Outlive, hooks
from outlive.agents import Budget, Price, durable, pure
from tests.agents.scripts import call, scripted
from tests.agents.shop import book, pass_point
from tests.support.size import CALM_LEASE_S

ACCOUNT = "fleet"
LIMIT_S = 90.0
TURNS = 3
SENT, ANSWERED = 100, 50
SOLD = SENT + 10 * ANSWERED  # millionths of a dollar, for each request: the longest answer that was allowed
LIMIT = "0.03"  # for a third of what all would use
WALL_S = 60
_script = scripted([call("look", "c1")], [call("look", "c2")], "{results}")


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Sell an answer: whoever dies before has paid nothing, whoever dies after has paid, and does not know what for."""
    assert _script.function is not None
    pass_point("before-model")
    book(f"sold {SOLD}")
    pass_point("after-model")
    assert info.model_settings is not None
    assert info.model_settings.get("max_tokens") == ANSWERED
    said: Any = await _script.function(messages, info)  # type: ignore[misc]
    return ModelResponse(parts=said.parts, usage=RequestUsage(input_tokens=SENT, output_tokens=ANSWERED))


agent = Agent(FunctionModel(answer, model_name="sold"), name="flyer")


@agent.tool_plain(metadata=pure())
async def look() -> str:
    pass_point("within-tool")
    return "seen"


flyer = durable(
    agent,
    budget=Budget(
        usd=LIMIT, tools=1_000, account=ACCOUNT, answer_tokens=ANSWERED, prices={"sold": Price(input=1, output=10)}
    ),
)


sprinter = durable(agent, name="sprinter", budget=Budget(wall=WALL_S, tokens=100_000, answer_tokens=ANSWERED))


async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Sell an answer piece by piece; its price is known to nobody but by its length."""
    assert _script.stream_function is not None
    pass_point("before-model")
    book("sold 0")
    async for piece in _script.stream_function(messages, info):
        yield piece  # type: ignore[misc]
        pass_point("mid-stream")


talkative = Agent(FunctionModel(stream_function=speak, model_name="sold"), name="talker", tools=[look])
talker = durable(
    talkative, stream=True, budget=Budget(requests=20, tools=20, tokens=1_000_000, account="talk", answer_tokens=500)
)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Outlive]:
    """Open an app that flies."""
    async with Outlive(url, lease=CALM_LEASE_S, include=[flyer, sprinter, talker]) as app:
        yield app


async def main(url: str, agents: int, name: str = "sprint") -> None:
    hooks.arm(pass_point)
    async with opened(url) as app:
        runs = [await app.start(flyer, "fly", id=f"flight-{number}") for number in range(agents)]
        if not agents:
            other = talker if name == "talk" else sprinter
            runs.append(await app.start(other, "go", id=name))
        for run in runs:
            with contextlib.suppress(BudgetExceeded):
                await run.result(timeout=LIMIT_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
