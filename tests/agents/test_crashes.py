"""A process dies at every point of an agent's work: each effect class keeps its word, and the answer is the same."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from outlive import Outlive
from outlive.limits import QUARANTINE_CRASHES
from tests.agents import shop
from tests.crash.databases import read
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import by_turns

LIMIT_S = 40.0
CALM = ["read", "charged", "entered", "refunded o-1", "mailed", "done", "waited"]


class Sale:
    """The database and the ledger of one sale."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def work(self, dies: str = "") -> subprocess.CompletedProcess[str]:
        """Work on the sale in a process of its own, to the end of one of them."""
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        return nursery.run(["-m", "tests.agents.shop", self.url], cwd=ROOT, env=env, timeout=LIMIT_S)

    def die(self, dies: str) -> bool:
        """Let a process die at a point; False if it did not come by there, but ended the sale."""
        done = self.work(dies)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0

    def finish(self) -> str:
        """Work without dying; give the answer."""
        done = self.work()
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def happened(self) -> Counter[str]:
        """Give how often each thing happened, by its first word."""
        lines = self.ledger.read_text().splitlines()
        charges = {line for line in lines if line.startswith("charge ")}
        assert len(charges) <= 1, "a repetition has another key"
        return Counter(line if line.startswith("model") else line.split()[0] for line in lines)

    def spans(self) -> Counter[str]:
        """Give how often each span was told, by all processes."""
        return Counter(self.ledger.with_suffix(".spans").read_text().splitlines())


@pytest.fixture
def sale(url: str, tmp_path: Path) -> Sale:
    return Sale(url, tmp_path)


def answer(**changed: str) -> str:
    """Give the answer of a sale in which some tools have told the model something else."""
    return str([changed.get(said.split()[0], said) for said in CALM])


async def test_a_calm_sale(sale: Sale) -> None:
    assert sale.finish() == answer()
    once = Counter({"read": 1, "charge": 1, "enter": 1, "refund": 1, "mail": 1, "bare": 1})
    assert sale.happened() == once + Counter(f"model {turn}" for turn in range(6))
    assert sale.finish() == answer()  # the sale has ended: nothing happens
    assert sale.happened().total() == 12
    requests = [f"chat {1 + 2 * turn}" for turn in range(6)]
    tools = [f"execute_tool {tool}" for tool in ("read", "charge", "enter", "refund", "mail", "bare", "wait")]
    assert sale.spans() == Counter([*requests, *tools, "invoke_agent 0"])


@by_turns(
    "dies",
    ["before-model 2", "after-model 3", "after-read 1", "after-refund 1", *(f"commit.after {n}" for n in range(2, 9))],
)
async def test_a_span_is_told_once_for_each_time_it_was_done(sale: Sale, dies: str) -> None:
    """It is told when something was done: what was done again, because its end was not on disk, is told again."""
    assert sale.die(dies)
    sale.finish()
    told, happened = sale.spans(), sale.happened()
    again = {span: times for span, times in told.items() if times > 1}
    assert all(times <= happened[span.removeprefix("execute_tool ")] for span, times in again.items()), again
    assert len(again) <= 1
    assert told["invoke_agent 0"] == 1
    assert sum(span.startswith("chat") for span in told) >= 5
    assert sum(span.startswith("execute_tool") for span in told) >= 6


@by_turns("where, number", list(product(("before-model", "after-model"), (1, 3, 6))))
async def test_within_a_model_request(sale: Sale, where: str, number: int) -> None:
    """Cloudflare 1763: what had been answered was generated, and paid for, once more; MAF 4280: no trace of it."""
    assert sale.die(f"{where} {number}")
    assert sale.finish() == answer()
    happened = sale.happened()
    again = int(where == "after-model")
    asked = [happened[f"model {turn}"] for turn in range(6)]
    assert asked == [1 + (again if turn == number - 1 else 0) for turn in range(6)]
    assert all(happened[tool] == 1 for tool in ("read", "charge", "enter", "refund", "mail", "bare"))


# where it dies, how often the tool took effect in the end, what the model was told
CLASSES = [
    ("before-read", "read", 1, {}),
    ("after-read", "read", 2, {}),
    ("after-charge", "charge", 2, {}),
    ("before-enter", "enter", 1, {}),
    ("after-enter", "enter", 2, {}),  # the ledger says so; the rows of the first time are not there
    ("before-refund", "refund", 1, {}),
    ("after-refund", "refund", 1, {"refunded": "refunded o-1, says the bank"}),
    ("before-mail", "mail", 0, {"mailed": "mail"}),
    ("after-mail", "mail", 1, {"mailed": "mail"}),
    ("before-bare", "bare", 0, {"done": "bare"}),
    ("after-bare", "bare", 1, {"done": "bare"}),
]


