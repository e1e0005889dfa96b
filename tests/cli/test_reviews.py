"""Reviews on the command line: what was stopped and why, and one decision on it."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive.reviews import ask_for_review, reviews

PATIENCE_S = 30
FACTS = {"agent": "clerk", "attempts": ["\x1b[1mfirst", "x" * 700]}


@outlive.workflow
async def billing() -> list[object]:
    decision = await ask_for_review("output", "no answer of \x1b[1m2 is right", FACTS, 3600)
    return [decision.verdict, decision.by, decision.why, decision.value]


@pytest.fixture(autouse=True)
def stopped(url):
    """Leave a review that waits; give its id."""

    async def play():
        async with outlive.Outlive(url, include=[billing]) as app, asyncio.timeout(PATIENCE_S):
            await app.start(billing, id="bill 1")
            while not (page := await reviews(app).list()).items:
                await asyncio.sleep(0.01)
            return page.items[0].id

    return asyncio.run(play())


def finish(url):
    async def play():
        async with outlive.Outlive(url, include=[billing]) as app:
            return await (await app.get("bill 1")).result(PATIENCE_S)

    return asyncio.run(play())


def test_a_review_is_listed_and_shown(run_cli, stopped):
    titles, row = run_cli("reviews", "ls").stdout.splitlines()
    assert titles.split() == "WHAT REASON UNTIL (UTC) ID".split()
    assert row.startswith("output  no answer of \\x1b[1m2 is right") and row.endswith(stopped)
    (one,) = run_cli.json("reviews", "ls", "--run", "bill 1")["reviews"]
    assert (one["id"], one["facts"]) == (stopped, FACTS)
    assert not run_cli("reviews", "ls", "--limit", "1").stderr  # there is no more
    assert run_cli.json("reviews", "ls", "--run", "another") == {"reviews": [], "next": None}
    shown = run_cli("reviews", "show", stopped).stdout
    assert "\x1b" not in shown and "no answer of \\x1b[1m2 is right" in shown and "x" * 700 not in shown
    assert "x" * 700 in run_cli("reviews", "show", stopped, "--full").stdout
    assert run_cli.json("reviews", "show", stopped)["review"]["what"] == "output"


@pytest.mark.parametrize(
    ("given", "said", "result"),
    [
        (["accept", "--value", '{"cents": 1}'], "it is accepted\n", ["accept", "ana", None, {"cents": 1}]),
        (["again", "--why", "look twice"], "the agent tries again\n", ["again", "ana", "look twice", None]),
        (["reject"], "it is rejected\n", ["reject", "ana", None, None]),
    ],
    ids=["accept", "again", "reject"],
)
def test_a_review_is_decided_once(run_cli, url, stopped, given, said, result):
    assert run_cli("reviews", "decide", stopped, *given, "--by", "ana").stdout == said
    assert "was decided, has expired" in run_cli("reviews", "decide", stopped, "reject", code=4).stderr
    assert "was decided, has expired" in run_cli("reviews", "show", stopped, code=3).stderr
    assert finish(url) == result
    (entry,) = run_cli.json("audit", "bill 1")["audit"]
    assert (entry["by"], entry["reason"]) == ("ana", result[2])


def test_wrong_usage_ends_with_2(run_cli, stopped):
    assert "perhaps" in run_cli("reviews", "decide", stopped, "perhaps", code=2).stderr
    assert "is JSON" in run_cli("reviews", "decide", stopped, "accept", "--value", "blue", code=2).stderr
    assert "what is accepted" in run_cli("reviews", "decide", stopped, "reject", "--value", "1", code=2).stderr
    assert "the id of this review is" in run_cli("reviews", "decide", "bill", "accept", code=2).stderr
    assert run_cli.json("reviews", "ls")["reviews"]
