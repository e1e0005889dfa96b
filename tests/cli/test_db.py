from __future__ import annotations


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
