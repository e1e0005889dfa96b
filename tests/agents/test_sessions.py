"""The session of an MCP server that several units share: whoever loses it, or leaves it last, keeps nobody waiting."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agents.servers import HeldServer, Session, UnitServer
from outlive.engine.bodies import current_step

LIMIT_S = 5.0


class Server:
    """A toolset with a client, as those of MCP servers are, whose session is lost when a test says so."""

    id = "server"

    def __init__(self, ping_s: float = 0.0) -> None:
        self.client = self.transport = self
        self.ping_s = ping_s
        self.is_lost = False
        self.opened = 0

    async def __aenter__(self) -> None:
        self.opened += 1
        self.is_lost = False

    async def __aexit__(self, *_: object) -> None: ...

    async def close(self) -> None: ...

    def is_connected(self) -> bool:
        return not self.is_lost

    async def ping(self) -> None:
        await asyncio.sleep(self.ping_s)
        if self.is_lost:
            raise ConnectionError("lost")

    async def get_tools(self, work_s: float) -> dict[str, Any]:
        await asyncio.sleep(work_s)
        if self.is_lost:
            raise ConnectionError("lost")
        return {}


@pytest.fixture(autouse=True)
def _within_a_step() -> Any:
    token = current_step.set(SimpleNamespace(execution=SimpleNamespace(engine=None)))  # type: ignore[arg-type]
    yield
    current_step.reset(token)


async def use(server: Server, session: Session, *, after_s: float, before_s: float, work_s: float = 0.01) -> str:
    """Use a server as a unit does: enter it, and after a while ask for its tools."""
    await asyncio.sleep(after_s)
    try:
        async with UnitServer(server, session) as held:
            await asyncio.sleep(before_s)
            await held.get_tools(work_s)  # type: ignore[arg-type]
    except Exception as error:
        return type(error).__name__
    return "done"


async def test_who_loses_a_session_does_not_wait_for_himself() -> None:
    server = Server()
    session = Session(server, is_kept=False)
    async with asyncio.timeout(LIMIT_S):
        first = asyncio.create_task(use(server, session, after_s=0.0, before_s=0.01))
        second = asyncio.create_task(use(server, session, after_s=0.0, before_s=0.05))
        await asyncio.sleep(0.005)
        server.is_lost = True
        assert await first == await second == "Interrupted"
        assert await use(server, session, after_s=0.0, before_s=0.0) == "done"
    assert server.opened == 2


async def test_who_leaves_last_does_not_wait_for_who_comes_meanwhile() -> None:
    server = Server(ping_s=0.05)
    session = Session(server, is_kept=False)

    async def fail() -> None:
        with pytest.raises(RuntimeError):
            async with session.use(None):  # type: ignore[arg-type]
                await asyncio.sleep(0.01)
                raise RuntimeError("a doubt")

    async with asyncio.timeout(LIMIT_S):
        done = await asyncio.gather(
            fail(),
            use(server, session, after_s=0.0, before_s=0.005, work_s=0.055),
            use(server, session, after_s=0.035, before_s=0.05),
            use(server, session, after_s=0.035, before_s=0.1),
        )
    assert done == [None, "done", "done", "done"]


async def test_the_end_of_an_app_waits_for_no_unit() -> None:
    server = Server()
    session = Session(server)
    unit = asyncio.create_task(use(server, session, after_s=0.0, before_s=3600))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(LIMIT_S):
        await session.close()
    unit.cancel()
    await asyncio.gather(unit, return_exceptions=True)


async def test_a_call_that_waited_for_its_session_looks_at_the_lease_again() -> None:
    """A peer may have gone on with the run while this process stood still."""
    told: list[str] = []
    may_go_on = asyncio.Event()

    class Slow(Server):
        process_tool_call = staticmethod(lambda *_: None)

        async def __aenter__(self) -> None:
            told.append("connected")
            await super().__aenter__()

        async def call_tool(self, *_: Any) -> str:
            told.append("called")
            return "seen"

    async def ready(_: Any) -> None:
        told.append("looked")
        await may_go_on.wait()

    engine = SimpleNamespace(bodies=SimpleNamespace(ready=ready))
    current_step.set(SimpleNamespace(execution=SimpleNamespace(engine=engine)))  # type: ignore[arg-type]
    server = Slow()
    held: Any = HeldServer(server, Session(server))  # type: ignore[arg-type]
    async with asyncio.timeout(LIMIT_S):
        calling = asyncio.create_task(held.call_tool("look", {}, None, None))
        await asyncio.sleep(0.05)
        assert told == ["connected", "looked"]
        may_go_on.set()
        assert await calling == "seen"
    assert told == ["connected", "looked", "called"]
