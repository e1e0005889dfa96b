from __future__ import annotations

import asyncio

import pytest

import outlive
from outlive.codec import JsonCodec

pytestmark = pytest.mark.usefixtures("played")


def test_ls_shows_every_run(run_cli):
    lines = run_cli("runs", "ls").stdout.splitlines()
    assert lines[0].split()[:3] == ["ID", "WORKFLOW", "STATUS"]
    assert [line.split()[:3] for line in lines[1:]][1:] == [
        ["broken-1", "broken", "failed"],
        ["order-1", "order", "succeeded"],
    ]
    assert lines[1].startswith("patient-1")


def test_ls_json_is_newest_first(run_cli):
    page = run_cli.json("runs", "ls")
    assert [run["id"] for run in page["runs"]] == ["patient-1", "broken-1", "order-1"]
    assert page["next"] is None
    assert page["runs"][-1]["workflow"] == "order"
    assert page["runs"][-1]["created_at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--status", "failed"], ["broken-1"]),
        (["--status", "failed", "--status", "succeeded"], ["broken-1", "order-1"]),
        (["--workflow", "order"], ["order-1"]),
        (["--id-prefix", "pat"], ["patient-1"]),
        (["--id-prefix", "%"], []),
    ],
)
def test_ls_filters(run_cli, filters, found):
    assert [run["id"] for run in run_cli.json("runs", "ls", *filters)["runs"]] == found


def test_ls_pages(run_cli):
    first = run_cli.json("runs", "ls", "--limit", "2")
    second = run_cli.json("runs", "ls", "--limit", "2", "--after", str(first["next"]))
    assert [run["id"] for run in [*first["runs"], *second["runs"]]] == ["patient-1", "broken-1", "order-1"]
    assert "--after" in run_cli("runs", "ls", "--limit", "2").stderr


def test_show(run_cli):
    text = run_cli("runs", "show", "order-1").stdout
    assert text.splitlines()[0].split() == ["order-1", "order", "succeeded"]
    assert "price" in text
    shown = run_cli.json("runs", "show", "order-1")
    assert shown["run"]["status"] == "succeeded"
    assert shown["result"] == 3
    assert shown["error"] is None
    assert [(entry["name"], entry["outcome"], entry["value"]) for entry in shown["entries"]] == [("price", "ok", 3)]


def test_show_of_a_failed_run_ends_with_1(run_cli):
    assert "no such item" in run_cli("runs", "show", "broken-1", code=1).stdout
    assert "no such item" in run_cli.json("runs", "show", "broken-1", code=1)["error"]["message"]


def test_show_of_an_open_run(run_cli):
    shown = run_cli.json("runs", "show", "patient-1")
    assert shown["run"]["status"] in ("suspended", "running", "queued")
    assert shown["result"] is None


def test_unknown_run(run_cli):
    for command in ("show", "cancel"):
        done = run_cli("runs", command, "nobody", code=3)
        assert done.stderr.count("\n") == 1
        assert "nobody" in done.stderr


def test_cancel(run_cli):
    assert "cancelled" in run_cli("runs", "cancel", "patient-1", "--reason", "bored").stdout
    assert run_cli.json("runs", "cancel", "patient-1")["id"] == "patient-1"


def test_cancel_of_an_ended_run_is_a_conflict(run_cli):
    assert "succeeded" in run_cli("runs", "cancel", "order-1", code=4).stderr


def test_options_stand_before_or_behind(run_cli, url):
    assert run_cli("--json", "runs", "ls").stdout == run_cli("runs", "ls", "--json").stdout
    assert run_cli("--url", url, "runs", "ls", OUTLIVE_URL="sqlite:////nowhere/x.db").stdout
    assert run_cli("runs", "ls", "--url", url, OUTLIVE_URL="sqlite:////nowhere/x.db").stdout


@outlive.step
async def grow(text: str) -> str:
    if text == "bad":
        raise ValueError("bad " * 100_000)
    return text * 2


@outlive.workflow
async def large(text: str) -> str:
    with pytest.raises(Exception, match="bad bad"):
        await grow("bad")
    return await grow(text)


def test_show_of_large_values(run_cli, url):
    async def play() -> None:
        async with outlive.Outlive(url, include=[large]) as app:
            await app.run(large, "x" * 100_000, id="large-1")

    asyncio.run(play())
    text = run_cli("runs", "show", "large-1").stdout
    assert max(map(len, text.splitlines())) < 300
    assert "xxxx" in text
    assert "@blob" not in text
    shown = run_cli.json("runs", "show", "large-1")
    assert shown["result"] == "x" * 200_000
    assert shown["entries"][1]["value"] == "x" * 200_000
    assert "@blob" not in run_cli("runs", "ls", "--json").stdout


class Other(JsonCodec):
    id = "other/1"


def test_show_of_a_run_of_another_codec(run_cli, url):
    async def play() -> None:
        async with outlive.Outlive(url, include=[large], codec=Other()) as app:
            await (await app.start(large, "x", id="sealed-1", attributes={"a": 1})).result()

    asyncio.run(play())
    text = run_cli("runs", "show", "sealed-1").stdout
    assert text.splitlines()[0].split() == ["sealed-1", "large", "succeeded"]
    assert "written by codec 'other/1', this process has json/1" in text
    assert "sealed-1" in run_cli("runs", "ls").stdout


def test_versions_counts_what_is_unfinished(run_cli):
    (line,) = run_cli("runs", "versions").stdout.splitlines()[1:]
    assert line.split()[0] == "patient"
    assert line.split()[2:] == ["1", "1", "suspended"]
    (count,) = run_cli.json("runs", "versions", "patient")["versions"]
    assert (count["workflow"], count["statuses"], count["pinned"]) == ("patient", {"suspended": 1}, False)
    assert run_cli.json("runs", "versions", "order") == {"versions": []}


def test_ls_by_query(run_cli):
    assert [run["id"] for run in run_cli.json("runs", "ls", "-status:failed", "age:<1h")["runs"]] == [
        "patient-1",
        "order-1",
    ]
    assert [run["id"] for run in run_cli.json("runs", "ls", "workflow:order,broken status:failed")["runs"]] == [
        "broken-1"
    ]
    assert "did you mean status? " in run_cli("runs", "ls", "stauts:failed", code=2).stderr


def test_why(run_cli):
    assert "has failed" in run_cli("runs", "why", "broken-1").stdout
    assert "no such item → retry()" in run_cli.json("runs", "why", "broken-1")["why"]
    assert "sleeps until" in run_cli("runs", "why", "patient-1").stdout
    assert "nobody" in run_cli("runs", "why", "nobody", code=3).stderr


def test_each(run_cli):
    assert "would cancel 1 runs" in run_cli("runs", "each", "cancel", "all", "--dry-run").stdout
    assert run_cli.json("runs", "each", "cancel", "workflow:patient", "--reason", "bored")["runs"] == 1
    assert "run 'patient-1'" in run_cli("runs", "why", "patient-1").stdout
    assert run_cli.json("runs", "each", "retry", "status:failed")["runs"] == 1
    assert "leaves none of them" in run_cli("runs", "each", "resume", "status:failed", code=2).stderr
    assert "QUERY" in run_cli("runs", "each", "cancel", code=2).stderr
    assert "all" in run_cli("runs", "each", "cancel", " ", code=2).stderr
