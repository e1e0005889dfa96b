"""The server: which tools there are, who may see which run, and the methods of MCP.

Invariant: a run is shown to a caller only if it was started through this server by the same caller.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import blake2b
from typing import Any

import msgspec
from mcp.server import Server
from mcp.server.context import HandlerResult
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    ElicitResult,
    InputResponse,
    ListToolsResult,
    PaginatedRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)

from outlive import Outlive, Run, RunInfo
from outlive.errors import OutliveError, RunNotFound, UsageError
from outlive.integrations.mcp.call import Context, wait_for_run
from outlive.integrations.mcp.caller import TASKS, Caller, caller_of
from outlive.integrations.mcp.forms import answer, list_forms
from outlive.integrations.mcp.listen import tell_tasks
from outlive.integrations.mcp.tasks import TaskParams, UpdateTaskParams, new_task, read_task
from outlive.integrations.mcp.tool import WorkflowTool, failure

KEY = "outlive/key"  # in the _meta of a call: calls with the same one are the same call
SERVER, CALLER = "mcp", "mcp_caller"  # attributes of a run


def mcp_server(
    app: Outlive, tools: Iterable[Any], *, name: str, version: str = "", instructions: str | None = None
) -> Server[Any]:
    """Make a server of the Model Context Protocol whose tools are workflows, durable agents among them.

    It is a `Server` of the MCP SDK: `server.streamable_http_app()` is an ASGI application, `serve_stdio(server)`
    serves one client. It opens the app, unless the app is open. `name` tells its runs from those of other servers:
    keep it.
    *Durable*: a call is a run, on disk before it is answered. *Again*: a call by the same caller with the same
    `outlive/key` in its `_meta` is the same call. *Raises* UsageError for a workflow that cannot be a tool.
    """
    made = [WorkflowTool(workflow) for workflow in tools]
    known = {tool.name: tool for tool in made}
    if len(known) < len(made):
        names = [tool.name for tool in made]
        twice = next(one for one in names if names.count(one) > 1)
        raise UsageError(f"two tools are called {twice!r}; give one of the workflows another name=…")
    methods = Methods(app, known, name)

    @asynccontextmanager
    async def opened(_: Server[Any]) -> AsyncIterator[None]:
        if app._entered is not None:  # by the application around it
            yield
        else:
            async with app:
                yield

    server: Server[Any] = Server(
        name,
        version=version,
        instructions=instructions,
        lifespan=opened,
        get_tool_input_schema=lambda tool: known[tool].description.input_schema if tool in known else None,
        on_list_tools=methods.list_tools,
        on_subscriptions_listen=methods.listen,
    )
    server.extensions[TASKS] = {}
    server.add_request_handler("tools/call", CallToolRequestParams, methods.call_tool)
    server.add_request_handler("tasks/get", TaskParams, methods.get_task)
    server.add_request_handler("tasks/update", UpdateTaskParams, methods.update_task)
    server.add_request_handler("tasks/cancel", TaskParams, methods.cancel_task)
    return server


async def serve_stdio(server: Server[Any]) -> None:
    """Serve the client that has started this process, until it closes its end."""
    async with stdio_server() as (requests, answers):
        await server.run(requests, answers, server.create_initialization_options())


class Methods:
    """What the server does for each method."""

    def __init__(self, app: Outlive, tools: Mapping[str, WorkflowTool], name: str) -> None:
        self._app = app
        self._tools = tools
        self._name = name

    # -- tools ------------------------------------------------------------------
    async def list_tools(self, _: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        """Describe all tools."""
        return ListToolsResult(tools=[tool.description for tool in self._tools.values()])

    async def call_tool(self, ctx: Context, params: CallToolRequestParams) -> HandlerResult:
        """Start a run, and give its task or wait for its result; go on with a wait that was left for an answer."""
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(
                INVALID_PARAMS, f"no tool {params.name!r}; this server has {', '.join(self._tools) or 'none'}"
            )
        caller = caller_of(ctx)
        try:
            if params.request_state is not None:
                run, info = await self._find(params.request_state, caller)
                dismissed = await self._take(run, params.input_responses or {}, caller)
                return await wait_for_run(ctx, self._app, run, self._tools[info.workflow], caller, dismissed)
            run = await self._start(tool, params, caller)
            if caller.takes_tasks:
                return new_task(run, await run.info())
            return await wait_for_run(ctx, self._app, run, tool, caller)
        except OutliveError as error:
            return failure(str(error))

    async def _start(self, tool: WorkflowTool, params: CallToolRequestParams, caller: Caller) -> Run:
        args, kwargs = tool.read(params.arguments or {})
        key = (params.meta or {}).get(KEY)
        if not isinstance(key, str | None) or key == "":
            raise MCPError(INVALID_PARAMS, f"_meta[{KEY!r}] is a text that names the call, not {key!r}")
        call = msgspec.json.encode([self._name, caller.identity, tool.name, key])
        number = secrets.token_hex(16) if key is None else blake2b(call, digest_size=16).hexdigest()
        attributes = {SERVER: self._name} | ({CALLER: caller.identity} if caller.identity is not None else {})
        return await self._app.start(tool.workflow, *args, id=f"mcp-{number}", attributes=attributes, kwargs=kwargs)

    async def _take(self, run: Run, responses: Mapping[str, InputResponse], caller: Caller) -> list[str]:
        """Settle what was answered of what is still open; give what was left unanswered on purpose."""
        asked = await list_forms(self._app, run.id, caller) if responses else {}
        for key, response in responses.items():
            if key in asked and isinstance(response, ElicitResult):
                await answer(self._app, asked[key], response, caller)
        return [key for key, one in responses.items() if isinstance(one, ElicitResult) and one.action == "cancel"]

    # -- tasks ------------------------------------------------------------------
    async def get_task(self, ctx: Context, params: TaskParams) -> HandlerResult:
        """Give the state of a task."""
        return await self._read(params.task_id, self._tasks_caller(ctx))

    async def update_task(self, ctx: Context, params: UpdateTaskParams) -> HandlerResult:
        """Take answers to what a task asked."""
        caller = self._tasks_caller(ctx)
        with _told():
            run, _ = await self._find(params.task_id, caller)
            await self._take(run, params.input_responses, caller)
        return {}

    async def cancel_task(self, ctx: Context, params: TaskParams) -> HandlerResult:
        """Ask for the cancellation of a run; nothing to do if it has ended."""
        caller = self._tasks_caller(ctx)
        with _told():
            run, _ = await self._find(params.task_id, caller)
            await run.cancel("the client has cancelled the task", by=caller.name)
        return {}

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Tell changes of tasks as they come; of nothing else, for tools do not change."""
        wanted = (params.notifications.model_extra or {}).get("taskIds") or []
        caller = self._tasks_caller(ctx) if wanted else caller_of(ctx)
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise MCPError(INVALID_PARAMS, f"taskIds is a list of texts, not {wanted!r}")
        return await tell_tasks(ctx, wanted, lambda one: self._read(one, caller))

    async def _read(self, id: str, caller: Caller) -> dict[str, Any]:
        with _told():
            run, info = await self._find(id, caller)
            return await read_task(self._app, run, info, self._tools[info.workflow], caller)

    @staticmethod
    def _tasks_caller(ctx: Context) -> Caller:
        caller = caller_of(ctx)
        if not caller.takes_tasks:
            required: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"tasks are for clients that declare {TASKS}", required)
        return caller

    async def _find(self, id: str, caller: Caller) -> tuple[Run, RunInfo]:
        """Give a run that this caller may see. What he may not see is not there for him."""
        with suppress(RunNotFound, UsageError):
            run = await self._app.get(id)
            info = await run.info()
            facts = info.attributes if isinstance(info.attributes, dict) else {}
            if (facts.get(SERVER), facts.get(CALLER)) == (self._name, caller.identity) and info.workflow in self._tools:
                return run, info
        raise MCPError(INVALID_PARAMS, f"no task {id!r}: it was never there, or is no longer kept")


@contextmanager
def _told() -> Iterator[None]:
    """Tell the client what went wrong, in the sentence of the error."""
    try:
        yield
    except OutliveError as error:
        code = INVALID_PARAMS if isinstance(error, RunNotFound) else INTERNAL_ERROR
        raise MCPError(code, str(error)) from error
