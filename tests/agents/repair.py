"""A guarded loop in a process that is killed: `python -m tests.agents.repair URL FOLDER`.

What really happened stands in the ledger of `tests.agents.shop`, where the tests of the project write, too: from
the process of the verifier, with its id. While there is a file called `hold` beside it they do not end.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from outlive import Outlive, hooks, workflow
from outlive.agents import Budget, Guarded, Verifier, guarded
from tests.agents.fixer import BARE, FILES, RIGHT, WRONG, fixer, hide, lay_out, write
from tests.agents.shop import book, pass_point

PLAYS = [[write("calc.py", WRONG.replace("a - b", "3"))], [write("calc.py", RIGHT), write("notes.md", "done")]]
NOTED = """import os, time

def test_first():
    with open({ledger!r}, "a") as file:
        file.write(f"check {{os.getpid()}} {{os.getcwd()}}\\n")
    while os.path.exists({hold!r}):
        time.sleep(0.01)
"""


def make(folder: Path) -> None:
    """Write the project, and the tests that the agent does not know."""
    noted = NOTED.format(ledger=str(folder / "ledger"), hold=str(folder / "hold"))
    lay_out(folder / "project", FILES | {"tests/test_0.py": noted})
    hide(folder / "hidden")


def hear(what: str) -> None:
    """Note what the agent does, and die before or after, if this is where to die."""
    pass_point(f"before-{what.split(maxsplit=1)[0]}")
    book(what)
    pass_point(f"after-{what.split(maxsplit=1)[0]}")


async def main(url: str, folder: Path) -> None:
    agent = fixer(folder / "project", PLAYS, heard=hear)

    @workflow(name="repair")
    async def repair() -> Guarded:
        numbers = itertools.count()

        async def attempt(feedback: str) -> None:
            await agent.run(str(next(numbers)))

        check = Verifier(hidden=folder / "hidden", environment=BARE, writable=[folder])
        budget = Budget(requests=1_000, account="repair")
        return await guarded(attempt, check=check, workspace=folder / "project", budget=budget)

    hooks.arm(pass_point)
    async with Outlive(url, lease=2) as app:
        done = await (await app.start(repair, id="repair")).result(timeout=60)
        print([one.verdict for one in done.attempts], sorted(done.changes), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
