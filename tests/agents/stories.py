"""Agents that stream, and who follows them, in processes that die: `python -m tests.agents.stories tell URL`.

`listen URL AFTER` enters each event that it sees in a ledger, a file that belongs to no database: it is the judge.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from outlive import LeaseLost, Outlive, StoreUnavailable, hooks
from outlive.agents import durable, events, pure, texts, transactional, tx
from tests.support.size import CALM_LEASE_S

LEDGER = "OUTLIVE_TEST_LEDGER"
DIES = "OUTLIVE_TEST_DIES"  # "point number": where in this process a signal comes, points counted from 1
LEASE = "OUTLIVE_TEST_LEASE"  # of this process, in seconds
SIGNAL = "OUTLIVE_TEST_SIGNAL"  # which one, else SIGKILL
STORY = "once upon a time there was a run that never died".split()
GONE = "OUTLIVE_TEST_GONE"  # a point from which on the committer finds no database
_passed: dict[str, itertools.count[int]] = {}
_gone: list[str] = []
_open: list[Outlive] = []


def book(line: str) -> None:
    """Enter what was seen."""
    with Path(os.environ[LEDGER]).open("a") as ledger:
        ledger.write(line + "\n")


def pass_point(point: str) -> None:
    """Die here, or stand still, if this is where this process is to."""
    if point == os.environ.get(GONE):
        _gone.append(point)
    if point == "commit.before" and _gone:
        raise StoreUnavailable("gone")
    where, _, number = os.environ.get(DIES, "").partition(" ")
    if point == where and next(_passed.setdefault(point, itertools.count(1))) == int(number):
        os.kill(os.getpid(), int(os.environ.get(SIGNAL, signal.SIGKILL)))


async def shows(text: str) -> None:
    """Wait until anybody can read that so much of the story was told."""
    run = await _open[0].get("story")
    async for shown in texts(run):
        if shown.text == text:
            return


async def say(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Ask for some tools, then tell the story; who is to die between two words dies when the first is shown."""
    if not any(isinstance(message, ModelResponse) for message in messages):
        tools = ("enter", "look", "note", "leave")
        yield {place: DeltaToolCall(tool, "{}", tool_call_id=tool) for place, tool in enumerate(tools)}
        return
    yield STORY[0]
    for place, word in enumerate(STORY[1:], 1):
        if os.environ.get(DIES) == f"word {place}":
            await shows(" ".join(STORY[:place]))
        pass_point("word")
        yield f" {word}"


teller = Agent(FunctionModel(stream_function=say), name="teller")


@teller.tool_plain(metadata=transactional())
async def enter() -> str:
    await tx().execute("create table if not exists story_entries (number integer)")
    await tx().execute("insert into story_entries values (1)")
    return "entered"


@teller.tool_plain(metadata=transactional())
async def leave() -> str:
    await tx().execute("create table if not exists story_exits (number integer)")
    await tx().execute("insert into story_exits values (1)")
    return "left"


@teller.tool_plain(metadata=pure())
async def look() -> str:
    book("looked")
    return "looked"


@teller.tool_plain
async def note() -> str:
    """Of no class: at most once."""
    book("noted")
    return "noted"


async def tell(url: str) -> None:
    """Work on the story to its end."""
    hooks.arm(pass_point)
    async with Outlive(url, lease=float(os.environ.get(LEASE, CALM_LEASE_S))) as app:
        _open.append(app)
        run = await app.start(durable(teller, stream=True), "tell", id="story")
        with suppress(LeaseLost):
            await run.result(timeout=30)
        print(await run.result(timeout=30), flush=True)


async def listen(url: str, after: int) -> None:
    """Follow the story to its end."""
    async with Outlive(url, worker=False) as app:
        async for shown in events(await app.get("story"), after):
            book(f"{shown.seq} {shown.event.event_kind}")
            pass_point("event")


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    asyncio.run(tell(where) if what == "tell" else listen(where, int(rest[0])))
