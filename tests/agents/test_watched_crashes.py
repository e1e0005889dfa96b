"""An agent is watched while its processes die: spans of models, functions and servers are told once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.agents import shop
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import by_turns

LIMIT_S = 60.0
SAID = "['put a', 'seen', 'sent b']"
SPANS = Counter([f"chat {1 + 2 * turn}" for turn in range(3)] + [f"execute_tool {t}" for t in ("put", "look", "send")])
SPANS["invoke_agent 0"] = 1
HEARD = Counter(
    {"heard part_start tool-call": 3, "heard part_start text": 1, "heard function_tool_result tool-return": 3}
)


class Watched:
    """The database of one agent that is watched, and what was noted of it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ledger = folder / "ledger"

    def work(self, dies: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": f"{SRC}:{ROOT}", shop.LEDGER: str(self.ledger), shop.DIES: dies}
        done = nursery.run(["-m", "tests.agents.watched", self.url], cwd=ROOT, env=env, timeout=LIMIT_S)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done

    def noted(self, what: str = "") -> Counter[str]:
        return Counter(Path(f"{self.ledger}{what}").read_text().splitlines())


@pytest.fixture
def watched(url: str, tmp_path: Path) -> Watched:
    return Watched(url, tmp_path)


# where it dies, which span may be told again, because its end was not on disk
DEATHS = [
    ("before-model 2", None),
    ("after-model 2", "chat 3"),
    ("in-look 1", "execute_tool send"),
    ("heard 5", "execute_tool look"),
    ("commit.after 3", None),
    ("commit.after 5", None),
]


@by_turns("dies, again", DEATHS, ids=[dies for dies, _ in DEATHS])
async def test_spans_of_models_tools_and_servers_are_told_once(watched: Watched, dies: str, again: str | None) -> None:
    assert watched.work(dies).returncode == -signal.SIGKILL
    assert watched.work().stdout.strip().splitlines()[-1] == SAID
    spans, heard = watched.noted(".spans"), watched.noted()
    assert not SPANS - spans, "each was told"
    more = spans - SPANS
    assert more.total() <= (again is not None or dies.startswith("commit")), more
    assert again is None or more.keys() <= {again}
    asked = sum(heard[f"model {turn}"] for turn in range(3))
    assert asked <= 3 + dies.startswith(("after-model", "commit"))
    served = watched.noted(".server")
    put = {line: times for line, times in served.items() if line.startswith("put ")}
    assert len(put) == 1, f"a repetition has another key: {put}"
    assert 1 <= sum(put.values()) <= 2 and 1 <= served["send b"] <= 2
    assert not HEARD - heard, "a handler hears all, some of it again"
