"""Workflows with large payloads; a fresh process goes on with one: `python -m tests.engine.large_values URL ID`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import outlive
from outlive import Outlive, step, transaction, workflow

MB = 1_000_000
executed: list[str] = []  # step bodies of this process


def text(letter: str, size: int = MB) -> str:
    return letter * size


@step
async def grow(letter: str, size: int = MB) -> str:
    executed.append(letter)
    return text(letter, size)


@step
async def fail(letter: str) -> None:
    executed.append(letter)
    raise ValueError(text(letter), [text(letter)])


@transaction
async def grow_in_transaction(tx: Any, letter: str) -> str:
    executed.append(letter)
    return text(letter) + str(await tx.fetchval("select 1"))


@workflow
async def twice(given: str) -> str:
    return given + await grow("c")


@workflow
async def everything(given: str) -> dict[str, str]:
    """Everything that may be large, then a wait out of memory, then the sum of it."""
    small = await grow("s", 1)
    step_value = await grow("v")
    tx_value = await grow_in_transaction("t")
    child_value = await twice(text("d"))
    handle = await outlive.start(twice, text("e"), parent_close="abandon")
    try:
        await fail("f")
        error = ""
    except outlive.StepFailed as raised:  # its arguments are too large to be kept, and its text is cut
        error = raised.text
    await outlive.sleep(0.3)
    after = await grow("w")
    parts = (given, small, step_value, tx_value, child_value, error, after)
    return {"sum": "".join(f"{part[:1]}{len(part)} " for part in parts), "id": handle.id, "whole": step_value}


@workflow
async def fails_largely(given: str) -> None:
    await fail(given[0])


async def main(url: str, run_id: str) -> None:
    """Go on with a run and tell which steps this process has executed."""
    async with Outlive(url, include=["tests.engine.large_values"]) as app:
        result = await (await app.get(run_id)).result(timeout=30)
        print(result["sum"], len(result["whole"]), "executed", *executed)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
