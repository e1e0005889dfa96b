"""Output is asked for until it has its type, keeps the rules and fits the facts; then a person decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

import outlive
from outlive import Outlive, RunRefused, UsageError, ValidationExhausted, step, transaction, workflow
from outlive.agents import Review, durable, reviews, validated
from tests.agents.test_durable import LIMIT_S, leave_memory, waits_for
from tests.agents.test_guards import stopped


class Invoice(BaseModel):
    customer: str
    cents: list[int]
    total: int


GOOD = {"customer": "ana", "cents": [1, 2], "total": 3}
UNKNOWN = {**GOOD, "customer": "eve"}
UNEVEN = {**GOOD, "total": 4}
UNFIT = {**GOOD, "total": "much"}


def total(invoice: Invoice) -> str | None:
    return None if sum(invoice.cents) == invoice.total else f"the total is {sum(invoice.cents)}, not {invoice.total}"


async def known(invoice: Invoice) -> None:
    if invoice.customer != "ana":
        raise ModelRetry(f"there is no customer {invoice.customer!r}")


class Clerk:
    """An agent that writes these invoices, one after the other, and what it was asked."""

    def __init__(self, *answers: dict[str, Any], retries: int = 0) -> None:
        self.asked: list[str] = []
        self._answers = answers
        self.agent = durable(
            Agent(FunctionModel(self._answer), name="clerk", output_type=Invoice, retries={"output": retries})
        )

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        request = messages[-1]
        assert isinstance(request, ModelRequest)
        prompts = [part.content for part in request.parts if isinstance(part, UserPromptPart)]
        self.asked.append(str(prompts[-1] if prompts else request.parts[-1].part_kind))
        answer = self._answers[len(self.asked) - 1]
        return ModelResponse(parts=[ToolCallPart("final_result", answer, tool_call_id=f"c{len(self.asked)}")])

    def workflow(self, checks: Sequence[Any] = (total, known), **settings: Any) -> Any:
        @workflow(name="invoice")
        async def write() -> Invoice:
            return await validated(self.agent, "Write it.", checks=checks, **settings)

        return write


async def test_what_is_wrong_goes_back_to_the_model(url: str) -> None:
    clerk = Clerk(UNEVEN, UNKNOWN, GOOD)
    async with Outlive(url) as app:
        run = await app.start(clerk.workflow())
        assert await run.result(timeout=LIMIT_S) == Invoice(**GOOD)
        keys = [entry.key for entry in await run.entries()]
    assert clerk.asked == [
        "Write it.",
        "Your answer was checked and does not pass:\n- the total is 3, not 4",
        "Your answer was checked and does not pass:\n- there is no customer 'eve'",
    ]
    assert [key.removeprefix("validated#1/") for key in keys] == [
        *("clerk#1/model#1", "guard.ask#1", "guard.ask#2"),
        *("clerk#2/model#1", "guard.ask#3", "guard.ask#4"),
        *("clerk#3/model#1", "guard.ask#5", "guard.ask#6"),
    ]


async def test_output_that_has_not_its_type_is_an_attempt(url: str) -> None:
    clerk = Clerk(UNFIT, UNFIT, GOOD, retries=1)
    async with Outlive(url) as app:
        assert await app.run(clerk.workflow()) == Invoice(**GOOD)
    assert clerk.asked[0] == "Write it."
    assert "Your answer was checked" not in clerk.asked[1]  # asked by Pydantic AI, within the attempt
    assert "there is no output of the type asked for" in clerk.asked[2]


async def test_facts_come_from_the_database_of_the_app(url: str) -> None:
    @transaction
    async def prepare(tx: Any) -> None:
        await tx.execute("create table if not exists customers (name text)")
        await tx.execute("insert into customers values ('ana')")

    @transaction
    async def exists(tx: Any, invoice: Invoice) -> str | None:
        found = await tx.fetchval("select count(*) from customers where name = $1", invoice.customer)
        return None if found else f"there is no customer {invoice.customer}"

    @step
    def plain(invoice: Invoice) -> None:
        invoice.cents.clear()  # of a copy

    clerk = Clerk(UNKNOWN, GOOD)

    @workflow(name="invoice")
    async def write() -> Invoice:
        await prepare()
        return await validated(clerk.agent, "Write it.", checks=[plain, exists, total])

    async with Outlive(url) as app:
        assert await app.run(write) == Invoice(**GOOD)
    assert clerk.asked[1].endswith("- there is no customer eve")


async def test_replay_asks_neither_the_model_nor_a_check(url: str) -> None:
    told: list[str] = []

    def spoil(invoice: Invoice) -> str | None:
        told.append("checked")
        invoice.customer = "changed"  # the workflow's own stays as it is
        return None if len(told) > 1 else "no"

    clerk = Clerk(GOOD, GOOD)

    @workflow(name="invoice")
    async def write() -> Invoice:
        invoice = await validated(clerk.agent, "Write it.", checks=[spoil])
        await outlive.receive("go on")
        return invoice

    async with Outlive(url) as app:
        run = await app.start(write)
        await waits_for(run, "receive")
        await leave_memory(app)
        await run.send("go on", None)
        assert await run.result(timeout=LIMIT_S) == Invoice(**GOOD)
    assert told == ["checked"] * 2
    assert len(clerk.asked) == 2


async def parked(app: Outlive, clerk: Clerk, **settings: Any) -> tuple[outlive.Run, Review]:
    run = await app.start(clerk.workflow(**settings))
    return run, await stopped(app)


async def test_a_person_accepts_it_as_it_is(url: str) -> None:
    async with Outlive(url) as app:
        run, review = await parked(app, Clerk(UNKNOWN, UNEVEN), attempts=2)
        assert (review.what, review.reason) == ("validation of output", "the total is 3, not 4")
        assert review.facts == {
            "agent": "clerk",
            "attempts": [
                {"output": UNKNOWN, "complaints": ["there is no customer 'eve'"]},
                {"output": UNEVEN, "complaints": ["the total is 3, not 4"]},
            ],
        }
        await reviews(app).decide(review.id, "accept", by="ana")
        assert await run.result(timeout=LIMIT_S) == Invoice(**UNEVEN)


async def test_a_person_corrects_it(url: str) -> None:
    async with Outlive(url) as app:
        run, review = await parked(app, Clerk(UNFIT), attempts=1)
        await reviews(app).decide(review.id, "accept", by="ana")
        async with asyncio.timeout(LIMIT_S):
            while (again := await stopped(app)).id == review.id:
                await asyncio.sleep(0.01)
        assert again.reason == "there is no output to accept as it is: give value=…"
        await reviews(app).decide(again.id, "accept", by="ana", value={"customer": "ana"})
        async with asyncio.timeout(LIMIT_S):
            while (third := await stopped(app)).id == again.id:
                await asyncio.sleep(0.01)
        assert third.reason.startswith("the value that ana gave is no output of this agent: 2 validation errors")
        await reviews(app).decide(third.id, "accept", by="ana", value=GOOD)
        assert await run.result(timeout=LIMIT_S) == Invoice(**GOOD)


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        (list[int], [1]),
        (Invoice | None, GOOD),
        (ToolOutput(Invoice), GOOD),
        (NativeOutput([Invoice, int]), 7),
        ([Invoice, str], "none"),
    ],
    ids=["list", "union", "tool", "native", "several"],
)
async def test_what_a_person_gives_has_the_type_of_the_output(url: str, kind: Any, fits: Any) -> None:
    profile = {"supports_json_schema_output": True}
    agent: Any = durable(Agent(TestModel(profile=profile), name="clerk", output_type=kind))  # type: ignore[arg-type]

    @workflow
    async def write() -> Any:
        output = await validated(agent, "Write it.", checks=[lambda _: "no"], attempts=1)
        return output.model_dump() if isinstance(output, Invoice) else output

    async with Outlive(url) as app:
        run = await app.start(write)
        review = await stopped(app)
        await reviews(app).decide(review.id, "accept", by="ana", value={"wrong": "stuff"})
        async with asyncio.timeout(LIMIT_S):
            while (again := await stopped(app)).id == review.id:
                await asyncio.sleep(0.01)
        assert again.reason.startswith("the value that ana gave is no output of this agent")
        await reviews(app).decide(again.id, "accept", by="ana", value=fits)
        assert await run.result(timeout=LIMIT_S) == fits


async def test_a_person_lets_the_agent_try_again(url: str) -> None:
    clerk = Clerk(UNEVEN, GOOD)
    async with Outlive(url) as app:
        run, review = await parked(app, clerk, attempts=1)
        await reviews(app).decide(review.id, "again", by="ana", why="Add them up.")
        assert await run.result(timeout=LIMIT_S) == Invoice(**GOOD)
    assert clerk.asked[1].startswith("Add them up.\n\nYour answer was checked")


async def test_nobody_accepts_it(url: str) -> None:
    async with Outlive(url) as app:
        run, review = await parked(app, Clerk(UNEVEN), attempts=1)
        await reviews(app).decide(review.id, "reject", by="ana", why="hopeless")
        with pytest.raises(ValidationExhausted, match="the total is 3, not 4; ana rejected it: hopeless"):
            await run.result(timeout=LIMIT_S)
        late = await app.start(Clerk(UNEVEN).workflow(attempts=1, expires=0.01))
        with pytest.raises(ValidationExhausted, match="nobody reviewed it in time"):
            await late.result(timeout=LIMIT_S)


async def test_wrong_use_is_refused(url: str) -> None:
    async with Outlive(url) as app:
        for settings, why in (
            ({"attempts": 0}, r"validated\(attempts=…\) is a whole number"),
            ({"checks": [lambda _: True]}, "gives None, or a text that says what is wrong, not True"),
        ):
            run = await app.start(Clerk(GOOD).workflow(**settings))
            with pytest.raises(UsageError, match=why):
                await run.result(timeout=LIMIT_S)
        with pytest.raises(UsageError, match="takes 'accept', 'again' or 'reject', not 'yes'"):
            await reviews(app).decide("a b", "yes", by="ana")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is for what is accepted"):
            await reviews(app).decide("a b", "reject", by="ana", value=1)
        with pytest.raises(UsageError, match=r"why=… is a text"):
            await reviews(app).decide("a b", "reject", by="ana", why=1)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="says who it is that answers"):
            await reviews(app).decide("a b", "reject", by="")
        with pytest.raises(UsageError, match="the id of this review is"):
            await reviews(app).decide("ab", "reject", by="ana")


@pytest.mark.parametrize(
    "forged", [True, {"verdict": "accept"}, {"verdict": "yes", "by": "eve", "why": None, "value": 1}]
)
async def test_what_is_no_decision_decides_nothing(url: str, forged: Any) -> None:
    async with Outlive(url) as app:
        run, review = await parked(app, Clerk(UNEVEN), attempts=1)
        (waits,) = (await app.promises("review")).items
        await app.settle(waits.token, forged)
        async with asyncio.timeout(LIMIT_S):
            while (again := await stopped(app)).id == review.id:
                await asyncio.sleep(0.01)
        assert again.facts == review.facts
        (waits,) = (await app.promises("review")).items
        await app.settle(waits.token, error="the shop is closed")
        with pytest.raises(ValidationExhausted, match="somebody rejected it: Rejected: the shop is closed"):
            await run.result(timeout=LIMIT_S)


async def test_other_promises_are_no_reviews(url: str) -> None:
    @workflow(name="asks")
    async def asks() -> None:
        await (await outlive.promise(topic="letters", about="a letter"))

    async with Outlive(url) as app:
        run = await app.start(asks)
        await waits_for(run, "promise")
        (waits,) = (await app.promises("letters")).items
        with pytest.raises(RunRefused, match="it was decided, has expired, or never was"):
            await reviews(app).decide(f"{run.id} {waits.key}", "accept", by="ana")
        await run.cancel()
