"""Conversations: turn by turn with one history, which nothing that dies or fails takes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from outlive import Outlive, RunEnded, RunNotFound, Status, UsageError, workflow
from outlive.agents import (
    Answered,
    Ask,
    BrokenOff,
    Budget,
    Listening,
    Said,
    approvals,
    conversation,
    durable,
    events,
    pure,
)
from outlive.limits import GENERATIONS_KEPT
from outlive.testing import replay
from tests.support.size import pick

LIMIT_S = 30.0
asked: list[int] = []  # of how many messages each request was made
TURNS = (Said, Answered, BrokenOff, Listening)


@pytest.fixture(autouse=True)
def _clean() -> None:
    asked.clear()


def parrot(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Repeat what was said, and how much was said before; `use TOOL` calls a tool first."""
    asked.append(len(messages))
    part = messages[-1].parts[-1]
    said = str(getattr(part, "content", ""))
    if part.part_kind == "user-prompt" and said.startswith("use "):
        return ModelResponse(parts=[ToolCallPart(said.split()[1], {}, tool_call_id=f"call-{len(messages)}")])
    return ModelResponse(parts=[TextPart(f"{said} after {len(messages) - 1}")])


async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    for place, part in enumerate(parrot(messages, info).parts):
        if isinstance(part, ToolCallPart):
            yield {place: DeltaToolCall(part.tool_name, json.dumps(part.args), tool_call_id=part.tool_call_id)}
        elif isinstance(part, TextPart):
            yield part.content


plain = Agent(FunctionModel(parrot, stream_function=stream), name="parrot")


@plain.tool_plain(metadata=pure())
async def look() -> str:
    return "a lamp"


@plain.tool_plain(metadata=pure())
async def fail() -> str:
    raise ZeroDivisionError("no lamp")


@plain.tool_plain(metadata=pure())
async def misuse() -> str:
    raise UsageError("no such table")


chat = conversation(durable(plain))


async def turns(app: Outlive, talk: Any = chat, run_id: str = "chat-1") -> list[Any]:
    """Wait until a conversation has answered all, and give its own events."""
    run = await app.get(run_id)
    token = await talk.ask_whether_it_listens(run)
    found: list[Any] = []
    async with asyncio.timeout(LIMIT_S):
        async for shown in events(run):
            if isinstance(shown.event, TURNS):
                found.append(shown.event)
                if isinstance(shown.event, Listening) and shown.event.token == token:
                    break
    return [one for one in found if not isinstance(one, Listening)]


def answers(found: list[Any]) -> list[str]:
    return [one.text for one in found if isinstance(one, Answered)]


async def test_each_turn_knows_those_before(url: str) -> None:
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        for text in ("one", "two", "use look"):
            assert await chat.say(run, text, key=text) == text
        found = await turns(app)
        assert found == [
            Said(1, "one", "one"),
            Answered(1, "one after 0", "one after 0"),
            Said(2, "two", "two"),
            Answered(2, "two after 2", "two after 2"),
            Said(3, "use look", "use look"),
            Answered(3, "a lamp after 6", "a lamp after 6"),
        ]
        await chat.end(run)
        assert await run.result(LIMIT_S) == 3
        with pytest.raises(RunEnded):
            await chat.say(run, "four")
    assert asked == [1, 3, 5, 7]


async def test_who_comes_back_asks_no_model_again(url: str) -> None:
    for number in range(3):
        async with Outlive(url, include=[chat]) as app:
            run = await app.start(chat, id="chat-1")
            assert run.created == (number == 0)
            await chat.say(run, f"{number}", key=f"{number}")
            await chat.say(run, f"{number}", key=f"{number}")  # as one does who does not know that it was heard
            assert answers(await turns(app)) == [f"{n} after {2 * n}" for n in range(number + 1)]
    assert asked == [1, 3, 5]


async def test_a_turn_adds_its_own_entries_and_nothing_else(url: str) -> None:
    """langgraph 6208 and the like: what is stored grows with what is said, not with its square."""
    sizes = []
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        for number in range(pick(small=6, full=60)):
            await chat.say(run, f"{number:03}")
            await turns(app)
            sizes.append(sum(len(json.dumps(entry.value)) for entry in await run.entries()))
        journals = [journal async for journal in app.journals(ids=["chat-1"])]
    added = [later - earlier for earlier, later in pairwise(sizes)]
    assert max(added) - min(added) <= 40  # digits of numbers and times, of about a thousand characters
    (report,) = await asyncio.to_thread(replay, journals, include=[chat])
    assert report.verdict == "fits"


async def test_a_turn_that_fails_ends_no_conversation(url: str) -> None:
    """The next turn reads that the call was made; a provider would refuse a history in which it has no result."""
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        await chat.say(run, "use fail")
        await chat.say(run, "two")
        found = await turns(app)
        assert [type(one) for one in found] == [Said, BrokenOff, Said, Answered]
        assert found[1].error == "ZeroDivisionError: no lamp"
        assert answers(found) == ["two after 2"]
        assert await run.status() != Status.FAILED


async def test_a_budget_that_is_used_up_breaks_the_turn_off(url: str) -> None:
    poor = conversation(durable(plain, budget=Budget(account="parrots", requests=1)), name="poor")
    async with Outlive(url, include=[poor]) as app:
        run = await app.start(poor, id="chat-1")
        await poor.say(run, "one")
        await poor.say(run, "two")
        first, second = (one for one in await turns(app, poor) if not isinstance(one, Said))
        assert first.text == "one after 0"
        assert second.error.startswith("BudgetExceeded: ")
    assert asked == [1]


