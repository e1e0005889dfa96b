"""Those who tell and those who listen die in the middle: what is shown is whole, in order, and there once."""

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
from pydantic_ai.messages import FunctionToolResultEvent

from outlive import Outlive, RunNotFound
from outlive.agents import AgentEvent, StreamReset, events, texts
from tests.agents import stories
from tests.agents.stories import STORY
from tests.crash.databases import read
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import by_turns

LIMIT_S = 40.0
ONCE = {"enter": 1, "look": 1, "note": 1, "leave": 1}
STEP = "teller#1/model.stream#2"


class Stage:
    """The database of one story, and processes that tell it and listen to it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"

    def _words(self, *words: str, **env: str) -> dict[str, Any]:
        own = {"PYTHONPATH": f"{SRC}:{ROOT}", stories.LEDGER: str(self.ledger), **env}
        return {"arguments": ["-m", "tests.agents.stories", *words], "cwd": ROOT, "env": {**os.environ, **own}}

    def tell(self, dies: str = "", gone: str = "") -> subprocess.CompletedProcess[str]:
        """Tell the story in a process of its own, to the end of one of them."""
        words = self._words("tell", self.url, **{stories.DIES: dies, stories.GONE: gone})
        done = nursery.run(words.pop("arguments"), **words, timeout=LIMIT_S)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done

    def finish(self) -> None:
        assert self.tell().stdout.strip().splitlines()[-1] == " ".join(STORY)

    def start(self, *words: str, **env: str) -> nursery.Fork:
        given = self._words(*words, **env)
        with tempfile.TemporaryFile() as out:
            return nursery.spawn(given.pop("arguments"), **given, stdout=out, stderr=out)

    def heard(self) -> list[list[str]]:
        """Give what listeners have entered: number and kind of each event."""
        return [line.split() for line in self.ledger.read_text().splitlines() if line not in ("looked", "noted")]

    def happened(self, what: str) -> int:
        """Give how often a tool was executed."""
        return self.ledger.read_text().splitlines().count(what)

    async def shown(self) -> list[AgentEvent]:
        async with Outlive(self.url, worker=False) as app:
            return [one async for one in events(await app.get("story"))]

    async def told(self) -> str:
        """Give the text as a reader has it in the end."""
        async with Outlive(self.url, worker=False) as app:
            return [one.text async for one in texts(await app.get("story"))][-1]


@pytest.fixture
def stage(url: str, tmp_path: Path) -> Stage:
    return Stage(url, tmp_path)


def results(shown: list[AgentEvent]) -> Counter[str]:
    """Give how often the result of each tool was shown."""
    return Counter(one.event.part.tool_name for one in shown if isinstance(one.event, FunctionToolResultEvent))


async def test_a_listener_sees_the_part_the_reset_and_the_whole(stage: Stage) -> None:
    """Cloudflare 1485: who watched an answer that was recovered saw it stand still."""
    assert stage.tell("word 5").returncode != 0
    listener = stage.start("listen", stage.url, "0")
    stage.finish()
    assert listener.wait(LIMIT_S) == 0
    shown = await stage.shown()
    assert [[str(one.seq), one.event.event_kind] for one in shown] == stage.heard()
    assert [one.seq for one in shown] == list(range(1, len(shown) + 1))
    (reset,) = [one for one in shown if isinstance(one.event, StreamReset)]
    assert reset.step == STEP
    async with Outlive(stage.url, worker=False) as app:
        said = [one.text async for one in texts(await app.get("story"))]
    part = said.index("")
    assert said[part - 1] == " ".join(STORY[:5])
    assert said[-1] == " ".join(STORY)
    assert results(shown) == ONCE


async def test_a_listener_that_dies_is_followed_by_another(stage: Stage) -> None:
    assert stage.tell("word 3").returncode != 0
    for last in (4, 7):
        after = stage.heard()[-1][0] if stage.heard() else "0"
        listener = stage.start("listen", stage.url, after, **{stories.DIES: f"event {last - int(after)}"})
        assert listener.wait(LIMIT_S) == -signal.SIGKILL
    listener = stage.start("listen", stage.url, "7")
    stage.finish()
    assert listener.wait(LIMIT_S) == 0
    assert stage.heard() == [[str(one.seq), one.event.event_kind] for one in await stage.shown()]


@by_turns("where", ["commit.before", "commit.after"])
async def test_dying_around_every_commit(stage: Stage, where: str) -> None:
    """Cloudflare 1621: calls that had ended were made again, for what was streamed was written ten pieces at a time."""
    deaths = sum(stage.tell(f"{where} {number}").returncode != 0 for number in (1, 2, 4))
    assert deaths > 1
    await check_whole(stage)
    assert 1 <= stage.happened("looked") <= 1 + deaths


@by_turns("number", [1, 2])
async def test_results_of_transactions_are_shown_although_only_the_transactions_were_written(
    stage: Stage, number: int
) -> None:
    assert stage.tell(f"transaction.after {number}", gone="transaction.after").returncode != 0
    await check_whole(stage)


async def check_whole(stage: Stage) -> None:
    """Finish the story: each result is shown once, and the text is whole."""
    stage.finish()
    shown = await stage.shown()
    assert results(shown) == ONCE
    assert [one.seq for one in shown] == list(range(1, len(shown) + 1))
    assert await stage.told() == " ".join(STORY)
    for table in ("story_entries", "story_exits"):
        assert read(stage.url, f"select number from {table}") == [(1,)]
    assert stage.happened("noted") <= 1
    assert stage.happened("looked") >= 1


async def test_the_calls_before_a_stream_that_was_cut_are_made_once(stage: Stage) -> None:
    """Cloudflare 1621, again: the process dies in the middle of what it says, twice."""
    for place in (5, 3):
        assert stage.tell(f"word {place}").returncode != 0
    await check_whole(stage)
    assert stage.happened("looked") == stage.happened("noted") == 1


async def test_a_teller_that_stood_still_shows_nothing_more(stage: Stage) -> None:
    halt = {stories.DIES: "word 5", stories.SIGNAL: str(int(signal.SIGSTOP)), stories.LEASE: "2"}
    still = stage.start("tell", stage.url, **halt)
    async with Outlive(stage.url, worker=False) as app:
        await until_said(app, " ".join(STORY[:5]))
    stage.finish()
    shown = await stage.shown()
    os.kill(still.pid, signal.SIGCONT)
    assert still.wait(LIMIT_S) == 0, "it learns that the story was told"
    assert await stage.shown() == shown
    (reset,) = [place for place, one in enumerate(shown) if isinstance(one.event, StreamReset)]
    assert shown[reset - 1].step == STEP
    assert await stage.told() == " ".join(STORY)


async def until_said(app: Outlive, text: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                run = await app.get("story")
            except RunNotFound:
                await asyncio.sleep(0.01)
                continue
            async for one in texts(run):
                if one.text == text:
                    return
