"""Providers that want to be left alone, and models in the place of others: in one process, in many, over deaths."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, ModelHTTPError, ModelRateLimitError, models
from pydantic_ai.durable_exec import ModelRequestId
from pydantic_ai.exceptions import FallbackExceptionGroup
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

from outlive import Outlive, Retry, RunCancelled, StoreUnavailable, hooks, workflow
from outlive.agents import durable
from outlive.agents.requests import may_pass, name_model, wanted_wait_s
from outlive.engine.engine import Engine
from outlive.limits import HEARD_WITHIN_S
from tests.agents import asker
from tests.agents.provider import Answer, Mishap, Provider, model_at, refuse
from tests.agents.test_durable import LIMIT_S

WAIT_S = 1


@pytest.fixture(autouse=True)
def _ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a thread or another process does."""
    async with asyncio.timeout(LIMIT_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def held_back(engine: Engine, provider: Provider) -> float:
    """Wait until all are told to leave the model alone; give for how long."""
    async with asyncio.timeout(LIMIT_S):
        while (memo := await engine.store.read_memo(f"model openai:small at {provider.url}/")) is None:
            await asyncio.sleep(0.01)
    return memo.left_s


def notice_rests(engine: Engine) -> asyncio.Event:
    """Give what is set when a body of this process begins to wait."""
    rests, rest = asyncio.Event(), engine.bodies.rest

    async def notice(delay_s: float) -> None:
        rests.set()
        await rest(delay_s)

    engine.bodies.rest = notice  # type: ignore[method-assign]
    return rests


def refuse_until_a_date(answer: Answer) -> None:
    date = email.utils.formatdate(time.time() + WAIT_S + 1, usegmt=True)  # parts of a second are cut off
    refuse(429, retry_after=date)(answer)


REFUSALS: dict[str, Mishap] = {
    "seconds": refuse(429, retry_after=str(WAIT_S)),
    "milliseconds": refuse(429, retry_after_ms=str(WAIT_S * 1000)),
    "a date": refuse_until_a_date,
    "an outage": refuse(503, retry_after=str(WAIT_S)),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_all_processes_leave_a_model_alone_for_as_long_as_it_wants(url: str, refusal: Mishap) -> None:
    with Provider(["done"], mishaps=[refusal]) as provider:
        agent = durable(Agent(provider.model(), name="asker"))
        async with Outlive(url, include=[agent]) as app, Outlive(url, include=[agent]) as other:
            first = await app.start(agent, "hello")
            assert await held_back(app._engine(), provider) <= WAIT_S + 1
            later = [await each.start(agent, "hello") for each in (app, other, other)]
            for run in (first, *later):
                assert await run.result(timeout=LIMIT_S) == "done"
            assert [entry.attempts for entry in await first.entries()] == [2]
            assert [entry.attempts for run in later for entry in await run.entries()] == [1, 1, 1]
        refused_at, *asked_at = provider.asked_at
        assert len(asked_at) == 4
        assert min(asked_at) - refused_at > WAIT_S - 0.1


async def test_many_requests_look_once_and_what_others_are_told_is_heard(url: str) -> None:
    with Provider(["done"], mishaps=[None] * 8 + [refuse(429, retry_after=str(WAIT_S))]) as provider:
        agent = durable(Agent(provider.model(), name="asker"))
        async with Outlive(url, include=[agent]) as app, Outlive(url, include=[agent]) as other:
            looks, look = [], other._engine().store.read_memo

            async def count(name: str):
                looks.append(time.monotonic())
                return await look(name)

            other._engine().store.read_memo = count  # type: ignore[method-assign]
            for _ in range(8):
                await other.run(agent, "hello")
            assert all(later - look >= HEARD_WITHIN_S for look, later in itertools.pairwise(looks))
            refused = await app.start(agent, "hello")
            await held_back(app._engine(), provider)
            await asyncio.sleep(HEARD_WITHIN_S)
            assert await other.run(agent, "hello") == "done"
            assert await refused.result(timeout=LIMIT_S) == "done"
        *_, refused_at, one, two = provider.asked_at
        assert len(provider.asked_at) == 11 and min(one, two) - refused_at > WAIT_S - 0.1


async def test_who_waits_holds_nothing_and_can_be_cancelled(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(429, retry_after="3600")]) as provider:
        agent = durable(Agent(provider.model(), name="asker"))
        async with Outlive(url, include=[agent]) as app, Outlive(url, include=[agent]) as other:
            rests = notice_rests(other._engine())
            first = await app.start(agent, "hello")
            await held_back(app._engine(), provider)
            second = await other.start(agent, "hello")
            await asyncio.wait_for(rests.wait(), LIMIT_S)
            assert other._engine().bodies.in_flight == 0  # so the process may end
            tx = await other._engine().store.begin(5.0)
            await tx.rollback()
            for run in (first, second):
                await run.cancel()
                with pytest.raises(RunCancelled):
                    await run.result(timeout=LIMIT_S)
        assert len(provider.asked) == 1


async def test_a_shorter_wait_takes_back_no_longer_one(url: str) -> None:
    """Of two requests under way at one time the second may be told of less."""
    both, first = asyncio.Event(), asyncio.Event()
    asked: list[float] = []

    async def answer(messages: Any, info: Any) -> ModelResponse:
        asked.append(time.monotonic())
        number = len(asked)
        if number > 2:
            return ModelResponse(parts=[TextPart("done")])
        await (both if number == 1 else first).wait()
        if number == 1:
            asyncio.get_running_loop().call_later(0.3, first.set)
        told = {"retry-after": str(2 * WAIT_S if number == 1 else WAIT_S / 10)}
        raise ModelHTTPError.for_category(ModelRateLimitError, status_code=429, model_name="m", headers=told)

    agent = durable(Agent(FunctionModel(answer), name="asker"))
    async with Outlive(url) as app:
        runs = [await app.start(agent, "hello") for _ in range(2)]
        await until(lambda: len(asked) == 2)
        both.set()
        at = time.monotonic()
        for run in runs:
            assert await run.result(timeout=LIMIT_S) == "done"
    assert min(asked[2:]) - at > 2 * WAIT_S - 0.2


async def test_a_store_that_does_not_answer_is_no_failure_of_the_model(url: str) -> None:
    left = ["put_memo.before", "put_memo.after"]

    def fail(point: str) -> None:
        if point in left:
            left.remove(point)
            raise StoreUnavailable("told not to answer", outcome_unknown=True)

    with Provider(["done"], mishaps=[refuse(429, retry_after=str(WAIT_S))]) as provider:
        agent = durable(Agent(provider.model(), name="asker"))
        async with Outlive(url) as app:
            hooks.arm(fail)
            try:
                run = await app.start(agent, "hello")
                assert await run.result(timeout=LIMIT_S) == "done"
            finally:
                hooks.arm(None)
            assert [entry.attempts for entry in await run.entries()] == [2]
        assert left == []
        assert provider.asked_at[1] - provider.asked_at[0] > WAIT_S - 0.1


async def test_another_model_of_the_provider_is_asked_meanwhile(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(429, retry_after="3600")]) as provider:
        agent = durable(Agent(provider.model(), name="asker"))
        spare = durable(Agent(provider.model("spare"), name="spare"))
        async with Outlive(url) as app:
            run = await app.start(agent, "hello")
            await held_back(app._engine(), provider)
            assert await app.run(spare, "hello") == "done"
            await run.cancel()


