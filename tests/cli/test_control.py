from __future__ import annotations

import asyncio

import pytest

import outlive
from tests.cli.conftest import broken, order, patient

pytestmark = pytest.mark.usefixtures("played")


def test_pause_and_resume_of_a_run(run_cli):
    assert "will be held" in run_cli("runs", "pause", "patient-1", "--reason", "a look").stdout
    assert "goes on" in run_cli("runs", "resume", "patient-1").stdout  # nobody has executed the request
    assert "is not held" in run_cli("runs", "resume", "patient-1", code=4).stderr
    assert "has ended" in run_cli("runs", "pause", "order-1", code=4).stderr


def test_reschedule_what_has_not_begun(run_cli, url):
    async def start() -> None:
        async with outlive.Outlive(url, worker=False) as client:
            await client.start("order", "tea", id="later", queue="q", delay=60)

    asyncio.run(start())
    done = run_cli("runs", "reschedule", "later", "--delay", "1h", "--priority", "3", "--by", "ada", "--reason", "sale")
    assert "is rescheduled" in done.stdout
    shown = run_cli.json("runs", "show", "later")["run"]
    assert (shown["status"], shown["priority"]) == ("scheduled", 3)
    run_cli("runs", "reschedule", "later", "--at", "2100-01-15T08:00:00")
    assert "2100-01-15 08:00:00" in run_cli("runs", "show", "later").stdout
    said = run_cli.json("runs", "reschedule", "later", "--delay", "0s")
    assert said == {"id": "later", "rescheduled": True, "status": "queued"}
    facts = [entry["facts"] for entry in run_cli.json("audit", "later")["audit"]]
    assert facts == [{"delay_s": 0}, {"at": "2100-01-15T08:00:00+00:00"}, {"delay_s": 3600, "priority": 3}]
    wrong = ([], ["--delay", "soon"], ["--delay", "-1s"], ["--at", "soon"])
    for options in (*wrong, ["--priority", "9999999999"], ["--delay", "1s", "--at", "2100-01-15T08:00:00Z"]):
        assert run_cli("runs", "reschedule", "later", *options, code=2).stderr
    assert "no longer waits" in run_cli("runs", "reschedule", "order-1", "--delay", "1h", code=4).stderr


def test_retry_of_what_failed_and_of_what_did_not(run_cli):
    assert "from where it failed" in run_cli("runs", "retry", "broken-1").stdout
    assert run_cli.json("runs", "show", "broken-1")["run"]["generation"] == 1
    for run_id in ("order-1", "broken-1"):
        assert "only a failed or cancelled run" in run_cli("runs", "retry", run_id, code=4).stderr


def test_rewind_shows_both_generations(run_cli):
    assert run_cli.json("runs", "rewind", "order-1", "--to", "price#1") == {"id": "order-1", "to": "price#1"}
    shown = run_cli.json("runs", "show", "order-1")
    assert (shown["run"]["status"], shown["entries"]) == ("suspended", [])
    before = run_cli.json("runs", "show", "order-1", "--generation", "0")["entries"]
    assert [entry["key"] for entry in before] == ["price#1"]
    assert "generation 1" in " ".join(run_cli("runs", "show", "order-1").stdout.split())
    assert "no entry 'price#7'" in run_cli("runs", "rewind", "order-1", "--to", "price#7", code=4).stderr
    assert "generations 0 to 1" in run_cli("runs", "show", "order-1", "--generation", "5", code=2).stderr


def test_fork_with_a_patch(run_cli, url):
    async def play() -> None:
        async with outlive.Outlive(url, include=[order, patient, broken]) as app:
            run = await app.get("patched")
            assert await run.result() == 3

    async def rewind() -> None:
        async with outlive.Outlive(url, worker=False) as client:
            await (await client.get("order-1")).rewind("price#1")

    made = run_cli.json("runs", "fork", "order-1", "--at", "price#1", "--id", "patched")
    assert made == {"id": "patched", "forked_from": "order-1", "at": "price#1", "created": True}
    assert "fork of" in run_cli("runs", "show", "patched").stdout
    late = ("runs", "fork", "order-1", "--at", "price#1", "--id", "hurried", "--deadline")
    assert "--deadline" in run_cli(*late, "soon", code=2).stderr
    run_cli(*late, "2h")
    assert run_cli.json("runs", "show", "hurried")["run"]["deadline"] is not None
    run_cli("runs", "cancel", "hurried")
    asyncio.run(play())
    assert (
        "cannot be patched"
        in run_cli("runs", "fork", "order-1", "--at", "price#1", "--patch", "price#1=7", code=4).stderr
    )
    for wrong in ("price#1", "price#1=three"):
        assert "--patch" in run_cli("runs", "fork", "order-1", "--at", "price#1", "--patch", wrong, code=2).stderr
    asyncio.run(rewind())


def test_resolve_needs_one_decision(run_cli):
    for decision in ([], ["--retry", "--error", "no"], ["--value", "{"]):
        assert run_cli("runs", "resolve", "patient-1", "pay#1", *decision, code=2).stderr
    for run_id in ("patient-1", "order-1"):
        assert "is not held" in run_cli("runs", "resolve", run_id, "pay#1", "--value", "7", code=4).stderr


def test_delete(run_cli):
    assert "not ended" in run_cli("runs", "delete", "patient-1", code=4).stderr
    assert "is deleted" in run_cli("runs", "delete", "order-1", "--children").stdout
    run_cli("runs", "show", "order-1", code=3)
    run_cli("runs", "delete", "order-1", code=3)


def test_audit_tells_who_and_why(run_cli):
    run_cli("runs", "cancel", "patient-1", "--reason", "bored", "--by", "ada")
    run_cli("runs", "delete", "broken-1")
    entries = run_cli.json("audit")["audit"]
    assert [(entry["action"], entry["target"]) for entry in entries] == [
        ("delete", "broken-1"),
        ("cancel", "patient-1"),
    ]
    assert entries[0]["by"] and not entries[0]["by"].startswith("outlive-")
    assert run_cli.json("audit", "patient-1")["audit"][0]["reason"] == "bored"
    text = run_cli("audit", "patient-1").stdout
    assert "ada" in text and "bored" in text
    assert run_cli.json("audit", "--limit", "2")["next"] is None  # the last page is full
    page = run_cli.json("audit", "--limit", "1")
    assert run_cli.json("audit", "--after", str(page["next"]))["audit"] == entries[1:]


def test_unknown_runs(run_cli):
    for command in (
        ["pause"],
        ["resume"],
        ["reschedule", "--delay", "1s"],
        ["retry"],
        ["rewind", "--to", "a#1"],
        ["fork", "--at", "a#1"],
        ["delete"],
    ):
        done = run_cli("runs", command[0], "nobody", *command[1:], code=3)
        assert done.stderr.count("\n") == 1 and "nobody" in done.stderr
    assert run_cli.json("audit")["audit"] == []
