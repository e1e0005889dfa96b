"""A process dies between the answers of a validation: what was answered and checked is not asked for again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

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

    def work(self, dies: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        done = nursery.run(["-m", "tests.agents.invoicer", self.url], cwd=ROOT, env=env, timeout=LIMIT_S)
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
    if again is not None:
        assert more == Counter([again])
    assert more.total() <= 1, f"of what was not on disk yet: {more}"


async def test_dying_after_every_commit(office: Office) -> None:
    for _ in range(20):
        if office.work("commit.after 2").returncode == 0:
            break
    assert office.work().stdout.strip().splitlines()[-1] == CALM
    assert all(times == 1 or what.startswith("check") for what, times in office.happened().items())