async def test_a_process_that_dies_leaves_word(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(429, retry_after=str(WAIT_S))]) as provider:
        async with Outlive(url, worker=False) as client:
            with asker.asking("plain", url, provider.url):
                await held_back(client._engine(), provider)
        assert asker.finish("plain", url, provider.url) == "done"
        refused_at, asked_at = provider.asked_at
        assert asked_at - refused_at > WAIT_S - 0.1


@pytest.mark.parametrize("what", ["within", "beside"])
async def test_another_model_answers(url: str, what: str) -> None:
    with Provider(["done"], mishaps=[refuse(500)]) as first, Provider(["done by the spare"]) as second:
        agent = getattr(asker, what)(first.url, second.url)
        async with Outlive(url) as app:
            run = await app.start(agent, "hello")
            assert await run.result(timeout=LIMIT_S) == "done by the spare"
            answer = (await run.entries())[-1]
            assert answer.value["model_name"] == "spare"
            said = [(entry.key, entry.outcome) for entry in await run.entries()]
        own = [("asker#1/model#1", "error"), ("asker#1/model(spare)#1", "ok")]
        assert said == (own if what == "beside" else [("asker#1/model#1", "ok")])
        assert (len(first.asked), len(second.asked)) == (1, 1)


@pytest.mark.parametrize(("what", "times"), [("within", (2, 2)), ("beside", (1, 2))])
async def test_a_process_dies_between_a_model_and_the_one_in_its_place(
    url: str, what: str, times: tuple[int, int]
) -> None:
    hold = threading.Event()
    with (
        Provider(["done"], mishaps=[refuse(500), refuse(500)]) as first,
        Provider(["done by the spare"], hold=hold) as second,
    ):
        with asker.asking(what, url, first.url, second.url):
            await until(lambda: len(second.asked) == 1)
        hold.set()
        assert asker.finish(what, url, first.url, second.url) == "done by the spare"
        assert (len(first.asked), len(second.asked)) == times


