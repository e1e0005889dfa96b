from __future__ import annotations

import shlex

import pytest

pytestmark = pytest.mark.usefixtures("played")


def test_limits_are_set_shown_and_lifted(run_cli):
    assert run_cli.json("agents", "budget", "ls") == {"budgets": [], "next": None}
    said = run_cli("agents", "budget", "set", "team", "--new", "--usd", "0.5", "--tokens", "900", "--wall", "2m").stdout
    assert said == "budget 'team' is open, limits: usd=0.5 tokens=900 wall=120\n"
    (found,) = run_cli.json("agents", "budget", "ls")["budgets"]
    assert (found["account"], found["stopped"], found["is_changed"]) == ("team", False, True)
    assert run_cli("agents", "budget", "ls").stdout.splitlines()[1].split()[:2] == ["team", "open"]
    shown = run_cli("agents", "budget", "show", "team").stdout
    assert "changed by an operator" in shown and "spent     -" in shown
    said = run_cli("agents", "budget", "set", "team", "--usd", "none", "--wall", "none").stdout
    assert said == "budget 'team' is open, limits: tokens=900\n"


def test_stopped_and_resumed_with_an_audit(run_cli):
    run_cli("agents", "budget", "set", "team", "--new", "--tokens", "none", "--by", "ada")
    run_cli("agents", "budget", "stop", "team", "--by", "ada", "--reason", "it loops")
    assert run_cli.json("agents", "budget", "show", "team")["budget"]["stopped"] is True
    assert (
        run_cli("agents", "budget", "resume", "team", "--by", "ada").stdout == "budget 'team' is open, limits: none\n"
    )
    notes = run_cli.json("audit", "team")["audit"]
    assert [(one["action"], one["by"], one["reason"]) for one in notes] == [
        ("resume", "ada", None), ("stop", "ada", "it loops"), ("limit", "ada", None),
    ]  # fmt: skip


def test_where_a_list_goes_on_is_told_as_a_shell_reads_it(run_cli):
    for account in ('a "b\'c"', "team"):
        run_cli("agents", "budget", "set", account, "--new", "--tokens", "900")
    first = run_cli("agents", "budget", "ls", "--limit", "1")
    _, *options = shlex.split(first.stderr)
    assert options == ["--after", 'a "b\'c"']
    assert run_cli("agents", "budget", "ls", *options).stdout.splitlines()[1].startswith("team ")


def test_a_budget_that_nobody_has_used(run_cli):
    told = run_cli("agents", "budget", "show", "nobody", code=3)
    assert "no budget 'nobody' was used or changed" in told.stderr
    for change in (["set", "nobody", "--tokens", "9"], ["stop", "nobody"], ["resume", "nobody"]):
        assert "no budget 'nobody'" in run_cli("agents", "budget", *change, code=3).stderr
    assert run_cli.json("agents", "budget", "ls")["budgets"] == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["set", "team", "--new"], "needs a limit to change"),
        (["set", "team", "--tokens", "many"], "--tokens is a whole number or none"),
        (["set", "team", "--new", "--usd", "much"], "usd=… is an amount of dollars"),
        (["show", "team", "--day", "today"], "--day is a day"),
    ],
)
def test_what_is_no_limit(run_cli, given, why):
    assert why in run_cli("agents", "budget", *given, code=2).stderr
