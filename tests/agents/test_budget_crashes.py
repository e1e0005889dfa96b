"""Processes die wherever money is reserved, spent or settled: what was really paid never exceeds the budget."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import IO

import asyncpg
import pytest

from outlive import BudgetExceeded, Outlive
from outlive.agents import budgets
from outlive.budgets import BudgetInfo
from tests.agents import fleet, shop
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import by_turns, pick

LIMIT_S = 100.0
MILLION = 1_000_000


class Fleet:
    """The database of a fleet, and the ledger of the one who sells to it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def fly(self, agents: int, dies: str, out: IO[bytes], *name: str) -> nursery.Fork:
        """Let a process of its own begin to work on so many agents, on the one of a name if there are none."""
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        arguments = ["-m", "tests.agents.fleet", self.url, str(agents), *name]
        return nursery.spawn(arguments, cwd=ROOT, env=env, stdout=out, stderr=out)

    def fly_together(self, agents: int, *deaths: str, name: str = "sprint") -> list[int]:
        """Let a process for each of these deaths work at the same time, to its end; give the exit codes."""
        with tempfile.TemporaryFile() as out:
            forks = [self.fly(agents, dies, out, name) for dies in deaths]
            try:
                codes = [fork.wait(LIMIT_S) for fork in forks]
            finally:
                for fork in forks:
                    fork.kill()
                    fork.wait()
            out.seek(0)
            assert set(codes) <= {0, -signal.SIGKILL}, out.read().decode()
        return codes

    def sold(self) -> list[int]:
        """Give what was really sold, in millionths of a dollar."""
        return [int(line.split()[1]) for line in self.ledger.read_text().splitlines()]

    async def read(self) -> BudgetInfo:
        async with Outlive(self.url, worker=False) as app:
            found = await budgets(app).find(fleet.ACCOUNT)
        assert found is not None
        return found


@pytest.fixture
def flying(url: str, tmp_path: Path) -> Fleet:
    return Fleet(url, tmp_path)


async def test_one_calm_flight(flying: Fleet) -> None:
    assert flying.fly_together(1, "") == [0]
    found = await flying.read()
    paid = Decimal(sum(flying.sold())) / MILLION
    assert (found.spent.usd, found.spent.requests, found.spent.tools) == (paid, 3, 2)
    assert found.spent.tokens == 3 * (fleet.SENT + fleet.ANSWERED)
    assert found.lost.requests == found.reserved.requests == 0


# where it dies, how many requests may have been paid for without anybody knowing
DEATHS = [
    ("reserve.before 1", 0),
    ("reserve.after 1", 1),
    ("before-model 2", 1),
    ("after-model 2", 1),
    ("commit.before 3", None),
    ("commit.after 3", None),
    ("reserve.before 3", 0),
    ("within-tool 1", 0),
    ("within-tool 2", 0),
]


@by_turns("where, lost", DEATHS, ids=[where for where, _ in DEATHS])
async def test_the_budget_after_a_death_is_that_of_a_calm_flight(flying: Fleet, where: str, lost: int | None) -> None:
    """What an interrupted request may have cost is held back beside it: nobody knows whether it was paid."""
    assert flying.fly_together(1, where) == [-signal.SIGKILL]
    assert flying.fly_together(1, "") == [0]
    found = await flying.read()
    assert (found.spent.requests, found.spent.tools, found.reserved.requests) == (3, 2, 0)
    assert found.spent.usd == Decimal(3 * fleet.SOLD) / MILLION
    assert found.lost.requests == lost or (lost is None and found.lost.requests <= 1)
    assert Decimal(sum(flying.sold())) / MILLION <= found.spent.usd + found.lost.usd


@by_turns("where", ["mid-stream 1", "mid-stream 3", "before-model 2", "reserve.after 2", "commit.after 4"])
async def test_an_answer_that_is_cut_by_a_death_is_paid_for_once_and_held_back_once(flying: Fleet, where: str) -> None:
    """What was streamed by then may be billed; the answer that counts is another one."""
    assert flying.fly_together(0, where, name="talk") == [-signal.SIGKILL]
    assert flying.fly_together(0, "", name="talk") == [0]
    async with Outlive(flying.url, worker=False) as app:
        found = await budgets(app).find("talk")
    assert found is not None
    assert (found.spent.requests, found.spent.tools, found.reserved.requests) == (fleet.TURNS, 2, 0)
    assert len(flying.sold()) <= found.spent.requests + found.lost.requests <= fleet.TURNS + 1
    assert found.lost.requests == 0 or where != "commit.after 4"
    if where.startswith("mid-stream"):
        assert (len(flying.sold()), found.lost.requests) == (fleet.TURNS + 1, 1)
        assert found.lost.tokens >= 500, "all that was reserved: nobody knows how much was said"


