"""A user's agents, the same under every release: the journals of their runs have to fit, whatever agents become.

A scripted model, a tool of each class, an approval that was edited, a question, an agent within an agent, a stream, a
budget, a conversation. Like `workflows` it is only ever extended.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent

from outlive import workflow
from outlive.agents import (
    Ask,
    Budget,
    at_most_once,
    conversation,
    durable,
    idempotent,
    inline,
    pure,
    question_tool,
    transactional,
    tx,
)
from tests.agents.scripts import call, scripted

executed: list[str] = []

helper = durable(Agent(scripted("[from the helper]", heard=lambda _: executed.append("helper")), name="frozen-helper"))
turns = [
    [call("look", "c1", shelf=3), call("enter", "c2", cents=5)],
    [call("refund", "c3", cents=900)],
    [call("mail", "c4", to="ana"), call("delegate", "c5")],
    [call("ask_user", "c6", question="Is it enough?")],
    "Done: {results}.",
]
agent = Agent(
    scripted(*turns, heard=lambda turn: executed.append(f"model {turn}")),
    name="frozen-desk",
    tools=[question_tool(bool)],
)


@agent.tool_plain(metadata=pure())
async def look(shelf: int) -> str:
    executed.append(f"look {shelf}")
    return f"shelf {shelf}"


@agent.tool_plain(metadata=transactional())
async def enter(cents: int) -> int:
    executed.append(f"enter {cents}")
    return int(await tx().fetchval("select 7"))


@agent.tool_plain(metadata=at_most_once())
async def refund(cents: int) -> str:
    executed.append(f"refund {cents}")
    return f"refunded {cents}"


@agent.tool_plain(metadata=idempotent())
def mail(to: str) -> str:
    executed.append(f"mail {to}")
    return f"mailed {to}"


@agent.tool_plain(metadata=inline())
async def delegate() -> str:
    return str((await helper.run("help")).output)


def policy(asked: Any) -> Ask | None:
    return Ask(role="finance", quorum=2) if asked.tool == "refund" else None


desk = durable(agent, policy=policy, budget=Budget(requests=50, tokens=1_000_000))
shown = durable(agent, name="frozen-shown", policy=policy, stream=True)
talk = conversation(shown)


@workflow(name="frozen-day", version="1")
async def day() -> list[str]:
    return [str((await desk.run("the first")).output), str((await shown.run("the second")).output)]


RUNS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "day": (day, ()),
    "alone": (desk, ("go",)),
    "waits": (desk, ("go",)),
    "chat": (talk, ()),
}
