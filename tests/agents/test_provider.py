"""A provider that fails in every way it can: the agent recovers or says what is wrong, and asks nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import pytest
from pydantic_ai import Agent, models

import outlive
from outlive import Outlive, Retry, RunFailed, workflow
from outlive.agents import Ask, StreamReset, approvals, durable, events, inline
from outlive.model.agentkeys import MODEL
from tests.agents.provider import Call, Mishap, Provider, cut, empty, garbled, refuse, stall, stall_within
from tests.agents.test_durable import LIMIT_S, keys_of, leave_memory, waits_for

QUICK = Retry(attempts=3, first_delay=0.01)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(autouse=True)
def _ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)


def clerk(provider: Provider, **settings: Any) -> Agent[None, str]:
    agent = Agent(provider.model(**settings), name="clerk")

    @agent.tool_plain(metadata=inline())
    async def wait() -> str:
        return await outlive.receive("go on", as_type=str)

    return agent


async def attempts_of(run: outlive.Run) -> list[int]:
    return [entry.attempts for entry in await run.entries() if "/model#" in entry.key]


PASSING: dict[str, Mishap] = {
    "refused": refuse(429),
    "broken": refuse(500),
    "unavailable": refuse(503),
    "overloaded": refuse(529),
    "told to retry": refuse(400, x_should_retry="true"),
    "cut": cut,
    "empty": empty,
    "garbled": garbled,
    "stalled": stall,
}


@pytest.mark.parametrize("mishap", PASSING.values(), ids=PASSING)
async def test_what_may_pass_is_asked_again(url: str, mishap: Mishap) -> None:
    with Provider([[Call("wait", "c1")], "done"], mishaps=[mishap]) as provider:
        async with Outlive(url) as app:
            run = await app.start(durable(clerk(provider, timeout=0.5), model_retry=QUICK), "hello")
            await waits_for(run, "receive")
            provider.mishaps.append(mishap)
            await leave_memory(app)
            await run.send("go on", "yes")
            assert await run.result(timeout=LIMIT_S) == "done"
            assert await attempts_of(run) == [2, 2]
        assert provider.turns_asked() == [0, 0, 1, 1]


FINAL: dict[str, tuple[Mishap, str]] = {
    "rejected": (refuse(400), "ModelRequestRejectedError: status_code: 400"),
    "unauthorized": (refuse(401), "ModelAuthenticationError: status_code: 401"),
    "not found": (refuse(404), "ModelNotFoundError: status_code: 404"),
    "told not to retry": (refuse(503, x_should_retry="false"), "ModelUnavailableError: status_code: 503"),
}


@pytest.mark.parametrize(("mishap", "says"), FINAL.values(), ids=FINAL)
async def test_what_does_not_pass_is_asked_once(url: str, mishap: Mishap, says: str) -> None:
    with Provider(["done"], mishaps=[mishap]) as provider:
        async with Outlive(url) as app:
            run = await app.start(durable(clerk(provider)), "hello")
            with pytest.raises(RunFailed, match=says):
                await run.result(timeout=LIMIT_S)
            assert provider.turns_asked() == [0]
            await run.retry()
            assert await run.result(timeout=LIMIT_S) == "done"


async def test_attempts_are_bounded_and_an_operator_may_add_some(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(500)] * 3) as provider:
        async with Outlive(url) as app:
            run = await app.start(durable(clerk(provider), model_retry=QUICK), "hello")
            with pytest.raises(RunFailed, match="ModelServerError"):
                await run.result(timeout=LIMIT_S)
            assert provider.turns_asked() == [0, 0, 0]
            await run.retry()
            assert await run.result(timeout=LIMIT_S) == "done"


async def test_what_is_retried_can_be_said(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(400)]) as provider:
        async with Outlive(url) as app:
            stubborn = durable(clerk(provider), model_retry=Retry(attempts=2, first_delay=0.01, on=(RuntimeError,)))
            assert await app.run(stubborn, "hello") == "done"


async def test_a_client_that_is_told_to_retry_does(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(500)]) as provider:
        async with Outlive(url) as app:
            run = await app.start(durable(clerk(provider, max_retries=1), model_retry=Retry(attempts=1)), "hello")
            assert await run.result(timeout=LIMIT_S) == "done"
            assert await attempts_of(run) == [1]


BREAKS = {"refused": refuse(500), "cut": cut, "stalled": stall, "stalled within": stall_within}


@pytest.mark.parametrize("mishap", BREAKS.values(), ids=BREAKS)
async def test_a_streamed_answer_that_breaks_off_is_asked_again(url: str, mishap: Mishap) -> None:
    texts: list[str] = []

    async def listen(_: Any, events: AsyncIterable[Any]) -> None:
        async for event in events:
            texts.append(event.event_kind)

    with Provider([[Call("wait", "c1")], "done"], mishaps=[mishap]) as provider:
        agent = durable(clerk(provider, timeout=0.5), model_retry=QUICK)

        @workflow
        async def streams() -> str:
            return (await agent.run("hello", event_stream_handler=listen)).output

        async with Outlive(url) as app:
            run = await app.start(streams)
            await waits_for(run, "receive")
            await leave_memory(app)
            await run.send("go on", "yes")
            assert await run.result(timeout=LIMIT_S) == "done"
        assert all(body["stream"] for body in provider.asked)
        assert provider.turns_asked() == [0, 0, 1]
        assert texts


async def test_who_follows_a_stream_that_stalls_for_good_is_told_its_end(url: str) -> None:
    """Cloudflare 2042: the watchdog of a stalled stream gave up, and who followed it waited for ever."""
    with Provider(["done"], mishaps=[stall_within] * 2) as provider:
        agent = durable(clerk(provider, timeout=0.3), stream=True, model_retry=Retry(attempts=2, first_delay=0.01))
        async with Outlive(url) as app:
            run = await app.start(agent, "hello")
            async with asyncio.timeout(LIMIT_S):
                shown = [one.event async for one in events(run)]
            assert await run.status() == "failed"
            assert sum(isinstance(one, StreamReset) for one in shown) == 1
            assert provider.turns_asked() == [0, 0]
            await run.retry()
            assert await run.result(timeout=LIMIT_S) == "done"


@STREAMED
async def test_arguments_that_are_no_json_are_told_to_the_model(url: str, stream: bool) -> None:
    with Provider([[Call("wait", "c1", '{"half": ')], "sorry"]) as provider:
        async with Outlive(url) as app:
            run = await app.start(durable(clerk(provider), stream=stream), "hello")
            assert await run.result(timeout=LIMIT_S) == "sorry"
            name = MODEL[stream]
            assert await keys_of(run) == [f"clerk#1/{name}#1", f"clerk#1/{name}#2"]
        told = provider.asked[1]["messages"][-1]
        assert (told["role"], told["tool_call_id"]) == ("tool", "c1")


@STREAMED
async def test_an_answer_with_one_id_for_two_calls_is_asked_for_again(url: str, stream: bool) -> None:
    twice = [Call("pay", "c1", '{"cents": 1}'), Call("pay", "c1", '{"cents": 2}')]
    once = [Call("pay", "c1", '{"cents": 1}'), Call("pay", "c2", '{"cents": 2}')]
    with Provider([twice, "done"]) as provider:
        agent = clerk(provider)
        paid: list[int] = []

        @agent.tool_plain
        async def pay(cents: int) -> str:
            paid.append(cents)
            return "paid"

        async with Outlive(url) as app:
            run = await app.start(durable(agent, model_retry=QUICK, stream=stream), "hello")
            with pytest.raises(Exception, match=r"several calls of the same id: \['c1'\]"):
                await run.result(timeout=LIMIT_S)
            assert (paid, set(provider.turns_asked())) == ([], {0})
            provider.turns = [once, "done"]
            await run.retry()
            assert await run.result(timeout=LIMIT_S) == "done"
        assert sorted(paid) == [1, 2]


async def test_one_id_for_calls_of_two_answers_is_two_entries_and_two_approvals(url: str) -> None:
    turns = [[Call("pay", "c1", '{"cents": 1}')], [Call("pay", "c1", '{"cents": 2}')], "done"]
    with Provider(turns) as provider:
        agent = clerk(provider)
        paid: list[int] = []

        @agent.tool_plain
        async def pay(cents: int) -> str:
            paid.append(cents)
            return f"paid {cents}"

        async with Outlive(url) as app:
            run = await app.start(durable(agent, policy=lambda call: Ask()), "hello")
            for cents in (1, 2):
                while not (waiting := (await approvals(app).list()).items):
                    await asyncio.sleep(0.01)
                assert [dict(one.arguments) for one in waiting] == [{"cents": cents}]
                assert paid == list(range(1, cents))
                await approvals(app).decide(waiting[0].id, approve=True, by="ana")
                while len(paid) < cents:
                    await asyncio.sleep(0.01)
            assert await run.result(timeout=LIMIT_S) == "done"
            assert [key for key in await keys_of(run) if "/tool:pay" in key] == [
                "clerk#1/tool:pay(c1)#1",
                "clerk#1/tool:pay(c1)#2",
            ]
        assert paid == [1, 2]
