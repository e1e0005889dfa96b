"""Calls that wait for people: asked once, decided once, bound to what was seen; restarts and deploys in between."""

from __future__ import annotations

import asyncio
import gc
import linecache
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, ValidationInfo
from pydantic_ai import Agent

import outlive
from outlive import Outlive, RunRefused, workflow
from outlive.agents import Approval, Ask, Deny, ToolCall, approvals, durable, questions, transactional, tx
from outlive.engine.execution import Execution
from outlive.inbox import is_person
from tests.agents.scripts import call, scripted
from tests.agents.test_durable import LIMIT_S, Told, leave_memory, waits_for
from tests.support.evidence import Evidence
from tests.support.size import SOAK, pick


def refunder(told: list[str], policy: Callable[[ToolCall], Any] | None, *, described: str = "Pay back.") -> Any:
    """Give a durable agent that wants to refund 17."""
    model = scripted([call("refund", "c1", cents=17)], "{results}", heard=Told.model.__get__(told))
    agent = Agent(model, name="clerk")

    @agent.tool_plain(description=described)
    async def refund(cents: int) -> str:
        told.append(f"refund {cents}")
        return f"refunded {cents}"

    return durable(agent, policy=policy)


def asks(**terms: Any) -> Callable[[ToolCall], Ask]:
    return lambda _: Ask(**terms)


async def waiting(app: Outlive, count: int = 1) -> list[Approval]:
    """Give the approvals that wait once there are so many."""
    async with asyncio.timeout(LIMIT_S):
        while len((page := await approvals(app).list()).items) < count:
            await asyncio.sleep(0.01)
    assert len(page.items) == count
    return page.items


async def test_a_call_waits_until_it_is_approved(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks(role="finance", expires=500)), "refund", id="run 1")
        (one,) = await waiting(app)
        assert (one.run_id, one.agent, one.tool, one.call_id) == ("run 1", "clerk", "refund", "c1")
        assert (one.arguments, one.role, one.quorum, one.votes) == ({"cents": 17}, "finance", 1, [])
        assert one.expires_at is not None
        assert 400 < (one.expires_at - one.created_at).total_seconds() < 501
        assert told == ["model 0"]
        await leave_memory(app)
        async with Outlive(url, worker=False) as client:
            await approvals(client).decide(one.id, approve=True, by="ana", why="known", roles={"finance"})
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
        assert (await approvals(app).list()).items == []
        (entry,) = await app.audit(run.id)
        assert (entry.by, entry.action, entry.reason) == ("ana", "settle", "known")
        assert entry.facts == {"decided": "approve", "promise": one.id.removeprefix("run 1 ")}
        assert one.created_at <= entry.at <= datetime.now(UTC) + timedelta(seconds=60)
    assert told == ["model 0", "refund 17", "model 1"]


async def test_a_call_that_is_denied_is_not_executed(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=False, by="ana", why="not today")
        assert "ana denied this call: not today" in await run.result(timeout=LIMIT_S)
        assert [entry.facts["decided"] for entry in await app.audit(run.id)] == ["deny"]
    assert told == ["model 0", "model 1"]


async def test_a_policy_lets_pass_and_refuses(url: str) -> None:
    def policy(call: ToolCall) -> Deny | None:
        assert (call.agent, call.tool) == ("clerk", "refund")
        return Deny("no refunds above 10") if call.arguments["cents"] > limit[0] else None

    limit, told = [10], Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, policy), "refund")
        assert "no refunds above 10" in await run.result(timeout=LIMIT_S)
        limit[0] = 20
        run = await app.start(refunder(told, policy), "refund")
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["model 0", "model 1", "model 0", "refund 17", "model 1"]


async def test_arguments_are_edited_and_validated_again(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana", edit={"cents": 5}, digest=one.digest)
        assert await run.result(timeout=LIMIT_S) == "['refunded 5']"
        assert "refund 17" not in told
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        for wrong, why in (
            ({"cents": "much"}, "'much' is not of type 'integer'"),
            ({}, "'cents' is a required property"),
        ):
            with pytest.raises(RunRefused, match=f"these are no arguments of refund: {why}"):
                await approvals(app).decide(one.id, approve=True, by="ana", edit=wrong)
        assert await waiting(app) == [one], "what does not fit uses no approval up"
        await approvals(app).decide(one.id, approve=True, by="ana", edit={"cents": 6})
        assert await run.result(timeout=LIMIT_S) == "['refunded 6']"
    assert [line for line in told if line.startswith("refund")] == ["refund 5", "refund 6"]


async def test_nobody_decides_in_time(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks(expires=0.3)), "refund")
        (one,) = await waiting(app)
        assert "Nobody decided in time" in await run.result(timeout=LIMIT_S)
        assert (await approvals(app).list()).items == []
        with pytest.raises(RunRefused):
            await approvals(app).decide(one.id, approve=True, by="ana")
    assert told == ["model 0", "model 1"]


