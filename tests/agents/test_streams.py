"""What a streaming agent shows: everything once, in order, to whoever reads, whenever; what is void is said to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_ai import Agent, CustomEvent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPartDelta,
    ToolCallPartDelta,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

import outlive
from outlive import Outlive, Retry, RunCancelled, Status, StoreUnavailable, UsageError, hooks, workflow
from outlive.agents import AgentEvent, StreamReset, durable, events, inline, pure, texts, transactional, tx
from outlive.agents.streams import STREAM, _join
from outlive.limits import STREAM_DELTA_CHARS
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import LIMIT_S, leave_memory, waits_for
from tests.support.size import pick

POEM = "the rain falls on the plain"


def says(*words: str) -> Any:
    """Give a model that says these words, each when it is allowed to."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for word in words:
            yield word

    return FunctionModel(stream_function=stream)


async def all_events(run: outlive.Run, after: int = 0) -> list[AgentEvent]:
    async with asyncio.timeout(LIMIT_S):
        return [one async for one in events(run, after)]


async def last_texts(run: outlive.Run) -> dict[str, str]:
    async with asyncio.timeout(LIMIT_S):
        return {one.step: one.text async for one in texts(run)}


def kinds(shown: list[AgentEvent]) -> list[str]:
    """Give the kinds of events; how many deltas there are is a matter of time."""
    found = [one.event.event_kind for one in shown]
    return [kind for place, kind in enumerate(found) if kind != "part_delta" or found[place - 1] != kind]


