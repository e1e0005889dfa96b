"""Budgets over the life of a run: raised, stopped, cancelled, replayed, rewound, deleted; and of all runs below it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

import outlive
from outlive import BudgetExceeded, Outlive, workflow
from outlive.agents import Budget, at_most_once, budgets, durable, inline, pure
from tests.agents.scripts import call, paid
from tests.agents.test_durable import Told, leave_memory, waits_for
from tests.agents.thrift import CHEAP, LIMIT_S, find, looking, used


async def test_replay_charges_nothing(url: str) -> None:
    """Pydantic AI harness 531, 748, 549: a replay counted what was spent a second time."""
    told = Told()
    clerk = durable(looking([call("look", "c1")], "{results}", heard=told.model), budget=Budget(usd=1, prices=CHEAP))

    @workflow
    async def asks() -> str:
        said = (await clerk.run("go")).output
        await outlive.receive("go on")
        return said

    async with Outlive(url) as app:
        run = await app.start(asks, id="one")
        await waits_for(run, "receive")
        before = await find(app, "one/clerk#1")
        await leave_memory(app)
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == "['seen']"
        assert await find(app, "one/clerk#1") == before
    assert told == ["model 0", "model 1"]


async def test_a_run_whose_budget_was_raised_goes_on_where_it_was(url: str) -> None:
    told = Told()
    agent = looking([call("look", "c1")], [call("look", "c2")], "{results}", heard=told.model)
    clerk = durable(agent, budget=Budget(requests=2))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(
            BudgetExceeded,
            match=r"of 2 requests it has spent 2 requests, 0 requests are reserved, and this may take 1 requests",
        ):
            await run.result(timeout=LIMIT_S)
        await budgets(app).put("one/clerk#1", requests=3, by="ana", reason="nearly there")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen', 'seen']"
        found = await find(app, "one/clerk#1")
        assert (found.spent.requests, found.is_changed, dict(found.limits)) == (3, True, {"requests": 3})
        (note,) = await app.audit("one/clerk#1")
        assert (note.action, note.noun, note.by, note.reason) == ("limit", "budget", "ana", "nearly there")
    assert told == ["model 0", "model 1", "model 2"]


async def test_what_others_have_reserved_and_may_not_use_is_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one reservation at a time, and for what both use; then for nothing more."""
    asked, goes_on = 0, asyncio.Event()

    async def answer(messages: Any, info: Any) -> ModelResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            await goes_on.wait()
        return ModelResponse(parts=[TextPart("hello")], usage=RequestUsage(input_tokens=10, output_tokens=5))

    budget = Budget(tokens=5_000, account="team")
    clerk = durable(Agent(FunctionModel(answer), name="clerk"), budget=budget)
    async with Outlive(url) as app:
        store, refused = app._engine().store, 0
        reserve = store.reserve

        async def counting(*args: Any) -> Any:
            nonlocal refused
            granted = await reserve(*args)
            refused += granted.refusal is not None
            return granted

        store.reserve = counting  # type: ignore[method-assign]
        first = await app.start(clerk, "go")
        await until(lambda: asked == 1)
        second = await app.start(clerk, "go")
        await until(lambda: refused > 1)
        assert asked == 1
        goes_on.set()
        assert [await run.result(timeout=LIMIT_S) for run in (first, second)] == ["hello", "hello"]
        found = await find(app, "team")
        assert (found.spent.tokens, found.reserved.tokens, found.lost.tokens) == (30, 0, 0)
        monkeypatch.setattr("outlive.agents.spending.ROOM_WAIT_S", 0)
        goes_on.clear()
        asked = 0
        first = await app.start(clerk, "go")
        await until(lambda: asked == 1)
        with pytest.raises(BudgetExceeded, match=r"answer_tokens=…\), or wait, for those who have reserved") as caught:
            await app.run(clerk, "go")
        assert (caught.value.measure, caught.value.reserved > 0) == ("tokens", True)
        goes_on.set()
        await first.result(timeout=LIMIT_S)
        await budgets(app).put("team", tokens=4_000)
        refused = 0
        monkeypatch.undo()
        with pytest.raises(
            BudgetExceeded, match=r"raise it, or reserve less for an answer \(answer_tokens=…\), then retry the run"
        ):
            await app.run(clerk, "go")
        assert refused == 1, "nothing that is reserved stands in the way"


