"""Approvals on the command line: who is asked about what, one decision, and no agent library at hand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from pydantic_ai import Agent

import outlive
from outlive import UsageError
from outlive.agents import Ask, approvals, durable
from outlive.cli.settings import person
from tests.agents.scripts import call, scripted
from tests.house.source import SRC

PATIENCE_S = 30
HOSTILE = "\x1b[2J\x9b2J\u202e00.5"  # clears a terminal, and turns what follows around
agent = Agent(scripted([call("refund", "c1", cents=17, to="ana " * 30, note=HOSTILE)], "{results}"), name="clerk")


@agent.tool_plain
async def refund(cents: int, to: str, note: str = "") -> str:
    return f"refunded {cents}"


clerk = durable(agent, policy=lambda _: Ask(role="finance", expires=3600))


@pytest.fixture(autouse=True)
def asked(url):
    """Leave a call that waits to be approved; give its id."""

    async def play():
        async with outlive.Outlive(url, include=[clerk]) as app, asyncio.timeout(PATIENCE_S):
            await app.start(clerk, "refund", id="chat 1")
            while not (page := await approvals(app).list()).items:
                await asyncio.sleep(0.01)
            return page.items[0].id

    return asyncio.run(play())


def finish(url):
    async def play():
        async with outlive.Outlive(url, include=[clerk]) as app:
            return await (await app.get("chat 1")).result(PATIENCE_S)

    return asyncio.run(play())


def test_who_is_asked_about_what(run_cli, asked):
    titles, row = run_cli("approvals", "ls").stdout.splitlines()
    assert titles.split() == "AGENT TOOL ARGUMENTS ROLE VOTES UNTIL (UTC) ID".split()
    assert row.startswith('clerk  refund  {"cents": 17, "to": "ana ana')
    assert "finance  0 of 1" in row and row.endswith(asked)
    shown = run_cli("approvals", "show", asked).stdout
    assert "refund  asked for by clerk, run 'chat 1'\n  cents      17\n" in shown
    assert "ana " * 30 in shown
    assert "\\u001b[2J\\x9b2J\\u202e00.5" in shown
    assert not set("\x1b\x9b\u202e") & set(shown)
    one = run_cli.json("approvals", "show", asked)["approval"]
    assert (one["id"], one["role"], one["quorum"], one["votes"]) == (asked, "finance", 1, [])
    assert run_cli.json("approvals", "ls", "--run", "chat 1") == {"approvals": [one], "next": None}
    assert run_cli.json("approvals", "ls", "--run", "another") == {"approvals": [], "next": None}
    assert not run_cli("approvals", "ls", "--limit", "1").stderr  # there is no more


def test_a_call_is_approved_with_other_arguments(run_cli, url, asked):
    digest = run_cli.json("approvals", "show", asked)["approval"]["digest"]
    edited = ["--edit", json.dumps({"cents": 5, "to": "ana"}), "--digest", digest, "--role", "finance"]
    said = run_cli("approvals", "decide", asked, "--approve", "--by", "bob", "--why", "known", *edited)
    assert said.stdout == "the call is approved\n"
    assert run_cli("approvals", "show", asked, code=3).stderr.startswith("outlive: no approval ")
    assert "it was decided, has expired" in run_cli("approvals", "decide", asked, "--deny", code=4).stderr
    assert finish(url) == "['refunded 5']"
    (entry,) = run_cli.json("audit", "chat 1")["audit"]
    assert (entry["by"], entry["reason"]) == ("bob", "known")


def test_a_call_is_denied(run_cli, url, asked):
    deny = ["--deny", "--by", "bob", "--reason", "too dear", "--role", "finance"]
    assert run_cli.json("approvals", "decide", asked, *deny) == {"approved": False}
    assert "bob denied this call: too dear" in finish(url)


def test_a_decision_that_does_not_count_ends_with_4(run_cli, asked):
    assert "has not the role 'finance'" in run_cli("approvals", "decide", asked, "--approve", code=4).stderr
    stale = ["--approve", "--role", "finance", "--digest", "0"]
    assert "look again" in run_cli("approvals", "decide", asked, *stale, code=4).stderr
    assert run_cli.json("approvals", "show", asked)["approval"]["votes"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "say --approve or --deny, one of them"),
        (["--deny", "--approve"], "say --approve or --deny, one of them"),
        (["--approve", "--edit", "cents"], "--edit is JSON"),
        (["--approve", "--edit", "[5]"], "is a mapping"),
        (["--deny", "--edit", "{}"], "has no arguments to edit"),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2(run_cli, asked, options, told):
    assert told in run_cli("approvals", "decide", asked, *options, code=2).stderr
    assert "the id of this approval is" in run_cli("approvals", "show", "chat", code=2).stderr


def test_nobody_decides_without_a_name(run_cli, asked):
    """Else each command would be another person."""
    assert "it is empty" in run_cli("approvals", "decide", asked, "--approve", "--by", "", code=2).stderr
    assert run_cli("approvals", "show", asked).stdout
    with pytest.raises(UsageError, match="say --by NAME"):
        person(None)  # of a container without a name for its user


def test_no_agent_library_is_loaded():
    code = "import sys, outlive.cli; print('pydantic_ai' in sys.modules)"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SRC)})
    assert told.stdout == "False\n"
