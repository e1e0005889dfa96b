"""Answers that runs share: of equal requests one is sent, whoever fails, is cancelled or dies meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic_ai import Agent, models
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.native_tools import MCPServerTool, WebSearchTool
from pydantic_ai.settings import ModelSettings

import outlive
from outlive import Outlive, Retry, RunCancelled, RunFailed, UsageError
from outlive.agents import durable, pure
from tests.agents import asker
from tests.agents.provider import Call, Provider, cut, refuse
from tests.agents.scripts import scripted
from tests.agents.test_durable import LIMIT_S, leave_memory
from tests.agents.test_requests import notice_rests, until
from tests.support.size import by_turns

HOUR_S = 3600


@pytest.fixture(autouse=True)
def _ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)


def make(provider: Provider, *, cache: float | None = HOUR_S, **options: Any) -> Any:
    agent = Agent(provider.model(), name="clerk", **options)

    @agent.tool_plain(metadata=pure())
    async def look(word: str) -> str:
        return f"seen {word}"

    return durable(agent, cache=cache, model_retry=Retry(attempts=3, first_delay=0.01))


@by_turns("dies", [False, True], ids=["calm", "dies"])
async def test_many_equal_prompts_of_two_processes_are_one_request(url: str, dies: bool) -> None:
    hold = threading.Event()
    with Provider(["done"], hold=hold) as provider:
        async with Outlive(url, worker=False) as client:
            with asker.asking("crowd", url, provider.url) as first:
                await until(lambda: len(provider.asked) == 1)
                with asker.asking("crowd", url, provider.url):
                    async with asyncio.timeout(asker.LIMIT_S):
                        while await client.count("workflow:agent.asker") < 2 * asker.CROWD:
                            await asyncio.sleep(0.05)
                    if dies:
                        first.kill()
                        await until(lambda: len(provider.asked) == 2)
                    hold.set()
                    ids = [info.id async for info in client.runs("")]
                    for run_id in ids:
                        assert await (await client.get(run_id)).result(timeout=asker.LIMIT_S) == "done"
        assert len(ids) == 2 * asker.CROWD
        assert len(provider.asked) == 1 + dies


async def test_a_whole_conversation_is_shared_and_costs_once(url: str) -> None:
    with Provider([[Call("look", "c1", '{"word": "a"}')], "done"]) as provider:
        agent = make(provider)
        async with Outlive(url) as app:
            answers = []
            for _ in range(2):
                run = await app.start(agent, "hello")
                assert await run.result(timeout=LIMIT_S) == "done"
                answers.append([entry.value for entry in await run.entries() if "/model#" in entry.key])
            await leave_memory(app)
        assert provider.turns_asked() == [0, 1]
    paid, given = answers
    assert [one["usage"]["input_tokens"] for one in paid] == [7, 7]
    assert [one["metadata"] for one in paid] == [None, None]
    assert [one["usage"] for one in given] == [{}, {}]
    assert [one["metadata"] for one in given] == [{"outlive_given_before": True}] * 2


async def test_what_is_not_equal_is_asked(url: str) -> None:
    with Provider(["done"]) as provider, Provider(["done"]) as other:
        async with Outlive(url) as app:
            agents = [
                make(provider),
                make(provider, instructions="Be brief."),
                make(provider, model_settings=ModelSettings(temperature=1.0)),
                make(provider, output_type=[str, int]),
                make(other),
                durable(Agent(provider.model("large"), name="clerk"), cache=HOUR_S),
            ]
            for agent in agents:
                await agent_says(app, agent, "hello")
            await agent_says(app, agents[0], "goodbye")
        assert (len(provider.asked), len(other.asked)) == (6, 1)


async def test_who_asks_for_others_or_otherwise_is_given_no_answer_of_theirs(url: str) -> None:
    """A provider's own tools have settings, and credentials; so have models behind one that chooses."""
    asked: list[Any] = []

    class Searching(FunctionModel):
        @classmethod
        def supported_native_tools(cls) -> Any:
            return frozenset({WebSearchTool, MCPServerTool})

    async def answer(messages: Any, info: Any) -> ModelResponse:
        asked.append(info)
        return ModelResponse(parts=[TextPart(f"answer {len(asked)}")])

    def searching(tool: Any) -> Agent[None, Any]:
        return Agent(Searching(answer), name="clerk", capabilities=[NativeTool(tool)])

    def choosing(temperature: float) -> Agent[None, Any]:
        first = FunctionModel(answer, settings=ModelSettings(temperature=temperature))
        return Agent(FallbackModel(first, FunctionModel(answer)), name="clerk")

    agents = [
        searching(WebSearchTool(allowed_domains=["intern.example"])),
        searching(WebSearchTool(allowed_domains=["public.example"])),
        searching(MCPServerTool(id="bank", url="https://bank.example", authorization_token="of ana")),
        searching(MCPServerTool(id="bank", url="https://bank.example", authorization_token="of bob")),
        choosing(0.0),
        choosing(1.0),
    ]
    async with Outlive(url) as app:
        for number, agent in enumerate(agents * 2):
            run = await app.start(durable(agent, cache=HOUR_S), "hello")
            assert await run.result(timeout=LIMIT_S) == f"answer {number % len(agents) + 1}"
    assert len(asked) == len(agents)


