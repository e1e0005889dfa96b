"""What users of other frameworks have reported of people in the loop, played here: each test tells one such failure.

Without an equivalent: AutoGen 4375 (saving and loading that one of two runtimes lacked: here every test is played on
both stores), CrewAI 7158 and 3526 (proposals of durability), Mastra 11270 (no failure is known by that number).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.function import FunctionModel

import outlive
from outlive import Outlive, Retry, RunRefused, hooks, workflow
from outlive.agents import (
    Answered,
    Approval,
    Ask,
    Said,
    approvals,
    ask_user,
    conversation,
    durable,
    events,
    inline,
    questions,
)
from tests.agents.scripts import call, scripted
from tests.agents.test_approvals import asks, refunder, waiting
from tests.agents.test_durable import LIMIT_S, Told, leave_memory
from tests.agents.test_questions import asked
from tests.support.faults import arm_faults, parse_faults

ALL = asks()


async def next_one(app: Outlive, *seen: Approval) -> Approval:
    """Give the approval that waits and has not been seen."""
    known = {(one.id, one.created_at) for one in seen}
    async with asyncio.timeout(LIMIT_S):
        while not (
            found := [one for one in (await approvals(app).list()).items if (one.id, one.created_at) not in known]
        ):
            await asyncio.sleep(0.01)
    return found[0]


def payer(told: list[str], *turns: Any, policy: Any = ALL, name: str = "clerk") -> Any:
    """Give an agent that pays, in these turns."""
    agent = Agent(scripted(*turns, "{results}", heard=Told.model.__get__(told)), name=name)

    @agent.tool_plain
    async def pay(n: int) -> str:
        told.append(f"pay {n}")
        return f"paid {n}"

    @agent.tool_plain
    async def look(n: int = 0) -> str:
        told.append(f"look {n}")
        return f"seen {n}"

    asks = policy and (lambda call: policy(call) if call.tool == "pay" else None)
    return durable(agent, policy=asks, model_retry=Retry(attempts=2, first_delay=0.01))


async def test_one_answer_does_not_repeat_the_question_before(url: str) -> None:
    """LangGraph 6208: a node with two interrupts runs again from its first line when one of them is resumed."""
    said = list[str]()

    @workflow(name="asks twice")
    async def asks_twice() -> list[str]:
        said.append("begun")
        return [await ask_user("First?"), await ask_user("Second?")]

    async with Outlive(url, include=[asks_twice]) as app:
        run = await app.start(asks_twice)
        (first,) = await asked(app)
        await leave_memory(app)
        await questions(app).answer(first.id, "one", by="ana")
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await questions(app).list()).items):
                await asyncio.sleep(0.01)
        assert [one.question for one in found] == ["Second?"]
        await questions(app).answer(found[0].id, "two", by="ana")
        assert await run.result(timeout=LIMIT_S) == ["one", "two"]
        made = [entry for entry in await run.entries() if entry.kind == "promise"]
        assert len(made) == 2, "each was asked once, however often the body was replayed"


async def test_a_question_that_is_asked_anew_takes_the_new_answer(url: str) -> None:
    """LangGraph 6663: an interrupt that is resumed with another value gives the first one again."""
    told = Told()
    async with Outlive(url) as app:
        agent = refunder(told, ALL)
        run = await app.start(agent, "refund")
        (first,) = await waiting(app)
        await approvals(app).decide(first.id, approve=False, by="ana", why="not yet")
        assert "not yet" in await run.result(timeout=LIMIT_S)
        await run.rewind("clerk#1/approval:refund(c1)#1/promise#1")
        again = await next_one(app, first)
        await approvals(app).decide(again.id, approve=True, by="ana", edit={"cents": 3})
        assert await run.result(timeout=LIMIT_S) == "['refunded 3']"
    assert [line for line in told if line.startswith("refund")] == ["refund 3"]


async def test_calls_of_one_id_share_no_approval(url: str) -> None:
    """Pydantic AI 6241, 5761: of two calls with the same id, the approval of one executed the other."""
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(payer(told, [call("pay", "c1", n=1), call("pay", "c1", n=1_000)]), "pay")
        with pytest.raises(Exception, match="several calls of the same id"):
            await run.result(timeout=LIMIT_S)
        assert (await approvals(app).list()).items == []
        run = await app.start(payer(told, [call("pay", "c1", n=1)], [call("pay", "c1", n=1_000)], name="other"), "pay")
        (first,) = await waiting(app)
        await approvals(app).decide(first.id, approve=True, by="ana")
        second = await next_one(app, first)
        assert second.arguments == {"n": 1_000}, "another call, though the model gave it the same id"
        with pytest.raises(RunRefused):
            await approvals(app).decide(first.id, approve=True, by="ana")
        await approvals(app).decide(second.id, approve=False, by="ana")
        assert "paid 1'" in await run.result(timeout=LIMIT_S)
    assert [line for line in told if line.startswith("pay")] == ["pay 1"]


async def test_a_batch_is_decided_one_by_one_in_any_order(url: str) -> None:
    """Pydantic AI 6486, 7878, 2500: of calls deferred together some were lost, or took each other's results."""
    told = Told()
    async with Outlive(url) as app:
        turn = [call("pay", f"c{n}", n=n) for n in range(4)]
        run = await app.start(payer(told, [*turn, call("look", "l")]), "pay")
        batch = {one.arguments["n"]: one for one in await waiting(app, 4)}
        for n in (2, 0, 3, 1):
            await approvals(app).decide(batch[n].id, approve=n % 2 == 0, by=f"person {n}")
        said = await run.result(timeout=LIMIT_S)
        assert all(f"person {n} denied" in said for n in (1, 3))
        assert all(f"paid {n}" in said for n in (0, 2))
    assert sorted(told) == ["look 0", "model 0", "model 1", "pay 0", "pay 2"]


