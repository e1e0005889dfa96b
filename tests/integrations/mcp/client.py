"""Tasks for the client of the MCP SDK, which knows none: their requests, and calls whose result is a task."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

TASKS = "io.modelcontextprotocol/tasks"


class Task(Result):
    """A task as it is told."""

    model_config = ConfigDict(extra="allow")
    task_id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int | None = None
    status_message: str | None = None


class NewTask(Task):
    result_type: Literal["task"]


class KnownTask(Task):
    result_type: Literal["complete"]
    result: dict[str, Any] | None = None


class Params(RequestParams):
    task_id: str


class UpdateParams(Params):
    input_responses: dict[str, Any]


class GetTask(Request[Params, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    name_param = "taskId"


class CancelTask(Request[Params, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    name_param = "taskId"


class UpdateTask(Request[UpdateParams, Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    name_param = "taskId"


class Tasks(ClientExtension):
    """Says that the client takes tasks."""

    identifier = TASKS

    def claims(self) -> list[ResultClaim[NewTask]]:
        return [ResultClaim(result_type="task", model=NewTask, resolve=self._never)]

    async def _never(self, task: NewTask, context: ClaimContext) -> CallToolResult:
        raise AssertionError("the tests poll on their own")


async def call_task(client: Client, tool: str, key: str | None = None, **arguments: Any) -> NewTask:
    """Call a tool, which has to give a task."""
    meta: Any = {"outlive/key": key} if key else None
    task = await client.session.call_tool(tool, arguments, meta=meta, allow_claimed=True)
    assert isinstance(task, NewTask), task
    return task


async def get(client: Client, task_id: str) -> KnownTask:
    return await client.session.send_request(GetTask(params=Params(task_id=task_id)), KnownTask)


async def cancel(client: Client, task_id: str) -> Result:
    return await client.session.send_request(CancelTask(params=Params(task_id=task_id)), Result)


async def update(client: Client, task_id: str, **responses: Any) -> Result:
    params = UpdateParams(task_id=task_id, input_responses=responses)
    return await client.session.send_request(UpdateTask(params=params), Result)


async def until(client: Client, task_id: str, *wanted: str, message: str | None = None) -> KnownTask:
    """Poll until a task has one of these statuses, and says this."""
    async with asyncio.timeout(30):
        while True:
            task = await get(client, task_id)
            if task.status in wanted and message in (None, task.status_message):
                return task
            await asyncio.sleep(0.01)
