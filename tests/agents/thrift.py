"""What tests of budgets share: a model with a price, an agent with a tool, and what is known of an account."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic_ai import Agent

from outlive import Outlive
from outlive.agents import Price, budgets, pure
from outlive.budgets import BudgetInfo, Used
from tests.agents.scripts import paid

LIMIT_S = 20.0
CHEAP = {"paid": Price(input="1", output="10")}  # 100 tokens sent and 10 answered are 200 millionths of a dollar
ANSWER = Decimal("0.0002")


async def find(app: Outlive, account: str) -> BudgetInfo:
    found = await budgets(app).find(account)
    assert found is not None
    return found


def used(usd: Any = 0, tokens: int = 0, requests: int = 0, tools: int = 0) -> Used:
    return Used(Decimal(usd), tokens, requests, tools)


def looking(*turns: Any, metadata: Any = None, **options: Any) -> Agent[None, str]:
    """Give an agent with a tool `look`."""
    agent = Agent(paid(*turns, **options), name="clerk")

    @agent.tool_plain(metadata=metadata or pure())
    async def look() -> str:
        return "seen"

    return agent
