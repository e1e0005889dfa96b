"""Runs are started, talked to and looked at by hand, with no code of theirs at hand."""

from __future__ import annotations

import asyncio

import pytest

import outlive
from tests.cli.conftest import order


@outlive.workflow
async def ask(item: str) -> str:
    decision = await outlive.promise()
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


def test_a_promise_is_settled_with_an_error(run_cli, url):
    run_cli("runs", "send", "ask-1", "mail", '"hello"')
    token = run_cli.json("runs", "value", "ask-1", "token")["value"]
    assert run_cli.json("settle", token, "--error", "not today") == {"settled": True}
    with pytest.raises(outlive.RunFailed, match="not today"):
        finish(url, "ask-1", [ask])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
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
        (["settle", "token"], "--value JSON or --error TEXT"),
        (["settle", "token", "--value", "1", "--error", "no"], "--value JSON or --error TEXT"),
    ],
)
def test_wrong_usage_ends_with_2(run_cli, arguments, told):
    assert told in run_cli(*arguments, code=2).stderr
