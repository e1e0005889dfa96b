"""An agent that people talk to, in processes that die: `python -m tests.agents.talker chat tests.agents.talker --id …`.

It is the command line, armed with the fault of `OUTLIVE_FAULT`. What really happened stands in the ledger, a file of no
database; `DIES` says where a tool or the model kills the process, see `tests.agents.shop`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCalls, FunctionModel

from outlive import cli
from outlive.agents import Ask, conversation, durable, pure, question_tool, transactional, tx
from tests.agents.scripts import call, scripted
from tests.agents.shop import book, pass_point
from tests.support.faults import arm_from_environment

MODEL = scripted(
    [call("look", "l1")],
    "I see {results}.",
    [call("refund", "r1", cents=500)],
    "Done: {results}.",
    [call("ask_user", "q1", question="Are you sure?")],
    "So: {results}.",
    "Goodbye to you.",
    heard=lambda turn: book(f"model {turn}"),
)
SAYS = ["What is it?", "I want my money back.", "Is that all?", "Bye."]
ANSWERS = [
    "I see ['one lamp'].",
    "Done: ['one lamp', 'refunded 500'].",
    "So: ['one lamp', 'refunded 500', 'True'].",
    "Goodbye to you.",
]


async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Say what the script says, and pass a point before each word."""
    assert MODEL.stream_function is not None
    async for part in MODEL.stream_function(messages, info):
        pass_point("mid-stream")
        yield part


agent = Agent(FunctionModel(stream_function=stream), name="desk", tools=[question_tool(bool)])


@agent.tool_plain(metadata=pure())
async def look() -> str:
    book("look")
    pass_point("in-look")
    return "one lamp"


@agent.tool_plain(metadata=transactional())
async def refund(cents: int) -> str:
    await tx().execute("create table if not exists refunds (cents integer)")
    await tx().execute("insert into refunds values ($1)", cents)
    pass_point("in-refund")
    return f"refunded {cents}"


desk = conversation(durable(agent, stream=True, policy=lambda asked: Ask() if asked.tool == "refund" else None))

if __name__ == "__main__":
    arm_from_environment()
    sys.argv[1:1] = ["agents"]
    cli.main()
