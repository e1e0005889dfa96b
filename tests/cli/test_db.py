from __future__ import annotations

import json

import pytest


def test_check_fails_until_migrate(run_cli):
    assert "migrate" in run_cli("db", "check", code=5).stderr
    run_cli("db", "migrate")
    run_cli("db", "migrate")
    done = run_cli("db", "check")
    assert "fits" in done.stdout
    assert done.stderr == ""
    assert run_cli.json("db", "check")["ok"] is True


def test_client_commands_never_create_tables(run_cli):
    run_cli("runs", "ls", code=5)
    run_cli("db", "check", code=5)


@pytest.mark.usefixtures("played")
def test_prune(run_cli, tmp_path):
    assert "would prune 2 runs" in run_cli("db", "prune", "--older-than", "0s", "--dry-run").stdout
    assert run_cli.json("db", "prune", "--older-than", "1h30m")["runs"] == 0
    archive = tmp_path / "runs.jsonl"
    done = run_cli.json("db", "prune", "--older-than", "0s", "--status", "failed", "--archive", str(archive))
    assert done == {"runs": 1, "dry_run": False}
    assert json.loads(archive.read_text())["id"] == "broken-1"
    assert run_cli.json("db", "prune", "--older-than", "0s", "--limit", "5")["runs"] == 1
    assert [run["id"] for run in run_cli.json("runs", "ls")["runs"]] == ["patient-1"]


def test_prune_used_wrongly(run_cli):
    run_cli("db", "migrate")
    assert "--older-than is a number with a unit" in run_cli("db", "prune", "--older-than", "month", code=2).stderr
    assert "--older-than" in run_cli("db", "prune", code=2).stderr
    lost = run_cli("db", "prune", "--older-than", "0s", "--archive", "/nonexistent/x", code=2).stderr
    assert lost.startswith("outlive: the archive '/nonexistent/x' cannot be written: No such file or directory")
    assert "running" in run_cli("db", "prune", "--older-than", "1d", "--status", "running", code=2).stderr
