"""A small project with a mistake, and an agent with file tools that plays what a script says, attempt by attempt."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from outlive.agents import DurableAgent, durable, pure

WRONG = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a + a\n"
RIGHT = WRONG.replace("a - b", "a + b")
TESTS = """from calc import add, double


def test_add():
    assert add(1, 2) == 3


def test_add_zero():
    assert add(4, 0) == 4


def test_double():
    assert double(2) == 4
"""
HIDDEN = """from calc import add


def test_other_numbers():
    assert [add(n, 7) for n in range(5)] == [7, 8, 9, 10, 11]
"""
CONFIGURATION = '[tool.pytest.ini_options]\ntestpaths = ["tests"]\n'
FILES = {"calc.py": WRONG, "tests/test_calc.py": TESTS, "pyproject.toml": CONFIGURATION}

BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the plugins around these tests take longer than the project's tests

Play = Sequence[ToolCallPart]
_numbers = itertools.count(1)


def call(tool: str, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(tool, arguments, tool_call_id=f"call-{next(_numbers)}")


def write(path: str, content: str) -> ToolCallPart:
    return call("write", path=path, content=content)


def remove(path: str) -> ToolCallPart:
    return call("remove", path=path)


def link(path: str, to: str) -> ToolCallPart:
    return call("link", path=path, to=to)


def lay_out(folder: Path, files: dict[str, str] = FILES) -> Path:
    """Write a project, and nothing else, into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def hide(folder: Path) -> Path:
    """Write the tests that the agent does not know."""
    return lay_out(folder, {"test_more.py": HIDDEN})


def fixer(workspace: Path, plays: Sequence[Play], *, heard: Callable[[str], object] | None = None) -> DurableAgent:
    """Give an agent that is prompted with a number, plays all the calls of that play, and says that it is done."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        (prompt,) = (
            part.content
            for message in messages
            if isinstance(message, ModelRequest)
            for part in message.parts
            if isinstance(part, UserPromptPart)
        )
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        if heard is not None:
            heard(f"model {prompt}.{turn}")
        play = plays[int(str(prompt))]
        if turn < len(play):
            return ModelResponse(parts=[play[turn]])
        return ModelResponse(parts=[TextPart("All tests pass now: 3 passed in 0.01s. I have verified it.")])

    agent = Agent(FunctionModel(answer), name="fixer")

    @agent.tool_plain(metadata=pure())
    def write(path: str, content: str) -> str:
        target = workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        if heard is not None:
            heard(f"write {path}")
        return "written"

    @agent.tool_plain(metadata=pure())
    def remove(path: str) -> str:
        (workspace / path).unlink()
        return "removed"

    @agent.tool_plain(metadata=pure())
    def link(path: str, to: str) -> str:
        target = workspace / path
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
        target.symlink_to(to)
        return "linked"

    @agent.tool_plain(metadata=pure())
    def reset() -> str:
        lay_out(workspace)
        return "as it was"

    return durable(agent)