async def test_what_the_code_does_wrong_fails_the_run(url: str) -> None:
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        await chat.say(run, "use misuse")
        with pytest.raises(UsageError, match="no such table"):
            await run.result(LIMIT_S)


@pytest.mark.parametrize("kept", [1, 3])
async def test_a_long_conversation_goes_on_as_new(url: str, kept: int) -> None:
    """What is sent meanwhile is heard by the next generation; the history is that of all of them."""
    talk = conversation(durable(plain, stream=True), turns_kept=kept)
    count = GENERATIONS_KEPT + 3
    async with Outlive(url, include=[talk]) as app:
        run = await app.start(talk, id="chat-1")
        for number in range(count):
            await talk.say(run, f"{number}")
        found = await turns(app, talk)
        assert answers(found) == [f"{number} after {2 * number}" for number in range(count)]
        assert (await run.info()).generation == count // kept
    async with Outlive(url, include=[talk]) as app:
        run = await app.get("chat-1")
        await talk.say(run, "last")
        assert answers(await turns(app, talk))[-1] == f"last after {2 * count}"
        await talk.end(run)
        assert await run.result(LIMIT_S) == count + 1
    assert len(asked) == count + 1


async def test_a_history_that_is_too_large_ends_no_conversation(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlive.codec.payload.PAYLOAD_MAX_BYTES", 10_000)
    talk = conversation(durable(plain), turns_kept=2)
    for _ in range(2):  # and replay finds the same
        async with Outlive(url, include=[talk]) as app:
            run = await app.start(talk, id="chat-1")
            for _ in range(2):
                await talk.say(run, "x" * 4_000)
            found = await turns(app, talk)
    assert [len(answer) for answer in answers(found)] == [4_000 + len(f" after {n}") for n in (0, 2, 4, 6)]
    assert not [one for one in found if isinstance(one, BrokenOff)]


async def test_silence_ends_a_conversation_that_says_so(url: str) -> None:
    short = conversation(durable(plain), name="short", idle=0.2)
    async with Outlive(url, include=[short]) as app:
        run = await app.start(short, send=[("chat", {"say": "one", "key": "k"})])
        assert await run.result(LIMIT_S) == 1


async def test_what_is_nothing_that_was_said_is_passed_over(url: str) -> None:
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        for given in (7, None, {"say": 7}, {"other": 1}, ["say"], {}):
            await run.send("chat", given)
        await chat.say(run, "a\x00b")  # which no database stores as text
        assert answers(await turns(app)) == ["a\ufffdb after 0"]


async def test_output_that_is_no_text_is_told_as_json(url: str) -> None:
    answer = ModelResponse(parts=[ToolCallPart("final_result", {"response": 7}, tool_call_id="f1")])
    counting = Agent(FunctionModel(lambda *_: answer), name="counting", output_type=int)
    talk = conversation(durable(counting))
    async with Outlive(url, include=[talk]) as app:
        await talk.say(await app.start(talk, id="chat-1"), "How many?")
        assert (await turns(app, talk))[1] == Answered(1, "7", 7)


async def test_an_approval_within_a_turn_waits_for_days(url: str) -> None:
    careful = conversation(durable(plain, policy=lambda call: Ask() if call.tool == "look" else None), name="careful")
    async with Outlive(url, include=[careful]) as app:
        run = await app.start(careful, id="chat-1")
        await careful.say(run, "use look")
        await careful.say(run, "and then")
        async with asyncio.timeout(LIMIT_S):
            while not (waiting := (await approvals(app).list(run_id=run.id)).items):
                await asyncio.sleep(0.01)
    async with Outlive(url, include=[careful]) as app:
        await approvals(app).decide(waiting[0].id, approve=True, by="ana")
        assert answers(await turns(app, careful)) == ["a lamp after 2", "and then after 4"]
    assert asked == [1, 3, 5]


async def test_a_conversation_within_a_workflow_is_a_child(url: str) -> None:
    @workflow
    async def host() -> int:
        return await chat()

    async with Outlive(url, include=[host, chat]) as app:
        run = await app.start(host)
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await app.runs("workflow:chat.parrot")).items):
                await asyncio.sleep(0.01)
        child = await app.get(found[0].id)
        await chat.say(child, "one")
        await chat.end(child)
        assert await run.result(LIMIT_S) == 1


async def test_wrong_use_is_refused(url: str) -> None:
    for wrong in (plain, parrot, "parrot"):
        with pytest.raises(UsageError, match="takes a durable agent"):
            conversation(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="turns_kept"):
        conversation(chat.agent, turns_kept=0)
    with pytest.raises(UsageError, match="idle"):
        conversation(chat.agent, idle=-1)
    async with Outlive(url, include=[chat]) as app:
        run = await app.start(chat, id="chat-1")
        for nothing in ("", "  ", 7, None):
            with pytest.raises(UsageError, match="says something"):
                await chat.say(run, nothing)  # type: ignore[arg-type]
        await chat.end(run)
        await run.result(LIMIT_S)
        await run.delete()
        with pytest.raises(RunNotFound):
            await chat.say(run, "one")