@pytest.mark.parametrize("fault", ["commit.before:refuse", "commit.after:lose_reply"])
async def test_an_approved_call_and_its_result_stay_together(
    url: str, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenAI Agents 4615: the approved tool ran, writing the session failed, and the model never saw the result.

    Pydantic AI harness 710: what was written again after a lost reply was there twice.
    """
    told, histories = Told(), list[str]()
    base = scripted([call("pay", "c1", n=1)], "{results}")

    async def answer(messages: Any, info: Any) -> Any:
        histories.append(json.dumps([part.part_kind for message in messages for part in message.parts]))
        return await base.function(messages, info)  # type: ignore[misc]

    agent = Agent(FunctionModel(answer), name="clerk")

    @agent.tool_plain
    async def pay(n: int) -> str:
        told.append(f"pay {n}")
        arm_faults(parse_faults(fault))  # the write of what it gives
        return f"paid {n}"

    clerk = durable(agent, policy=ALL)
    async with Outlive(url, include=[clerk]) as app:
        await app.start(clerk, "pay", id="run")
        (one,) = await waiting(app)
    async with Outlive(url, worker=False) as client:
        await approvals(client).decide(one.id, approve=True, by="ana")
    try:
        async with Outlive(url, include=[clerk]) as app:
            assert await (await app.get("run")).result(timeout=LIMIT_S) == "['paid 1']"
    finally:
        hooks.arm(None)
    assert fault in capfd.readouterr().err
    assert histories == ['["user-prompt"]', '["user-prompt", "tool-call", "tool-return"]']
    assert told == ["pay 1"]


async def test_an_approval_beside_a_handoff_is_asked_for(url: str) -> None:
    """OpenAI Agents (js) 1768, ADK 3567: a hand-over in the same response, or below it, made approvals be skipped."""
    told = Told()
    helper = payer(told, [call("pay", "h1", n=5)], name="helper")
    agent = Agent(scripted([call("delegate", "d1"), call("pay", "c1", n=1)], "{results}"), name="boss")

    @agent.tool_plain(metadata=inline())
    async def delegate() -> str:
        return str((await helper.run("help")).output)

    @agent.tool_plain
    async def pay(n: int) -> str:
        told.append(f"pay {n}")
        return f"paid {n}"

    chief = durable(agent, policy=lambda call: Ask(role="chief") if call.tool == "pay" else None)
    async with Outlive(url, include=[chief]) as app:
        run = await app.start(chief, "go")
        seen: list[Approval] = []
        for _ in range(2):
            seen.append(await next_one(app, *seen))
            assert not [
                line for line in told if line.startswith("pay") and line.endswith(f" {seen[-1].arguments['n']}")
            ]
            roles = [seen[-1].role] if seen[-1].role else []
            await approvals(app).decide(seen[-1].id, approve=True, by="ana", roles=roles)
        assert {(one.agent, one.role, one.arguments["n"]) for one in seen} == {
            ("boss", "chief", 1),
            ("helper", None, 5),
        }
        said = await run.result(timeout=LIMIT_S)
        assert "paid 1" in said and "paid 5" in said
    assert sorted(line for line in told if line.startswith("pay")) == ["pay 1", "pay 5"]


async def test_what_the_client_holds_decides_nothing(url: str) -> None:
    """OpenAI Agents 5105, 3337: the state was the client's to change, and decisions of any shape were taken."""
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks(role="finance")), "refund")
        (one,) = await waiting(app)
        changed: list[dict[str, Any]] = [
            {"id": one.id + "0", "roles": ["finance"]},
            {"id": "another " + one.id.rpartition(" ")[2], "roles": ["finance"]},
            {"id": one.id, "roles": []},
            {"id": one.id, "roles": ["finance"], "digest": "0" * len(one.digest)},
        ]
        for facts in changed:
            with pytest.raises(RunRefused):
                await approvals(app).decide(approve=True, by="eve", **facts)
        for shape in ("yes", 1, {"approve": True}, None):
            with pytest.raises(outlive.UsageError):
                await approvals(app).decide(one.id, approve=shape, by="eve", roles=["finance"])  # type: ignore[arg-type]
        assert (await waiting(app), await app.audit(run.id)) == ([one], [])
    assert told == ["model 0"]