@pytest.mark.parametrize("late", [False, True])
async def test_time_goes_on_while_nobody_lives(flying: Fleet, late: bool) -> None:
    """A death does not begin the time anew: who comes back after it is over does nothing more."""
    assert flying.fly_together(0, "after-model 2") == [-signal.SIGKILL]
    sold = len(flying.sold())
    if late:
        await _begin_earlier(flying.url, fleet.WALL_S + 1)
    assert flying.fly_together(0, "") == [0]
    async with fleet.opened(flying.url) as app:
        run = await app.get("sprint")
        if not late:
            assert await run.result(timeout=LIMIT_S) == "['seen', 'seen']"
            return
        with pytest.raises(BudgetExceeded, match=r"allows 60 s, and the agent began \d+ s ago; raise it") as caught:
            await run.result(timeout=LIMIT_S)
        assert caught.value.measure == "wall"
    assert len(flying.sold()) == sold


async def _begin_earlier(url: str, by_s: float) -> None:
    """Put the beginning of the sprint's time back."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
            db.execute("update ol_budget_accounts set began_at = began_at - ?", (by_s,))
        return
    connection = await asyncpg.connect(url)
    try:
        earlier = "update outlive.budget_accounts set began_at = began_at - make_interval(secs => $1)"
        await connection.execute(earlier, by_s)
    finally:
        await connection.close()


async def test_dying_around_every_reservation_and_commit(flying: Fleet) -> None:
    deaths = 0
    for number in range(1, pick(small=7, full=100)):
        where = ("reserve.before", "reserve.after", "commit.before", "commit.after")[number % 4]
        if flying.fly_together(1, f"{where} {1 + number // 4 % 2}") == [0]:
            break
        deaths += 1
    assert deaths > 3
    assert flying.fly_together(1, "") == [0]
    found = await flying.read()
    assert Decimal(sum(flying.sold())) / MILLION <= found.spent.usd + found.lost.usd <= Decimal(fleet.LIMIT)


async def test_fifty_agents_on_one_budget_under_kills(flying: Fleet) -> None:
    """Three processes at a time, killed in the middle of everything: nothing is overshot, and nothing is lost.

    CrewAI 4804: of several processes on one SQLite file, those who found it locked failed.

    How much of the budget the dead take with them depends on who is killed when: all of it, if everybody has reserved.
    """
    agents, limit = 50, Decimal(fleet.LIMIT)
    points = ["reserve.after", "after-model", "commit.after", "within-tool", "reserve.before", "commit.before"]
    killed = 0
    for turn in range(pick(small=1, full=20)):
        deaths = [f"{points[(3 * turn + one) % len(points)]} {2 + (turn + one) % 5}" for one in range(3)]
        killed += sum(code != 0 for code in flying.fly_together(agents, *deaths))
    assert killed  # one at least: were all but the last to do as little as they may, that one would do all the rest
    assert flying.fly_together(agents, "", "") == [0, 0]
    paid = Decimal(sum(flying.sold())) / MILLION
    found = await flying.read()
    assert found.spent.usd <= paid <= found.spent.usd + found.lost.usd <= limit
    assert found.spent.usd == Decimal(found.spent.requests * fleet.SOLD) / MILLION
    assert found.spent.requests <= len(flying.sold()) <= found.spent.requests + found.lost.requests
    assert found.lost.requests <= killed * agents  # each has one request under way at most
    assert found.reserved.requests == 0
    async with fleet.opened(flying.url) as app:
        told = await app.runs("status:failed", limit=100)
        assert 0 < len(told.items) <= agents  # it is not enough for all, and may be for none
        await budgets(app).put(fleet.ACCOUNT, usd=1)
        os.environ[shop.LEDGER] = str(flying.ledger)
        try:
            for failed in told.items:
                await (await app.get(failed.id)).retry()
            for number in range(agents):
                assert await (await app.get(f"flight-{number}")).result(timeout=LIMIT_S) == "['seen', 'seen']"
        finally:
            del os.environ[shop.LEDGER]
        found = await flying.read()
    assert (found.spent.requests, found.spent.tools) == (fleet.TURNS * agents, 2 * agents)
    assert len(flying.sold()) <= fleet.TURNS * agents + found.lost.requests
    assert found.spent.usd == Decimal(fleet.TURNS * agents * fleet.SOLD) / MILLION
