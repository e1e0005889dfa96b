"""A process that calibrates a judge, and is killed: `python -m tests.agents.grader URL`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from outlive import Outlive, hooks, workflow
from outlive.agents import Calibration, Judge, Labelled, Pair, calibrate
from tests.agents.shop import book, pass_point

EXAMPLES = [Labelled(f"The lamp number {n} costs 17 euros.", "pass" if n % 2 else "fail") for n in range(4)]
PAIRS = [Pair("The lamp is cheap today.", "The lamp costs 17 euros.", "second")]
ASKED = len(EXAMPLES) + 2 * len(PAIRS)


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    pass_point("before-model")
    book("asked")
    pass_point("after-model")
    one = "an artefact" in (info.instructions or "")
    vote = {"verdict": "pass" if one else "first", "quotes": ["lamp number" if one else "lamp is cheap"], "why": "so"}
    return ModelResponse(parts=[ToolCallPart("final_result", vote, tool_call_id="c1")])


judge = Judge(FunctionModel(answer), "Does it name a price?", votes=1)


@workflow(name="calibration")
async def measure() -> Calibration:
    return await calibrate(judge, EXAMPLES, PAIRS, at_once=2)


async def main(url: str) -> None:
    hooks.arm(pass_point)
    async with Outlive(url, lease=2) as app:
        done = await (await app.start(measure, id="calibration")).result(timeout=60)
        print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
