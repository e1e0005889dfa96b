"""Wrong usage, missing databases, help: one sentence and the right exit code."""

from __future__ import annotations

import pytest

import outlive
from tests.support.command_line import CommandLine


@pytest.fixture
def shell(tmp_path) -> CommandLine:
    return CommandLine("", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["runs", "ls"], "OUTLIVE_URL"),
        (["runs", "show"], "ID"),
        (["runs", "fly"], "fly"),
        (["runs", "ls", "--status", "asleep"], "asleep"),
        (["runs", "ls", "--limit", "0"], "limit"),
        (["demo", "--orders", "0"], "orders"),
        (["runs", "ls", "--url", "mysql://localhost/x"], "mysql"),
        (["runs", "ls", "--url", "shop.db"], "shop.db"),
        (["worker", ":app"], "names no module"),
    ],
)
def test_wrong_usage_ends_with_2(shell, arguments, word):
    assert word in shell(*arguments, code=2).stderr


@pytest.mark.parametrize("command", [["runs", "ls"], ["db", "check"], ["db", "migrate"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_unusable_database_ends_with_5(shell, tmp_path, command, kind):
    (tmp_path / "letter.db").write_text("Dear Sir or Madam, this is no database. " * 100)
    url = "postgresql://nobody@127.0.0.1:1/none" if kind == "postgres" else f"sqlite:///{tmp_path}/letter.db"
    done = shell(*command, "--url", url, code=5)
    assert done.stderr.startswith("outlive: ")
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["runs", "ls"], ["db", "check"], ["doctor"]], ids=" ".join)
def test_looking_creates_no_file(shell, tmp_path, command):
    shell(*command, "--url", f"sqlite:///{tmp_path}/typo.db", code=5)
    assert not (tmp_path / "typo.db").exists()


def test_password_is_not_shown(shell):
    done = shell("runs", "ls", "--url", "postgresql://nobody:sesame@127.0.0.1:1/none", code=5)
    assert "sesame" not in done.stderr


def test_version_and_help(shell):
    assert shell("--version").stdout == f"outlive {outlive.__version__}\n"
    for command in ("", "demo", "runs", "runs ls", "runs show", "runs cancel", "worker", "db", "db migrate", "doctor"):
        assert "Usage: outlive" in shell(*command.split(), "--help").stdout
