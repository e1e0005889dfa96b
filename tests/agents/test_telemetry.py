"""Spans of an agent are told once: a replay tells nothing, and what is new after it is told."""

from __future__ import annotations

from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings

import outlive
from outlive import Outlive
from outlive.agents import durable, inline
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import LIMIT_S, leave_memory, waits_for


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "is replayed"])
async def test_each_span_is_told_once(url: str, leaves: bool, stream: bool) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    agent = Agent(
        scripted([call("look", "c1")], [call("ask", "c2")], "{results}"),
        name="clerk",
        capabilities=[Instrumentation(InstrumentationSettings(tracer_provider=provider))],
    )

    @agent.tool_plain
    async def look() -> str:
        return "seen"

    @agent.tool_plain(metadata=inline())
    async def ask() -> str:
        return await outlive.receive("answer", as_type=str)

    async with Outlive(url) as app:
        run = await app.start(durable(agent, stream=stream), "look")
        await waits_for(run, "receive")
        if leaves:
            await leave_memory(app)
        await run.send("answer", "yes")
        assert await run.result(timeout=LIMIT_S) == "['seen', 'yes']"
    told = Counter(span.name.split()[0] for span in exporter.get_finished_spans())
    assert told == {"chat": 3, "execute_tool": 2, "invoke_agent": 1}
