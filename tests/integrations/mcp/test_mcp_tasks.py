"""Tasks of MCP over real connections: servers are killed, and any other one goes on with their tasks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, ElicitResult

from outlive import Outlive, RunCancelled
from tests.house.source import ROOT
from tests.integrations.mcp.client import Tasks, call_task, cancel, get, until, update
from tests.integrations.mcp.servers import PATIENCE_S, Shop
from tests.integrations.mcp.shop import buy, ship
from tests.support.size import pick

STORES = ["sqlite", "postgres"]
YES = {"action": "accept", "content": {"approve": True}}


@asynccontextmanager
async def connect(port: int, token: str | None = None, *, tasks: bool = True, **options: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_S, trust_env=False) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
        async with Client(transport, extensions=[Tasks()] if tasks else [], **options) as client:
            yield client


async def person(_: Any, params: Any) -> ElicitResult:
    raise AssertionError("tasks ask by what they tell")


# -- a server dies -------------------------------------------------------------------
async def test_a_task_outlives_its_server(shop: Shop) -> None:
    """ADK 4971: tasks were in the memory of the server that began them."""
    port = await shop.open()
    async with connect(port) as client:
        assert client.server_capabilities.extensions == {"io.modelcontextprotocol/tasks": {}}
        task = await call_task(client, "ship", order="o-1")
        assert (task.status, task.ttl_ms, task.poll_interval_ms) == ("working", None, 1000)
        await until(client, task.task_id, "working", message="packed")
    shop.kill(port)
    await shop.send("go")  # while no server is there
    other = await shop.open()
    async with connect(other) as client:
        await until(client, task.task_id, "working", message="2 of 2: sent to Rome")
        shop.kill(other)
    third = await shop.open()
    async with connect(third) as client:
        await shop.send("end")
        done = await until(client, task.task_id, "completed")
        assert done.result == {
            "content": [{"type": "text", "text": "o-1 is in Rome"}],
            "structuredContent": {"result": "o-1 is in Rome"},
            "isError": False,
            "resultType": "complete",
        }
        assert (done.created_at, done.task_id) == (task.created_at, task.task_id)
        assert done.last_updated_at > task.created_at
    assert shop.lines() == ["pack o-1", "send o-1"]


async def test_a_repeated_call_finds_the_task_at_another_server(shop: Shop) -> None:
    first, second = await asyncio.gather(shop.open(), shop.open())
    async with connect(second) as other:
        async with connect(first) as one:
            tasks = await asyncio.gather(
                *(call_task(client, "ship", key="ship-1", order="o-1") for client in (one, other) for _ in range(5))
            )
        (task_id,) = {task.task_id for task in tasks}
        await until(other, task_id, "working", message="packed")
        shop.kill(first)
        await shop.send("go", "end")
        await until(other, task_id, "completed")
        assert (await call_task(other, "ship", key="ship-1", order="o-1")).task_id == task_id
    assert shop.lines() == ["pack o-1", "send o-1"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_waiting_call_is_repeated_after_a_crash(shop: Shop, mode: str) -> None:
    port = await shop.open()
    key = {"outlive/key": "ship-1"}
    with pytest.raises((MCPError, ExceptionGroup)):  # the connection is lost
        async with connect(port, tasks=False, mode=mode) as client:
            call = asyncio.create_task(client.call_tool("ship", {"order": "o-1"}, meta=key))
            await shop.packed()
            shop.kill(port)
            await call
    async with connect(await shop.open(), tasks=False, mode=mode) as client:
        call = asyncio.create_task(client.call_tool("ship", {"order": "o-1"}, meta=key))
        await shop.send("go", "end")
        assert (await call).structured_content == {"result": "o-1 is in Rome"}
    assert shop.lines() == ["pack o-1", "send o-1"]


# -- what a task tells ---------------------------------------------------------------
async def test_questions_and_approvals_are_inputs_that_the_task_requires(shop: Shop) -> None:
    first, second = await asyncio.gather(shop.open(), shop.open())
    async with (
        connect(first, elicitation_callback=person) as one,
        connect(second, elicitation_callback=person) as other,
    ):
        task_id = (await call_task(one, "measure", order="o-1")).task_id
        asked: dict[str, Any] = (await until(one, task_id, "input_required")).model_extra["inputRequests"]
        assert (await get(other, task_id)).model_extra["inputRequests"] == asked
        ((size, form),) = asked.items()
        assert form == {
            "method": "elicitation/create",
            "params": {
                "mode": "form",
                "message": "Which size is o-1?",
                "requestedSchema": {
                    "type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"],
                },
            },
        }  # fmt: skip
        with pytest.raises(MCPError, match="'big' is not of type 'integer'") as refused:
            await update(other, task_id, **{size: {"action": "accept", "content": {"size": "big"}}})
        assert refused.value.code == INVALID_PARAMS
        await update(other, task_id, **{size: {"action": "cancel"}, "never-asked": YES})
        assert (await get(one, task_id)).model_extra["inputRequests"] == asked
        shop.kill(first)
        await update(other, task_id, **{size: {"action": "accept", "content": {"size": 7}}})
        await update(other, task_id, **{size: {"action": "accept", "content": {"size": 9}}})  # too late
        while size in (asked := (await until(other, task_id, "input_required")).model_extra["inputRequests"]):
            pass
        ((colour, _),) = asked.items()
        await update(other, task_id, **{colour: {"action": "accept", "content": {"answer": "red"}}})
        done = await until(other, task_id, "completed")
        assert done.result is not None
        assert done.result["structuredContent"] == {"result": "o-1: 7, red"}

        task_id = (await call_task(other, "agent.support", prompt="My lamp is broken.")).task_id
        ((key, form),) = (await until(other, task_id, "input_required")).model_extra["inputRequests"].items()
        assert form["params"]["message"] == 'May the agent support call refund({"cents": 20000})?'
        await update(other, task_id, **{key: YES})
        done = await until(other, task_id, "completed")
        assert done.result is not None
        assert done.result["structuredContent"] == {"result": "refunded 20000"}
    assert shop.lines() == ["measure o-1", "refund 20000"]


async def test_failed_cancelled_held_and_deleted_runs(shop: Shop) -> None:
    port = await shop.open()
    async with connect(port) as client, Outlive(shop.url, worker=False) as app:
        failing = (await call_task(client, "sell_out", order="o-1")).task_id
        failed = await until(client, failing, "completed")
        assert failed.result is not None
        assert failed.result["isError"]
        assert failed.result["content"][0]["text"].endswith("OutOfStock: order o-1 is out of stock")

        leaving = (await call_task(client, "ship", order="o-2")).task_id
        await cancel(client, leaving)
        gone = await until(client, leaving, "cancelled")
        assert gone.status_message == f"run {leaving!r} was cancelled: the client has cancelled the task"
        await cancel(client, leaving)  # it is over: nothing happens
        assert (await get(client, leaving)).status == "cancelled"

        held = (await call_task(client, "ship", order="o-3")).task_id
        await (await app.get(held)).pause("to look at it")
        await until(client, held, "working", message="It is held, and goes on when a person has looked at it.")
        await cancel(client, held)
        await until(client, held, "cancelled")

        await (await app.get(leaving)).delete()
        for method in (get, cancel, update):
            with pytest.raises(MCPError, match=f"no task {leaving!r}") as missing:
                await method(client, leaving)
            assert missing.value.code == INVALID_PARAMS


class Ear:
    """A client that listens to tasks: one request, whose answer is a stream."""

    def __init__(self, port: int, *, knows_tasks: bool = True) -> None:
        self._url = f"http://127.0.0.1:{port}/mcp"
        extensions = {"io.modelcontextprotocol/tasks": {}} if knows_tasks else {}
        self._meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"extensions": extensions, "elicitation": {}},
        }

    async def listen(self, *ids: Any) -> AsyncIterator[dict[str, Any]]:
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
            "params": {"notifications": {"taskIds": list(ids)}, "_meta": self._meta},
        }  # fmt: skip
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "subscriptions/listen",
        }
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http,
            http.stream("POST", self._url, json=body, headers=headers) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith(("data:", "{")):
                    yield json.loads(line.removeprefix("data:"))


async def test_who_listens_hears_of_every_change(shop: Shop) -> None:
    first, second = await asyncio.gather(shop.open(), shop.open())
    async with connect(first) as client:
        ids = [(await call_task(client, tool, order="o-1")).task_id for tool in ("ship", "measure")]
        await until(client, ids[0], "working", message="packed")
    heard: dict[str, list[str]] = {task_id: [] for task_id in ids}
    news = Ear(second).listen(*ids, "mcp-unknown", ids[0])
    agreed = await anext(news)
    assert agreed["method"] == "notifications/subscriptions/acknowledged"
    assert agreed["params"]["notifications"] == {"taskIds": ids}
    async for message in news:
        if "result" in message:
            break
        assert message["method"] == "notifications/tasks"
        task = message["params"]
        heard[task["taskId"]].append(task["status"] + task.get("statusMessage", ""))
        async with connect(first) as client:
            if heard[task["taskId"]][-1] == "workingpacked":
                await cancel(client, task["taskId"])
            if task["status"] == "input_required":
                ((key, _),) = task["inputRequests"].items()
                await update(client, task["taskId"], **{key: {"action": "decline"}})
            if task["status"] == "completed":
                assert task["result"]["structuredContent"] == {"result": "mcp declined to answer"}
    cancelled = f"cancelledrun {ids[0]!r} was cancelled: the client has cancelled the task"
    assert (heard[ids[0]][0], heard[ids[0]][-1]) == ("workingpacked", cancelled)
    assert heard[ids[1]][-2:] in (["input_required", "completed"], ["working", "completed"])
    assert "input_required" in heard[ids[1]]


async def test_a_task_that_is_deleted_is_told_no_more(shop: Shop) -> None:
    port = await shop.open()
    async with connect(port) as client, Outlive(shop.url, worker=False) as app:
        task_id = (await call_task(client, "ship", order="o-1")).task_id
        await until(client, task_id, "working", message="packed")
        news = Ear(port).listen(task_id)
        methods = [(await anext(news)).get("method") for _ in range(2)]
        assert methods == ["notifications/subscriptions/acknowledged", "notifications/tasks"]
        run = await app.get(task_id)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(PATIENCE_S)
        await run.delete()
        *between, last = [message async for message in news]
        assert [message["params"]["status"] for message in between] in ([], ["cancelled"])
        assert "result" in last


async def test_who_may_not_listen(shop: Shop) -> None:
    port = await shop.open()
    (refused,) = [message async for message in Ear(port, knows_tasks=False).listen("mcp-1")]
    assert refused["error"]["code"] == MISSING_REQUIRED_CLIENT_CAPABILITY
    (wrong,) = [message async for message in Ear(port).listen("mcp-1", 7)]
    assert wrong["error"]["code"] == INVALID_PARAMS
    agreed, over = [message async for message in Ear(port).listen("mcp-1")]
    assert agreed["params"]["notifications"] == {}
    assert over["result"]["resultType"] == "complete"


# -- whose a task is -----------------------------------------------------------------
async def test_only_runs_of_this_server_are_tasks(shop: Shop) -> None:
    port = await shop.open()
    async with connect(port) as client, Outlive(shop.url, worker=False, include=[ship, buy]) as app:
        foreign = await app.start(ship, "o-1", id="ship-1")
        similar = await app.start(ship, "o-2", id="mcp-1", attributes={"mcp": "another shop"})
        for strange in (foreign.id, similar.id, "no such run", "x" * 300, ""):
            for method in (get, cancel, update):
                with pytest.raises(MCPError, match="no task") as missing:
                    await method(client, strange)
                assert missing.value.code == INVALID_PARAMS
        assert {await foreign.status(), await similar.status()}.isdisjoint({"cancelled"})


async def test_a_client_that_knows_no_tasks_gets_none(shop: Shop) -> None:
    port = await shop.open()
    async with connect(port, tasks=False) as client:
        result = await client.call_tool("buy", {"order": "o-1", "items": []})
        assert result.structured_content == {"order": "o-1", "cents": 0, "sent_to": None}
        for method in (get, cancel, update):
            with pytest.raises(MCPError) as refused:
                await method(client, "mcp-1")
            assert refused.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
            assert refused.value.data == {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


async def test_a_task_is_shown_to_who_made_it(shop: Shop) -> None:
    port = await shop.open(MCP_SHOP_AUTH="1")
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.post(f"http://127.0.0.1:{port}/mcp", json={})).status_code == 401
    async with (
        connect(port, "ana", elicitation_callback=person) as ana,
        connect(port, "bob", elicitation_callback=person) as bob,
    ):
        tasks = [await call_task(each, "agent.support-finance", key="same", prompt="Hello.") for each in (ana, bob)]
        hers, his = (task.task_id for task in tasks)
        assert hers != his
        ((key, _),) = (await until(ana, hers, "input_required")).model_extra["inputRequests"].items()
        for method in (get, cancel, update):
            with pytest.raises(MCPError, match="no task"):
                await method(bob, hers)
        await update(ana, hers, **{key: YES})
        await until(ana, hers, "completed")
        async with Outlive(shop.url, worker=False) as app:
            (record,) = await app.audit(hers)
            assert (record.action, record.by) == ("settle", "ana")
            async with asyncio.timeout(PATIENCE_S):
                while not (await app.promises("approval", run_id=his)).items:
                    await asyncio.sleep(0.01)
        assert (await get(bob, his)).status == "working"  # he is not of finance
        await update(bob, his, **{key: YES})
        assert (await get(bob, his)).status == "working"
    assert shop.lines() == ["refund 20000"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_scopes_are_roles_for_who_waits_too(shop: Shop, mode: str) -> None:
    async def approve(_: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approve": True})

    port = await shop.open(MCP_SHOP_AUTH="1")
    async with connect(port, "ana", tasks=False, mode=mode, elicitation_callback=approve) as ana:
        result = await ana.call_tool("agent.support-finance", {"prompt": "Hello."})
    assert result.structured_content == {"result": "refunded 20000"}
    async with Outlive(shop.url, worker=False) as app:
        (info,) = (await app.runs()).items
        assert info.attributes == {"mcp": "shop", "mcp_caller": ["desk", None, "ana"]}
        assert [record.by for record in await app.audit(info.id)] == ["ana"]


# -- many, and the other transport ---------------------------------------------------
async def test_many_tasks_at_once(shop: Shop) -> None:
    count = pick(small=30, full=100)
    first, second = await asyncio.gather(shop.open(), shop.open())
    async with connect(second) as other:
        async with connect(first) as one:
            tasks = await asyncio.gather(*(call_task(one, "ship", order=f"o-{number}") for number in range(count)))
        await asyncio.gather(*(until(other, task.task_id, "working", message="packed") for task in tasks))
        shop.kill(first)
        async with Outlive(shop.url, worker=False) as app:
            await app.send_many([(task.task_id, topic, "Rome") for task in tasks for topic in ("go", "end")])
        done = await asyncio.gather(*(until(other, task.task_id, "completed") for task in tasks))
    for number, task in enumerate(done):
        assert task.result is not None
        assert task.result["structuredContent"] == {"result": f"o-{number} is in Rome"}
    assert sorted(shop.lines()) == sorted(f"{word} o-{number}" for number in range(count) for word in ("pack", "send"))


@pytest.mark.parametrize("url", STORES[: pick(small=1, full=2)], indirect=True)
async def test_over_stdio_too(shop: Shop) -> None:
    words = ["-m", "outlive", "mcp", "tests.integrations.mcp.shop:server"]
    parameters = StdioServerParameters(command=sys.executable, args=words, env=shop.environment, cwd=ROOT)
    async with Client(parameters, extensions=[Tasks()]) as client:
        task = await call_task(client, "ship", order="o-1")
        await until(client, task.task_id, "working", message="packed")
        (server,) = [child for child in psutil.Process().children() if words[-1] in child.cmdline()]
        server.kill()
        with pytest.raises(MCPError):
            await get(client, task.task_id)
    async with Client(parameters, extensions=[Tasks()]) as client:
        await shop.send("go", "end")
        await until(client, task.task_id, "completed")
    assert shop.lines() == ["pack o-1", "send o-1"]
