"""`outlive agents ls` and `show`: what runs of agents wait for, cost, and have said; from the journal alone."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from pydantic_ai import Agent, models

from outlive import BudgetExceeded, Outlive, Run
from outlive.agents import approvals, durable, questions
from outlive.views.agent_runs import Waiting, list_agent_runs, read_agent_run
from tests.agents.provider import Provider
from tests.house.source import ROOT

PATIENCE_S = 30
DESK = """
import os
from datetime import UTC, datetime
from types import SimpleNamespace
from outlive import Outlive, workflow
from outlive.agents import Ask, Budget, Deny, Price, durable, idempotent, pure, question_tool, transactional
from pydantic_ai import Agent, ModelRetry
from tests.agents.scripts import call, paid, scripted

turns = [
    [call("look", "l1", order=17), call("burn", "b1"), call("mail", "m1", to="ada")],
    [call("ask_user", "q1", question="Is it \\x1b[1mblue?")],
    [call("refund", "c1", cents=2000)],
    "done {results}" + "!" * 700,
]
agent = Agent(paid(*turns), name="support", tools=[question_tool(bool)])
shy = durable(Agent(scripted("Hello."), name="shy"))
broke = durable(Agent(scripted("Hello."), name="broke"), budget=Budget(tokens=1))

@agent.tool_plain(metadata=pure())
async def look(order: int) -> str:
    return "one lamp"

@agent.tool_plain
async def burn() -> str:
    return "burnt"

@agent.tool_plain(metadata=idempotent())
async def mail(to: str) -> str:
    raise ModelRetry(f"there is no {to}")

@agent.tool_plain(metadata=transactional())
async def refund(cents: int) -> str:
    return f"refunded {cents}"

def policy(asked):
    return {"refund": Ask(role="finance"), "burn": Deny("no fires")}.get(asked.tool)

support = durable(agent, policy=policy, budget=Budget(usd=1, prices={"paid": Price(1, 2)}))

@workflow
async def greet() -> str:
    return (await shy.run("Say hello.")).output

@workflow
async def other() -> None:
    pass

