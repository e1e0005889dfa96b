"""Any run is a cassette: what it asked and was answered; a ReplayModel gives it back, strictly, and shows a miss."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, models
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.settings import ModelSettings

import outlive
from outlive import CassetteMiss, JournalMismatch, Outlive, RunNotFound, UsageError, workflow
from outlive.agents import Cassette, ReplayModel, cassette, durable, inline
from outlive.testing import replay
from tests.agents.provider import Call, Provider
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import LIMIT_S, Told, leave_memory, waits_for

TURNS = [[call("look", "c1", word="a"), call("look", "c2", word="b")], [call("look", "c3", word="c")], "{results}"]
SAID = "['seen a', 'seen b', 'seen c']"


def make_agent(told: Told | None = None, **options: Any) -> Agent[None, str]:
    model = scripted(*TURNS, heard=told.model if told is not None else None)
    agent = Agent(model, name="clerk", instructions="Be brief.", **options)

    @agent.tool_plain
    async def look(word: str) -> str:
        """Look a word up."""
        if told is not None:
            told.append(f"look {word}")
        return f"seen {word}"

    return agent


async def record(url: str, agent: Agent[None, str], **options: Any) -> Cassette:
    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look", id="run-1")
        await run.result(timeout=LIMIT_S)
        return await cassette(app, "run-1", **options)


async def test_a_cassette_has_what_was_asked_and_answered_in_order(url: str) -> None:
    told = Told()
    tape = await record(url, make_agent(told))
    assert sorted(told) == ["look a", "look b", "look c", "model 0", "model 1", "model 2"]  # it asked nobody again
    assert (tape.run_id, tape.workflow) == ("run-1", "agent.clerk")
    assert [one["key"] for one in tape.requests] == [f"clerk#1/model#{n}" for n in (1, 2, 3)]
    assert sorted((one["tool"], one["arguments"]["word"], one["result"]["result"]) for one in tape.calls) == [
        ("look", word, f"seen {word}") for word in "abc"
    ]
    first, _, last = tape.requests
    assert first["request"]["messages"] == [
        {"kind": "request", "instructions": "Be brief.", "parts": [{"content": "look", "part_kind": "user-prompt"}]}
    ]
    assert [tool["name"] for tool in first["request"]["tools"]] == ["look"]
    assert last["answer"]["parts"] == [{"content": SAID, "part_kind": "text"}]
    assert [part["tool_call_id"] for part in last["request"]["messages"][2]["parts"]] == ["call-1", "call-2"]


async def test_the_same_run_makes_the_same_text(url: str) -> None:
    agent = durable(make_agent())
    async with Outlive(url) as app:
        await app.run(agent, "look", id="run-1")
        texts = {(await cassette(app, "run-1")).to_json() for _ in range(3)}
    async with Outlive(url, worker=False, include=[agent]) as client:
        texts.add((await cassette(client, "run-1")).to_json())
    assert len(texts) == 1


@pytest.mark.parametrize("is_durable", [True, False], ids=["durable", "plain"])
async def test_an_agent_runs_on_a_cassette(url: str, tmp_path: Path, is_durable: bool) -> None:
    file = tmp_path / "clerk.json"
    file.write_text((await record(url, make_agent())).to_json())
    told = Told()
    agent = make_agent(told)
    agent.model = model = ReplayModel(file)
    if is_durable:
        async with Outlive(url) as app:
            assert await app.run(durable(agent), "look") == SAID
    else:
        assert (await agent.run("look")).output == SAID
    assert sorted(told) == ["look a", "look b", "look c"]
    assert model.left == []


async def test_a_cassette_of_a_real_client(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
    with Provider([[Call("look", "c1", '{"word": "a"}')], "done"]) as provider:
        agent = make_agent(model_settings=ModelSettings(temperature=0.5))
        agent.model = provider.model()
        tape = await record(url, agent)
        assert tape.requests[0]["request"]["settings"] == {"temperature": 0.5}
        with agent.override(model=ReplayModel(tape)):
            assert (await agent.run("look")).output == "done"
        assert len(provider.asked) == 2


async def test_answers_are_streamed(url: str) -> None:
    tape = await record(url, make_agent())
    heard: list[str] = []

    async def listen(_: Any, events: AsyncIterable[Any]) -> None:
        async for event in events:
            heard.append(event.event_kind)

    agent = make_agent()
    with agent.override(model=ReplayModel(tape)):
        assert (await agent.run("look", event_stream_handler=listen)).output == SAID
    assert "part_start" in heard


async def test_a_miss_shows_what_is_different(url: str) -> None:
    tape = await record(url, make_agent())
    agent, model = make_agent(), ReplayModel(tape)
    with agent.override(model=model), pytest.raises(CassetteMiss) as miss:
        await agent.run("look twice")
    assert "--- recorded: clerk#1/model#1" in str(miss.value)
    assert re.search(r'^- +"content": "look",?$', str(miss.value), re.MULTILINE)
    assert re.search(r'^\+ +"content": "look twice",?$', str(miss.value), re.MULTILINE)
    assert model.left == [one["key"] for one in tape.requests]


CHANGES: dict[str, Any] = {
    "settings": lambda agent: agent.run("look", model_settings=ModelSettings(temperature=1.0)),
    "instructions": lambda agent: agent.run("look", instructions="And kind."),
    "history": lambda agent: agent.run("look", message_history=[models.ModelRequest.user_text_prompt("before")]),
    "output": lambda agent: agent.run("look", output_type=int),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_whatever_a_model_could_see_is_compared(url: str, change: Any) -> None:
    agent = make_agent()
    with agent.override(model=ReplayModel(await record(url, make_agent()))), pytest.raises(CassetteMiss):
        await change(agent)


async def test_another_tool_or_another_result_is_a_miss(url: str) -> None:
    tape = await record(url, make_agent())
    more = make_agent()
    more.tool_plain(lambda: "new", name="new")
    other = Agent(FunctionModel(lambda *_: None), name="clerk", instructions="Be brief.")  # type: ignore[arg-type,return-value]

    @other.tool_plain
    async def look(word: str) -> str:
        """Look a word up."""
        return "nothing"

    for agent, shown in ((more, '"name": "new"'), (other, '+     "content": "nothing"')):
        with agent.override(model=ReplayModel(tape)), pytest.raises(CassetteMiss) as miss:
            await agent.run("look")
        assert shown in str(miss.value)


async def test_each_answer_is_given_once(url: str) -> None:
    model, agent = ReplayModel(await record(url, make_agent())), make_agent()
    with agent.override(model=model):
        await agent.run("look")
        with pytest.raises(CassetteMiss, match="all of them were given: clerk#1/model#1"):
            await agent.run("look")
    with pytest.raises(CassetteMiss, match="has no request at all"):
        await agent.run("look", model=ReplayModel(Cassette("none", "agent.none")))


async def test_a_miss_fails_a_run_at_once(url: str) -> None:
    agent = make_agent()
    agent.model = ReplayModel(Cassette("none", "agent.none"))
    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look")
        with pytest.raises(CassetteMiss):
            await run.result(timeout=LIMIT_S)
        assert [entry.attempts for entry in await run.entries()] == [1]


async def test_texts_are_redacted_on_both_sides(url: str) -> None:
    def redact(text: str) -> str:
        return re.sub(r"seen \w+", "seen …", text)

    tape = await record(url, make_agent(), redact=redact)
    assert "seen a" not in tape.to_json()
    agent = make_agent()
    with agent.override(model=ReplayModel(tape, redact=redact)):
        assert (await agent.run("look")).output == "['seen …', 'seen …', 'seen …']"
    with agent.override(model=ReplayModel(tape)), pytest.raises(CassetteMiss):
        await agent.run("look")


async def test_a_cassette_has_no_credentials_and_no_names(url: str) -> None:
    """Neither headers nor, with `redact`, what stands for a person in ids and names. Times are the format's."""
    model = scripted([call("look", "c1")], "done")
    secret = ModelSettings(extra_headers={"Authorization": "Bearer secret"})
    agent = Agent(model, name="clerk", model_settings=secret)

    @agent.tool_plain
    async def look() -> dict[str, int]:
        return {"ada@example.org": 2_026}

    def redact(text: str) -> str:
        return re.sub(r"\d{4,}|secret|ada@example\.org", "…", text)

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "look", id="for-ada@example.org")
        await run.result(timeout=LIMIT_S)
        tape = await cassette(app, run.id, redact=redact)
    text = tape.to_json()
    assert "secret" not in text and "ada@" not in text and "Authorization" not in text
    with agent.override(model=ReplayModel(tape, redact=redact)):
        assert (await agent.run("look")).output == "done"


