"""A process that asks models at providers of the test: `python -m tests.agents.asker WHAT URL PROVIDER…`.

It is killed from outside, as its provider holds an answer back or has refused one; what was asked stands in the
provider's own ledger.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.capabilities import ModelFallback
from pydantic_ai.models.fallback import FallbackModel

from outlive import Outlive, Retry
from outlive.agents import DurableAgent, durable
from tests.agents.provider import model_at
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import CALM_LEASE_S, ENVIRONMENT, pick

RUN_ID = "question"
LIMIT_S = 40.0
CROWD = pick(small=20, full=50)  # of each process


def plain(provider: str) -> DurableAgent[None, str]:
    """Ask one model."""
    return durable(Agent(model_at(provider), name="asker"))


def within(first: str, second: str) -> DurableAgent[None, str]:
    """Ask another model within the same unit."""
    return durable(Agent(FallbackModel(model_at(first), model_at(second, "spare")), name="asker"))


def beside(first: str, second: str) -> DurableAgent[None, str]:
    """Ask another model in a unit of its own."""
    agent = Agent(model_at(first), name="asker", capabilities=[ModelFallback("spare")])
    return durable(agent, models={"spare": model_at(second, "spare")}, model_retry=Retry(attempts=1))


def crowd(provider: str) -> DurableAgent[None, str]:
    """Ask a model what many ask."""
    return durable(Agent(model_at(provider), name="asker"), cache=3600)


async def main(what: str, url: str, *providers: str) -> None:
    async with Outlive(url, lease=CALM_LEASE_S) as app:
        if what == "crowd":
            agent = crowd(*providers)
            for number in range(CROWD):
                await app.start(agent, "hello", id=f"{os.getpid()}-{number}")
            await asyncio.sleep(LIMIT_S)
        run = await app.start(globals()[what](*providers), "hello", id=RUN_ID)
        print(await run.result(timeout=LIMIT_S), flush=True)


# -- on the side of the tests -------------------------------------------------------
@contextmanager
def asking(what: str, url: str, *providers: str) -> Iterator[nursery.Fork]:
    """Start such a process; it is killed at the end of the block."""
    with tempfile.TemporaryFile() as told:
        fork = nursery.spawn(_words(what, url, providers), stdout=told, stderr=told, **_place())
        try:
            yield fork
        finally:
            fork.kill()
            fork.wait()


def finish(what: str, url: str, *providers: str) -> str:
    """Let such a process work to its end; give what it has printed last."""
    done = nursery.run(_words(what, url, providers), timeout=LIMIT_S, **_place())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def _words(what: str, url: str, providers: tuple[str, ...]) -> list[str]:
    return ["-m", "tests.agents.asker", what, url, *providers]


def _place() -> dict[str, Any]:
    return {"cwd": ROOT, "env": {"PYTHONPATH": f"{SRC}:{ROOT}", "PATH": "/usr/bin:/bin", **ENVIRONMENT}}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