async def until(holds: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_who_is_cancelled_before_he_knows_of_his_reservation_gives_it_back(url: str) -> None:
    told = Told()
    clerk = durable(looking("hello", heard=told.model), budget=Budget(requests=5))
    reserved = asyncio.Event()

    @workflow
    async def asks() -> str:
        asking = asyncio.ensure_future(clerk.run("go"))
        await outlive.receive("stop")
        asking.cancel()
        try:
            return (await asking).output
        except asyncio.CancelledError:
            return "cancelled"

    async with Outlive(url) as app:
        store = app._engine().store
        at_once = store.reserve

        async def late(*args: Any) -> Any:
            verdict = await at_once(*args)
            reserved.set()
            await asyncio.sleep(LIMIT_S)
            return verdict

        store.reserve = late  # type: ignore[method-assign]
        run = await app.start(asks, id="one")
        await asyncio.wait_for(reserved.wait(), LIMIT_S)
        await run.send("stop", None)
        assert await run.result(timeout=LIMIT_S) == "cancelled"
        (found,) = (await budgets(app).list()).items
    assert (found.spent, found.reserved, found.lost) == (used(), used(), used())
    assert told == []


async def test_a_cancelled_request_is_lost(url: str) -> None:
    asked = asyncio.Event()

    async def never(messages: Any, info: Any) -> ModelResponse:
        asked.set()
        await asyncio.sleep(LIMIT_S)
        return ModelResponse(parts=[TextPart("late")])

    clerk = durable(Agent(FunctionModel(never), name="clerk"), budget=Budget(requests=5))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        assert (await find(app, "one/clerk#1")).reserved.requests == 1
        await run.cancel()
        with pytest.raises(outlive.RunCancelled):
            await run.result(timeout=LIMIT_S)
        found = await find(app, "one/clerk#1")
        assert (found.lost.requests, found.reserved.requests) == (1, 0)


async def test_a_process_that_stood_still_after_its_reservation_does_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer may have gone on with the run meanwhile: without a lease nothing is done, reserved or not."""
    told = Told()
    agent = Agent(paid([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=pure())
    async def look() -> str:
        told.append("look")
        return "seen"

    clerk = durable(agent, budget=Budget(tools=5))
    async with Outlive(url) as app:
        engine = app._engine()
        reserve, is_alive = engine.store.reserve, True
        reserved = asyncio.Event()

        async def stand_still(*args: Any) -> Any:
            nonlocal is_alive
            granted = await reserve(*args)
            if "/tool:" in args[1].key:
                is_alive = False
                reserved.set()
            return granted

        engine.store.reserve = stand_still  # type: ignore[method-assign]
        monkeypatch.setattr(engine.lease, "alive", lambda: is_alive)
        run = await app.start(clerk, "go", id="one")
        await asyncio.wait_for(reserved.wait(), LIMIT_S)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert told == []
        engine.store.reserve = reserve  # type: ignore[method-assign]
        is_alive = True
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert told == ["look"]


async def test_a_suspect_that_waits_for_room_lets_others_give_it_back(url: str) -> None:
    """It executes alone, since it may have killed its process; but the room is reserved by a run that has to begin."""
    clerk = durable(Agent(paid("hello"), name="clerk"), budget=Budget(tokens=5_000, account="team"))
    async with Outlive(url) as app:
        engine = app._engine()
        reserve, roster = engine.store.reserve, engine.roster
        is_reserved, is_refused = asyncio.Event(), asyncio.Event()

        async def reserve_in_turn(fence: Any, reservation: Any, earlier: Any = None) -> Any:
            suspect = next(one for one in roster.executions.values() if one.row == reservation.row)
            if reservation.run == "suspect" and not is_refused.is_set():
                roster._suspects, suspect.alone = 1, True
            granted = await reserve(fence, reservation, earlier)
            if reservation.run == "first":
                is_reserved.set()
                await is_refused.wait()
            elif granted.refusal is not None:
                is_refused.set()
            return granted

        engine.store.reserve = reserve_in_turn  # type: ignore[method-assign]
        first = await app.start(clerk, "go", id="first")
        await asyncio.wait_for(is_reserved.wait(), LIMIT_S)
        suspect = await app.start(clerk, "go", id="suspect")
        for run in (first, suspect):
            assert await run.result(timeout=LIMIT_S) == "hello"
        assert is_refused.is_set()


async def claim_nothing(*_: Any, **__: Any) -> list[Any]:
    return []


async def test_a_process_that_lost_its_lease_reserves_nothing(url: str) -> None:
    """A peer goes on with the run: what the first one had reserved may be spent, and the peer reserves for itself."""
    told = Told()
    clerk = durable(looking("hello", heard=told.model), budget=Budget(requests=5))
    asked = asyncio.Event()

    async def never(messages: Any, info: Any) -> ModelResponse:
        asked.set()
        await asyncio.sleep(LIMIT_S)
        raise AssertionError("its run has gone")

    stuck = durable(Agent(FunctionModel(never), name="clerk"), budget=Budget(requests=5))
    async with Outlive(url, include=[stuck]) as first:
        run = await first.start(stuck, "go", id="one")
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        engine = first._engine()
        async with Outlive(url, include=[clerk], name="peer") as peer:
            engine.store.claim = claim_nothing  # type: ignore[method-assign]
            await engine.store.take_over([engine.fence().worker])
            peer._engine().claimer.looper.wake()
            assert await (await peer.get("one")).result(timeout=LIMIT_S) == "hello"
            found = await find(peer, "one/clerk#1")
            assert (found.spent.requests, found.lost.requests, found.reserved.requests) == (1, 1, 0)
    assert told == ["model 0"]
    assert run.id == "one"


async def test_all_agents_below_are_charged_to_those_above(url: str) -> None:
    """Inline, in a child run, and in the child of a plain workflow in between."""
    below = durable(Agent(paid("below"), name="below"))
    own = durable(Agent(paid("own"), name="own"), budget=Budget(requests=5))

    @workflow
    async def between() -> str:
        return str(await below("go"))

    agent = Agent(
        paid([call("here", "c1")], [call("child", "c2")], [call("grandchild", "c3")], "{results}"), name="boss"
    )

    @agent.tool_plain(metadata=inline())
    async def here() -> str:
        return (await own.run("go")).output

    @agent.tool_plain(metadata=inline())
    async def child() -> str:
        return str(await below("go"))

    @agent.tool_plain(metadata=inline())
    async def grandchild() -> str:
        return await between()

    boss = durable(agent, budget=[Budget(requests=7), Budget(tokens=99_000, account="team:a", per="day")])
    async with Outlive(url) as app:
        run = await app.start(boss, "go", id="one")
        assert await run.result(timeout=LIMIT_S) == "['own', 'below', 'below']"
        assert (await find(app, "one/boss#1")).spent.requests == 7
        team = await find(app, "team:a")
        assert (team.spent.requests, team.spent.tokens, team.per) == (7, 770, "day")
        assert team.period is not None
        page = await budgets(app).list()
        assert len(page.items) == 3
        (nested,) = [one for one in page.items if one.account not in ("one/boss#1", "team:a")]
        assert nested.spent.requests == 1
        tight = durable(agent, budget=Budget(requests=5), name="tight")
        run = await app.start(tight, "go", id="two")
        with pytest.raises(BudgetExceeded, match=r"budget 'two/tight#1'.*of 5 requests it has spent 5"):
            await run.result(timeout=LIMIT_S)


async def test_a_stopped_budget(url: str) -> None:
    clerk = durable(looking("hello"), budget=Budget(usd=1, account="team:a", prices=CHEAP))
    async with Outlive(url) as app:
        await budgets(app).stop("team:a", "too fast", by="ana")
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(BudgetExceeded, match="budget 'team:a' is stopped; resume it, then retry the run"):
            await run.result(timeout=LIMIT_S)
        await budgets(app).resume("team:a", by="ana")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "hello"
        assert [(one.action, one.by) for one in await app.audit("team:a")] == [
            ("resume", "ana"),
            ("stop", "ana"),
        ]


async def test_a_budget_that_is_stopped_while_a_tool_works(url: str) -> None:
    """What has begun is finished and settled, the next request is refused; nothing of it is done again."""
    told, looks, goes_on = Told(), asyncio.Event(), asyncio.Event()
    agent = Agent(paid([call("look", "c1")], "{results}", heard=told.model), name="clerk")

    @agent.tool_plain(metadata=at_most_once())
    async def look() -> str:
        told.append("look")
        looks.set()
        await goes_on.wait()
        return "seen"

    clerk = durable(agent, budget=Budget(requests=5, tools=5))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        await asyncio.wait_for(looks.wait(), LIMIT_S)
        await budgets(app).stop("one/clerk#1", by="ana")
        goes_on.set()
        with pytest.raises(BudgetExceeded, match=r"before clerk#1/model#2: budget .* is stopped; resume it"):
            await run.result(timeout=LIMIT_S)
        (entry,) = [one for one in await run.entries() if one.name == "tool:look"]
        assert (entry.outcome, entry.attempts) == ("ok", 1)
        found = await find(app, "one/clerk#1")
        assert (found.spent.requests, found.spent.tools, found.reserved, found.lost) == (1, 1, used(), used())
        await budgets(app).resume("one/clerk#1")
        await run.retry()
        assert await run.result(timeout=LIMIT_S) == "['seen']"
    assert told == ["model 0", "look", "model 1"]


async def test_a_unit_is_cut_when_the_time_is_up(url: str) -> None:
    agent = Agent(paid([call("look", "c1")], "{results}"), name="clerk")

    @agent.tool_plain(metadata=at_most_once())
    async def look() -> str:
        await asyncio.sleep(LIMIT_S)
        return "late"

    clerk = durable(agent, budget=Budget(wall=timedelta(seconds=0.5)))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        with pytest.raises(BudgetExceeded, match=r"clerk#1/.*allows .* s, and the agent began") as caught:
            await run.result(timeout=LIMIT_S)
        assert caught.value.measure == "wall"
        await budgets(app).put("one/clerk#1", wall=3600)
        assert dict((await find(app, "one/clerk#1")).limits) == {"wall": 3600}


async def test_budgets_are_deleted_with_their_runs_and_accounts_are_not(url: str) -> None:
    own, shared = Budget(requests=5), Budget(requests=50, account="team:a")
    clerk = durable(looking("hello"), budget=[own, shared])
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        await run.result(timeout=LIMIT_S)
        await run.delete()
        assert await budgets(app).find("one/clerk#1") is None
        assert (await find(app, "team:a")).spent.requests == 1
        run = await app.start(clerk, "go", id="one")
        await run.result(timeout=LIMIT_S)
        assert (await find(app, "one/clerk#1")).spent.requests == 1
        assert (await find(app, "team:a")).spent.requests == 2


async def test_a_rewound_run_spends_again_and_a_fork_on_its_own(url: str) -> None:
    clerk = durable(looking([call("look", "c1")], "{results}"), budget=Budget(tools=5))
    async with Outlive(url) as app:
        run = await app.start(clerk, "go", id="one")
        await run.result(timeout=LIMIT_S)
        await run.rewind("clerk#1/tool:look(c1)#1")
        await run.result(timeout=LIMIT_S)
        found = await find(app, "one/clerk#1")
        assert (found.spent.requests, found.spent.tools) == (3, 2)
        fork = await run.fork("clerk#1/model#2", id="two")
        await fork.result(timeout=LIMIT_S)
        assert (await find(app, "one/clerk#1")).spent == found.spent
        copy = await find(app, "two/clerk#1")
        assert (copy.spent.requests, copy.spent.tools) == (1, 0)