async def test_agents_beside_and_within_others_are_on_the_cassette_of_their_run(url: str) -> None:
    inner = durable(Agent(scripted("found"), name="searcher"))
    outer = Agent(scripted([call("search", "c1")], "{results}"), name="writer")

    @outer.tool_plain(metadata=inline())
    async def search() -> str:
        return (await inner.run("search")).output

    @workflow
    async def both() -> list[str]:
        said = await outlive.gather(durable(outer).run("one"), inner.run("two"))
        return [one.output for one in said]

    async with Outlive(url) as app:
        await app.run(both, id="both")
        tape = await cassette(app, "both")
    assert sorted(one["key"] for one in tape.requests) == [
        "1/writer#1/model#1",
        "1/writer#1/model#2",
        "1/writer#1/tool:search(c1)#1/searcher#1/model#1",
        "2/searcher#1/model#1",
    ]


async def test_a_run_that_goes_on_has_a_cassette_so_far(url: str) -> None:
    agent = Agent(scripted([call("ask", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=inline())
    async def ask() -> str:
        return await outlive.receive("answer", as_type=str)

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "hello")
        await waits_for(run, "receive")
        assert len((await cassette(app, run.id)).requests) == 1
        await leave_memory(app)
        await run.send("answer", "yes")
        assert await run.result(timeout=LIMIT_S) == "['yes']"
        assert len((await cassette(app, run.id)).requests) == 2


async def test_what_has_no_cassette(url: str, tmp_path: Path) -> None:
    agent = durable(make_agent())
    async with Outlive(url) as app:
        await app.run(agent, "look", id="run-1")
        with pytest.raises(RunNotFound):
            await cassette(app, "nobody")
    async with Outlive(url, worker=False, include=[]) as stranger:
        with pytest.raises(UsageError, match=r"no workflow 'agent\.clerk'"):
            await cassette(stranger, "run-1")
    renamed = durable(Agent(scripted(*TURNS), name="other"), name="clerk")
    renamed.spec.version = agent.spec.version
    async with Outlive(url, worker=False, include=[renamed]) as client:
        with pytest.raises(JournalMismatch):
            await cassette(client, "run-1")
    with pytest.raises(UsageError, match=r"there is no cassette .*none.json; `outlive agents export MODULE RUN"):
        ReplayModel(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no cassette"):
        ReplayModel(tmp_path / "odd.json")


async def test_journals_of_agents_are_rehearsed(url: str) -> None:
    agent = durable(make_agent())
    async with Outlive(url) as app:
        await app.run(agent, "look")
        journals = [journal async for journal in app.journals("status:succeeded")]
    (report,) = await asyncio.to_thread(replay, journals, include=[agent])
    assert report.verdict == "fits", report
    silent = durable(Agent(scripted(*TURNS), name="silent"), name="clerk")
    silent.spec.version = agent.spec.version
    (report,) = await asyncio.to_thread(replay, journals, include=[silent])
    assert isinstance(report.error, JournalMismatch)