async def test_a_confirmation_repeats_nothing_of_the_turns_before(url: str) -> None:
    """ADK 6198, 8039: after a confirmation the whole invocation ran again, and what was paid was paid again."""
    told = Told()
    agent = payer(told, [call("look", "l1", n=1)], [call("pay", "c1", n=1)], [call("pay", "c2", n=2)])
    for expected in (None, 1, 2):
        async with Outlive(url, include=[agent]) as app:
            run = await app.start(agent, "pay", id="run")
            if expected is not None:
                one = await next_one(app)
                assert one.arguments == {"n": expected}
                await approvals(app).decide(one.id, approve=True, by="ana")
            if expected == 2:
                assert await run.result(timeout=LIMIT_S) == "['seen 1', 'paid 1', 'paid 2']"
            else:
                following = await next_one(app, *([one] if expected else []))
                assert following.arguments == {"n": (expected or 0) + 1}
    assert told == ["model 0", "look 1", "model 1", "pay 1", "model 2", "pay 2", "model 3"]


async def test_a_confirmation_below_goes_to_who_asked(url: str) -> None:
    """ADK 3567, 3649: the confirmation of a call of a sub-agent was routed to the root, which knew nothing of it."""
    told = Told()
    inner = payer(told, [call("pay", "c1", n=7)], name="inner")

    @workflow(name="outer")
    async def outer() -> Any:
        return [(await inner.run("one")).output, await inner("two")]

    async with Outlive(url, include=[outer, inner]) as app:
        run = await app.start(outer)
        first = await next_one(app)
        assert (first.run_id, first.agent) == (run.id, "inner")
        await approvals(app).decide(first.id, approve=True, by="ana")
        second = await next_one(app, first)
        assert (second.run_id != run.id, second.agent) == (True, "inner"), "that of the child run"
        await approvals(app).decide(second.id, approve=True, by="ana")
        assert await run.result(timeout=LIMIT_S) == ["['paid 7']"] * 2
    assert told.count("pay 7") == 2


