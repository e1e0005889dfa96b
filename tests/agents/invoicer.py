"""An agent whose invoices are wrong twice, in processes that die: `python -m tests.agents.invoicer URL MODE`.

What really happened stands in the ledger, a file of no database; `OUTLIVE_TEST_DIES` says where a process dies.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from outlive import Outlive, hooks, step, workflow
from outlive.agents import durable, validated
from tests.agents.shop import book, pass_point
from tests.support.size import CALM_LEASE_S

TOTALS = {"third": (5, 4, 3), "never": (5, 5, 5)}  # what the model says, of an invoice that comes to three
_mode = sys.argv[2] if len(sys.argv) > 2 else "third"


class Invoice(BaseModel):
    cents: list[int]
    total: int


async def write(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    pass_point("before-model")
    book(f"model {turn}")
    pass_point("after-model")
    return ModelResponse(
        parts=[ToolCallPart("final_result", {"cents": [1, 2], "total": TOTALS[_mode][turn]}, tool_call_id=f"c{turn}")]
    )


clerk = durable(Agent(FunctionModel(write), name="invoicer", output_type=Invoice))


@step
async def add_up(invoice: Any) -> str | None:
    book(f"check {invoice['total']}")
    pass_point("in-check")
    total = sum(invoice["cents"])
    return None if total == invoice["total"] else f"the total is {total}"


async def fits(invoice: Invoice) -> str | None:
    return await add_up(invoice.model_dump())


@workflow(name="invoices")
async def invoices() -> dict[str, Any]:
    invoice: Invoice = await validated(clerk, "write an invoice", checks=[fits])
    return invoice.model_dump()


async def main(url: str) -> None:
    hooks.arm(pass_point)
    async with Outlive(url, lease=CALM_LEASE_S) as app:
        run = await app.start(invoices, id="invoices")
        print(await run.result(timeout=30), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