def with_tools() -> Agent[None, str]:
    agent = Agent(scripted([call("look", "c1"), call("book", "c2")], POEM), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        return "seen"

    @agent.tool_plain(metadata=transactional())
    async def book() -> str:
        await tx().execute("create table if not exists stream_rows (number integer)")
        return "booked"

    return agent


async def test_everything_is_shown_in_order(url: str) -> None:
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(durable(with_tools(), stream=True), "go")
        followed = asyncio.create_task(all_events(await client.get(run.id)))
        assert await run.result(timeout=LIMIT_S) == POEM
        shown = await followed
        assert [one.seq for one in shown] == list(range(1, len(shown) + 1))
        of_step = {"clerk#1/model.stream#1": [], "clerk#1": [], "clerk#1/model.stream#2": []}
        for one in shown:
            of_step[one.step].append(one)
        model, tools, answer = map(kinds, of_step.values())
        assert model == ["part_start", "part_end", "part_start", "part_end"]
        assert sorted(tools) == ["function_tool_call"] * 2 + ["function_tool_result"] * 2
        assert [answer[0], answer[1], answer[-1]] == ["part_start", "final_result", "part_end"]
        assert await last_texts(run) == {"clerk#1/model.stream#2": POEM}
        for after in range(len(shown) + 1):
            assert await all_events(run, after) == shown[after:]


@dataclass(kw_only=True)
class Progress(CustomEvent):
    """What a tool of an application tells of its work."""

    done: int


async def test_events_of_applications_are_shown(url: str) -> None:
    agent = Agent(scripted([call("walk", "c1")], "{results}"), name="clerk")

    @agent.tool(metadata=pure())
    async def walk(ctx: RunContext[None]) -> str:
        for done in (1, 2):
            await ctx.emit(Progress(done=done))
        return "there"

    async with Outlive(url) as app:
        run = await app.start(durable(agent, stream=True), "go")
        assert await run.result(timeout=LIMIT_S) == "['there']"
        shown = [one.event for one in await all_events(run) if isinstance(one.event, Progress)]
        assert [(event.done, event.tool_call_id) for event in shown] == [(1, "c1"), (2, "c1")]


async def test_without_stream_nothing_is_shown(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(durable(with_tools()), "go")
        assert await run.result(timeout=LIMIT_S) == POEM
        assert await all_events(run) == []


async def test_outside_of_workflows_the_agent_is_plain() -> None:
    assert (await durable(Agent(scripted(POEM), name="poet"), stream=True).run("go")).output == POEM


async def test_a_replay_shows_nothing_again(url: str) -> None:
    clerk = durable(with_tools(), stream=True)

    @workflow
    async def asks() -> str:
        await clerk.run("one")
        await outlive.receive("go on")
        return (await clerk.run("two")).output

    async with Outlive(url) as app:
        run = await app.start(asks)
        await waits_for(run, "receive")
        place = (run._row, STREAM, 0)
        before = (await app._engine().store.list_items([place], 1_000))[place].items
        for _ in range(2):
            await leave_memory(app)
            await run.pause()
            while await run.status() != Status.PAUSED:
                await asyncio.sleep(0.01)
            await run.resume()
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == POEM
        shown = await all_events(run)
        assert len(shown) == 2 * len(before)
        assert not any(isinstance(one.event, StreamReset) for one in shown)


async def test_what_fails_in_the_middle_comes_anew(url: str) -> None:
    failures = 0

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        nonlocal failures
        yield "the rain"
        if failures < 2:
            failures += 1
            raise ConnectionError("cut")
        yield " falls"

    async with Outlive(url) as app:
        poet = durable(
            Agent(FunctionModel(stream_function=stream), name="poet"),
            stream=True,
            model_retry=Retry(attempts=3, first_delay=0.001),
        )
        run = await app.start(poet, "go")
        assert await run.result(timeout=LIMIT_S) == "the rain falls"
        said = [one.text async for one in texts(run)]
        assert said[:4] == ["the rain", "", "the rain", ""]
        assert said[-1] == "the rain falls"


@pytest.mark.parametrize("how", ["pause", "leave"])
async def test_a_run_that_is_held_or_handed_over_in_the_middle_comes_anew(url: str, how: str) -> None:
    asked = 0

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        nonlocal asked
        asked += 1
        yield "the rain"
        if asked == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield " says who has lost the run"
                raise
        yield " falls"

    poet = durable(Agent(FunctionModel(stream_function=stream), name="poet"), stream=True)
    async with Outlive(url, worker=False) as client:
        async with Outlive(url, grace=0) as app:
            run = await app.start(poet, "go", id="poem")
            await anext(texts(run))
            if how == "pause":
                await run.pause()
                while await run.status() != Status.PAUSED:
                    await asyncio.sleep(0.01)
        if how == "pause":
            await (await client.get("poem")).resume()
        async with Outlive(url) as app:
            run = await app.get("poem")
            assert await run.result(timeout=LIMIT_S) == "the rain falls"
            said = [one.text async for one in texts(run)]
            assert said[:2] == ["the rain", ""]
            assert said[-1] == "the rain falls"


async def test_what_is_cancelled_in_the_middle_ends_there(url: str) -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "the rain"
        await asyncio.Event().wait()

    async with Outlive(url) as app:
        run = await app.start(durable(Agent(FunctionModel(stream_function=stream), name="poet"), stream=True), "go")
        async with asyncio.timeout(LIMIT_S):
            async for one in texts(run):
                assert one.text == "the rain"
                await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert kinds(await all_events(run)) == ["part_start", "final_result"]


async def test_lost_replies_show_nothing_twice(url: str) -> None:
    words = [f"{number} " for number in range(8)]

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for number, word in enumerate(words):
            yield word
            async for one in texts(run):  # so that each word has a commit of its own
                if one.text == "".join(words[: number + 1]):
                    break

    commits = 0

    def fail(point: str) -> None:
        nonlocal commits
        commits += point == "commit.after"
        if point == "commit.after" and commits % 2:
            raise StoreUnavailable("the reply is lost", outcome_unknown=True)

    async with Outlive(url) as app:
        agent = durable(Agent(FunctionModel(stream_function=stream), name="poet"), stream=True)
        run = await app.start(agent, "go", id="poem")
        hooks.arm(fail)
        try:
            assert await run.result(timeout=LIMIT_S) == "".join(words)
        finally:
            hooks.arm(None)
        assert commits > len(words)
        shown = await all_events(run)
        assert kinds(shown) == ["part_start", "final_result", "part_delta", "part_end"]
        assert len(shown) == len(words) + 2
        assert await last_texts(run) == {"poet#1/model.stream#1": "".join(words)}


async def test_words_that_come_at_once_are_one_item(url: str) -> None:
    words = [f"{number} " for number in range(5_000)]
    async with Outlive(url) as app:
        run = await app.start(durable(Agent(says(*words), name="poet"), stream=True), "go")
        assert await run.result(timeout=LIMIT_S) == "".join(words)
        assert len(await all_events(run)) < len(words) / 100
        assert await last_texts(run) == {"poet#1/model.stream#1": "".join(words)}


async def test_large_words_keep_their_place(url: str) -> None:
    words = ["a", "b" * 200_000, "c", "d" * 100_000, "e"]
    async with Outlive(url) as app:
        run = await app.start(durable(Agent(says(*words), name="poet"), stream=True), "go")
        assert await run.result(timeout=LIMIT_S) == "".join(words)
        assert await last_texts(run) == {"poet#1/model.stream#1": "".join(words)}


async def test_what_no_database_stores_is_replaced(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(durable(Agent(says("a\x00", "b\ud83d"), name="poet"), stream=True), "go")
        assert await run.result(timeout=LIMIT_S) == "a\ufffdb?"
        assert await last_texts(run) == {"poet#1/model.stream#1": "a\ufffdb?"}


async def test_many_streams_and_many_readers(url: str) -> None:
    runs, readers = pick(small=8, full=20), pick(small=20, full=50)
    words = [f"{number} " for number in range(30)]

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for word in words:
            yield word
            await asyncio.sleep(0.002)

    poet = durable(Agent(FunctionModel(stream_function=stream), name="poet"), stream=True)

    async def read(app: Outlive, number: int, slow: asyncio.Event) -> list[AgentEvent]:
        run, shown = await app.get(f"poem-{number % runs}"), list[AgentEvent]()
        async for one in events(run):
            shown.append(one)
            if number % 5 == 0:
                await slow.wait()  # it reads on when all has been said
            if number % 3 == 0:
                break  # and goes on elsewhere
        return shown + await all_events(run, shown[-1].seq)

    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        started = [await app.start(poet, "go", id=f"poem-{number}") for number in range(runs)]
        slow = asyncio.Event()
        following = [asyncio.create_task(read((app, client)[number % 2], number, slow)) for number in range(readers)]
        for run in started:
            assert await run.result(timeout=LIMIT_S) == "".join(words)
        slow.set()
        for number, shown in enumerate(await asyncio.gather(*following)):
            assert shown == await all_events(started[number % runs])
            assert await last_texts(started[number % runs]) == {"poet#1/model.stream#1": "".join(words)}


async def test_agents_side_by_side_and_within_tools_are_told_apart(url: str) -> None:
    helper = durable(Agent(says("helped"), name="helper"), stream=True)
    agent = Agent(scripted([call("ask", "c1")], "{results}"), name="boss")

    @agent.tool_plain(metadata=inline())
    async def ask() -> str:
        return (await helper.run("help")).output

    boss = durable(agent, stream=True)

    @workflow
    async def both() -> list[str]:
        return [one.output for one in await asyncio.gather(boss.run("a"), helper.run("b"))]

    async with Outlive(url) as app:
        run = await app.start(both)
        assert await run.result(timeout=LIMIT_S) == ["['helped']", "helped"]
        assert await last_texts(run) == {
            "1/boss#1/tool:ask(c1)#1/helper#1/model.stream#1": "helped",
            "1/boss#1/model.stream#2": "['helped']",
            "2/helper#1/model.stream#1": "helped",
        }


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_rewound_run_says_what_is_void(url: str, turn: int) -> None:
    async with Outlive(url) as app:
        run = await app.start(durable(with_tools(), stream=True), "go")
        await run.result(timeout=LIMIT_S)
        before = await all_events(run)
        steps = [f"clerk#1/model.stream#{number}" for number in (1, 2)]
        await run.rewind(steps[turn - 1])
        assert await run.result(timeout=LIMIT_S) == POEM
        anew = await all_events(run, before[-1].seq)
        assert [one.step for one in anew if isinstance(one.event, StreamReset)] == steps[turn - 1 :]
        assert ("clerk#1" in [one.step for one in anew]) == (turn == 1), "what kept entries led to is shown already"
        assert await last_texts(run) == {"clerk#1/model.stream#2": POEM}


async def test_a_run_that_goes_on_as_new_has_other_steps(url: str) -> None:
    poet = durable(Agent(says("one"), name="poet"), stream=True)

    @workflow
    async def chats(left: int) -> None:
        await poet.run("go")
        if left:
            await outlive.continue_as_new(left - 1)

    async with Outlive(url) as app:
        run = await app.start(chats, 2)
        await run.result(timeout=LIMIT_S)
        assert await last_texts(run) == {f"{place}poet#1/model.stream#1": "one" for place in ("", "~1/", "~2/")}
        assert not any(isinstance(one.event, StreamReset) for one in await all_events(run))


async def test_a_caller_is_told_who_gets_the_stream() -> None:
    poet = durable(Agent(says("one"), name="poet"), stream=True)
    for way in (poet.run_stream, poet.run_stream_events, poet.iter):
        with pytest.raises(UsageError, match=r"events\(run\)"):
            way("go")


def delta(of: Any, index: int = 0) -> PartDeltaEvent:
    return PartDeltaEvent(index=index, delta=of)


JOINED = [
    (TextPartDelta("a"), TextPartDelta("b"), TextPartDelta("ab")),
    (
        ThinkingPartDelta(content_delta="a"),
        ThinkingPartDelta(content_delta="b"),
        ThinkingPartDelta(content_delta="ab"),
    ),
    (
        ToolCallPartDelta(args_delta="{", tool_call_id="c1"),
        ToolCallPartDelta(args_delta="}", tool_call_id="c1"),
        ToolCallPartDelta(args_delta="{}", tool_call_id="c1"),
    ),
    (TextPartDelta("a"), ThinkingPartDelta(content_delta="b"), None),
    (TextPartDelta("a"), TextPartDelta("b", provider_name="p", provider_details={"id": 1}), None),
    (ThinkingPartDelta(content_delta="a"), ThinkingPartDelta(content_delta="b", signature_delta="s"), None),
    (ThinkingPartDelta(content_delta="a"), ThinkingPartDelta(signature_delta="s"), None),
    (ToolCallPartDelta(tool_name_delta="a"), ToolCallPartDelta(tool_name_delta="b"), None),
    (
        ToolCallPartDelta(tool_name_delta="a", args_delta="1"),
        ToolCallPartDelta(tool_name_delta="a", args_delta="2"),
        None,
    ),
    (ToolCallPartDelta(args_delta={"a": 1}), ToolCallPartDelta(args_delta={"b": 1}), None),
    (TextPartDelta("a" * STREAM_DELTA_CHARS), TextPartDelta("b"), None),
]


@pytest.mark.parametrize(("one", "two", "both"), JOINED)
def test_deltas_are_joined_where_nothing_else_is_said(one: Any, two: Any, both: Any) -> None:
    assert _join(delta(one), delta(two)) == (None if both is None else delta(both))
    assert _join(delta(one), delta(two, index=1)) is None
    assert _join(PartStartEvent(index=0, part=TextPart("")), delta(two)) is None


async def test_edited_code_shows_everything_though_some_of_the_journal_stays_unread(url: str) -> None:
    agent = Agent(scripted([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        return "a lamp"

    clerk = durable(agent, stream=True)

    @outlive.step
    async def old() -> None: ...

    async def talk() -> None:
        await outlive.receive("go")
        await clerk.run("go")

    @workflow(name="talk")
    async def before() -> None:
        await old()
        await talk()

    @workflow(name="talk")
    async def after() -> None:
        await talk()

    async with Outlive(url, include=[before]) as app:
        await waits_for(await app.start(before, id="edited"), "receive")
    async with Outlive(url, include=[after]) as app:
        shown = []
        for run in (await app.get("edited"), await app.start(after, id="new")):
            await run.send("go", 1)
            await run.result(LIMIT_S)
            shown.append(kinds(await all_events(run)))
    assert shown[0] == shown[1] != []
