"""`outlive agents chat` at a terminal and at the end of a pipe; that it may die is shown by the tests of talks."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from outlive import Outlive
from outlive.agents import approvals
from tests.house.source import ROOT
from tests.support import nursery
from tests.support.terminal import Terminal

PATIENCE_S = 40
DESK = """
import os
from typing import Literal
from outlive import Outlive, workflow
from outlive.agents import Ask, conversation, durable, pure, question_tool
from pydantic_ai import Agent
from tests.agents.scripts import call, scripted

agent = Agent(
    scripted(
        [call("refund", "r1", cents=500)], "I \\x1b[1msay {results}.", [call("ask_user", "q1", question="Which door?")],
        "To the door: {results}.", "Three.", "Four."
    ),
    name="clerk", tools=[question_tool(Literal["front", "back"])],
)

@agent.tool_plain(metadata=pure())
async def refund(cents: int) -> str:
    return f"refunded {cents}"

clerk = durable(agent, stream=True, policy=lambda asked: Ask(role="boss") if asked.tool == "refund" else None)
app = Outlive(os.environ["OUTLIVE_URL"], include=[clerk])

@workflow
async def other() -> None:
    pass
"""
APPROVE, ANSWER, PROMPT = r"\[e\]dit> \Z", r"/decline> \Z", r"^you> \Z"


@pytest.fixture(autouse=True)
def module(run_cli, tmp_path):
    run_cli.environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    (tmp_path / "desk.py").write_text(DESK)


@pytest.fixture
def sit_down(run_cli):
    def sit_down(*words: str) -> Terminal:
        arguments = ["-m", "outlive", "agents", "chat", "desk:clerk", "--id", "chat-1", "--by", "ana", *words]
        return Terminal(arguments, cwd=run_cli.folder, env=run_cli.environment)

    return sit_down


def piped(run_cli, text: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    arguments = run_cli.argv("agents", "chat", "desk", "--id", "chat-1", "--by", "ana", *words)[1:]
    done = nursery.run(arguments, cwd=run_cli.folder, env=run_cli.environment, input=text, timeout=PATIENCE_S)
    assert done.returncode == code, done.stderr
    return done


def test_a_call_is_edited_and_a_question_answered_in_line(sit_down, run_cli):
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello \x01")
        terminal.until(r'\? refund {"cents": 500} waits for approval')
        terminal.until(APPROVE)
        terminal.type("perhaps")
        terminal.until("! y, n or e, not 'perhaps'; /quit leaves")
        terminal.until(APPROVE)
        terminal.type("e")
        terminal.until(r'arguments as JSON, now {"cents": 500}> \Z')
        terminal.type("seven")
        terminal.until('arguments are a JSON object, {"cents": 500}, not seven')
        terminal.until(APPROVE)
        terminal.type('e {"cents": 7}')
        terminal.until("= refund: refunded 7")
        terminal.until(r"^clerk> I \\x1b\[1msay \['refunded 7'\]\.$")
        terminal.until(PROMPT)
        terminal.type("next")
        terminal.until(r"\? Which door\?")
        terminal.until(ANSWER)
        terminal.type("/end")
        terminal.until("! /decline and why answers nothing, /quit leaves")
        terminal.until(ANSWER)
        terminal.type("//roof")
        terminal.until("is not one of")
        terminal.until(ANSWER)
        terminal.type("back")
        terminal.until(r"^clerk> To the door: .*'back'\]\.$")
        terminal.until(PROMPT)
        terminal.type("/where")
        terminal.until("/end ends the conversation")
        terminal.until(PROMPT)
        terminal.type("//where")
        terminal.until(r"^clerk> Three\.$")
        terminal.until(PROMPT)
        terminal.type("/end")
        terminal.until("the conversation has ended")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.shown
        assert "come back" not in terminal.shown
    lines = run_cli.json("agents", "show", "chat-1")["lines"]
    assert [line["text"] for line in lines if line["kind"] == "prompt"] == ["hello \x01", "next", "/where"]
    with sit_down() as terminal:
        terminal.until("the conversation has ended")
        assert "clerk> Three." in terminal.shown
        assert terminal.end() == 0


def test_what_another_role_decides_is_waited_for(sit_down, run_cli):
    """The command that is shown decides, at another terminal; the chat goes on."""
    with sit_down() as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        command = terminal.until(r"by boss: outlive approvals decide '(.*)' --approve --role boss$")
        said = run_cli("approvals", "decide", command[1], "--deny", "--role", "boss", "--by", "bob", "--why", "no\nno")
        assert said.stdout == "the call is denied\n"
        terminal.until(r"^clerk> I ")
        terminal.until(PROMPT)
    shown = run_cli("agents", "show", "chat-1").stdout
    assert "decision     refund(r1) denied by bob: no" in shown


def test_what_is_decided_elsewhere_is_asked_no_more(sit_down, url):
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        terminal.until(APPROVE)

        async def decide() -> None:
            async with Outlive(url, worker=False) as app:
                (one,) = (await approvals(app).list()).items
                await approvals(app).decide(one.id, approve=True, by="bob", roles=["boss"])

        asyncio.run(decide())
        terminal.until(r"\(decided\)")
        terminal.until(PROMPT)
        terminal.type("next")
        terminal.until(ANSWER)
        terminal.type("/decline too late")
        terminal.until(r"^clerk> To the door: .*ana declined to answer: too late")


TWO_CALLS = 'call("refund", "r1", cents=500)], "I'
SLOW = """
import asyncio
from outlive import Run