app = Outlive(os.environ["OUTLIVE_URL"], include=[support, shy, broke, greet, other])
"""


@pytest.fixture
def desk(run_cli, url, tmp_path, monkeypatch):
    """Give a module with agents, and what plays with it in this process."""
    monkeypatch.setenv("OUTLIVE_URL", url)
    run_cli.environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    (tmp_path / "desk.py").write_text(DESK)
    module: dict = {}
    exec(DESK, module)

    def play(act):
        async def run():
            served = [module[name] for name in ("support", "shy", "broke", "greet", "other")]
            async with Outlive(url, include=served) as app, asyncio.timeout(PATIENCE_S):
                return await act(app, module)

        return asyncio.run(run())

    return play


async def until_it_waits(app, module):
    await app.start(module["support"], "My lamp \x1b[1mis broken.", id="chat 1")
    await until_listed(questions(app))


async def until_listed(inbox):
    while not (page := await inbox.list()).items:
        await asyncio.sleep(0.01)
    return page.items[0]


async def answer(app, module):
    await questions(app).answer((await questions(app).list()).items[0].id, True, by="bob")
    await until_listed(approvals(app))


async def decide(app, module):
    await answer(app, module)
    call = await until_listed(approvals(app))
    await approvals(app).decide(call.id, approve=True, by="ana", roles=["finance"], edit={"cents": 100}, why="half")
    await (await app.get("chat 1")).result()


def test_a_run_that_waits_says_for_whom(run_cli, desk):
    desk(until_it_waits)
    titles, row = run_cli("agents", "ls").stdout.splitlines()
    assert titles.split() == "ID AGENT STATUS REQUESTS TOKENS USD AGE WAITS FOR".split()
    assert row.startswith("chat 1  support  suspended  2         220     0.00024  ")
    assert row.endswith("answer to: Is it \\x1b[1mblue?")
    shown = run_cli("agents", "show", "chat 1").stdout
    assert "\x1b" not in shown
    assert "person       My lamp \\x1b[1mis broken." in shown
    assert "waits        for an answer: Is it \\x1b[1mblue? (chat 1 support#1/tool:ask_user(q1)#1/promise#1)" in shown
    facts = run_cli.json("agents", "show", "chat 1")
    assert [one["tool"] for one in facts["waiting"]["questions"]] == ["ask_user"]
    assert (facts["run"]["usage"], facts["run"]["usd"]) == ({"requests": 2, "tokens": 220, "tools": 2}, "0.00024")
    desk(answer)
    assert run_cli("agents", "ls").stdout.splitlines()[1].endswith("approval of refund by finance")
    waits = 'waits        for approval by finance: refund {"cents": 2000} '
    assert f"{waits}(chat 1 support#1/approval:refund(c1)#1/promise#1)" in run_cli("agents", "show", "chat 1").stdout


def test_a_run_tells_what_was_said_and_decided(run_cli, desk):
    desk(until_it_waits)
    desk(decide)
    said = run_cli("agents", "show", "chat 1")
    lines = [line.rstrip() for line in said.stdout.splitlines()]
    assert lines[0] == "chat 1  agent.support  succeeded"
    assert lines[2].startswith("  budget     chat 1/support#1: usd=1; spent usd=0.00048")
    begun = lines.index("person       My lamp \\x1b[1mis broken.")
    told = lines[begun + 1 :]
    assert told[:3] == [
        'support      calls look(l1) {"order": 17}',
        "support      calls burn(b1) {}",
        'support      calls mail(m1) {"to": "ada"}',
    ]
    for one in (
        "decision     burn(b1) denied by policy: no fires",
        "tool         look(l1) ok: one lamp",
        "tool         mail(m1) retry: there is no ada",
        'decision     refund(c1) approved by ana, with {"cents": 100}: half',
        "decision     ask_user(q1) answered by bob: true",
        "tool         refund(c1) [transactional] ok: refunded 100",
    ):
        assert one in told
    assert told[-1].startswith("support      done ") and told[-1].endswith("!…")
    assert "--full shows all" in said.stderr
    full = run_cli("agents", "show", "chat 1", "--full")
    assert full.stdout.rstrip().endswith("!" * 700) and not full.stderr
    (kinds,) = [[line["kind"] for line in run_cli.json("agents", "show", "chat 1")["lines"]]]
    assert (kinds[0], kinds[-1], kinds.count("decision"), kinds.count("call")) == ("prompt", "text", 3, 5)


def test_code_tells_the_effect_classes(run_cli, desk):
    desk(until_it_waits)
    desk(decide)
    for code in ("desk:app", "desk"):
        lines = run_cli.json("agents", "show", "chat 1", "--code", code)["lines"]
        effects = {line["tool"]: line["effect"] for line in lines if line["kind"] == "result"}
        assert effects == {"look": "pure", "mail": "idempotent", "refund": "transactional"}


def test_runs_are_listed_page_by_page_and_by_query(run_cli, desk):
    async def play(app, module):
        for number in range(3):
            await app.run(module["shy"], "Hello?", id=f"shy-{number}")
        await app.run(module["greet"], id="greeting")
        await app.run(module["other"], id="other")

    desk(play)
    page = run_cli("agents", "ls", "--limit", "2")
    assert [line.split()[0] for line in page.stdout.splitlines()] == ["ID", "shy-2", "shy-1"]
    cursor = page.stderr.split()[-1]
    (last,) = run_cli.json("agents", "ls", "--limit", "2", "--after", cursor)["runs"]
    assert (last["id"], last["agents"], last["usd"], last["waits_for"]) == ("shy-0", ["shy"], None, None)
    assert [one["id"] for one in run_cli.json("agents", "ls", "id:shy-1")["runs"]] == ["shy-1"]
    (mine,) = run_cli.json("agents", "ls", "workflow:greet")["runs"]
    assert (mine["agents"], mine["usage"]["requests"]) == (["shy"], 1)
    assert "shy          Hello." in run_cli("agents", "show", "greeting").stdout


@pytest.mark.parametrize("query", ["-workflow:chat.*", "subworkflow:x", 'note:"workflow: none"'])
def test_runs_without_agents_are_listed_by_the_name_of_their_workflow_only(run_cli, desk, query):
    async def play(app, module):
        facts = {"subworkflow": "x", "note": "workflow: none"}
        for name in ("shy", "other"):
            await (await app.start(module[name], *["Hello?"] * (name == "shy"), id=name, attributes=facts)).result()

    desk(play)
    assert [one["id"] for one in run_cli.json("agents", "ls", query)["runs"]] == ["shy"]


def test_a_run_that_is_deleted_while_it_is_listed_is_not_in_the_list(desk, monkeypatch):
    async def play(app, module):
        for number in range(3):
            await app.run(module["shy"], "Hello?", id=f"shy-{number}")
        list_runs = app.runs

        async def list_and_delete(*args, **filters):
            page = await list_runs(*args, **filters)
            await (await app.get("shy-1")).delete()
            return page

        monkeypatch.setattr(app, "runs", list_and_delete)
        return await list_agent_runs(app)

    assert [one.id for one in desk(play).items] == ["shy-2", "shy-0"]


def test_what_is_not_there_or_wrong(run_cli, desk):
    desk(until_it_waits)
    assert "no run 'nobody'" in run_cli("agents", "show", "nobody", code=3).stderr
    assert "no workflow" in run_cli("agents", "show", "chat 1", "--code", "shop", code=2).stderr
    assert "did you mean status" in run_cli("agents", "ls", "state:failed", code=2).stderr
    assert "generations" in run_cli("agents", "show", "chat 1", "--generation", "7", code=2).stderr


def test_a_failed_run_says_why_and_ends_with_1(run_cli, desk):
    async def play(app, module):
        with pytest.raises(BudgetExceeded):
            await app.run(module["broke"], "x", id="broke")

    desk(play)
    assert "error        outlive.errors.BudgetExceeded: " in run_cli("agents", "show", "broke", code=1).stdout
    told = run_cli("runs", "result", "broke", code=1).stderr
    assert told.startswith("outlive: run 'broke' failed with outlive.errors.BudgetExceeded: ")


def test_a_run_that_goes_on_while_it_is_shown_is_not_waited_for(desk, url, monkeypatch):
    """Its status was read before somebody has retried it."""

    async def fail(app, module):
        with pytest.raises(BudgetExceeded):
            await app.run(module["broke"], "x", id="broke")

    async def read_and_retry(run):
        info = await read_info(run)
        await run.retry()
        return info

    async def show():
        async with Outlive(url, worker=False) as client, asyncio.timeout(PATIENCE_S):
            return await read_agent_run(client, "broke")

    desk(fail)
    read_info = Run.info
    monkeypatch.setattr(Run, "info", read_and_retry)
    story = asyncio.run(show())
    assert (story.result, story.error) == (None, None)


def test_prices_that_are_published_need_no_budget(run_cli, url, monkeypatch):
    """An answer that names its provider and model costs what is published for them."""
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)  # of a provider on loopback

    async def play(provider):
        async with Outlive(url, include=[agent := durable(Agent(provider.model("gpt-4o"), name="listed"))]) as app:
            await app.run(agent, "Hello?", id="listed")

    with Provider(["Hello."]) as provider:
        asyncio.run(play(provider))
    (one,) = run_cli.json("agents", "ls")["runs"]
    assert (one["usage"]["tokens"], one["usd"]) == (12, "0.0000675")


def test_a_run_that_asks_several_things_is_told_of_in_the_order_of_asking():
    asked = [SimpleNamespace(created_at=datetime(2026, 5, day, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    first, second, third, fourth = asked
    assert Waiting([second, fourth], [third], [first]).in_order() == asked
