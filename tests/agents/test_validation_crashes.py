"""A process dies between the answers of a validation: what was answered and checked is not asked for again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outlive import Outlive
from outlive.agents import Review, reviews
from tests.agents import shop
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import by_turns

LIMIT_S = 40.0
CALM = "{'cents': [1, 2], 'total': 3}"
HAPPENED = Counter({"model 0": 1, "check 5": 1, "model 1": 1, "check 4": 1, "model 2": 1, "check 3": 1})


class Office:
    """The database and the ledger of one invoice."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def words(self, dies: str, mode: str) -> dict[str, Any]:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        return {"arguments": ["-m", "tests.agents.invoicer", self.url, mode], "cwd": ROOT, "env": env}

    def start(self, mode: str) -> nursery.Fork:
        with tempfile.TemporaryFile() as out:
            return nursery.spawn(**self.words("", mode), stdout=out, stderr=out)

    def work(self, dies: str = "", mode: str = "third") -> subprocess.CompletedProcess[str]:
        done = nursery.run(**self.words(dies, mode), timeout=LIMIT_S)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done

    def happened(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines())


@pytest.fixture
def office(url: str, tmp_path: Path) -> Office:
    return Office(url, tmp_path)


# where it dies, what is done once more because nobody had written that it was done
DEATHS = [
    ("before-model 2", None),
    ("after-model 2", "model 1"),
    ("in-check 1", "check 5"),
    ("in-check 3", "check 3"),
    ("commit.after 3", None),
    ("commit.after 5", None),
]


@by_turns("dies, again", DEATHS, ids=[dies for dies, _ in DEATHS])
async def test_what_was_answered_and_checked_is_not_asked_for_again(
    office: Office, dies: str, again: str | None
) -> None:
    assert office.work(dies).returncode == -signal.SIGKILL
    assert office.work().stdout.strip().splitlines()[-1] == CALM
    more = office.happened() - HAPPENED
    assert not HAPPENED - office.happened()
    if dies.startswith("commit"):
        assert more.total() <= 1, f"of what was not on disk yet: {more}"
    else:
        assert more == Counter([] if again is None else [again])


async def test_dying_after_every_commit(office: Office) -> None:
    deaths = 0
    while office.work("commit.after 2").returncode != 0:
        deaths += 1
        assert deaths < 20
    assert deaths > 2
    assert office.work().stdout.strip().splitlines()[-1] == CALM
    assert not HAPPENED - office.happened()
    assert (office.happened() - HAPPENED).total() <= deaths, "each death may repeat what it interrupted"


async def test_a_review_that_waits_outlives_its_process(office: Office) -> None:
    """Three answers that do not pass, then a person: nobody is asked again, and there is one review."""
    seen: list[Review] = []
    for _ in range(2):
        worker = office.start("never")
        try:
            async with Outlive(office.url, worker=False) as client, asyncio.timeout(LIMIT_S):
                while not (found := await list_reviews(client)):
                    await asyncio.sleep(0.02)
        finally:
            worker.kill()
            worker.wait(LIMIT_S)
        seen += found
    assert seen[0] == seen[1]
    async with Outlive(office.url, worker=False) as client:
        await reviews(client).decide(seen[0].id, "accept", by="ana", value={"cents": [1, 2], "total": 3})
    assert office.work(mode="never").stdout.strip().splitlines()[-1] == CALM
    assert office.happened() == Counter({"model 0": 1, "check 5": 3, "model 1": 1, "model 2": 1}), (
        "what was answered before the first death is all"
    )


async def list_reviews(client: Outlive) -> list[Review]:
    """Give what waits, nothing before there are tables."""
    return (await reviews(client).list()).items
