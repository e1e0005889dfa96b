"""Workflows whose step a SIGKILL interrupts, and the process that dies of it: `python -m tests.engine.half_done`."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from typing import Any

import outlive
from outlive import Outlive, Retry, hooks, step, transaction, workflow

DOOMED = "OUTLIVE_TEST_DOOMED"  # set in the process that is to die within the step
begun: list[str] = []
asked: list[str] = []  # of the bank
effects: list[int] = []  # attempts of the process that comes after


def effect() -> str:
    """What the step does: in the doomed process it is never known whether it took effect."""
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    if DOOMED in os.environ:
        os.write(1, b"within the step\n")
        sys.stdin.read()  # until the end
    effects.append(info.attempt)
    return f"attempt {info.attempt}"


@step(on_unknown="park")
async def parked_step() -> str:
    return effect()


@step
async def before() -> str:
    return "before"


@workflow
async def parks() -> list[str]:
    said = [await before()]
    try:
        said.append(await parked_step())
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    return said


@workflow
async def rests() -> None:
    await before()
    await outlive.publish("at", "rest")
    await outlive.sleep(days=1)


@step(on_unknown="park")
async def parked_of_two(name: str) -> str:
    if DOOMED in os.environ:
        begun.append(name)
        if len(begun) == 2:
            os.write(1, b"within the step\n")
        await asyncio.Event().wait()
    return name


@workflow
async def parks_twice() -> list[str]:
    return await outlive.gather(parked_of_two("a"), parked_of_two("b"))


async def ask_the_bank() -> str:
    asked.append(os.environ["OUTLIVE_TEST_BANK"])
    if asked[-1] == "down":
        raise ConnectionError("the bank is down")
    if os.environ["OUTLIVE_TEST_BANK"] == "not found":
        raise LookupError("no such payment")
    return os.environ["OUTLIVE_TEST_BANK"]


@step(on_unknown=ask_the_bank)
async def verified_step() -> str:
    return effect()


@workflow
async def verifies() -> list[str]:
    return [await before(), await verified_step()]


@step(on_unknown=ask_the_bank, retry=Retry(attempts=1_000, first_delay=0.02, max_delay=0.02))
async def patient_step() -> str:
    return effect()


@workflow
async def verifies_patiently() -> str:
    return await patient_step()


@step
async def plain_step() -> str:
    return effect()


@step(retry=Retry(attempts=2, first_delay=0.01))
async def stubborn_step() -> str:
    done = effect()
    raise ValueError(f"no luck with {done}")


@workflow
async def repeats() -> list[str]:
    return [await plain_step()]


@workflow
async def crash_uses_up_an_attempt() -> str:
    try:
        return await stubborn_step()
    except ValueError as error:
        return str(error)


@transaction
async def transfer(tx: Any) -> str:
    return effect()


@workflow
async def books_and_is_stubborn() -> list[str]:
    return [await transfer(), await crash_uses_up_an_attempt.spec.function()]


def die_at_commit(number: int) -> None:
    """Kill this process at the n-th point around its commits, from 1."""
    passed = itertools.count(1)

    def fire(point: str) -> None:
        if point.startswith("commit.") and next(passed) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    hooks.arm(fire)


async def main(url: str, name: str, dies_at: str = "0") -> None:
    die_at_commit(int(dies_at))
    async with Outlive(url, include=["tests.engine.half_done"], lease=2) as app:
        run = await app.start(name, id=name)
        await run.result()
        raise SystemExit("the step has ended" if DOOMED in os.environ else 0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
