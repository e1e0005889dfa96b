"""Processes die around approvals: a decision is made or it is not, is used once, and what waits goes on by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from outlive import AuditEntry, Outlive, RunRefused
from outlive.agents import approvals
from tests.agents import desk, shop
from tests.crash.databases import connect, is_sqlite
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.faults import VARIABLE
from tests.support.size import by_turns, pick

LIMIT_S = 40.0
REFUNDED = "['refunded 17', 'seen']"


class Desk:
    """The database and the ledger of one desk, and its processes."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def environment(self, fault: str, dies: str) -> dict[str, str]:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        return {**env, VARIABLE: fault} if fault else env

    def run(self, role: str, name: str = "ana", fault: str = "", dies: str = "") -> subprocess.CompletedProcess[str]:
        """Let a process work to its end, or to its death."""
        arguments = ["-m", "tests.agents.desk", role, self.url, name]
        done = nursery.run(arguments, cwd=ROOT, env=self.environment(fault, dies), timeout=LIMIT_S)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done

    def start(self, role: str, name: str = "ana", stdin: int = subprocess.DEVNULL) -> nursery.Fork:
        """Start a process that goes on by itself."""
        arguments = ["-m", "tests.agents.desk", role, self.url, name]
        with tempfile.TemporaryFile() as told:
            return nursery.spawn(
                arguments, cwd=ROOT, env=self.environment("", ""), stdin=stdin, stdout=told, stderr=told
            )

    def finish(self) -> str:
        """Give what the agent says in the end."""
        return self.run("work").stdout.strip().splitlines()[-1]

    def happened(self, what: str) -> list[str]:
        return [line for line in self.ledger.read_text().splitlines() if line.startswith(what)]

    async def waiting(self) -> bool:
        async with Outlive(self.url, worker=False) as client:
            return bool((await approvals(client).list()).items)

    async def decisions(self) -> list[AuditEntry]:
        async with Outlive(self.url, worker=False) as client:
            return await client.audit(desk.RUN)

    async def suspended(self) -> None:
        """Wait until the run waits in nobody's memory but that of its worker, then kill the worker."""
        worker = self.start("work")
        try:
            async with asyncio.timeout(LIMIT_S):
                while not await self.waiting():
                    await asyncio.sleep(0.02)
        finally:
            worker.kill()
            worker.wait(LIMIT_S)


@pytest.fixture
def place(url: str, tmp_path: Path) -> Desk:
    return Desk(url, tmp_path)


@by_turns("point", ["settle.before", "settle.noting", "settle.after", "wake.before", "wake.after"])
async def test_a_decision_that_dies_is_made_or_not(place: Desk, point: str) -> None:
    """The decision and its note in the audit are one: both are there, or neither."""
    await place.suspended()
    assert place.run("decide", "ana", fault=f"{point}:kill:1").returncode == -signal.SIGKILL
    made = point not in ("settle.before", "settle.noting")
    assert await place.waiting() != made
    assert [entry.by for entry in await place.decisions()] == ["ana"] * made
    assert place.happened("refund") == []
    if not made:
        assert place.run("decide", "bob").returncode == 0
        assert place.happened("decided") == ["decided bob"]
    assert place.finish() == REFUNDED
    assert place.happened("refund") == ["refund 17"]
    assert [entry.by for entry in await place.decisions()] == ["ana" if made else "bob"]
    assert place.happened("model") == ["model 0", "model 1", "model 2"]


async def test_what_a_decision_changes_is_used_though_nobody_lived(place: Desk) -> None:
    """ADK 6644: what a person had changed was dropped when the run was resumed."""
    await place.suspended()
    assert place.run("decide", "5").returncode == 0
    (entry,) = await place.decisions()
    assert (entry.by, entry.facts["decided"], entry.facts["edit"]) == ("5", "approve", {"cents": 5})
    assert entry.reason == "5 says so"
    assert place.finish() == "['refunded 5', 'seen']"
    assert place.happened("refund") == ["refund 5"]


def let_days_pass(url: str, days: int) -> None:
    """Put the times that are stored of what waits so many days back: as if they had gone by."""
    prefix, moved = ("ol_", f"- {days * 86_400}") if is_sqlite(url) else ("", f"- interval '{days} days'")
    connection = connect(url)
    try:
        connection.execute(
            f"update {prefix}promises set created_at = created_at {moved}, expires_at = expires_at {moved}"
        )
        connection.execute(f"update {prefix}live set wake_at = wake_at {moved}")
        for key, value in list(connection.execute(f"select key, value from {prefix}entries where kind = 'promise'")):
            facts = json.loads(value)
            facts["expires_at"] -= days * 86_400
            connection.execute(f"update {prefix}entries set value = '{json.dumps(facts)}' where key = '{key}'")
    finally:
        connection.close()