stream = Run.stream

async def late(run, name="default", after=0):
    async for item in stream(run, name, after):
        await asyncio.sleep(0.6)  # longer than a look at what is asked takes
        yield item

Run.stream = late
"""


@pytest.mark.parametrize("asked", [APPROVE, ANSWER])
def test_who_is_asked_may_leave(sit_down, asked):
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        terminal.until(APPROVE)
        if asked == ANSWER:
            terminal.type("y")
            terminal.until(PROMPT)
            terminal.type("next")
            terminal.until(ANSWER)
        terminal.type(" /quit")
        terminal.until("come back: ")
        assert terminal.end() == 0
    with sit_down("--role", "boss") as terminal:
        terminal.until(asked)


def test_calls_side_by_side_are_asked_about_one_after_the_other(sit_down, tmp_path):
    more = TWO_CALLS.replace("], ", ', call("refund", "r2", cents=7)], ')
    (tmp_path / "desk.py").write_text(DESK.replace(TWO_CALLS, more))
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        asked = []
        for word in ("y", "n too much"):
            asked.append(terminal.until(r'\? refund {"cents": (\d+)} waits for approval')[1])
            terminal.until(APPROVE)
            terminal.type(word)
        terminal.until(PROMPT)
        assert sorted(asked) == ["500", "7"]
        assert f"= refund: refunded {asked[0]}" in terminal.shown and f"refunded {asked[1]}" not in terminal.shown


def test_a_line_answers_what_was_on_the_screen_when_it_was_typed(sit_down, tmp_path, run_cli):
    more = TWO_CALLS.replace("], ", ', call("refund", "r2", cents=7)], ')
    (tmp_path / "desk.py").write_text(DESK.replace(TWO_CALLS, more))
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        terminal.until(APPROVE)
        terminal.type("y\ny")
        terminal.until("! 'y' was typed before this was asked, and answers nothing")
        terminal.until(APPROVE)
        assert len(run_cli.json("approvals", "ls")["approvals"]) == 1
        terminal.type("n")
        terminal.until(PROMPT)


def test_what_is_asked_is_answered_though_what_was_said_before_comes_later(sit_down, tmp_path):
    (tmp_path / "desk.py").write_text(DESK + SLOW)
    with sit_down("--role", "boss") as terminal:
        terminal.until(PROMPT)
        terminal.type("hello")
        terminal.until(APPROVE)
        terminal.until("[.] refund")  # the call, which came to the stream before it was asked about
        terminal.until(APPROVE)  # again, for the line of the call has pushed it away
        terminal.type("y")
        terminal.until("= refund: refunded 500")
        assert "(decided)" not in terminal.shown


def test_a_pipe_says_one_line_after_the_other(run_cli):
    said = piped(run_cli, "hello\ny\nnext\n", "--role", "boss")
    assert "you> hello" in said.stdout and "refunded 500" in said.stdout and "? Which door?" in said.stdout
    assert "come back: outlive agents chat desk --id chat-1" in said.stderr
    said = piped(run_cli, "front\nthird\n/end\nnever\n")
    assert [line for line in said.stdout.splitlines() if line.startswith("you>")] == [
        "you> hello", "you> next", "you> third",
    ]  # fmt: skip
    assert "the conversation has ended" in said.stderr and "  ! 'never' was not said\n" in said.stdout
    (one,) = run_cli.json("agents", "ls")["runs"]
    assert (one["id"], one["workflow"], one["status"], one["usage"]["requests"]) == (
        "chat-1", "chat.clerk", "succeeded", 5,
    )  # fmt: skip


def test_a_pipe_that_is_empty_waits_for_no_other_role(run_cli):
    said = piped(run_cli, "hello\nnext\n")
    assert "left, while a call waits for others" in said.stderr
    assert "  ! 'next' was not said\n" in said.stdout
    (waits,) = run_cli.json("approvals", "ls")["approvals"]
    run_cli("approvals", "decide", waits["id"], "--approve", "--role", "boss", "--by", "bob")
    assert "I \\x1b[1msay ['refunded 500']" in piped(run_cli, "").stdout


def test_a_conversation_that_is_held_says_why(run_cli):
    piped(run_cli, "")
    run_cli("runs", "pause", "chat-1", "--by", "bob")
    said = piped(run_cli, "hello\n", code=1)
    assert "paused by bob" in said.stderr


def test_wrong_usage(run_cli, tmp_path, url):
    def refused(*words: str, code: int = 2) -> str:
        return str(run_cli("agents", "chat", *words, code=code).stderr)

    (tmp_path / "two.py").write_text(DESK + "\nspare = durable(agent, name='spare')\n")
    assert "no module 'nowhere'" in refused("nowhere")
    assert "say which agent of the module 'two' you want to talk to: two:clerk, two:spare" in refused("two")
    assert "it has none" in refused("shop")
    assert "not a durable agent" in refused("desk:agent")
    assert "a chat is for people" in refused("desk", "--json")
    (tmp_path / "bare.py").write_text(DESK.replace("app = ", "# "))
    assert "pass --url" in run_cli("agents", "chat", "bare", code=2, OUTLIVE_URL="").stderr

    async def start() -> None:
        async with Outlive(url, worker=False) as app:
            await app.start("another workflow", id="taken")

    asyncio.run(start())
    assert "another workflow" in refused("desk", "--id", "taken", code=4)
