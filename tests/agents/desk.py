"""A desk with an agent that wants to refund, and people who decide, in processes that die.

`python -m tests.agents.desk ROLE URL [NAME]`: `work` executes the agent to its end, `decide` is a person of that name
who approves what waits, `both` is all of it in one process, `crowd` several people at the same time; `input` executes
an agent that hands out a token. What really happened stands in the ledger, a file of no database. `OUTLIVE_FAULT` says
where a process dies.
"""

from __future__ import annotations

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.tools import DeferredToolRequests

from outlive import Outlive, RunRefused
from outlive.agents import Approval, Ask, approvals, durable
from outlive.errors import RunNotFound
from tests.agents.scripts import call, scripted
from tests.agents.shop import book, pass_point
from tests.support.faults import arm_from_environment
from tests.support.size import CALM_LEASE_S

RUN = "desk-1"
CROWD = 4
LIMIT_S = 30.0

agent = Agent(
    scripted(
        [call("refund", "c1", cents=17)], [call("look", "l1")], "{results}", heard=lambda turn: book(f"model {turn}")
    ),
    name="clerk",
)


@agent.tool_plain
async def refund(cents: int) -> str:
    book(f"refund {cents}")
    pass_point("in-refund")
    return f"refunded {cents}"


@agent.tool_plain
async def look() -> str:
    book("look")
    return "seen"


clerk = durable(agent, policy=lambda asked: Ask() if asked.tool == "refund" else None)


async def deliver(_: object, requests: DeferredToolRequests, token: str) -> None:
    book(f"token {token}")
    pass_point("after-token")


shipper = Agent(scripted([call("ship", "c1")], "{results}"), name="shipper", capabilities=[RequestInput(deliver)])


@shipper.tool_plain
async def ship() -> str:
    raise CallDeferred


async def find(app: Outlive) -> Approval | None:
    """Wait for the approval that waits; None if the run has ended without one."""
    while True:
        if found := (await approvals(app).list()).items:
            return found[0]
        try:
            if (await (await app.get(RUN)).status()).final:
                return None
        except RunNotFound:
            pass
        await asyncio.sleep(0.01)


async def decide(app: Outlive, one: Approval, name: str) -> None:
    """Decide as a person; tell what became of it."""
    book(f"tried {name}")
    try:
        await approvals(app).decide(
            one.id,
            approve=True,
            by=name,
            why=f"{name} says so",
            edit={"cents": int(name)} if name.isdigit() else None,
        )
        book(f"decided {name}")
    except RunRefused:
        book(f"refused {name}")


async def main(role: str, url: str, name: str = "ana") -> None:
    arm_from_environment()
    works, asked = role in ("work", "both", "input"), durable(shipper) if role == "input" else clerk
    async with asyncio.timeout(LIMIT_S), Outlive(url, worker=works, lease=CALM_LEASE_S) as app:
        run = await app.start(asked, "go", id=RUN) if works else None
        one = await find(app) if role not in ("work", "input") else None
        if one is not None and role == "crowd":
            book(f"ready {name}")
            await asyncio.to_thread(sys.stdin.readline)
            await asyncio.gather(*(decide(app, one, f"{name}{number}") for number in range(CROWD)))
        elif one is not None:
            await decide(app, one, name)
        if run is not None:
            print(await run.result(timeout=LIMIT_S), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
