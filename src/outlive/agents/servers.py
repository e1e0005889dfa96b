"""MCP servers as units of durable agents use them: a session is opened once, shared, and opened anew when it is lost.

Knows sessions, no journal: who replays asks no server, so none is opened. Invariants: a session
lives from the first unit that needs it until the app closes, or the server is gone; whatever may
have reached a server that then gave no answer is `Interrupted`, not an answer.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import DynamicToolset, ToolsetTool, WrapperToolset

from outlive.engine.bodies import describe, executing_step
from outlive.engine.roles import Host
from outlive.limits import MCP_ASK_S, MCP_CONNECT_S, MCP_IDLE_S

log = logging.getLogger("outlive.mcp")

KEY = "outlive/key"  # of the _meta of a call: a server that knows it takes a repetition for the same call
_LOOK_S = 0.01
_CLOSED = -32000  # mcp_types.CONNECTION_CLOSED
_TIMEOUT = -32001  # mcp_types.REQUEST_TIMEOUT
_UNKNOWN_METHOD = -32601  # mcp_types.METHOD_NOT_FOUND
_BROKEN = (
    "Server returned an error response",  # of an HTTP status, by whoever stands before the server
    "Session terminated",  # of status 404; a server that was started anew knows no session of the old one
    "Session not found",  # the same, as servers say it themselves
)


class Interrupted(Exception):
    """A server gave no answer to what may have reached it; `told`: what the model would read of it.

    `again`: whether to ask it once more at once, where that does no harm.
    """

    def __init__(self, told: str, *, again: bool) -> None:
        super().__init__(told)
        self.told = told
        self.again = again


@dataclass
class HeldServer(WrapperToolset[Any]):
    """The toolset of an MCP server as units use it.

    `own`: the session of one run, which has credentials of its own; it is closed when no unit uses it.
    """

    wrapped: Any
    own: Session | None = None

    @property
    def id(self) -> str | None:
        return self.wrapped.id  # type: ignore[no-any-return]

    async def for_run(self, ctx: RunContext[Any]) -> HeldServer:
        own = await self.wrapped.for_run(ctx)
        return self if own is self.wrapped else HeldServer(own, Session(own, is_kept=False))

    async def __aenter__(self) -> HeldServer:
        return self  # what needs the session takes it

    async def __aexit__(self, *args: object) -> None: ...

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        async with self._use():
            return await self.wrapped.get_tools(ctx)  # type: ignore[no-any-return]

    async def get_instructions(self, ctx: RunContext[Any]) -> Any:
        async with self._use():
            return await self.wrapped.get_instructions(ctx)

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call a tool. Raises Interrupted where nobody knows what became of the call."""
        toolset = self.wrapped
        if toolset.process_tool_call is None:
            toolset = copy.copy(toolset)  # of the same session
            toolset.process_tool_call = functools.partial(_call_with_key, describe(executing_step()).idempotency_key)
        execution = executing_step().execution
        async with self._use():
            await execution.engine.bodies.ready(execution)  # it may have waited long for the session
            return await toolset.call_tool(name, tool_args, ctx, tool)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[None]:
        """Have the session; what is no answer of the server, though the model would be told of it, is Interrupted."""
        async with self._session():
            try:
                yield
            except Exception as told:
                cause = told.__cause__ if isinstance(told, ModelRetry | ToolFailed) else told
                found = getattr(cause, "error", None)
                code, message = getattr(found, "code", None), getattr(found, "message", "")
                is_lost = code == _CLOSED or message in _BROKEN or not self.wrapped.client.is_connected()
                if is_lost or code == _TIMEOUT:
                    raise Interrupted(str(told) or repr(told), again=is_lost) from cause
                raise

    def _session(self) -> AbstractAsyncContextManager[None]:
        engine = executing_step().execution.engine
        return (self.own or sessions_of(engine).find(self.wrapped)).use(engine)


