"""A process that executes runs without end: `python -m tests.engine.endless URL RUNS`.

After each tenth it rests, collects garbage and prints what it holds: resident
memory, blocks that Python has allocated, runs and waits in memory. In a process
of its own, because free memory of earlier work would hide what stays behind.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

import psutil

import outlive
from outlive import Outlive, step, workflow

TOGETHER = 100
TENTHS = 10


@step
async def add(number: int, more: int) -> int:
    return number + more


@step
def add_plainly(number: int, more: int) -> int:
    return number + more


@step
async def refuse(number: int) -> int:
    raise LookupError(f"number {number}")


@workflow
async def mixed(number: int) -> int:
    first, second = await outlive.gather(add(number, 1), add(number, 2))
    await outlive.sleep(0)
    return int(first + second + await asyncio.to_thread(add_plainly, 1, 1))


@workflow
async def failing(number: int) -> int:
    return await refuse(number)


@workflow
async def parent(number: int) -> int:
    return await mixed(number)


@workflow
async def racing(number: int) -> int:
    winner, _ = await outlive.race(add(number, 1), outlive.sleep(60))
    try:
        async with asyncio.timeout(0.001):
            await outlive.sleep(60)
    except TimeoutError:
        pass
    return winner


KINDS = [mixed] * 6 + [failing, parent, racing, racing]


async def execute(app: Outlive, number: int) -> None:
    run = await app.start(KINDS[number % len(KINDS)], number)
    try:
        await run.result()
    except LookupError:
        pass


async def measure(app: Outlive, runs: int) -> dict[str, Any]:
    """Give what is held, once everything has come to rest."""
    engine = app._engine()
    async with asyncio.timeout(30):
        while engine.roster.executions or engine._loose:
            await asyncio.sleep(0.01)
    gc.collect()
    return {
        "runs": runs,
        "rss_kb": psutil.Process().memory_info().rss // 1024,
        "blocks": sys.getallocatedblocks(),
        "waits": sum(map(len, engine.watcher._waits.values())) + len(engine.roster._lost_waits),
        "tasks": len(asyncio.all_tasks()),
    }


async def main(url: str, runs: int) -> None:
    """Execute so many runs; the first ones, which fill caches, are not counted."""
    async with Outlive(url) as app:
        for number in range(-5, 0):
            await asyncio.gather(*(execute(app, each) for each in range(number * TOGETHER, (number + 1) * TOGETHER)))
        for tenth in range(TENTHS):
            print(json.dumps(await measure(app, tenth * runs // TENTHS)), flush=True)
            for first in range(0, runs // TENTHS, TOGETHER):
                await asyncio.gather(*(execute(app, each) for each in range(first, first + TOGETHER)))
        print(json.dumps(await measure(app, runs)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
