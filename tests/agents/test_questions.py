"""Questions mid-run: asked once, answered once with what fits, by people, programs and Pydantic AI's own waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pydantic
import pytest
from pydantic_ai import Agent
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

import outlive
from outlive import Outlive, RunFailed, RunRefused, workflow
from outlive.agents import Ask, Question, approvals, ask_user, durable, inline, question_tool, questions
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import waiting
from tests.agents.test_durable import LIMIT_S, Told, leave_memory


@dataclass
class Address:
    street: str
    number: int


class Budget(pydantic.BaseModel):
    cents: int = pydantic.Field(gt=0)


@workflow
async def asks_where() -> str:
    address = await ask_user("Where to?", as_type=Address)
    assert isinstance(address, Address)
    return f"{address.street} {address.number}"


async def asked(app: Outlive, count: int = 1) -> list[Question]:
    """Give the questions that wait once there are so many."""
    async with asyncio.timeout(LIMIT_S):
        while len((page := await questions(app).list()).items) < count:
            await asyncio.sleep(0.01)
    assert len(page.items) == count
    return page.items


async def test_a_workflow_asks(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_where, id="run 1")
        (one,) = await asked(app)
        assert (one.run_id, one.question, one.agent, one.tool, one.problem) == ("run 1", "Where to?", None, None, None)
        assert one.expires_at is not None and one.expires_at - one.created_at > timedelta(days=6)
        await leave_memory(app)
        async with Outlive(url, worker=False) as client:
            assert await questions(client).find(one.id) == one
            await questions(client).answer(one.id, {"street": "Elm", "number": 5}, by="ana", why="she lives there")
            assert await questions(client).find(one.id) is None
        assert await run.result(timeout=LIMIT_S) == "Elm 5"
        (entry,) = await app.audit(run.id)
        assert (entry.by, entry.reason, entry.facts["decided"]) == ("ana", "she lives there", "answer")
        with pytest.raises(RunRefused, match="was answered, has expired, or never was"):
            await questions(app).answer(one.id, {"street": "Oak", "number": 5}, by="bob")


async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_where)
        (one,) = await asked(app)
        for wrong in ("Elm 5", {"street": "Elm"}, {"street": "Elm", "number": "five"}, None, 7, [], {}):
            with pytest.raises(RunRefused, match=r"this is no answer to 'Where to\?'"):
                await questions(app).answer(one.id, wrong, by="ana")
        assert await asked(app) == [one]
        assert await app.audit(run.id) == []
        await questions(app).answer(one.id, {"street": "Elm", "number": 5}, by="ana")
        assert await run.result(timeout=LIMIT_S) == "Elm 5"


async def test_what_comes_by_another_way_and_does_not_fit_is_asked_again(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_where)
        (one,) = await asked(app)
        (opened,) = (await app.promises("question")).items
        await app.settle(opened.token, "Elm 5")
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await questions(app).list()).items) or found[0].id == one.id:
                await asyncio.sleep(0.01)
        assert "does not fit" in (found[0].problem or "")
        await questions(app).answer(found[0].id, {"street": "Elm", "number": 5}, by="ana")
        assert await run.result(timeout=LIMIT_S) == "Elm 5"


async def test_a_question_that_is_declined_fails_what_asks(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_where)
        (one,) = await asked(app)
        await questions(app).decline(one.id, by="ana", why="she has moved")
        with pytest.raises(RunFailed, match="ana declined to answer: she has moved"):
            await run.result(timeout=LIMIT_S)
        (entry,) = await app.audit(run.id)
        assert (entry.by, entry.reason, entry.facts["decided"]) == ("ana", "she has moved", "decline")
        with pytest.raises(RunRefused, match="was answered, has expired, or never was"):
            await questions(app).decline(one.id, by="bob")


@workflow
async def asks_all() -> list[Any]:
    kinds = [bool, Literal["red", "blue"], Budget, list[int], float]
    return [await ask_user(f"{kind}?", as_type=kind) for kind in kinds]


async def test_types_of_answers(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_all)
        for wrong, right in [("yes", True), ("green", "red"), ({"cents": 0}, {"cents": 5}), (["a"], [1]), ("1", 1.5)]:
            (one,) = await asked(app)
            with pytest.raises(RunRefused, match="this is no answer"):
                await questions(app).answer(one.id, wrong, by="ana")
            await questions(app).answer(one.id, right, by="ana")
        assert await run.result(timeout=LIMIT_S) == [True, "red", {"cents": 5}, [1], 1.5]


@workflow
async def asks_in_vain() -> str:
    try:
        return str(await ask_user("Anybody there?", expires=0.1))
    except outlive.PromiseExpired:
        return "nobody"


@workflow
async def asks_nothing(question: Any, as_type: Any) -> None:
    await ask_user(question, as_type=object if as_type == "object" else str)


async def test_nobody_answers_in_time(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(asks_in_vain) == "nobody"


@workflow
def asks_plainly() -> str:
    return str(outlive.sync.ask_user("Your name?"))


async def test_a_plain_workflow_asks(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(asks_plainly)
        (one,) = await asked(app)
        await questions(app).answer(one.id, "ana", by="ana")
        assert await run.result(timeout=LIMIT_S) == "ana"


async def test_wrong_questions(url: str) -> None:
    async with Outlive(url) as app:
        for wrong, told in [(("", "str"), "asks something"), (("Who?", "object"), "has no JSON schema")]:
            with pytest.raises(outlive.UsageError, match=told):
                await app.run(asks_nothing, *wrong)
        with pytest.raises(outlive.UsageError, match="says who it is that answers"):
            await questions(app).answer("run key#1", 1, by="")
        with pytest.raises(outlive.UsageError, match="the id of this question is"):
            await questions(app).find("key#1")
        with pytest.raises(RunRefused, match="never was"):
            await questions(app).answer("run key#1", 1, by="ana")


# -- agents --------------------------------------------------------------------------
def asker(told: list[str], **terms: Any) -> Any:
    model = scripted([call("ask_user", "q1", question="Which lamp?")], "{results}", heard=Told.model.__get__(told))
    return durable(Agent(model, name="clerk", tools=[question_tool(**terms)]), strict=True)


async def test_the_model_asks(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(asker(told, as_type=Literal["desk", "floor"]), "A lamp, please.")
        (one,) = await asked(app)
        assert (one.question, one.agent, one.tool) == ("Which lamp?", "clerk", "ask_user")
        assert one.arguments == {"question": "Which lamp?"}
        await leave_memory(app)
        with pytest.raises(RunRefused, match="'wall' is not one of"):
            await questions(app).answer(one.id, "wall", by="ana")
        await questions(app).answer(one.id, "desk", by="ana")
        assert await run.result(timeout=LIMIT_S) == "['desk']"
    assert told == ["model 0", "model 1"]


async def test_the_model_reads_that_nobody_answered(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(asker(told, expires=0.1), "A lamp, please.")
        assert "Unanswered: nobody answered in time." in await run.result(timeout=LIMIT_S)
        assert (await questions(app).list()).items == []


async def test_the_model_reads_that_an_answer_is_declined(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(asker(told), "A lamp, please.")
        await asked(app)
        (opened,) = (await app.promises("question")).items
        await app.settle(opened.token, error="ask somebody else", by="ana")
        assert "Unanswered: Rejected: ask somebody else" in await run.result(timeout=LIMIT_S)


async def test_a_question_waits_through_restarts_and_is_asked_once(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        await app.start(asker(told), "A lamp, please.", id="run")
        (one,) = await asked(app)
    for _ in range(2):
        async with Outlive(url, include=[asker(told)]) as app:
            assert await asked(app) == [one]
    async with Outlive(url, worker=False) as client:
        await questions(client).answer(one.id, "desk", by="ana")
    async with Outlive(url, include=[asker(told)]) as app:
        assert await (await app.get("run")).result(timeout=LIMIT_S) == "['desk']"
    assert told == ["model 0", "model 1"]


def outsider(told: list[str], *capabilities: Any, kind: Any = "external", **options: Any) -> Agent[None, Any]:
    """Give an agent with two calls that wait for the outside, and one that does not."""
    model = scripted([call("ship", "c1", n=1), call("look", "l1"), call("ship", "c2", n=2)], "{results}")
    agent = Agent(model, name="clerk", capabilities=list(capabilities), **options)

    @agent.tool_plain
    async def ship(n: int) -> str:
        told.append(f"ship {n}")
        raise CallDeferred({"question": f"Where is parcel {n}?"} if n == 2 else None, kind=kind)

    @agent.tool_plain
    async def look() -> str:
        told.append("look")
        return "seen"

    return agent


@pytest.mark.parametrize("kind", ["external", "question"])
async def test_calls_that_others_make_are_questions(url: str, kind: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(durable(outsider(told, kind=kind)), "ship")
        one, two = sorted(await asked(app, 2), key=lambda each: str(each.arguments))
        assert (one.question, two.question) == ("What is the result of ship?", "Where is parcel 2?")
        assert (one.agent, one.tool, one.arguments) == ("clerk", "ship", {"n": 1})
        await leave_memory(app)
        await questions(app).answer(two.id, "shipped 2", by="depot")
        await questions(app).answer(one.id, {"parcel": 1}, by="depot")
        said = await run.result(timeout=LIMIT_S)
        assert all(word in said for word in ("'parcel': 1", "shipped 2", "seen")), said
    assert sorted(told) == ["look", "ship 1", "ship 2"]


async def test_the_model_reads_what_became_of_calls_that_others_make(outlive_app: Any) -> None:
    agent = durable(outsider(Told()))
    async with outlive_app(include=[agent]) as app:
        run = await app.start(agent, "ship", id="run")
        await app.advance("6 days")
        one, _ = (await app.promises("question")).items
        await app.settle(one.token, error="it is lost")
        await app.advance("2 days")
        said = await run.result()
        assert "Unanswered: Rejected: it is lost" in said
        assert "Unanswered: nobody answered in time." in said


async def test_calls_are_left_to_who_wants_them_as_output(url: str) -> None:
    agent = outsider(Told(), output_type=[str, DeferredToolRequests])

    @workflow(name="ships itself")
    async def ships() -> Any:
        first = await durable(agent).run("ship")
        assert isinstance(first.output, DeferredToolRequests)
        results = DeferredToolResults(calls={call.tool_call_id: "by hand" for call in first.output.calls})
        again = await durable(agent).run(message_history=first.all_messages(), deferred_tool_results=results)
        return again.output

    async with Outlive(url) as app:
        assert (await app.run(ships)).count("by hand") == 2
        assert (await questions(app).list()).items == []


async def test_external_events_of_pydantic_ai_are_promises(url: str) -> None:
    """`RequestInput` hands out the token of a promise, once; whoever has it settles it with the results."""
    told, tokens = Told(), list[str]()

    async def deliver(ctx: Any, requests: DeferredToolRequests, token: str) -> None:
        tokens.append(token)

    agent = durable(outsider(told, RequestInput(deliver)))
    async with Outlive(url, include=[agent]) as app:
        await app.start(agent, "ship", id="run")
        (one,) = await asked(app)
        assert (one.question, one.agent, one.tool) == ("deferred_tool_calls", "clerk", None)
        await leave_memory(app)
    async with Outlive(url, worker=False) as client:
        await client.settle(tokens[0], {"calls": {"c1": "first", "c2": "second"}})
    async with Outlive(url, include=[agent]) as app:
        said = await (await app.get("run")).result(timeout=LIMIT_S)
        assert "first" in said and "second" in said
    assert len(tokens) == 1
    assert sorted(told) == ["look", "ship 1", "ship 2"]


async def test_input_that_is_there_at_once_is_recorded(url: str) -> None:
    asked_for = list[str]()

    async def answer(ctx: Any, requests: DeferredToolRequests, token: str) -> DeferredToolResults:
        asked_for.append(token)
        return DeferredToolResults(calls={call.tool_call_id: "at once" for call in requests.calls})

    agent = outsider(Told(), RequestInput(answer))

    @agent.tool_plain(metadata=inline())
    async def wait() -> str:
        return str(await outlive.receive("go"))

    async with Outlive(url) as app:
        assert (await app.run(durable(agent), "ship")).count("at once") == 2
    assert len(asked_for) == 1


async def test_input_that_is_there_at_once_leaves_no_question(url: str) -> None:
    async def answer(ctx: Any, requests: DeferredToolRequests, token: str) -> DeferredToolResults:
        return DeferredToolResults(calls={call.tool_call_id: "at once" for call in requests.calls})

    agent = durable(outsider(Told(), RequestInput(answer)))

    @workflow(name="ships")
    async def ships() -> str:
        said = str((await agent.run("ship")).output)
        await outlive.publish("said", said)
        await outlive.receive("go")
        return said

    async with Outlive(url, include=[ships]) as app:
        run = await app.start(ships, id="run")
        assert (await run.value("said", wait=LIMIT_S)).count("at once") == 2
        assert (await questions(app).list()).items == []
        await leave_memory(app)
    async with Outlive(url, include=[ships]) as app:
        run = await app.get("run")
        await run.send("go", None)
        assert (await run.result(timeout=LIMIT_S)).count("at once") == 2


async def test_input_that_nobody_gives_in_time_is_read_by_the_model(url: str) -> None:
    agent = outsider(Told(), RequestInput(lambda ctx, requests, token: None, timeout=timedelta(seconds=0.1)))
    async with Outlive(url) as app:
        assert "No decision on this tool call arrived: nobody answered" in await app.run(durable(agent), "ship")


async def test_whom_a_policy_asks_is_not_for_request_input_to_say(url: str) -> None:
    def approve_all(ctx: Any, requests: DeferredToolRequests, token: str) -> DeferredToolResults:
        return requests.build_results(approve_all=True)

    told = Told()
    agent = Agent(
        scripted([call("pay", "c1"), call("ship", "c2")], "{results}"),
        name="clerk",
        capabilities=[RequestInput(approve_all)],
    )

    @agent.tool_plain
    async def pay() -> str:
        told.append("pay")
        return "paid"

    @agent.tool_plain(requires_approval=True)
    async def ship() -> str:
        told.append("ship")
        return "shipped"

    careful = durable(agent, policy=lambda call: Ask(role="boss") if call.tool == "pay" else None)
    async with Outlive(url) as app:
        run = await app.start(careful, "pay")
        (one,) = await waiting(app)
        assert (one.tool, one.role, told) == ("pay", "boss", [])
        await approvals(app).decide(one.id, approve=False, by="ana", roles=["boss"])
        assert "ana denied this call" in await run.result(timeout=LIMIT_S)
    assert told == ["ship"]
