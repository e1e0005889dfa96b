"""Programs without an event loop, such as views of Flask and Django, decide, answer, review, and change budgets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from outlive import BudgetExceeded, Outlive, RunRefused, UsageError, ask_user, sync, workflow
from outlive.agents import Ask, Budget, ToolCall, durable, validated
from outlive.sync.inboxes import approvals, budgets, questions, reviews
from tests.agents.scripts import call
from tests.agents.test_guard_budgets import answers, even
from tests.agents.thrift import looking

LIMIT_S = 20.0


def first(inbox: Any) -> Any:
    """Give what waits, once something does."""
    waits = threading.Event()
    for _ in range(int(LIMIT_S * 100)):
        if items := inbox.list().items:
            return items[0]
        waits.wait(0.01)
    raise TimeoutError


def asks(given: ToolCall) -> Ask:
    return Ask(role="clerk")


def test_a_plain_program_decides(url: str) -> None:
    agent = durable(looking([call("look", "c1")], "{results}"), policy=asks, budget=Budget(requests=2, account="team"))
    with sync.Outlive(url) as app:
        run = app.start(agent, "go")
        waiting = first(approvals(app))
        assert (waiting.run_id, waiting.tool, waiting.role) == (run.id, "look", "clerk")
        with pytest.raises(RunRefused, match="has not the role"):
            approvals(app).decide(waiting.id, approve=True, by="ana")
        approvals(app).decide(waiting.id, approve=True, by="ana", roles=["clerk"], digest=waiting.digest)
        assert run.result(timeout=LIMIT_S) == "['seen']"
        assert approvals(app).find(waiting.id) is None
        with pytest.raises(RunRefused):
            approvals(app).decide(waiting.id, approve=True, by="bob", roles=["clerk"])


def test_a_plain_program_answers_and_reviews(url: str) -> None:
    @workflow
    async def asks_one() -> str:
        return str(await ask_user("Which colour?"))

    clerk = answers(1)

    @workflow
    async def writes() -> int:
        said: int = await validated(clerk, "A number.", checks=[even], attempts=1)
        return said

    with sync.Outlive(url) as app:
        asked = app.start(asks_one)
        questions(app).answer(first(questions(app)).id, "red", by="ana")
        assert asked.result(timeout=LIMIT_S) == "red"
        written = app.start(writes)
        reviews(app).decide(first(reviews(app)).id, "accept", by="ana", value=8)
        assert written.result(timeout=LIMIT_S) == 8


def test_a_plain_program_changes_budgets(url: str) -> None:
    agent = durable(looking("hello"), budget=Budget(requests=0, account="team"))
    with sync.Outlive(url) as app:
        run = app.start(agent, "go")
        with pytest.raises(BudgetExceeded):
            run.result(timeout=LIMIT_S)
        budgets(app).put("team", requests=3, by="ana")
        run.retry()
        assert run.result(timeout=LIMIT_S) == "hello"
        found = budgets(app).find("team")
        assert found is not None
        assert (found.spent.requests, dict(found.limits)) == (1, {"requests": 3})


@pytest.mark.parametrize("inbox", [approvals, budgets, questions, reviews])
def test_an_app_of_the_other_face_is_refused(inbox: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match=r"takes an outlive.sync.Outlive"):
        inbox(Outlive("sqlite:///unused.db"))