async def test_others_are_asked_when_nobody_decides_in_time(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        policy = asks(role="shift", expires=0.1, escalate=Ask(role="boss"))
        run = await app.start(refunder(told, policy), "refund")
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await approvals(app).list()).items) or found[0].role == "shift":
                await asyncio.sleep(0.01)
        with pytest.raises(RunRefused, match="has not the role 'boss'"):
            await approvals(app).decide(found[0].id, approve=True, by="ana", roles=["shift"])
        await approvals(app).decide(found[0].id, approve=True, by="bob", roles=["boss", "shift"])
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def test_two_people_have_to_approve(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        inbox = approvals(app)
        run = await app.start(refunder(told, asks(quorum=2)), "refund")
        (one,) = await waiting(app)
        await inbox.decide(one.id, approve=True, by="ana")
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await inbox.list()).items) or not found[0].votes:
                await asyncio.sleep(0.01)
        (second,) = found
        assert (second.votes, second.quorum) == (["ana"], 2)
        with pytest.raises(RunRefused, match="ana has approved this call of refund already"):
            await inbox.decide(second.id, approve=True, by="ana")
        assert "refund 17" not in told
        await inbox.decide(second.id, approve=True, by="bob", edit={"cents": 9})
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await inbox.list()).items) or found[0].votes != ["bob"]:
                await asyncio.sleep(0.01)
        assert found[0].arguments == {"cents": 9}, "what ana has approved was something else"
        with pytest.raises(RunRefused, match="the arguments of this call of refund are others by now"):
            await inbox.decide(found[0].id, approve=True, by="ana", digest=one.digest)
        await inbox.decide(found[0].id, approve=True, by="ana", digest=found[0].digest)
        assert await run.result(timeout=LIMIT_S) == "['refunded 9']"
        noted = await app.audit(run.id)
        assert [entry.by for entry in noted] == ["ana", "bob", "ana"]
        assert [entry.facts.get("edit") for entry in noted] == [None, {"cents": 9}, None]