@dataclass
class UnitServer(HeldServer):
    """The toolset of an MCP server that a function gave for one unit: that unit has a session while it uses it.

    It has it once: who waited for it a second time would wait for himself where others wait for the end of the first.
    """

    _held: AsyncExitStack | None = None

    async def __aenter__(self) -> UnitServer:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._use())
            self._held = stack.pop_all()
        return self

    async def __aexit__(self, *args: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.__aexit__(*args)  # type: ignore[arg-type]

    def _session(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._held is not None else super()._session()


def hold_given(toolset: DynamicToolset[Any]) -> DynamicToolset[Any]:
    """Give a toolset that a function makes, with those of MCP servers as units use them.

    Such a toolset may be a new one each time, so its session is not kept. What is made once for all of a run is
    entered in a unit and left by the run, elsewhere: then it has a session for each use.
    """
    held = copy.copy(toolset)
    kind = UnitServer if toolset.per_run_step else HeldServer

    def hold(leaf: Any) -> Any:
        if not _is_server(leaf):
            return leaf
        session = vars(leaf).setdefault("_outlive_session", Session(leaf, is_kept=False))
        return kind(leaf, session)

    async def make(ctx: RunContext[Any]) -> Any:
        made = toolset.toolset_func(ctx)
        if inspect.isawaitable(made):
            made = await made
        return None if made is None else made.visit_and_replace(hold)

    held.toolset_func = make
    return held


def _is_server(toolset: Any) -> bool:
    module = sys.modules.get("pydantic_ai.mcp")  # without it there is none
    return module is not None and isinstance(toolset, module.MCPToolset)


async def _call_with_key(key: str, _: RunContext[Any], call: Any, name: str, args: dict[str, Any]) -> Any:
    return await call(name, args, metadata={KEY: key})


class Session:
    """The session with one server, which all units of a process share; `is_kept` after use for the next one."""

    def __init__(self, toolset: Any, *, is_kept: bool = True) -> None:
        self._toolset = toolset
        self._is_kept = is_kept
        self._lock = asyncio.Lock()
        self._is_open = False
        self._is_doubtful = False
        self._users = 0
        self._used_at = 0.0

    @asynccontextmanager
    async def use(self, engine: Host) -> AsyncIterator[None]:
        """Have the session open; one that failed, or that nobody has used for a while, is asked whether it is alive."""
        async with self._lock:
            idle = not self._users and time.monotonic() - self._used_at > MCP_IDLE_S
            if self._is_open and (self._is_doubtful or idle) and not await self._answers():
                while self._users:  # their calls fail now, as this session is lost
                    await asyncio.sleep(_LOOK_S)
                await self._shut()
            if not self._is_open:
                await self._connect(engine)
            self._users += 1
        try:
            yield
        except (ModelRetry, ToolFailed):
            raise  # what a server says
        except BaseException:
            self._is_doubtful = True
            raise
        finally:
            self._users -= 1
            self._used_at = time.monotonic()
            if not self._is_kept and not self._users:
                async with self._lock:
                    if self._is_open and not self._users:  # nobody has come meanwhile
                        await self._shut()

    async def close(self) -> None:
        """End the session, and the process of a server that was started for it, whoever still uses it."""
        if self._is_open:
            await self._shut()

    async def _connect(self, engine: Host) -> None:
        """Open the session; nothing is sent to a server before it is, so whatever waits for it may wait."""
        pause_s, until = 0.1, time.monotonic() + MCP_CONNECT_S
        while True:
            try:
                await self._toolset.__aenter__()
            except Exception as error:
                await self._release()
                if time.monotonic() + pause_s > until:
                    told = f"MCP server {self._toolset.id!r} cannot be reached; retry the run when it can: {error}"
                    raise ConnectionError(told) from error
                log.warning("MCP server %r cannot be reached and is tried again: %s", self._toolset.id, error)
                await engine.bodies.rest(pause_s)
                pause_s *= 2
            else:
                self._is_open, self._is_doubtful = True, False
                return

    async def _answers(self) -> bool:
        """Ask whether the session is alive. A server that knows no ping says so; one that is busy is there."""
        self._is_doubtful = False
        try:
            async with asyncio.timeout(MCP_ASK_S):
                await self._toolset.client.ping()
        except TimeoutError:
            return True
        except Exception as error:  # noqa: BLE001 - whatever it is, it says whether somebody has answered
            return getattr(getattr(error, "error", None), "code", None) == _UNKNOWN_METHOD
        return True

    async def _shut(self) -> None:
        self._is_open = False
        await self._release(lambda: self._toolset.__aexit__(None, None, None))

    async def _release(self, forget: Callable[[], Awaitable[object]] | None = None) -> None:
        """Close the client first, which says once by what it was lost; let the toolset forget what it was told."""
        client = self._toolset.client
        for close in (client.close, *([forget] if forget else ()), client.transport.close):
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - it has ended all the same
                log.debug("the session with MCP server %r did not end well: %r", self._toolset.id, error)


class Sessions:
    """All sessions of a process."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._toolsets: list[Any] = []  # so that no other one gets the id of one that is here

    def find(self, toolset: Any) -> Session:
        """Give the session of a toolset."""
        if id(toolset) not in self._sessions:
            self._toolsets.append(toolset)
            self._sessions[id(toolset)] = Session(toolset)
        return self._sessions[id(toolset)]

    async def close(self) -> None:
        """End them all."""
        results = await asyncio.gather(*(one.close() for one in self._sessions.values()), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                log.warning("a session with an MCP server did not end well: %r", error)


def sessions_of(engine: Host) -> Sessions:
    """Give the sessions of a process, which end when its app closes."""
    found = engine.attached.setdefault(Sessions, Sessions())
    assert isinstance(found, Sessions)
    return found
