from __future__ import annotations

import asyncio
import getpass

import pytest

import outlive
from tests.cli.conftest import order
from tests.support.command_line import CommandLine


@pytest.fixture(autouse=True)
def planned(url: str) -> None:
    """Leave two schedules; nothing fires, since no worker is alive."""

    async def plan() -> None:
        client = outlive.Outlive(url, worker=False)
        client.schedule("nightly", order, "tea", cron="30 2 29 3 *", zone="Europe/Berlin", overlap="skip", catch_up=60)
        async with client:
            await client.put_schedule("often", "order", "cup", every=3600)

    asyncio.run(plan())


def test_ls(run_cli: CommandLine) -> None:
    lines = run_cli("schedules", "ls").stdout.splitlines()
    assert lines[0].split()[:4] == ["NAME", "WORKFLOW", "RULE", "STATE"]
    assert lines[1].split()[:9] == ["nightly", "order", "30", "2", "29", "3", "*", "Europe/Berlin", "on"]
    assert lines[2].split()[:6] == ["often", "order", "every", "3600", "s", "on"]
    found = run_cli.json("schedules", "ls")["schedules"]
    assert [(one["name"], one["paused"], one["declared"]) for one in found] == [
        ("nightly", False, True),
        ("often", False, False),
    ]


def test_next_is_in_the_zone(run_cli: CommandLine) -> None:
    lines = run_cli("schedules", "next", "nightly", "--limit", "8").stdout.splitlines()
    assert len(lines) == 8
    assert all(line[4:19] == "-03-29 02:30:00" or line[4:19] == "-03-29 03:00:00" for line in lines)
    assert len(run_cli.json("schedules", "next", "often")["ticks"]) == 10


def test_pause_and_resume(run_cli: CommandLine) -> None:
    assert "paused" in run_cli("schedules", "pause", "nightly", "--reason", "too loud", "--by", "ann").stdout
    shown = run_cli("schedules", "show", "nightly").stdout
    assert shown.splitlines()[0].endswith("paused")
    assert "At 02:30 on March 29, Europe/Berlin" in shown
    assert run_cli.json("schedules", "resume", "nightly") == {"name": "nightly", "paused": False}
    info = run_cli.json("schedules", "show", "nightly")["schedule"]
    assert (info["paused"], info["overlap"], info["catch_up"]) == (False, "skip", 60.0)


def test_run_starts_one_now(run_cli: CommandLine) -> None:
    run_id = run_cli.json("schedules", "run", "often")["run"]
    assert run_id.startswith("often@")
    assert [run["id"] for run in run_cli.json("schedules", "show", "often")["runs"]] == [run_id]
    assert run_id in run_cli("schedules", "show", "often").stdout
    assert run_cli.json("runs", "show", run_id)["run"]["status"] == "queued"


def test_backfill_starts_each_tick_once(run_cli: CommandLine) -> None:
    assert run_cli("schedules", "backfill", "nightly", "2024-01-01", "2026-01-01").stdout == (
        "schedule 'nightly': 2 ticks, 2 runs started\n"
    )
    found = run_cli.json("schedules", "backfill", "nightly", "2024-01-01T00:00+01:00", "2026-01-01", "--by", "ann")
    assert [(run["id"], run["created"]) for run in found["runs"]] == [
        ("nightly@2024-03-29T01:30:00Z", False),
        ("nightly@2025-03-29T01:30:00Z", False),
    ]
    assert run_cli.json("audit")["audit"][0]["by"] == "ann"
    assert run_cli.json("audit")["audit"][1]["by"] == getpass.getuser()


def test_put_and_reset(run_cli: CommandLine) -> None:
    put = ["put", "nightly", "order", '"tea"', "--cron", "0 5 * * *", "--zone", "Asia/Tokyo", "--overlap", "queue"]
    said = run_cli("schedules", *put, "--catch-up", "2h", "--reason", "earlier").stdout
    assert said.startswith("schedule 'nightly' starts order 0 5 * * * Asia/Tokyo; next ")
    info = run_cli.json("schedules", "show", "nightly")["schedule"]
    assert (info["cron"], info["overlap"], info["catch_up"], info["changed"]) == ("0 5 * * *", "queue", 7200.0, True)
    assert run_cli("schedules", "reset", "nightly").stdout == "schedule 'nightly' is as code declares it\n"
    info = run_cli.json("schedules", "show", "nightly")["schedule"]
    assert (info["cron"], info["zone"], info["changed"]) == ("30 2 29 3 *", "Europe/Berlin", False)
    assert "no code declares it" in run_cli("schedules", "reset", "often", code=2).stderr
    once = run_cli.json("schedules", "put", "once", "order", '"cup"', "--at", "2099-01-01", "--jitter", "1m")[
        "schedule"
    ]
    assert (once["at"], once["jitter"], once["declared"]) == ("2099-01-01T00:00:00+00:00", 60.0, False)
    run_id = run_cli.json("schedules", "run", "once")["run"]
    assert run_cli.json("runs", "show", run_id)["input"]["args"] == ["cup"]


def test_delete(run_cli: CommandLine) -> None:
    assert run_cli.json("schedules", "delete", "often", "--reason", "enough") == {"name": "often", "deleted": True}
    assert [one["name"] for one in run_cli.json("schedules", "ls")["schedules"]] == ["nightly"]
    assert run_cli.json("audit")["audit"][0]["reason"] == "enough"


@pytest.mark.parametrize("command", ["show", "next", "pause", "resume", "run", "reset", "delete"])
def test_what_is_not_there_ends_with_3(run_cli: CommandLine, command: str) -> None:
    assert "no schedule 'weekly'" in run_cli("schedules", command, "weekly", code=3).stderr


def test_wrong_usage_ends_with_2(run_cli: CommandLine) -> None:
    assert "limit" in run_cli("schedules", "next", "often", "--limit", "0", code=2).stderr
    assert "NAME" in run_cli("schedules", "pause", code=2).stderr
    backfill = ["schedules", "backfill", "nightly"]
    assert "START is a day or a time" in run_cli(*backfill, "monday", "2026-01-01", code=2).stderr
    assert "later end in the past" in run_cli(*backfill, "2026-01-01", "2099-01-01", code=2).stderr
    assert (
        "--every is a number with a unit" in run_cli("schedules", "put", "x", "order", "--every", "day", code=2).stderr
    )
    assert "one of cron" in run_cli("schedules", "put", "x", "order", code=2).stderr
    assert (
        "no schedule 'weekly'" in run_cli("schedules", "backfill", "weekly", "2025-01-01", "2026-01-01", code=3).stderr
    )


def test_put_refuses_a_time_that_has_passed(run_cli: CommandLine) -> None:
    said = run_cli("schedules", "put", "once", "order", "--at", "2020-01-01T12:00", code=2)
    assert said.stderr.startswith("outlive: schedule 'once' would never start anything: 2020-01-01 12:00:00+00:00 has")
    assert "once" not in run_cli("schedules", "ls").stdout
