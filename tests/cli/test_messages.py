"""Runs are started, talked to and looked at by hand, with no code of theirs at hand."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from tests.cli.conftest import order


@outlive.workflow
async def ask(item: str) -> str:
    decision = await outlive.promise(topic="answers", about={"what": item})
    await outlive.publish("token", decision.token)
    mail = await outlive.receive("mail", as_type=str)
    return f"{item} {mail} {await decision}"


@pytest.fixture(autouse=True)
def asking(url):
    """Leave a run that waits, first for a message, then for a promise."""

    async def play():
        async with outlive.Outlive(url, include=[ask]) as app:
            run = await app.start(ask, "tea", id="ask-1")
            assert await run.value("token", wait=30)

    asyncio.run(play())


def finish(url, run_id, include):
    async def play():
        async with outlive.Outlive(url, include=include) as app:
            return await (await app.get(run_id)).result(30)

    return asyncio.run(play())


def test_start_by_name(run_cli, url):
    options = ["--id", "order-7", "--queue", "mail", "--key", "ann", "--priority", "3", "--attribute", "tenant=42"]
    assert run_cli("runs", "start", "order", '"green tea"', *options).stdout == "started run 'order-7'\n"
    assert run_cli.json("runs", "start", "order", '"tea"', "--id", "order-7") == {"id": "order-7", "created": False}
    info = run_cli.json("runs", "show", "order-7")["run"]
    assert (info["queue"], info["key"], info["priority"], info["attributes"]) == ("mail", "ann", 3, {"tenant": 42})
    shown = [line.split() for line in run_cli("runs", "show", "order-7").stdout.splitlines()]
    assert ["queue", "mail"] in shown and ["key", "ann"] in shown and ["priority", "3"] in shown
    assert run_cli("runs", "count", "tenant:42", "-status:failed").stdout == "1\n"
    assert run_cli.json("runs", "count", "tenant:43") == {"runs": 0}
    assert finish(url, "order-7", [order]) == 9


def test_start_later_and_with_a_deadline(run_cli):
    run_id = run_cli.json("runs", "start", "patient", "--delay", "2h", "--deadline", "3h")["id"]
    info = run_cli.json("runs", "show", run_id)["run"]
    assert info["status"] == "scheduled"
    assert info["deadline"] is not None


def test_a_message_a_value_and_a_promise(run_cli, url):
    assert run_cli.json("runs", "send", "ask-1", "mail", '"hello"', "--key", "once")["sent"] is True
    assert "has a message on mail" in run_cli("runs", "send", "ask-1", "mail", '"again"', "--key", "once").stdout
    token = run_cli.json("runs", "value", "ask-1", "token")["value"]
    assert run_cli("runs", "value", "ask-1", "token").stdout == f'"{token}"\n'
    assert run_cli("runs", "value", "ask-1", "nothing").stdout == "null\n"
    assert run_cli("settle", token, "--value", '"yes"').stdout == "the promise is settled\n"
    assert finish(url, "ask-1", [ask]) == "tea hello yes"
    assert "settled already" in run_cli("settle", token, "--error", "no", code=4).stderr
    assert "has ended" in run_cli("runs", "send", "ask-1", "mail", "1", code=4).stderr


def test_promises_that_wait_are_listed(run_cli, url):
    (row,) = run_cli.json("promises", "answers")["promises"]
    assert (row["run_id"], row["about"]) == ("ask-1", {"what": "tea"})
    assert "ask-1" in run_cli("promises", "answers", "--run", "ask-1").stdout
    assert run_cli.json("promises", "answers", "--run", "nobody") == {"promises": [], "next": None}
    run_cli("settle", row["token"], "--value", '"yes"', "--by", "ana", "--reason", "thirsty")
    assert run_cli.json("promises", "answers")["promises"] == []
    (entry,) = run_cli.json("audit", "ask-1")["audit"]
    assert (entry["by"], entry["action"], entry["reason"]) == ("ana", "settle", "thirsty")


def test_a_promise_is_settled_with_an_error(run_cli, url):
    run_cli("runs", "send", "ask-1", "mail", '"hello"')
    token = run_cli.json("runs", "value", "ask-1", "token")["value"]
    assert run_cli.json("settle", token, "--error", "not today") == {"settled": True}
    with pytest.raises(outlive.RunFailed, match="not today"):
        finish(url, "ask-1", [ask])


@outlive.workflow
async def greeter() -> list[str]:
    names = []

    async def greet(name: str) -> str:
        if not name:
            raise ValueError("nobody is here")
        names.append(name)
        await outlive.emit("names", name)
        return f"hello {name}"

    outlive.on_call("greet", greet)
    await outlive.receive("stop")
    return names


def test_a_call_a_stream_and_a_result(run_cli, url):
    async def play():
        async with outlive.Outlive(url, include=[greeter, order]) as app:
            run = await app.start(greeter, id="greeter-1")
            said = await asyncio.to_thread(run_cli, "runs", "call", "greeter-1", "greet", '"ann"', "--timeout", "40s")
            assert said.stdout == '"hello ann"\n'
            said = await asyncio.to_thread(run_cli.json, "runs", "call", "greeter-1", "greet", '"bob"')
            assert said["answer"] == "hello bob"
            said = await asyncio.to_thread(run_cli, "runs", "call", "greeter-1", "greet", '""', code=1)
            assert "nobody is here" in said.stderr
            said = await asyncio.to_thread(run_cli, "runs", "result", "greeter-1", "--timeout", "10ms", code=4)
            assert "it goes on" in said.stderr
            await run.send("stop", None)
            await run.result()

    asyncio.run(play())
    assert run_cli("runs", "stream", "greeter-1", "names", "--after", "1").stdout == '{"seq": 2, "value": "bob"}\n'
    assert run_cli.json("runs", "result", "greeter-1") == {"id": "greeter-1", "result": ["ann", "bob"]}
    assert "has ended" in run_cli("runs", "call", "greeter-1", "greet", '"eve"', code=4).stderr


@pytest.mark.usefixtures("played")
def test_the_result_of_what_failed_ends_with_1(run_cli):
    told = run_cli("runs", "result", "broken-1", code=1).stderr
    assert told == "outlive: run 'broken-1' failed with ValueError: no such item\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs", "result", "ask-9"], "no run 'ask-9'"),
        (["runs", "stream", "ask-9", "names"], "no run 'ask-9'"),
        (["runs", "call", "ask-9", "greet"], "no run 'ask-9'"),
        (["runs", "send", "ask-9", "mail", "1"], "no run 'ask-9'"),
        (["runs", "value", "ask-9", "token"], "no run 'ask-9'"),
        (["settle", "x" * 32, "--value", "1"], "no promise"),
    ],
)
def test_what_is_not_there_ends_with_3(run_cli, arguments, told):
    assert told in run_cli(*arguments, code=3).stderr


def test_an_id_of_another_workflow_ends_with_4(run_cli):
    assert "ask-1" in run_cli("runs", "start", "order", '"tea"', "--id", "ask-1", code=4).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs", "start", "order", "tea"], "an argument is JSON, not 'tea'"),
        (["runs", "start", "order", "--attribute", "tenant"], "NAME=JSON"),
        (["runs", "start", "order", "--attribute", "tenant=tea"], "--attribute tenant=… is JSON"),
        (["runs", "start", "order", "--delay", "soon"], "--delay is a number with a unit"),
        (["runs", "send", "ask-1", "mail", "tea"], "the message is JSON"),
        (["runs", "call", "ask-1", "greet", "tea"], "an argument is JSON"),
        (["runs", "result", "ask-1", "--timeout", "soon"], "--timeout is a number with a unit"),
        (["runs", "stream", "ask-1", "names", "--after", "-1"], "--after"),
        (["settle", "token"], "--value JSON or --error TEXT"),
        (["settle", "token", "--value", "1", "--error", "no"], "--value JSON or --error TEXT"),
    ],
)
def test_wrong_usage_ends_with_2(run_cli, arguments, told):
    assert told in run_cli(*arguments, code=2).stderr