async def test_all_models_want_to_be_left_alone(url: str) -> None:
    with (
        Provider(["done"], mishaps=[refuse(429, retry_after=str(WAIT_S))]) as first,
        Provider(["done"], mishaps=[refuse(429, retry_after="3600")]) as second,
    ):
        agent = durable(Agent(FallbackModel(first.model(), second.model("spare")), name="asker"))
        async with Outlive(url) as app:
            assert await app.run(agent, "hello") == "done"
        assert len(second.asked) == 1
        assert first.asked_at[1] - first.asked_at[0] > WAIT_S - 0.1


async def test_a_workflow_sees_the_refusal_as_the_class_that_it_was(url: str) -> None:
    with Provider(["done"], mishaps=[refuse(429)]) as provider:
        agent = durable(Agent(provider.model(), name="asker"), model_retry=Retry(attempts=1))

        @workflow
        async def asks() -> list[object]:
            try:
                await agent.run("hello")
            except ModelRateLimitError as error:
                return [isinstance(error, ModelHTTPError) and error.status_code, error.model_name, str(error)]
            return []

        async with Outlive(url) as app:
            status, model, text = await app.run(asks)
        assert (status, model) == (429, "small")
        assert "told to say 429" in str(text)


def test_models_are_known_by_name_and_address() -> None:
    here, there = model_at("http://here/v1", "small"), model_at("http://there/v1", "large")
    others = {"spare": there}
    own = ModelRequestId(model_name="small")
    assert name_model(own, here, others) == "openai:small at http://here/v1/"
    assert name_model(ModelRequestId("spare", model_name="large"), here, others) == "openai:large at http://there/v1/"
    by_name = ModelRequestId("openai:gpt-5", model_name="gpt-5")
    assert name_model(by_name, here, others) == "openai:gpt-5 (gpt-5)"


def test_of_several_models_the_first_to_be_ready_counts() -> None:
    slow = ModelRateLimitError("one", "no", retry_after=9.0)
    soon = ModelRateLimitError("two", "no", retry_after=3.0)
    never = ModelHTTPError(400, "three")
    group = FallbackExceptionGroup
    assert wanted_wait_s(group("all", [slow, soon])) == 3.0
    assert wanted_wait_s(group("all", [slow, ModelRateLimitError("four", "no")])) is None  # it may be ready at once
    assert may_pass(group("all", [never, slow]))
    assert not may_pass(group("all", [never]))
    assert not may_pass(never)


class Bare(FunctionModel):
    unsupported_settings = frozenset({"max_retries"})


async def test_a_model_whose_client_cannot_be_told_is_told_nothing(url: str) -> None:
    seen: list[object] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info.model_settings)
        return ModelResponse(parts=[TextPart("done")])

    async with Outlive(url) as app:
        for model in (FunctionModel(answer), Bare(answer), WrapperModel(Bare(answer))):
            assert await app.run(durable(Agent(model, name="asker")), "hello") == "done"
    assert seen == [{"max_retries": 0}, None, None]