async def test_settings_that_are_no_json_are_asked_with(url: str) -> None:
    """A provider's own settings may have keys of several types; what a model calls `models` may be none."""
    asked: list[Any] = []

    class Listing(FunctionModel):
        models = ("small", "large")

    async def answer(messages: Any, info: Any) -> ModelResponse:
        asked.append(info)
        return ModelResponse(parts=[TextPart("done")])

    odd: Any = {"extra_body": {"some": 1, 7: "seven"}}
    agent = durable(Agent(Listing(answer, settings=odd), name="clerk"), cache=HOUR_S)
    async with Outlive(url) as app:
        for _ in range(2):
            await agent_says(app, agent, "hello")
    assert len(asked) == 1


async def agent_says(app: Outlive, agent: Any, prompt: str) -> None:
    """Start this very agent, though others have its name."""
    async with Outlive(app._url, include=[agent]) as own:
        assert await own.run(agent, prompt) == "done"


async def test_only_who_wants_to_shares(url: str) -> None:
    with Provider(["done"]) as provider:
        agent = make(provider, cache=None)
        async with Outlive(url) as app:
            for _ in range(2):
                assert await app.run(agent, "hello") == "done"
        assert len(provider.asked) == 2


async def test_what_has_passed_is_asked_again(url: str) -> None:
    with Provider(["done"]) as provider:
        agent = make(provider, cache=0.001)
        async with Outlive(url) as app:
            for _ in range(2):
                assert await app.run(agent, "hello") == "done"
        assert len(provider.asked) == 2


async def test_what_no_database_stores_is_replaced_before_it_is_kept(url: str) -> None:
    with Provider(["a\x00b"]) as provider:
        agent = make(provider)
        async with Outlive(url) as app:
            for _ in range(2):
                assert await app.run(agent, "hello") == "a\ufffdb"
        assert len(provider.asked) == 1


@pytest.mark.parametrize("mishap", [refuse(500), cut], ids=["refused", "cut"])
async def test_a_failure_is_not_kept(url: str, mishap: Any) -> None:
    with Provider(["done"], mishaps=[mishap]) as provider:
        agent = make(provider)
        async with Outlive(url) as app:
            runs = [await app.start(agent, "hello") for _ in range(5)]
            for run in runs:
                assert await run.result(timeout=LIMIT_S) == "done"
        assert len(provider.asked) == 2


async def test_who_fails_for_good_leaves_it_to_the_next(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(400)]) as provider:
        agent = make(provider)
        async with Outlive(url) as app:
            runs = [await app.start(agent, "hello") for _ in range(3)]
            ends = await asyncio.gather(*(run.result(timeout=LIMIT_S) for run in runs), return_exceptions=True)
        assert sorted(map(type, ends), key=str) == sorted([RunFailed, str, str], key=str)
        assert len(provider.asked) == 2


async def test_who_is_cancelled_leaves_it_to_the_next(url: str) -> None:
    hold = threading.Event()
    with Provider(["done"], hold=hold) as provider:
        agent = make(provider)
        async with Outlive(url, include=[agent]) as app, Outlive(url, include=[agent]) as other:
            first = await app.start(agent, "hello")
            await until(lambda: len(provider.asked) == 1)
            rests = notice_rests(other._engine())
            second = await other.start(agent, "hello")
            await asyncio.wait_for(rests.wait(), LIMIT_S)
            await first.cancel()
            with pytest.raises(RunCancelled):
                await first.result(timeout=LIMIT_S)
            await until(lambda: len(provider.asked) == 2)
            hold.set()
            assert await second.result(timeout=LIMIT_S) == "done"


async def test_who_waits_for_another_can_be_cancelled(url: str) -> None:
    hold = threading.Event()
    with Provider(["done"], hold=hold) as provider:
        agent = make(provider)
        async with Outlive(url, include=[agent]) as app, Outlive(url, include=[agent]) as other:
            first = await app.start(agent, "hello")
            await until(lambda: len(provider.asked) == 1)
            rests = notice_rests(other._engine())
            second = await other.start(agent, "hello")
            await asyncio.wait_for(rests.wait(), LIMIT_S)
            await second.cancel()
            with pytest.raises(RunCancelled):
                await second.result(timeout=LIMIT_S)
            hold.set()
            assert await first.result(timeout=LIMIT_S) == "done"
        assert len(provider.asked) == 1


async def test_a_provider_that_wants_to_be_left_alone_is_left_alone_by_who_waits(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(429, retry_after="1")]) as provider:
        agent = make(provider)
        async with Outlive(url) as app:
            runs = [await app.start(agent, "hello") for _ in range(5)]
            for run in runs:
                assert await run.result(timeout=LIMIT_S) == "done"
        refused_at, asked_at = provider.asked_at
        assert asked_at - refused_at > 0.9


def test_a_cache_has_a_time() -> None:
    with pytest.raises(UsageError, match="more than 0"):
        durable(Agent(scripted("hi"), name="clerk"), cache=0)
    with pytest.raises(outlive.UsageError, match="a duration"):
        durable(Agent(scripted("hi"), name="clerk"), cache="1h")  # type: ignore[arg-type]
