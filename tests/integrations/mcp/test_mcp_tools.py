"""Workflows and agents as tools, called by the client of the MCP SDK in both of its protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.session import ServerSession
from mcp_types import INVALID_PARAMS, CallToolResult, ElicitResult, TextContent

from outlive import Outlive, Run, RunNotFound, StoreUnavailable, UsageError, hooks, workflow
from outlive.agents import approvals, questions
from outlive.integrations.mcp import mcp_server
from outlive.limits import MCP_FORM_TRIES
from tests.integrations.mcp.client import Tasks, call_task, get
from tests.integrations.mcp.client import until as task_is
from tests.integrations.mcp.shop import LEDGER, TOOLS, buy, make_server, ship, support

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ledger"
    file.touch()
    monkeypatch.setenv(LEDGER, str(file))
    return file


@asynccontextmanager
async def calling(url: str, mode: str, **options: Any) -> AsyncIterator[tuple[Outlive, Client]]:
    """Give an open app, and a client of its server."""
    async with Outlive(url) as app, Client(make_server(app), mode=mode, **options) as client:
        yield app, client


def said(result: CallToolResult) -> str:
    (part,) = result.content
    assert isinstance(part, TextContent)
    return part.text


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.01)


async def the_run(app: Outlive, count: int = 1) -> Run:
    """Wait until there are so many runs, and give the latest one."""
    async with asyncio.timeout(30):
        while len(page := (await app.runs()).items) < count:
            await asyncio.sleep(0.01)
    assert len(page) == count
    return await app.get(page[0].id)


# -- what a tool is ------------------------------------------------------------------
@MODES
async def test_a_tool_is_described_by_its_function(url: str, mode: str) -> None:
    async with calling(url, mode) as (_, client):
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("shop", "7")
        assert client.instructions == "Buy something."
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == [tool.spec.name for tool in TOOLS]
    buying = tools["buy"]
    assert buying.description == "Buy things.\n\nThe receipt says what they cost."
    assert buying.input_schema["required"] == ["order", "items"]
    assert buying.input_schema["properties"]["coupon"] == {
        "description": "lowers the price", "type": "string", "default": "",
    }  # fmt: skip
    assert buying.input_schema["$defs"]["Item"]["properties"]["price"] == {"type": "integer", "default": 1}
    assert buying.output_schema is not None
    assert buying.output_schema["required"] == ["order", "cents"]
    assert tools["ship"].output_schema == {
        "type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"],
    }  # fmt: skip
    assert tools["sell_out"].output_schema is None
    assert tools["agent.support"].input_schema["required"] == ["prompt"]
    assert tools["agent.support"].description == "Runs agent.support."


def refuse(app: Outlive) -> dict[str, tuple[list[Any], str]]:
    @workflow(name="two words")
    async def spaced() -> None: ...

    @workflow
    async def many(*orders: str) -> None: ...

    async def bare() -> None: ...

    return {
        "name": ([spaced], "'two words' cannot be a tool: its name"),
        "rest": ([many], r"'.*many' cannot be a tool: what comes in by \*orders has no name"),
        "twice": ([buy, ship, buy], "two tools are called 'buy'"),
        "plain": ([bare], "bare is no workflow"),
    }


@pytest.mark.parametrize("case", ["name", "rest", "twice", "plain"])
def test_what_cannot_be_a_tool_is_refused_at_once(case: str) -> None:
    app = Outlive("sqlite://")
    tools, sentence = refuse(app)[case]
    with pytest.raises(UsageError, match=sentence):
        mcp_server(app, tools, name="shop")


# -- calls ---------------------------------------------------------------------------
@MODES
async def test_a_call_is_a_run_and_its_result_the_answer(url: str, mode: str, ledger: Path) -> None:
    given = {"order": "o-1", "items": [{"name": "tea", "price": 3}, {"name": "cup"}], "to": {"street": "High Street"}}
    async with calling(url, mode) as (app, client):
        result = await client.call_tool("buy", given)
        assert result.structured_content == {"order": "o-1", "cents": 4, "sent_to": {"street": "High Street"}}
        assert said(result) == '{"order":"o-1","cents":4,"sent_to":{"street":"High Street"}}'
        run = await the_run(app)
        assert run.id.startswith("mcp-")
        assert (await run.info()).attributes == {"mcp": "shop"}
    assert ledger.read_text() == "buy o-1\n"


WRONG = {
    "missing": ({"order": "o-1"}, "missing a required argument: 'items'"),
    "unknown": ({"order": "o-1", "items": [], "of": 1}, "got an unexpected keyword argument 'of'"),
    "type": ({"order": "o-1", "items": [{"name": "tea", "price": "3"}]}, ".items[0].price: Expected `int`, got `str`"),
    "model": ({"order": "o-1", "items": [], "to": {"street": 7}}, "street"),
    "nul": ({"order": "o\x00", "items": []}, "NUL"),
}


@MODES
@pytest.mark.parametrize("case", WRONG)
async def test_wrong_arguments_are_told_and_start_nothing(url: str, mode: str, case: str) -> None:
    given, sentence = WRONG[case]
    async with calling(url, mode) as (app, client):
        result = await client.session.call_tool("buy", given)
        assert isinstance(result, CallToolResult)
        assert result.is_error
        assert sentence in said(result)
        assert "stored does not fit" not in said(result)
        assert (await app.runs()).items == []


@MODES
async def test_an_unknown_tool_is_a_wrong_request(url: str, mode: str) -> None:
    async with calling(url, mode) as (app, client):
        with pytest.raises(MCPError, match="no tool 'sell'; this server has buy, ship") as refused:
            await client.call_tool("sell", {})
        assert refused.value.code == INVALID_PARAMS
        assert (await app.runs()).items == []


@MODES
async def test_a_run_that_fails_is_an_error_in_words(url: str, mode: str, ledger: Path) -> None:
    async with calling(url, mode) as (app, client):
        result = await client.call_tool("sell_out", {"order": "o-1"})
        run = await the_run(app)
    assert result.is_error
    assert said(result) == (
        f"run {run.id!r} failed with tests.integrations.mcp.shop.OutOfStock: order o-1 is out of stock"
    )
    assert ledger.read_text() == "fail o-1\n"


@MODES
async def test_a_run_that_fails_for_want_of_another_one_says_so(url: str, mode: str) -> None:
    async with calling(url, mode) as (app, client):
        result = await client.call_tool("find", {"order": "ship-1"})
        run = await the_run(app)
    assert result.is_error
    assert said(result) == f"run {run.id!r} failed with outlive.errors.RunNotFound: {RunNotFound('ship-1')}"


@MODES
@pytest.mark.parametrize("what", ["cancel", "delete"])
async def test_a_run_that_is_cancelled_or_deleted_ends_the_call(url: str, mode: str, what: str, ledger: Path) -> None:
    async with calling(url, mode) as (app, client):
        call = asyncio.create_task(client.call_tool("ship", {"order": "o-1"}))
        run = await the_run(app)
        await run.cancel("sold elsewhere")
        if what == "delete":
            await run._ended(30, stop_on_hold=False)
            await run.delete()
        result = await call
    assert result.is_error
    assert said(result) in (f"run {run.id!r} was cancelled: sold elsewhere", f"{gone(run)}")


def gone(run: Run) -> str:

    return str(RunNotFound(run.id))


@MODES
async def test_a_call_that_is_left_does_not_stop_its_run(url: str, mode: str, ledger: Path) -> None:
    async with calling(url, mode) as (app, client):
        call = asyncio.create_task(client.call_tool("ship", {"order": "o-1"}, meta={"outlive/key": "ship-1"}))
        run = await the_run(app)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await run.send("go", "Rome")
        await run.send("end", None)
        assert await run.result(30) == "o-1 is in Rome"
        again = await client.call_tool("ship", {"order": "o-1"}, meta={"outlive/key": "ship-1"})
        assert said(again) == "o-1 is in Rome"
    assert ledger.read_text() == "pack o-1\nsend o-1\n"


@MODES
async def test_calls_with_one_key_are_one_call(url: str, mode: str, ledger: Path) -> None:
    async with calling(url, mode) as (app, client):

        async def call(key: Any, order: str = "o-1") -> CallToolResult:
            return await client.call_tool("buy", {"order": order, "items": []}, meta={"outlive/key": key})

        results = await asyncio.gather(*(call("buy-1") for _ in range(10)))
        assert all(result.structured_content == results[0].structured_content for result in results)
        assert (await call("buy-1", "o-2")).structured_content == results[0].structured_content  # it is the first call
        await call("buy-2", "o-2")
        await client.call_tool("sell_out", {"order": "o-3"}, meta={"outlive/key": "buy-1"})  # another tool
        assert len((await app.runs()).items) == 3
        for wrong in (7, "", ["buy-1"]):
            with pytest.raises(MCPError, match="is a text that names the call"):
                await call(wrong)
    assert ledger.read_text() == "buy o-1\nbuy o-2\nfail o-3\n"


@MODES
async def test_progress_is_what_the_run_publishes(url: str, mode: str, ledger: Path) -> None:
    told: list[tuple[float, float | None, str | None]] = []
    heard = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        heard.set()

    async with calling(url, mode) as (app, client):
        call = asyncio.create_task(client.call_tool("ship", {"order": "o-1"}, progress_callback=on_progress))
        run = await the_run(app)
        for topic, value in (("go", "Rome"), ("end", None)):
            async with asyncio.timeout(30):
                await heard.wait()
            heard.clear()
            await run.send(topic, value)
        assert said(await call) == "o-1 is in Rome"
    assert told == [(1, None, "packed"), (2, 2, "sent to Rome")]


# -- questions -----------------------------------------------------------------------
Answers = Callable[[Any, Any], Any]


def answering(*answers: ElicitResult, asked: list[str] | None = None) -> Answers:
    """Give a person who answers one form after the other."""
    left = list(answers)

    async def callback(_: Any, params: Any) -> ElicitResult:
        if asked is not None:
            asked.append(params.message)
        return left.pop(0)

    return callback


def accept(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


DECLINED = ElicitResult(action="decline")
CLOSED = ElicitResult(action="cancel")


@MODES
async def test_a_question_of_the_run_is_put_to_the_caller(url: str, mode: str, ledger: Path) -> None:
    asked: list[str] = []
    person = answering(accept(size=7), accept(answer="red"), asked=asked)
    async with calling(url, mode, elicitation_callback=person) as (_, client):
        assert said(await client.call_tool("measure", {"order": "o-1"})) == "o-1: 7, red"
    assert asked == ["Which size is o-1?", "Which colour?"]
    assert ledger.read_text() == "measure o-1\n"


@MODES
async def test_who_declines_is_told_to_the_run(url: str, mode: str) -> None:
    async with calling(url, mode, elicitation_callback=answering(DECLINED)) as (app, client):
        assert said(await client.call_tool("measure", {"order": "o-1"})) == "mcp declined to answer"
        (record,) = await app.audit((await the_run(app)).id)
        assert (record.action, record.by) == ("settle", "mcp")


async def settle(app: Outlive, run: Run, question: str, value: Any) -> None:
    """Answer a question in the place of the caller."""
    async with asyncio.timeout(30):
        while not (page := await questions(app).list(run_id=run.id)).items or page.items[0].question != question:
            await asyncio.sleep(0.01)
    await questions(app).answer(page.items[0].id, value, by="ana")


@MODES
async def test_a_form_that_is_closed_is_left_to_others(url: str, mode: str) -> None:
    asked: list[str] = []
    person = answering(CLOSED, accept(answer="blue"), asked=asked)
    async with calling(url, mode, elicitation_callback=person) as (app, client):
        call = asyncio.create_task(client.call_tool("measure", {"order": "o-1"}))
        run = await the_run(app)
        await until(lambda: asked != [])
        await settle(app, run, "Which size is o-1?", {"size": 8})
        assert said(await call) == "o-1: 8, blue"
    assert asked == ["Which size is o-1?", "Which colour?"]


@MODES
async def test_a_client_without_forms_waits_for_others(url: str, mode: str) -> None:
    async with calling(url, mode) as (app, client):
        call = asyncio.create_task(client.call_tool("measure", {"order": "o-1"}))
        run = await the_run(app)
        await settle(app, run, "Which size is o-1?", {"size": 8})
        await settle(app, run, "Which colour?", "blue")
        assert said(await call) == "o-1: 8, blue"


async def test_an_answer_that_does_not_fit_is_refused(url: str) -> None:
    async with calling(url, "auto", elicitation_callback=answering(accept(size="big"))) as (app, client):
        with pytest.raises(MCPError, match=r"no answer to 'Which size is o-1\?': 'big' is not of type 'integer'") as no:
            await client.call_tool("measure", {"order": "o-1"})
        assert no.value.code == INVALID_PARAMS
        await settle(app, await the_run(app), "Which size is o-1?", {"size": 8})  # it is open


UNFIT = {
    "type": ("measure", accept(size="big"), accept(size=7), "o-1: 7, red"),
    "text": ("agent.curious", accept(answer="\x00"), accept(answer="a lamp"), "sorry about a lamp"),
    "decision": ("agent.support", accept(approve="yes"), accept(approve=True), "refunded 20000"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_an_older_client_whose_answer_does_not_fit_is_asked_again_and_told_why(url: str, case: str) -> None:
    tool, wrong, right, outcome = UNFIT[case]
    asked: list[str] = []
    person = answering(wrong, right, accept(answer="red"), asked=asked)
    async with calling(url, "legacy", elicitation_callback=person) as (_, client):
        given = {"order": "o-1"} if tool == "measure" else {"prompt": "It is broken."}
        async with asyncio.timeout(30):
            assert said(await client.call_tool(tool, given)) == outcome
    assert asked[1].endswith(f"\n{asked[0]}")


async def test_an_older_client_that_sends_what_is_no_answer_at_all_is_asked_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ServerSession.elicit_form
    wrong: list[Any] = [{"action": "accept", "content": {"size": {"of": 7}}}, {"action": "maybe"}]

    async def elicit(self: ServerSession, *given: Any) -> ElicitResult:
        return ElicitResult.model_validate(wrong.pop()) if wrong else await ask(self, *given)

    monkeypatch.setattr(ServerSession, "elicit_form", elicit)  # for the client of the SDK sends no such things
    person = answering(accept(size=7), accept(answer="red"))
    async with calling(url, "legacy", elicitation_callback=person) as (_, client), asyncio.timeout(30):
        assert said(await client.call_tool("measure", {"order": "o-1"})) == "o-1: 7, red"


async def test_who_never_gives_an_answer_that_fits_is_left_alone(url: str) -> None:
    asked: list[str] = []
    person = answering(*[accept(size="big")] * MCP_FORM_TRIES, accept(answer="blue"), asked=asked)
    async with calling(url, "legacy", elicitation_callback=person) as (app, client):
        call = asyncio.create_task(client.call_tool("measure", {"order": "o-1"}))
        await until(lambda: len(asked) == MCP_FORM_TRIES)
        await settle(app, await the_run(app), "Which size is o-1?", {"size": 8})
        assert said(await call) == "o-1: 8, blue"


@MODES
@pytest.mark.parametrize("lost", ["settle.before", "settle.after"])
@pytest.mark.parametrize("answer", [accept(answer="a lamp"), DECLINED], ids=["answered", "declined"])
async def test_an_answer_is_kept_though_the_store_does_not_answer(
    url: str, mode: str, lost: str, answer: ElicitResult
) -> None:
    left = [lost] * 2 if lost == "settle.before" else [lost]

    def fail(point: str) -> None:
        if point in left:
            left.remove(point)
            raise StoreUnavailable("told not to answer", outcome_unknown=True)

    async with calling(url, mode, elicitation_callback=answering(answer)) as (_, client):
        hooks.arm(fail)
        try:
            async with asyncio.timeout(30):
                result = await client.call_tool("agent.curious", {"prompt": "It is broken."})
        finally:
            hooks.arm(None)
    assert said(result).endswith("mcp declined to answer" if answer is DECLINED else "sorry about a lamp")
    assert left == []


@MODES
async def test_a_call_waits_on_though_the_store_does_not_answer(
    url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with calling(url, mode, elicitation_callback=answering(accept(answer="a lamp"))) as (app, client):
        store = app._engine().store
        failing = ["list_promises", "list_values"]

        def flaky(name: str) -> Any:
            ask = getattr(store, name)

            async def once(*args: Any) -> Any:
                if name in failing:
                    failing.remove(name)
                    raise StoreUnavailable("told not to answer")
                return await ask(*args)

            return once

        for name in failing:
            monkeypatch.setattr(store, name, flaky(name))
        async with asyncio.timeout(30):
            result = await client.call_tool("agent.curious", {"prompt": "It is broken."})
    assert said(result) == "sorry about a lamp"
    assert failing == []


async def test_a_form_is_withdrawn_when_somebody_else_has_answered(url: str) -> None:
    seen, withdrawn = asyncio.Event(), asyncio.Event()

    async def person(_: Any, params: Any) -> ElicitResult:
        seen.set()
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()
        raise AssertionError

    async with calling(url, "legacy", elicitation_callback=person) as (app, client):
        call = asyncio.create_task(client.call_tool("agent.support", {"prompt": "My lamp is broken."}))
        async with asyncio.timeout(30):
            await seen.wait()
            (approval,) = (await approvals(app).list()).items
            await approvals(app).decide(approval.id, approve=True, by="ana")
            assert said(await call) == "refunded 20000"
            await withdrawn.wait()


@MODES
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (accept(approve=True, why="a good customer"), "refunded 20000"),
        (accept(approve=False, why="too much"), "mcp denied this call: too much"),
        (DECLINED, "mcp denied this call."),
        (ElicitResult(action="decline", content={"approve": True}), "mcp denied this call."),
    ],
    ids=["yes", "no", "declined", "declined with a yes in it"],
)
async def test_an_approval_is_put_to_the_caller(
    url: str, mode: str, answer: ElicitResult, outcome: str, ledger: Path
) -> None:
    asked: list[str] = []
    async with calling(url, mode, elicitation_callback=answering(answer, asked=asked)) as (_, client):
        assert said(await client.call_tool("agent.support", {"prompt": "My lamp is broken."})) == outcome
    assert asked == ['May the agent support call refund({"cents": 20000})?']
    assert ledger.read_text() == ("refund 20000\n" if outcome.startswith("refunded") else "")


@MODES
async def test_an_approval_of_a_role_is_not_for_everybody(url: str, mode: str, ledger: Path) -> None:
    asked: list[str] = []
    async with calling(url, mode, elicitation_callback=answering(asked=asked)) as (app, client):
        call = asyncio.create_task(client.call_tool("agent.support-finance", {"prompt": "My lamp is broken."}))
        async with asyncio.timeout(30):
            while not (waiting := (await approvals(app).list()).items):
                await asyncio.sleep(0.01)
        await approvals(app).decide(waiting[0].id, approve=True, by="ana", roles=["finance"])
        assert said(await call) == "refunded 20000"
    assert asked == []
    assert ledger.read_text() == "refund 20000\n"


async def test_who_has_approved_is_not_asked_again_however_his_name_is_written(url: str) -> None:
    async with Outlive(url) as app:
        server = mcp_server(app, [support(quorum=2)], name="shop")
        async with Client(server, extensions=[Tasks()], elicitation_callback=answering()) as client:
            task_id = (await call_task(client, "agent.support", prompt="My lamp is broken.")).task_id
            await task_is(client, task_id, "input_required")
            async with asyncio.timeout(30):
                (first,) = (await approvals(app).list()).items
                await approvals(app).decide(first.id, approve=True, by="MCP")
                while [one.votes for one in (await approvals(app).list()).items] != [["MCP"]]:
                    await asyncio.sleep(0.01)
            assert (await get(client, task_id)).status == "working"


@MODES
async def test_a_question_of_an_agent_is_put_to_the_caller(url: str, mode: str) -> None:
    asked: list[str] = []
    person = answering(accept(answer="a lamp"), asked=asked)
    async with calling(url, mode, elicitation_callback=person) as (_, client):
        assert said(await client.call_tool("agent.curious", {"prompt": "It is broken."})) == "sorry about a lamp"
    assert asked == ["What is broken?"]


@MODES
async def test_what_no_form_can_ask_is_left_to_others(url: str, mode: str) -> None:
    async with calling(url, mode, elicitation_callback=answering()) as (app, client):
        call = asyncio.create_task(client.call_tool("collect", {"order": "o-1"}))
        await settle(app, await the_run(app), "Which items?", [{"name": "pen", "price": 2}])
        assert said(await call) == "o-1: pen"


async def test_promises_that_only_look_like_questions_are_none(url: str) -> None:
    async with calling(url, "auto", elicitation_callback=answering()) as (app, client):
        call = asyncio.create_task(client.call_tool("look_alike", {"order": "o-1"}))
        run = await the_run(app)
        for topic, inbox in (("question", questions(app)), ("approval", approvals(app))):
            async with asyncio.timeout(30):
                while not (page := await app.promises(topic, run_id=run.id)).items:
                    await asyncio.sleep(0.01)
            (one,) = page.items
            assert (await inbox.list()).items == []  # type: ignore[attr-defined]
            assert await inbox.find(f"{run.id} {one.key}") is None  # type: ignore[attr-defined]
            await app.settle(one.token, topic)
        assert said(await call) == "question, approval"