async def test_who_decides_below_is_known_after_a_restart(url: str) -> None:
    """OpenAI Agents js 1750: when the state was read back, the approval of a nested agent belonged to nobody."""
    told = Told()

    def deploy() -> list[Any]:
        inner = payer(told, [call("pay", "c1", n=7)], name="inner", policy=lambda _: Ask(role="finance"))
        outer = Agent(scripted([call("hand_over", "h1")], "{results}"), name="outer")

        @outer.tool_plain(metadata=inline())
        async def hand_over() -> str:
            return str((await inner.run("pay")).output)

        return [durable(outer), inner]

    agents = deploy()
    async with Outlive(url, include=agents) as app:
        run = await app.start(agents[0], "go", id="run")
        before = await next_one(app)
        assert (before.run_id, before.agent, before.role) == (run.id, "inner", "finance")
    async with Outlive(url, include=deploy()) as app:
        assert await next_one(app) == before
        with pytest.raises(RunRefused, match="ana has not the role 'finance'"):
            await approvals(app).decide(before.id, approve=True, by="ana", roles={"sales"})
        assert "pay 7" not in told
        await approvals(app).decide(before.id, approve=True, by="ana", roles={"finance"})
        assert "paid 7" in await (await app.get("run")).result(timeout=LIMIT_S)
    assert told.count("pay 7") == 1


async def test_what_is_said_while_nobody_lives_is_heard_once(url: str) -> None:
    """AutoGen 4108: messages that were under way were in no state that was saved."""
    told = Told()
    talk = conversation(payer(told, [call("look", "c1")], "{results}", policy=None))
    async with Outlive(url, include=[talk]) as app:
        await app.start(talk, id="chat")
    async with Outlive(url, worker=False) as client:
        for text in ("one", "two"):
            await talk.say(await client.get("chat"), text, key=text)
            await talk.say(await client.get("chat"), text, key=text)
    for _ in range(2):
        async with Outlive(url, include=[talk]) as app:
            run = await app.get("chat")
            heard: list[str] = []
            async with asyncio.timeout(LIMIT_S):
                async for shown in events(run):
                    heard += [shown.event.text] if isinstance(shown.event, Said) else []
                    if isinstance(shown.event, Answered) and shown.event.turn == 2:
                        break
            assert heard == ["one", "two"]


async def test_a_decision_needs_no_message_and_nobody_who_resumes(url: str) -> None:
    """ADK 4100, Mastra 5549: nothing went on after a decision unless somebody sent a message, or called resume."""
    told = Told()
    agent = refunder(told, ALL)
    async with Outlive(url, include=[agent]) as app:
        await app.start(agent, "refund", id="run")
        (one,) = await waiting(app)
        await leave_memory(app)
    async with Outlive(url, worker=False) as client:  # while no worker lives
        await approvals(client).decide(one.id, approve=True, by="ana")
    async with Outlive(url, include=[agent]) as app:
        assert await (await app.get("run")).result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["model 0", "refund 17", "model 1"]


async def test_a_resumed_run_stands_where_it_stood(url: str) -> None:
    """Mastra 4630, 16051, MAF 1695: a resumed workflow began at its first step, or with what an earlier resume gave."""
    begun = list[str]()

    @outlive.step(name="work on")
    async def work_on(what: str) -> str:
        begun.append(what)
        return what

    @workflow(name="in parts")
    async def in_parts() -> list[str]:
        done = [await work_on("begin")]
        for number in range(3):
            done.append(await work_on(await ask_user(f"Part {number}?")))
        return done

    seen = set[str]()
    for answer in ("a", "b", "c"):
        async with Outlive(url, include=[in_parts]) as app:
            run = await app.start(in_parts, id="run")
            async with asyncio.timeout(LIMIT_S):
                while not (found := [one for one in (await questions(app).list()).items if one.id not in seen]):
                    await asyncio.sleep(0.01)
            seen.add(found[0].id)
            await questions(app).answer(found[0].id, answer, by="ana")
            if answer == "c":
                assert await run.result(timeout=LIMIT_S) == ["begin", "a", "b", "c"]
    assert begun == ["begin", "a", "b", "c"]


async def test_a_half_claimed_decision_is_refused_or_counts(url: str) -> None:
    """n8n 33845: a resume that a crash had half claimed was taken a second time."""
    told = Told()
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(refunder(told, ALL), "refund")
        (one,) = await waiting(app)
        outcomes = await asyncio.gather(
            *(approvals(each).decide(one.id, approve=True, by="ana") for each in (app, client, app, client)),
            return_exceptions=True,
        )
        assert [outcome is None for outcome in outcomes].count(True) == 1
        assert {type(outcome) for outcome in outcomes} == {type(None), RunRefused}
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
    assert told.count("refund 17") == 1
