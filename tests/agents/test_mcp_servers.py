"""MCP servers by others: those for time, git, files and everything, called by a process that dies between."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from outlive import Outlive
from tests.agents import shop, toolbox
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.size import SOAK

LIMIT_S = 90.0
IDENTITY = {f"GIT_{who}_{what}": "ana@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# where the process dies: as listings, model answers and the results of tools are written
DEATHS = ["commit.after 2", "commit.before 5", "commit.after 6", "commit.before 8", "commit.after 9"]
PLAYED = (
    [(store, death) for store in ("sqlite", "postgres") for death in ("", *DEATHS)]
    if SOAK
    else [("sqlite", DEATHS[2]), ("postgres", "")]
)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, **IDENTITY}
    )
    return done.stdout


@pytest.mark.parametrize(("url", "dies"), PLAYED, indirect=["url"], ids=[f"{a}-{b or 'calm'}" for a, b in PLAYED])
async def test_servers_by_others(url: str, tmp_path: Path, dies: str) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "begin")

    def work(dies: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **IDENTITY, "PYTHONPATH": f"{SRC}:{ROOT}", shop.DIES: dies}
        return nursery.run(["-m", "tests.agents.toolbox", url, str(folder)], cwd=ROOT, env=env, timeout=LIMIT_S)

    if dies:
        done = work(dies)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = work("")
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip().splitlines()[-1]
    assert "21:00" in said
    assert f"Echo: {toolbox.TEXT}" in said
    assert (folder / "note.txt").read_text() == toolbox.TEXT
    commits = git(folder, "log", "--format=%s").splitlines()
    async with Outlive(url, worker=False) as app:
        entries = {entry.key: entry.value for entry in await (await app.get("run")).entries()}
    committed = str(entries["clerk#1/tool:git_commit(g1)#1"])
    assert commits == ["agreed", "begin"] or (commits == ["begin"] and "OutcomeUnknown" in committed)
    listed = [key for key in entries if "/tools(" in key]
    assert sorted(listed) == [f"clerk#1/tools({one})#1" for one in ("everything", "files", "git", "time")]
