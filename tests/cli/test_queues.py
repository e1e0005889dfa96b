from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("played")


def test_limits_are_changed_shown_and_reset(run_cli):
    assert run_cli.json("queues", "ls") == {"queues": []}
    said = run_cli("queues", "limit", "mail", "--concurrency", "3", "--rate", "10/60").stdout
    assert said == "queue 'mail' is held to concurrency=3 rate=10/60\n"
    assert run_cli("queues", "pause", "mail").stdout == "queue 'mail' admits nothing more\n"
    (found,) = run_cli.json("queues", "ls")["queues"]
    assert (found["name"], found["concurrency"], found["rate"], found["paused"]) == ("mail", 3, [10, 60.0], True)
    assert run_cli("queues", "ls").stdout.splitlines()[1].split() == [
        "mail", "paused", "0", "0", "0", "concurrency=3", "rate=10/60",
    ]  # fmt: skip
    shown = run_cli("queues", "show", "mail").stdout
    assert "changed by an operator" in shown and "0 delayed, 0 waiting, 0 running" in shown
    assert run_cli.json("queues", "limit", "mail", "--concurrency", "none")["queue"]["concurrency"] is None
    assert run_cli("queues", "limit", "mail", "--reset").stdout == "queue 'mail' is held to no limit\n"
    assert run_cli("queues", "resume", "mail").stdout == "queue 'mail' admits runs again\n"
    assert run_cli.json("queues", "show", "mail")["queue"]["is_changed"] is False


def test_the_audit_tells_who_changed_a_queue_and_why(run_cli):
    run_cli("queues", "pause", "mail", "--reason", "the post is on strike", "--by", "ada")
    run_cli("queues", "limit", "mail", "--concurrency", "3", "--by", "bob")
    run_cli("queues", "limit", "mail", "--reset", "--by", "eve", "--reason", "enough")
    run_cli("queues", "resume", "mail", "--by", "ada")
    notes = run_cli.json("audit", "mail")["audit"]
    assert [(note["action"], note["by"], note["reason"]) for note in notes] == [
        ("resume", "ada", None),
        ("reset", "eve", "enough"),
        ("limit", "bob", None),
        ("pause", "ada", "the post is on strike"),
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "at least one limit"),
        (["--reset", "--concurrency", "1"], "or --reset alone"),
        (["--concurrency", "0"], "from 1 to"),
        (["--concurrency", "many"], "a whole number"),
        (["--rate", "10"], "N/SECONDS"),
        (["--rate", "10/0"], "more than 0 seconds"),
        (["--on-full", "drop"], "'reject' or 'drop_oldest'"),
    ],
)
def test_wrong_limits_are_refused(run_cli, options, told):
    assert told in run_cli("queues", "limit", "mail", *options, code=2).stderr
    assert run_cli.json("queues", "ls") == {"queues": []}


def test_a_queue_that_is_not_there(run_cli):
    assert "no queue 'mail'" in run_cli("queues", "show", "mail", code=3).stderr


def test_drain(run_cli):
    assert run_cli("queues", "drain", "mail").stdout == "queue 'mail' is empty\n"
    run_cli("runs", "start", "order", '"tea"', "--queue", "mail")
    assert "is not empty after 10ms" in run_cli("queues", "drain", "mail", "--timeout", "10ms", code=4).stderr
    run_cli("queues", "pause", "mail")
    assert run_cli.json("queues", "drain", "mail") == {"name": "mail", "drained": True}
    assert "--timeout is a number with a unit" in run_cli("queues", "drain", "mail", "--timeout", "10", code=2).stderr
