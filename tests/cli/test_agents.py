"""`outlive agents export`: the cassette of a run, from its journal and the user's code."""

from __future__ import annotations

import asyncio
import json

from outlive import Outlive

HELPERS = """
import os
from outlive import Outlive
from outlive.agents import durable
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

helper = durable(Agent(TestModel(custom_output_text="the third shelf"), name="helper"))
app = Outlive(os.environ["OUTLIVE_URL"], include=[helper])
"""


def test_export_prints_a_cassette(run_cli, url, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTLIVE_URL", url)
    (tmp_path / "helpers.py").write_text(HELPERS)
    module: dict = {}
    exec(HELPERS, module)

    async def play() -> None:
        async with Outlive(url, include=[module["helper"]]) as app:
            assert await app.run(module["helper"], "Where is the lamp?", id="lamp") == "the third shelf"

    asyncio.run(play())
    said = run_cli("agents", "export", "helpers:app", "lamp")
    tape = json.loads(said.stdout)
    assert (tape["run_id"], tape["workflow"]) == ("lamp", "agent.helper")
    (asked,) = tape["requests"]
    assert asked["request"]["messages"][0]["parts"][0]["content"] == "Where is the lamp?"
    assert asked["answer"]["parts"][0]["content"] == "the third shelf"
    assert run_cli("agents", "export", "helpers", "lamp").stdout == said.stdout
    assert "no run 'nobody'" in run_cli("agents", "export", "helpers:app", "nobody", code=3).stderr
    assert "no workflow 'agent.helper'" in run_cli("agents", "export", "shop", "lamp", code=2).stderr