@by_turns("where, tool, times, told", CLASSES, ids=[each[0] for each in CLASSES])
async def test_in_the_middle_of_a_tool(sale: Sale, where: str, tool: str, times: int, told: dict[str, str]) -> None:
    """MAF 3938, ADK 8039, Cloudflare 1621: a retry after a crash refunded, paid and wrote again."""
    assert sale.die(f"{where} 1")
    said = sale.finish()
    happened = sale.happened()
    assert happened[tool] == times
    assert all(happened[f"model {turn}"] == 1 for turn in range(6))
    for calm, changed in told.items():
        if changed == tool:
            assert f"OutcomeUnknown: the call of {tool} was cut off before its outcome was known" in said
        else:
            assert said == answer(**{calm: changed})
    if not told:
        assert said == answer()
    async with Outlive(sale.url, worker=False) as app:
        rows = await (await app.get("sale")).entries()
    assert len([entry for entry in rows if entry.key.startswith("shop#1/tool:enter")]) == 1


async def test_dying_around_every_commit(sale: Sale) -> None:
    """Whatever was recorded before a death is not done again, however often processes die.

    LangGraph 8039, 8234, 8050, 8055: what was written and the checkpoint of it came apart.
    """
    deaths = 0
    for number in range(1, 200):
        if not sale.die(f"commit.{'before' if number % 2 else 'after'} {1 + number // 2 % 3}"):
            break
        deaths += 1
    assert deaths > 3
    happened = sale.happened()
    assert happened["refund"] == 1
    check_said(sale.finish())
    for tool in ("mail", "bare"):
        assert happened[tool] <= 1
    assert entered(sale) == 1


def check_said(said: str) -> None:
    """Check a whole answer: that of a calm sale, but for calls of whose outcome nobody knows."""
    results = ast.literal_eval(said)
    assert len(results) == len(CALM)
    for calm, result in zip(CALM, results, strict=True):
        tool = {"mailed": "mail", "done": "bare"}.get(calm)
        unknown = f"OutcomeUnknown: the call of {tool} was cut off before its outcome was known"
        verified = "refunded o-1, says the bank" if calm == "refunded o-1" else calm
        assert result in (calm, verified) or (tool is not None and result.startswith(unknown)), said


def entered(sale: Sale) -> int:
    """Give how many rows the transactional tool has left."""
    ((rows,),) = read(sale.url, "select count(*) from shop_entries")
    return int(rows)


@by_turns("where", ["transaction.before", "transaction.begun", "transaction.after"])
async def test_around_the_transaction_of_a_tool(sale: Sale, where: str) -> None:
    """Its row and its result are there together, or neither is."""
    assert sale.die(f"{where} 1")
    assert (where == "transaction.after") == (await has_result(sale, "enter"))
    assert sale.finish() == answer()
    assert entered(sale) == 1
    assert sale.happened()["enter"] == 1


async def has_result(sale: Sale, tool: str) -> bool:
    async with Outlive(sale.url, worker=False) as app:
        entries = await (await app.get("sale")).entries()
    return any(entry.name == f"tool:{tool}" and entry.outcome == "ok" for entry in entries)


async def test_a_tool_that_kills_its_process_is_quarantined_though_each_attempt_is_noted(sale: Sale) -> None:
    """That a call of at most once begins is written, and no progress: else it would kill one worker after another."""
    for death in range(QUARANTINE_CRASHES):
        assert sale.die("before-refund 1"), death
    async with Outlive(sale.url, include=[]) as app, asyncio.timeout(LIMIT_S):
        while await (await app.get("sale")).status() != "quarantined":
            await asyncio.sleep(0.02)
        await (await app.get("sale")).resume()
    assert sale.finish() == answer()


async def test_a_run_outlives_more_deaths_than_condemn_one_if_it_gets_on(sale: Sale) -> None:
    """Cloudflare 1615: each deploy used up an attempt at recovery, and the fifth one ended the run."""
    for death in range(QUARANTINE_CRASHES + 1):
        assert sale.die("commit.after 2"), death
    check_said(sale.finish())
    async with Outlive(sale.url, worker=False) as app:
        assert await (await app.get("sale")).status() == "succeeded"