@pytest.mark.parametrize("days", [5, 8])
async def test_three_deaths_and_some_days_while_an_approval_waits(place: Desk, days: int) -> None:
    """The same approval waits for seven days: within them it is used once, and after them by nobody."""
    for _ in range(3):
        await place.suspended()
    async with Outlive(place.url, worker=False) as client:
        (one,) = (await approvals(client).list()).items
        let_days_pass(place.url, days)
        if days < 7:
            await approvals(client).decide(one.id, approve=True, by="ana")
        else:
            assert (await approvals(client).list()).items == []
            with pytest.raises(RunRefused, match="has expired"):
                await approvals(client).decide(one.id, approve=True, by="ana")
    said = place.finish()
    assert said == REFUNDED if days < 7 else "Nobody decided in time" in said
    assert place.happened("refund") == ["refund 17"] * (days < 7)
    assert place.happened("model") == ["model 0", "model 1", "model 2"]
    assert [entry.by for entry in await place.decisions()] == ["ana"] * (days < 7)


async def test_a_worker_hears_of_a_decision_whose_maker_died_before_he_woke_it(place: Desk) -> None:
    worker = place.start("work")
    try:
        assert place.run("decide", fault="settle.after:kill:1").returncode == -signal.SIGKILL
        assert worker.wait(LIMIT_S) == 0
    finally:
        worker.kill()
        worker.wait(LIMIT_S)
    assert place.happened("refund") == ["refund 17"]


async def test_a_call_that_a_crash_interrupted_after_its_approval_is_not_made_again(place: Desk) -> None:
    """n8n 33845: after a crash the model has to read that nobody knows what took effect; nobody is asked twice."""
    assert place.run("both", dies="in-refund 1").returncode == -signal.SIGKILL
    assert place.happened("refund") == ["refund 17"]
    assert not await place.waiting()
    assert "OutcomeUnknown: the call of refund was cut off before its outcome was known" in place.finish()
    assert place.happened("refund") == ["refund 17"]
    assert len(await place.decisions()) == 1


async def test_a_token_that_was_handed_out_before_a_death_is_the_one_that_counts(place: Desk) -> None:
    """`RequestInput` may ask again if the process dies before that is noted: with the same token, for the same wait."""
    assert place.run("input", dies="after-token 1").returncode == -signal.SIGKILL
    worker = place.start("input")
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(place.happened("token")) < 2:
                await asyncio.sleep(0.02)
        first, second = place.happened("token")
        assert first == second
        async with Outlive(place.url, worker=False) as client:
            await client.settle(first.split()[1], {"calls": {"c1": "shipped"}})
        assert worker.wait(LIMIT_S) == 0
    finally:
        worker.kill()
        worker.wait(LIMIT_S)
    assert place.run("input").stdout.strip() == "['shipped']"
    assert len(place.happened("token")) == 2


@by_turns("edge", ["before", "after"])
async def test_dying_at_every_commit_around_an_approval(place: Desk, edge: str) -> None:
    """However often processes die, the call is made at most once, by one decision."""
    deaths = 0
    for number in range(1, 60):
        passage = 1 + number % pick(small=4, full=12)
        if place.run("both", fault=f"commit.{edge}:kill:{passage}").returncode == 0:
            break
        deaths += 1
    assert deaths > 1
    said, refunds = place.finish(), place.happened("refund")
    assert len(refunds) <= 1
    assert "OutcomeUnknown" in said or (said, refunds) == (REFUNDED, ["refund 17"])
    assert [entry.by for entry in await place.decisions()] == ["ana"]
    assert len(place.happened("decided")) <= 1


async def test_of_eight_people_in_two_processes_one_decides(place: Desk) -> None:
    """Each edits the amount to his own number: what is refunded tells whose decision counted."""
    await place.suspended()
    crowds = [place.start("crowd", name, stdin=subprocess.PIPE) for name in ("1", "2")]
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(place.happened("ready")) < len(crowds):
                await asyncio.sleep(0.01)
        for crowd in crowds:
            assert crowd.stdin is not None
            with crowd.stdin as line:
                line.write(b"now\n")
        assert [crowd.wait(LIMIT_S) for crowd in crowds] == [0, 0]
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.wait(LIMIT_S)
    (winner,) = [line.split()[1] for line in place.happened("decided")]
    assert len(place.happened("tried")) == 2 * desk.CROWD
    assert len(place.happened("refused")) == 2 * desk.CROWD - 1
    assert [entry.by for entry in await place.decisions()] == [winner]
    assert place.finish() == f"['refunded {winner}', 'seen']"
    assert place.happened("refund") == [f"refund {winner}"]
