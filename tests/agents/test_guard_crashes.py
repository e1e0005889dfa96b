"""A process dies in an attempt, in a check and around commits: the loop comes to the same end, and no check is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from outlive import Outlive
from tests.agents import repair, shop
from tests.agents.thrift import find
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import pick

LIMIT_S = 40.0
CALM = "['failed', 'passed'] ['calc.py', 'notes.md']"
MODELS = ["model 0.0", "model 0.1", "model 1.0", "model 1.1", "model 1.2"]


class Repair:
    """The database, the project and the ledger of one repair."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        repair.make(folder)

    def arguments(self) -> list[str]:
        return ["-m", "tests.agents.repair", self.url, str(self.folder)]

    def environment(self, dies: str = "") -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}

    def work(self, dies: str = "") -> subprocess.CompletedProcess[str]:
        return nursery.run(self.arguments(), cwd=ROOT, env=self.environment(dies), timeout=LIMIT_S)

    def finish(self) -> str:
        done = self.work()
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def happened(self, what: str) -> list[str]:
        return [line for line in self.ledger.read_text().splitlines() if line.startswith(what)]


@pytest.fixture
def repaired(url: str, tmp_path: Path) -> Repair:
    return Repair(url, tmp_path)


async def test_a_calm_repair(repaired: Repair) -> None:
    assert repaired.finish() == CALM
    assert repaired.happened("model") == MODELS
    assert len(repaired.happened("check")) == 3  # before the first attempt, and for each of two
    assert repaired.finish() == CALM  # the run has ended: nothing happens
    assert len(repaired.happened("")) == 11


DEATHS = ["after-model 3", "after-write 2", "before-model 4", "before-write 1"]


@pytest.mark.parametrize("dies", DEATHS[: pick(small=2, full=4)])
async def test_within_an_attempt(repaired: Repair, dies: str) -> None:
    assert repaired.work(dies).returncode == -signal.SIGKILL
    checks = len(repaired.happened("check"))
    assert repaired.finish() == CALM
    assert len(repaired.happened("check")) == 3, f"{checks} of them before the crash"
    assert sorted(set(repaired.happened("model"))) == MODELS
    assert len(repaired.happened("model")) - len(MODELS) == (dies == "after-model 3")


async def test_within_a_check(repaired: Repair) -> None:
    """The worker is killed while its verifier executes the tests of the first attempt: nothing of that is left."""
    with tempfile.TemporaryFile() as out:
        worker = nursery.spawn(repaired.arguments(), cwd=ROOT, env=repaired.environment(), stdout=out, stderr=out)
        try:
            await _until(lambda: len(repaired.happened("write")) == 1)
            (repaired.folder / "hold").touch()
            await _until(lambda: len(repaired.happened("check")) == 2)
            worker.kill()
        finally:
            worker.kill()
            worker.wait()
    _, pid, project = repaired.happened("check")[1].split()
    await _until(lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE)
    await _until(lambda: not Path(project).parent.exists())
    (repaired.folder / "hold").unlink()
    assert repaired.finish() == CALM
    assert repaired.happened("model") == MODELS
    assert len(repaired.happened("check")) == 4
    async with Outlive(repaired.url, worker=False) as app:
        keys = [entry.key for entry in await (await app.get("repair")).entries()]
    assert keys.count("guarded#1/guard.check#1") == 1


async def test_dying_around_commits(repaired: Repair) -> None:
    """Whatever was recorded before a death is not done again: at most one thing is, for each death."""
    deaths = 0
    for number in range(1, pick(small=5, full=40)):
        died = repaired.work(f"commit.{'before' if number % 2 else 'after'} {1 + number // 2 % 3}").returncode
        if died == 0:
            break
        deaths += 1
    assert deaths > 2
    assert repaired.finish() == CALM
    assert sorted(set(repaired.happened("model"))) == MODELS
    assert len(repaired.happened("")) <= 11 + 2 * deaths
    async with Outlive(repaired.url, worker=False) as app:
        found = await find(app, "repair")
    asked = len(repaired.happened("model"))
    assert found.reserved.requests == 0
    assert asked <= found.spent.requests + found.lost.requests <= asked + deaths


async def _until(is_so: object) -> None:
    assert callable(is_so)
    async with asyncio.timeout(LIMIT_S):
        while not is_so():
            await asyncio.sleep(0.01)
