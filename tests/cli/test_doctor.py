from __future__ import annotations

import sqlite3

from tests.support.command_line import CommandLine


def _checks(report):
    return {check["name"]: check for check in report["checks"]}


def test_healthy(run_cli):
    run_cli("db", "migrate")
    checks = _checks(run_cli.json("doctor"))
    assert checks["python"]["state"] == "ok"
    assert checks["schema"]["state"] == "ok"
    assert checks["database"]["state"] == "ok"
    assert checks["clock"]["state"] == "ok"
    bugged = sqlite3.sqlite_version_info < (3, 51, 3)
    assert checks["sqlite"]["state"] == ("warn" if bugged else "ok")
    assert "python" in run_cli("doctor").stdout


def test_without_schema(run_cli):
    report = run_cli.json("doctor", code=5)
    failed = [name for name, check in _checks(report).items() if check["state"] == "fail"]
    assert failed in (["schema"], ["database"])  # there is no SQLite file at all
    assert report["ok"] is False


def test_without_database(tmp_path):
    shell = CommandLine("", tmp_path)
    assert "database" in shell("doctor").stdout


def test_unreachable_database(tmp_path):
    shell = CommandLine("postgresql://nobody:sesame@127.0.0.1:1/none", tmp_path)
    done = shell("doctor", code=5)
    assert "sesame" not in done.stdout + done.stderr
