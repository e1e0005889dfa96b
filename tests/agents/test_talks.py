"""A person at a terminal, whose program dies again and again: nothing is lost, said twice, or done twice."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from outlive import Outlive, transaction, workflow
from outlive.agents import Answered, Said, events
from tests.agents import shop, talker
from tests.house.source import ROOT, SRC
from tests.support.faults import VARIABLE
from tests.support.size import SOAK
from tests.support.terminal import Terminal

PROMPT = r"^you> \Z"
WANTED = rf"{PROMPT}|\[e\]dit> \Z|/decline> \Z"
REPLIES = {"[e]dit> ": "y", "/decline> ": "yes"}


class Person:
    """Somebody who wants to say four things, looks at what the screen shows, and starts the program again."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()

    def sit_down(self, dies: str = "", fault: str = "") -> Terminal:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        env = {**env, VARIABLE: fault} if fault else env
        words = ["chat", "tests.agents.talker:desk", "--id", "talk", "--by", "ana", "--url", self.url]
        return Terminal(["-m", "tests.agents.talker", *words], cwd=ROOT, env=env)

    def talk(self, terminal: Terminal, stop_at: int = 0) -> bool:
        """Talk until all is said, or this many things were wanted, or the program dies; say whether all is said."""
        try:
            for number in itertools.count(1):
                wanted = terminal.until(WANTED).group()
                if number == stop_at:
                    return False
                if wanted in REPLIES:
                    terminal.type(REPLIES[wanted])
                    continue
                said = re.findall(r"^you> (.+)$", terminal.shown, re.MULTILINE)
                if said == talker.SAYS:
                    return True
                assert said == talker.SAYS[: len(said)], terminal.shown
                terminal.type(talker.SAYS[len(said)])
        except (EOFError, OSError):
            pass
        return False

    def happened(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines())

    async def check(self) -> None:
        """What was said was answered, once and in order; the money was given back once."""
        async with Outlive(self.url, include=[count_refunds]) as app:
            run = await app.get("talk")
            shown = [(await anext(one)).event for one in [events(run)] for _ in range(await last(run))]
            assert [event.text for event in shown if isinstance(event, Said)] == talker.SAYS
            assert [event.text for event in shown if isinstance(event, Answered)] == talker.ANSWERS
            assert await app.run(count_refunds) == 1
            assert sorted(one.by for one in await app.audit("talk")) == ["ana", "ana"]


async def last(run) -> int:
    """Give the number of the last item of an unfinished run's stream: that of the last answer."""
    async for one in events(run):
        if isinstance(one.event, Answered) and one.event.turn == len(talker.SAYS):
            return one.seq
    raise AssertionError("it has not answered everything")


@transaction
async def count(tx) -> int:
    return int(await tx.fetchval("select count(*) from refunds where cents = 500"))


@workflow
async def count_refunds() -> int:
    return await count()


@pytest.fixture
def person(url: str, tmp_path: Path) -> Person:
    return Person(url, tmp_path)


@pytest.mark.parametrize(
    "dies",
    ["in-look 1", "mid-stream 4", "in-refund 1", *(f"mid-stream {n}" for n in (1, 2, 6, 8) if SOAK)],
)
async def test_a_kill_in_the_middle_of_a_turn(person: Person, dies: str) -> None:
    """Of the model, a tool or a transaction; what was interrupted is done again, and nothing else."""
    with person.sit_down(dies=dies) as terminal:
        assert not person.talk(terminal)
    with person.sit_down() as terminal:
        assert person.talk(terminal), terminal.shown
    happened = person.happened()
    assert sorted(happened) == sorted(["look", *(f"model {turn}" for turn in range(7))])
    again = [what for what, times in happened.items() if times > 1]
    assert len(again) <= 1 and happened.total() <= 9
    await person.check()


@pytest.mark.parametrize("number", range(1, 8) if SOAK else (2, 3, 5))
async def test_a_kill_while_a_person_is_waited_for(person: Person, number: int) -> None:
    """Nothing was under way: so nothing is asked or done again, and the same is waited for."""
    with person.sit_down() as terminal:
        person.talk(terminal, stop_at=number)
    with person.sit_down() as terminal:
        assert person.talk(terminal), terminal.shown
    assert person.happened() == Counter(["look", *(f"model {turn}" for turn in range(7))])
    await person.check()


@pytest.mark.parametrize("edge", ["before", "after"])
async def test_dying_at_every_commit_of_a_talk(person: Person, edge: str) -> None:
    """However often the program dies; a model request is asked again only where its answer was not on disk."""
    deaths = 0
    for passage in (*range(1, 16), *range(1, 16)) if SOAK else (3, 7, 11):
        with person.sit_down(fault=f"commit.{edge}:kill:{passage}") as terminal:
            if person.talk(terminal):
                break
        deaths += 1
    assert deaths > 1
    with person.sit_down() as terminal:
        assert person.talk(terminal), terminal.shown
    assert max(person.happened().values()) <= deaths + 1
    await person.check()


async def test_ctrl_c_leaves_and_says_how_to_come_back(person: Person) -> None:
    with person.sit_down() as terminal:
        terminal.until(PROMPT)
        terminal.type(talker.SAYS[0])
        terminal.until(r"^desk> I see")
        terminal.until(PROMPT)
        terminal.interrupt()
        terminal.until(
            re.escape(f"come back: outlive agents chat tests.agents.talker:desk --id talk --by ana --url {person.url}")
        )
        assert terminal.end() == 0
    with person.sit_down() as terminal:
        assert person.talk(terminal), terminal.shown
    await person.check()
