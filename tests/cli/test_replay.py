"""`outlive runs export` and `outlive replay`: journals as lines, and whether the user's code fits them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import outlive
from tests.cli.conftest import SHOP, order

pytestmark = pytest.mark.usefixtures("played")

CHANGED = SHOP.replace("    return await price(item)", "    return await price(item + '!')")


@pytest.fixture
def journals(run_cli, tmp_path):
    file = tmp_path / "journals.jsonl"
    file.write_text(run_cli("runs", "export").stdout)
    return str(file)


def test_export_writes_one_run_a_line(run_cli, journals):
    lines = list(map(json.loads, Path(journals).read_text().splitlines()))
    assert [line["id"] for line in lines] == ["patient-1", "broken-1", "order-1"]
    assert [entry["key"] for entry in lines[-1]["entries"]] == ["price#1"]
    (one,) = run_cli("runs", "export", "--id", "order-1").stdout.splitlines()
    assert json.loads(one) == lines[-1]
    (failed,) = run_cli("runs", "export", "status:failed").stdout.splitlines()
    assert json.loads(failed)["id"] == "broken-1"
    assert run_cli("runs", "export", "workflow:nothing").stdout == ""
    assert "no run 'nobody'" in run_cli("runs", "export", "--id", "nobody", code=3).stderr


def test_the_code_that_recorded_them_fits(run_cli, journals):
    said = run_cli("replay", "--check", "--journals", journals, "shop")
    assert said.stdout == "3 runs: 3 fits\n"
    assert said.stderr == ""
    assert run_cli("replay", "--check", "shop:app").stdout == "1 runs: 1 fits\n"
    assert run_cli("replay", "--check", "--query", "workflow:x", "shop").stdout == "no runs to replay\n"
    assert run_cli("replay", "--check", "--query", "all", "shop").stdout == "3 runs: 3 fits\n"


def test_an_archive_is_replayed_too(run_cli, tmp_path):
    run_cli("db", "prune", "--older-than", "0s", "--archive", "runs.jsonl")
    assert run_cli("replay", "--check", "--journals", "runs.jsonl", "shop").stdout == "2 runs: 2 fits\n"
    (tmp_path / "shop.py").write_text(CHANGED)
    said = run_cli("replay", "--check", "--journals", "runs.jsonl", "shop", code=1).stdout
    assert said.startswith("order-1  order  breaks\n  recorded  step 'price' (price#1) with arguments of digest")


def test_a_change_that_breaks_runs_fails_the_check(run_cli, journals, tmp_path):
    (tmp_path / "shop.py").write_text(CHANGED)
    said = run_cli("replay", "--check", "--journals", journals, "shop", code=1).stdout
    assert said.startswith("order-1  order  breaks\n  recorded  step 'price' (price#1) with arguments of digest")
    assert "\n  where     price#1\n" in said
    assert said.endswith("3 runs: 1 breaks, 2 fits\n")
    assert run_cli("replay", "--journals", journals, "shop").stdout == said  # told, but no check
    shown = run_cli.json("replay", "--check", "--journals", journals, "shop", code=1)
    assert not shown["ok"]
    (broken,) = [run for run in shown["runs"] if run["verdict"] == "breaks"]
    assert broken["error"]["type"] == "JournalMismatch"
    assert broken["difference"]["where"] == "price#1"


def test_edits_fail_the_check_only_if_asked(run_cli, journals, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP.replace("    return await price(item)", "    return 3"))
    said = run_cli("replay", "--check", "--journals", journals, "shop").stdout
    assert "order-1  order  edited\n  note      never asks for step 'price' (price#1)" in said
    assert run_cli("replay", "--check", "--strict", "--journals", journals, "shop", code=1).stdout == said


def test_the_version_is_that_of_the_code_that_executed_it(run_cli, url, tmp_path):
    async def play() -> None:
        async with outlive.Outlive(url, include=[order]), outlive.Outlive(url, worker=False) as client:
            run = await client.start("order", "tea", id="by-name")
            await run.result(timeout=30)

    asyncio.run(play())
    (tmp_path / "shop.py").write_text(CHANGED)
    shown = run_cli.json("replay", "--query", "id:by-name", "shop")
    (report,) = shown["runs"]
    assert report["recorded_version"] == order.spec.version != report["code_version"]
    assert f"journal of version {order.spec.version}" in report["error"]["message"]
    assert "the run is paused" not in report["error"]["message"]


def test_wrong_usage(run_cli, tmp_path):
    (tmp_path / "no.jsonl").write_text("{}")
    said = run_cli("replay", "--journals", "no.jsonl", "shop", code=2).stderr
    assert said.startswith("outlive: no.jsonl, line 1: no journal of a run: Object missing required field")
    assert "`outlive runs export` has written" in said
    assert "--query" in run_cli("replay", "--journals", "shop.py", "--query", "all", "shop", code=2).stderr
    assert "no module 'nothing'" in run_cli("replay", "nothing", code=2).stderr
    (tmp_path / "empty.jsonl").write_text("")
    assert run_cli("replay", "--journals", "empty.jsonl", "shop").stdout == "no runs to replay\n"
    said = run_cli("replay", "--check", "--journals", "empty.jsonl", "shop", code=2)
    assert said.stderr == "outlive: empty.jsonl holds no journal: nothing was checked\n"
    assert "nothing.jsonl" in run_cli("replay", "--journals", "nothing.jsonl", "shop", code=2).stderr