async def test_of_many_decisions_one_counts(url: str) -> None:
    told = Told()
    async with Outlive(url) as app, Outlive(url, worker=False) as client:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        decisions = [
            approvals(client if number % 2 else app).decide(one.id, approve=bool(number % 3), by=f"person {number}")
            for number in range(6)
        ]
        outcomes = await asyncio.gather(*decisions, return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 1
        assert all(isinstance(outcome, RunRefused) for outcome in outcomes if outcome is not None)
        await run.result(timeout=LIMIT_S)
        assert len(await app.audit(run.id)) == 1
        with pytest.raises(RunRefused, match="it was decided, has expired, or never was"):
            await approvals(app).decide(one.id, approve=True, by="late")


async def test_a_decision_on_a_tool_that_a_deploy_has_changed_is_void(url: str) -> None:
    told = Told()
    old = refunder(told, asks(), described="Pay back.")
    async with Outlive(url, include=[old]) as app:
        run = await app.start(old, "refund", id="run")
        (one,) = await waiting(app)
    async with Outlive(url, worker=False) as client:
        await approvals(client).decide(one.id, approve=True, by="ana")
    new = refunder(told, asks(), described="Pay back twice.")
    async with Outlive(url, include=[new]) as app:
        run = await app.get("run")
        (again,) = await waiting(app)
        assert again.id != one.id
        assert "refund 17" not in told
        await approvals(app).decide(again.id, approve=True, by="ana")
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["model 0", "refund 17", "model 1"]


async def test_a_decided_call_is_not_asked_again_after_a_later_deploy(url: str) -> None:
    told = Told()
    model = scripted([call("refund", "c1")], [call("wait", "c2")], "{results}")

    def clerk(described: str) -> Any:
        agent = Agent(model, name="clerk")

        @agent.tool_plain(description=described)
        async def refund() -> str:
            told.append("refund")
            return "refunded"

        @agent.tool_plain
        async def wait() -> str:
            return "waited"

        return durable(agent, policy=lambda _: Ask())

    async with Outlive(url, include=[old := clerk("Pay back.")]) as app:
        run = await app.start(old, "refund", id="run")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana")
        async with asyncio.timeout(LIMIT_S):
            while (found := (await approvals(app).list()).items) == [] or found[0].tool != "wait":
                await asyncio.sleep(0.01)
    async with Outlive(url, include=[clerk("Pay back twice.")]) as app:
        run = await app.get("run")
        (two,) = await waiting(app)
        await approvals(app).decide(two.id, approve=True, by="ana")
        assert await run.result(timeout=LIMIT_S) == "['refunded', 'waited']"
    assert told == ["refund"]


async def test_an_approval_waits_for_days(outlive_app: Any) -> None:
    told = Told()
    agent = refunder(told, asks(expires=6 * 86_400))
    async with outlive_app(include=[agent]) as app:
        run = await app.start(agent, "refund", id="run")
        await app.advance("5 days")
        (one,) = (await approvals(app).list()).items
        await approvals(app).decide(one.id, approve=True, by="ana")
        assert await run.result() == "['refunded 17']"
        assert told == ["model 0", "refund 17", "model 1"]
        late = await app.start(agent, "refund", id="late")
        await app.advance("6 days")
        assert "Nobody decided in time" in await late.result()


async def test_an_approval_waits_through_restarts(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        await app.start(refunder(told, asks()), "refund", id="run")
        (one,) = await waiting(app)
    for _ in range(3):
        async with Outlive(url, include=[refunder(told, asks())]) as app:
            (again,) = await waiting(app)
            assert again == one
    async with Outlive(url, worker=False) as client:
        await approvals(client).decide(one.id, approve=True, by="ana")
    async with Outlive(url, include=[refunder(told, asks())]) as app:
        assert await (await app.get("run")).result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["model 0", "refund 17", "model 1"]


def _left_of(ids: set[str]) -> list[Execution]:
    """Give what is still there of runs that have left memory."""
    return [one for one in gc.get_objects() if type(one) is Execution and one.closed and one.id in ids]


@pytest.mark.timeout(pick(small=120, full=1800))
async def test_many_approvals_wait_out_of_memory(url: str, evidence: Evidence) -> None:
    """But for those that came last, as many as the limit of idle runs says; the others are rows."""
    agent = refunder(Told(), asks())
    count = pick(small=60, full=10_000)
    async with Outlive(url) as app:
        roster = app._engine().roster
        roster.idle_limit = pick(small=10, full=1_000)

        async def start(times: int) -> list[outlive.Run]:
            runs = await asyncio.gather(*(app.start(agent, "refund") for _ in range(times)))
            async with asyncio.timeout(LIMIT_S + count):
                while await app.count("status:running", limit=count) > roster.idle_limit or len(roster.idle) != len(
                    roster.executions
                ):
                    await asyncio.sleep(0.05)
            linecache.clearcache()  # what is told of a loop that was blocked fills it
            gc.collect()
            return runs

        tracemalloc.start()
        try:
            runs = await start(count // 3)
            before = tracemalloc.get_traced_memory()[0]
            runs += await start(count - len(runs))
            grown = (tracemalloc.get_traced_memory()[0] - before) / (count - count // 3)
        finally:
            tracemalloc.stop()
        assert len(roster.executions) <= roster.idle_limit
        seen: set[str] = set()
        after: str | None = None
        while True:
            page = await approvals(app).list(after=after)
            seen |= {one.run_id for one in page.items}
            if page.next is None:
                break
            after = page.next
        ids = {run.id for run in runs}
        assert seen == ids
        last = (await approvals(app).list(run_id=runs[0].id)).items[0]
        await approvals(app).decide(last.id, approve=True, by="ana")
        assert await runs[0].result(timeout=LIMIT_S) == "['refunded 17']"
        async with asyncio.timeout(60):  # timers of a driver, though cancelled, keep some for 30 s
            while len(_left_of(ids)) >= count // 4:
                await asyncio.sleep(1)
                gc.collect()
        assert not SOAK or grown < 15_000  # of few runs it tells nothing; a resident one takes 40,000
    evidence(
        "approvals that wait", "sqlite" if "sqlite" in url else "postgres", waiting=count, bytes_of_one=round(grown)
    )


@pytest.mark.parametrize("renamed", ["repay", None])
async def test_a_tool_that_a_deploy_took_away_while_people_were_asked(url: str, renamed: str | None) -> None:
    """The run is paused, nothing is executed, and it goes on when the tool is back."""
    told = Told()

    def clerk(name: str | None) -> Any:
        agent = Agent(scripted([call("refund", "c1", cents=17)], "{results}"), name="clerk")

        def refund(cents: int) -> str:
            told.append(f"{name} {cents}")
            return f"refunded {cents}"

        if name is not None:
            agent.tool_plain(name=name)(refund)
        return durable(agent, policy=asks())

    before, after = clerk("refund"), clerk(renamed)
    async with Outlive(url, include=[before]) as app:
        await app.start(before, "refund", id="run")
        (one,) = await waiting(app)
    async with Outlive(url, include=[after]) as app:
        run = await app.get("run")
        await approvals(app).decide(one.id, approve=True, by="ana")
        async with asyncio.timeout(LIMIT_S):
            while await run.status() != "paused":
                await asyncio.sleep(0.01)
        assert "perhaps this tool of the agent was renamed, removed or changed; a run that diverges" in await run.why()
    assert told == []
    async with Outlive(url, include=[before]) as app:
        run = await app.get("run")
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["refund 17"]


async def test_a_stricter_policy_has_no_say_in_what_is_past(url: str) -> None:
    told = Told()
    model = scripted([call("look", "c1")], [call("wait", "c2")], "{results}")

    def clerk(policy: Callable[[ToolCall], Any]) -> Any:
        agent = Agent(model, name="clerk")

        @agent.tool_plain
        async def look() -> str:
            told.append("look")
            return "seen"

        @agent.tool_plain
        async def wait() -> str:
            return "waited"

        return durable(agent, policy=policy)

    lenient = clerk(lambda call: Ask(role="one") if call.tool == "wait" else None)
    strict = clerk(lambda _: Deny("nothing goes"))
    async with Outlive(url, include=[lenient]) as app:
        await app.start(lenient, "look", id="run")
        await waiting(app)
    async with Outlive(url, include=[strict]) as app:
        run = await app.get("run")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana", roles=["one"])
        assert await run.result(timeout=LIMIT_S) == "['seen', 'waited']"
    assert told == ["look"]


async def test_calls_side_by_side_wait_for_themselves(url: str) -> None:
    model = scripted([call("pay", "c1", n=1), call("pay", "c2", n=2), call("look", "c3")], "{results}")
    agent = Agent(model, name="clerk")

    @agent.tool_plain(metadata=transactional())
    async def pay(n: int) -> str:
        return f"paid {n} {await tx().fetchval('select 1')}"

    @agent.tool_plain
    async def look() -> str:
        return "seen"

    careful = durable(agent, policy=lambda call: Ask() if call.tool == "pay" else None)
    async with Outlive(url) as app:
        run = await app.start(careful, "pay")
        one, two = sorted(await waiting(app, 2), key=lambda each: each.call_id)
        await approvals(app).decide(two.id, approve=True, by="ana")
        await approvals(app).decide(one.id, approve=False, by="ana")
        said = await run.result(timeout=LIMIT_S)
    assert "ana denied this call." in said
    assert "paid 2 1" in said
    assert "seen" in said


async def test_tools_that_pydantic_ai_wants_approved(url: str) -> None:
    agent = Agent(scripted([call("pay", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(requires_approval=True)
    async def pay() -> str:
        return "paid"

    async with Outlive(url) as app:
        run = await app.start(durable(agent), "pay")
        (one,) = await waiting(app)
        await waits_for(run, "wait")
        await approvals(app).decide(one.id, approve=True, by="ana")
        assert await run.result(timeout=LIMIT_S) == "['paid']"


@pytest.mark.parametrize("inbox", [approvals, questions])
def test_an_inbox_of_a_plain_app(inbox: Any) -> None:
    with pytest.raises(outlive.UsageError, match="open in an event loop"):
        inbox(outlive.sync.Outlive("sqlite://"))


async def test_one_that_waits_is_found(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(refunder(Told(), asks()), "refund")
        (one,) = await waiting(app)
        assert await approvals(app).find(one.id) == one
        assert await approvals(app).find(f"{run.id} elsewhere#1") is None
        await approvals(app).decide(one.id, approve=True, by="ana")
        assert await approvals(app).find(one.id) is None
        await run.result(timeout=LIMIT_S)


@outlive.workflow
async def asks_somebody_else() -> None:
    await (await outlive.promise(topic="letters", about="a letter"))


async def test_other_promises_are_no_approvals(url: str) -> None:
    async with Outlive(url) as app:
        await app.start(asks_somebody_else, id="run")
        async with asyncio.timeout(LIMIT_S):
            while not (page := await app.promises("letters")).items:
                await asyncio.sleep(0.01)
        place = f"run {page.items[0].key}"
        assert await approvals(app).find(place) is None
        with pytest.raises(RunRefused, match="never was"):
            await approvals(app).decide(place, approve=True, by="ana")
        assert len((await app.promises("letters")).items) == 1


@pytest.mark.parametrize(
    "forged",
    [True, {"approve": True}, {"approve": "yes", "by": "eve", "why": None, "edit": None}, "approved"],
    ids=str,
)
async def test_what_is_no_decision_approves_nothing(url: str, forged: Any) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        (opened,) = (await app.promises("approval")).items
        await app.settle(opened.token, forged)
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await approvals(app).list()).items) or found[0].id == one.id:
                await asyncio.sleep(0.01)
        assert "refund 17" not in told
        await approvals(app).decide(found[0].id, approve=True, by="ana")
        assert await run.result(timeout=LIMIT_S) == "['refunded 17']"


async def test_a_decision_on_other_arguments_approves_nothing(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        (opened,) = (await app.promises("approval")).items
        stale = {
            "approve": True,
            "by": "eve",
            "why": None,
            "edit": None,
            "version": opened.about["version"],
            "digest": "0",
        }
        await app.settle(opened.token, stale)
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await approvals(app).list()).items) or found[0].id == one.id:
                await asyncio.sleep(0.01)
        await approvals(app).decide(found[0].id, approve=False, by="ana")
        assert "ana denied" in await run.result(timeout=LIMIT_S)
    assert "refund 17" not in told


async def test_an_approval_that_is_settled_with_an_error_is_a_denial(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        await waiting(app)
        (opened,) = (await app.promises("approval")).items
        await app.settle(opened.token, error="the shop is closed")
        assert "was not approved: Rejected: the shop is closed" in await run.result(timeout=LIMIT_S)
    assert told == ["model 0", "model 1"]


async def test_a_run_that_is_cancelled_asks_nobody_any_more(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        assert (await approvals(app).list()).items == []
        with pytest.raises(RunRefused):
            await approvals(app).decide(one.id, approve=True, by="ana")
    assert told == ["model 0"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"id": "unheard-of"}, "the id of this approval is"),
        ({"id": 7}, "the id of this approval is"),
        ({"approve": "no"}, "is True or False"),
        ({"approve": None}, "is True or False"),
        ({"by": ""}, "says who it is that answers"),
        ({"roles": "finance and boss"}, "is a list of roles"),
        ({"edit": [1]}, "is a mapping of arguments"),
        ({"approve": False, "edit": {"cents": 1}}, "has no arguments to edit"),
    ],
    ids=str,
)
async def test_wrong_decisions(url: str, wrong: dict[str, Any], told: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(outlive.UsageError, match=told):
            await approvals(app).decide(**{"id": "run key#1", "approve": True, "by": "ana", **wrong})
        with pytest.raises(RunRefused, match="never was"):
            await approvals(app).decide("run key#1", approve=True, by="ana")


@pytest.mark.parametrize(
    "terms", [{"quorum": 0}, {"quorum": "two"}, {"role": 7}, {"expires": -1}, {"escalate": "boss"}]
)
def test_wrong_terms(terms: dict[str, Any]) -> None:
    with pytest.raises(outlive.UsageError):
        Ask(**terms)


def by_amount(asked: ToolCall) -> Ask | Deny | None:
    """Nobody approves more than 100; the boss and another one above 50; nobody is asked below 10."""
    cents = asked.arguments["cents"]
    if cents > 100:
        return Deny("too much for anybody")
    return Ask(role="boss", quorum=2) if cents > 50 else Ask(role="finance") if cents > 9 else None


@pytest.mark.parametrize(("cents", "said"), [(101, "too much for anybody"), (20, "refunded 20"), (5, "refunded 5")])
async def test_what_a_person_has_edited_is_for_the_policy_again(url: str, cents: int, said: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, by_amount), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="fred", roles={"finance"}, edit={"cents": cents})
        assert said in await run.result(timeout=LIMIT_S)
        await leave_memory(app)
    assert told == ["model 0", *([] if cents > 100 else [f"refund {cents}"]), "model 1"]


def of_a_shop(cents: int, info: ValidationInfo) -> int:
    if not info.context:
        raise ValueError("no shop is known")
    return cents


async def test_an_edit_is_validated_for_the_policy_as_it_is_for_the_tool(url: str) -> None:
    """With the validation context of the agent: or what is valid for the tool alone would pass by the policy."""
    told = Told()
    model = scripted([call("refund", "c1", cents=17)], "{results}", heard=Told.model.__get__(told))
    agent = Agent(model, name="clerk", validation_context={"shop": 1})

    @agent.tool_plain
    async def refund(cents: Annotated[int, AfterValidator(of_a_shop)]) -> str:
        told.append(f"refund {cents}")
        return f"refunded {cents}"

    async with Outlive(url) as app:
        run = await app.start(durable(agent, policy=by_amount), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="fred", roles={"finance"}, edit={"cents": 101})
        assert "too much for anybody" in await run.result(timeout=LIMIT_S)
        await leave_memory(app)
    assert told == ["model 0", "model 1"]


async def test_an_edit_that_others_have_to_approve_is_put_to_them(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, by_amount), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="fred", roles={"finance"}, edit={"cents": 60})
        for votes, by in ([], "ben"), (["ben"], "bea"):
            async with asyncio.timeout(LIMIT_S):
                while True:
                    (one,) = await waiting(app)
                    if (one.role, one.votes) == ("boss", votes):
                        break
                    await asyncio.sleep(0.01)
            assert (one.arguments, one.quorum) == ({"cents": 60}, 2)
            with pytest.raises(outlive.RunRefused, match="boss"):
                await approvals(app).decide(one.id, approve=True, by="fred", roles={"finance"})
            await approvals(app).decide(one.id, approve=True, by=by, roles={"boss"})
            await leave_memory(app)
        assert await run.result(timeout=LIMIT_S) == "['refunded 60']"
    assert told == ["model 0", "refund 60", "model 1"]


async def test_a_vote_gives_the_others_no_more_time(url: str) -> None:
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks(quorum=2, expires=3600)), "refund")
        (one,) = await waiting(app)
        await asyncio.sleep(0.2)
        await approvals(app).decide(one.id, approve=True, by="ana")
        async with asyncio.timeout(LIMIT_S):
            while not (found := (await approvals(app).list()).items) or not found[0].votes:
                await asyncio.sleep(0.01)
        assert one.expires_at is not None and found[0].expires_at is not None
        assert abs((found[0].expires_at - one.expires_at).total_seconds()) < 0.1
        await approvals(app).decide(found[0].id, approve=False, by="bob")
        assert "bob denied" in await run.result(timeout=LIMIT_S)


async def test_what_is_asked_anew_is_asked_on_the_terms_of_its_own_arguments(url: str) -> None:
    """A release that describes the tool otherwise voids an edit, and the easier terms that it had."""

    def policy(asked: ToolCall) -> Ask:
        return Ask(role="boss", quorum=2) if asked.arguments["cents"] > 10 else Ask(role="clerk")

    async with Outlive(url, include=[refunder(Told(), policy)]) as app:
        await app.start(refunder(Told(), policy), "refund", id="one")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="bea", roles={"boss"}, edit={"cents": 9})
        async with asyncio.timeout(LIMIT_S):
            while (edited := (await waiting(app))[0]).role != "clerk":
                await asyncio.sleep(0.01)
    async with Outlive(url, worker=False) as client:
        await approvals(client).decide(edited.id, approve=True, by="carl", roles={"clerk"})
    told = Told()
    async with Outlive(url, include=[refunder(told, policy, described="Pay back in cents.")]) as app:
        (again,) = await waiting(app)
        assert (again.role, again.quorum, again.arguments) == ("boss", 2, {"cents": 17})
        with pytest.raises(RunRefused, match="boss"):
            await approvals(app).decide(again.id, approve=True, by="carl", roles={"clerk"})
    assert told == []


@pytest.mark.parametrize(
    "unseen", ["\u200b", "\u3164", "\u2800", "\u115f", "\u2065", "\x01", "\x7f", "\U000e0fff", "\u20dd"]
)
async def test_what_nobody_sees_makes_no_other_person(unseen: str) -> None:
    assert is_person(f"ana{unseen}", ["Ana"])
    assert is_person(f"a{unseen}na", ["ana"])
    assert not is_person("anna", ["ana"])


async def test_a_policy_sees_what_the_agent_depends_on(url: str) -> None:
    """Of an edit, too: so one clerk may do what another one may not."""
    told, seen = Told(), list[tuple[str, int]]()

    def policy(asked: ToolCall) -> Ask | Deny:
        seen.append((asked.deps, asked.arguments["cents"]))
        return Ask() if asked.arguments["cents"] <= {"ada": 20, "eve": 5}[asked.deps] else Deny("not by this clerk")

    def clerk() -> Any:
        lower = refunder(told, policy)

        @workflow(name="desk")
        async def desk(name: str) -> str:
            return str((await lower.run("refund", deps=name)).output)

        return desk

    async with Outlive(url, include=[clerk()]) as app:
        assert "not by this clerk" in await (await app.start("desk", "eve", id="eve")).result(timeout=LIMIT_S)
        await app.start("desk", "ada", id="ada")
        await waiting(app)
    async with Outlive(url, include=[clerk()]) as app:
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana", edit={"cents": 21})
        assert "not by this clerk" in await (await app.get("ada")).result(timeout=LIMIT_S)
    assert seen == [("eve", 17), ("ada", 17), ("ada", 21)]
    assert "refund 17" not in told


async def test_a_policy_that_raises_an_error_has_raised_it_on_replay_too(url: str) -> None:
    """And is asked again where an operator retries the run."""
    told, is_down = Told(), True

    def policy(_: ToolCall) -> None:
        if is_down:
            raise ConnectionError("the rules are down")

    clerk = refunder(told, policy)

    @workflow
    async def asks_twice() -> str:
        try:
            await clerk.run("refund")
        except ConnectionError as error:
            await outlive.receive("go on")
            return f"{error}"
        return "refunded"

    async with Outlive(url) as app:
        run = await app.start(asks_twice, id="caught")
        await waits_for(run, "receive")
        await leave_memory(app)
        failed = await app.start(clerk, "refund")
        with pytest.raises(ConnectionError):
            await failed.result(timeout=LIMIT_S)
        is_down = False
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == "the rules are down"
        await failed.retry()
        assert await failed.result(timeout=LIMIT_S) == "['refunded 17']"
    assert told == ["model 0", "model 0", "refund 17", "model 1"]


async def test_who_waits_no_more_asks_nobody(url: str) -> None:
    clerk = refunder(Told(), asks())

    @workflow
    async def impatient() -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await clerk.run("refund")
        return str(await outlive.receive("go"))

    async with Outlive(url) as app:
        run = await app.start(impatient)
        (one,) = await waiting(app)
        await waits_for(run, "receive")
        assert (await approvals(app).list()).items == []
        with pytest.raises(outlive.RunRefused):
            await approvals(app).decide(one.id, approve=True, by="ana")
        assert await app.audit(run.id) == []
        await leave_memory(app)
        await run.send("go", "on")
        assert await run.result(timeout=LIMIT_S) == "on"


async def test_a_fork_asks_anew(url: str) -> None:
    """What was approved is a call of the other run."""
    told = Told()
    async with Outlive(url) as app:
        run = await app.start(refunder(told, asks()), "refund")
        (one,) = await waiting(app)
        await approvals(app).decide(one.id, approve=True, by="ana")
        await run.result(timeout=LIMIT_S)
        (called,) = [entry.key for entry in await run.entries() if entry.name == "tool:refund"]
        fork = await run.fork(at=called)
        (one,) = await waiting(app)
        assert one.run_id == fork.id and told.count("refund 17") == 1
        await approvals(app).decide(one.id, approve=True, by="ben")
        assert await fork.result(timeout=LIMIT_S) == "['refunded 17']"
        assert [note.by for note in await app.audit(fork.id) if note.action == "settle"] == ["ben"]
    assert told.count("refund 17") == 2


async def test_a_policy_that_gives_no_answer(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(refunder(Told(), lambda _: True), "refund")
        with pytest.raises(outlive.UsageError, match="a policy gives Ask"):
            await run.result(timeout=LIMIT_S)
