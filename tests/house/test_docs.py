"""The docs tell the truth: every block runs, every error and command is described, every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest

from outlive import errors
from outlive.cli import cli
from tests.house.markdown import Block, blocks, links, pages
from tests.house.source import ROOT, SRC
from tests.support import nursery
from tests.support.postgres import shared_server

RUNNER = Path(__file__).with_name("run_page.py")
# `console` and `python` run; the others are shown. Python that is not run has no language of its own.
LANGUAGES = {"python", "console", "text", "sql", "json", "toml", "yaml", "make", "csv", ""}
# Pages that promise the same on PostgreSQL, with another URL and nothing else.
ON_POSTGRES = ["README.md", "docs/start/ten-minutes.md", "docs/explain/coming-from.md"]
ON_POSTGRES += [f"docs/how-to/{name}.md" for name in ("messages", "queues", "schedules", "control", "sagas", "search")]
ON_POSTGRES += [f"docs/how-to/{name}.md" for name in ("agents", "approvals", "budgets")]
FILE_URL = re.compile(r"sqlite:///\w+\.db")
NOT_SHOWN = {"django_shop/shop/asgi.py"}  # as `startproject` writes it
NOT_SHOWN |= {"support_desk/models.py", "support_desk/servers.py"}  # the world around the desk: a script, addresses

page_ids = {"ids": lambda page: str(page.relative_to(ROOT))}


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join(("outlive", *path, name))


def _reference() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "reference").glob("*.md")))


@pytest.mark.parametrize("page", pages(), **page_ids)
def test_blocks_have_a_known_language(page):
    for block in blocks(page):
        place = f"{page.relative_to(ROOT)}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: {block.language!r}"
        assert "no-run" not in block.info.split(), f"{place}: every Python block runs"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", [page for page in pages() if blocks(page)], **page_ids)
def test_page_runs(page, tmp_path):
    _play(page, _runnable(page), tmp_path, f"sqlite:///{tmp_path}/docs.db")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", [ROOT / name for name in ON_POSTGRES], **page_ids)
def test_page_runs_on_postgres(page, tmp_path):
    server = shared_server()
    url = server.fresh_database()
    try:
        told = [block for block in _runnable(page) if "import sqlite3" not in block.body]
        _play(page, [replace(block, body=FILE_URL.sub(url, block.body)) for block in told], tmp_path, url)
    finally:
        server.take_back(url)


def _runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("python", "console") or block.title]


def _play(page: Path, shown: list[Block], folder: Path, url: str) -> None:
    place = page.relative_to(ROOT)
    actions = [
        {"language": block.language, "title": block.title, "body": block.body, "place": f"{place}:{block.line}"}
        for block in shown
    ]
    done = nursery.run(
        ["-W", "error", str(RUNNER)],
        input=json.dumps(actions),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(SRC),
            "PYTHONUNBUFFERED": "1",  # lines of a program that is killed, as on a terminal
            "OUTLIVE_URL": url,
            "PYTEST_ADDOPTS": "-p pytest_outlive",  # as if installed
        },
        merged=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout


def test_examples_on_pages_are_the_files():
    shown = {block.title: block.body for page in pages() for block in blocks(page) if block.title}
    examples = [path for path in (ROOT / "examples").rglob("*.py") if path.stat().st_size]
    assert examples
    for path in examples:
        name = str(path.relative_to(ROOT / "examples"))
        if name not in NOT_SHOWN:
            assert shown.get(name) == path.read_text(encoding="utf-8"), name


@pytest.mark.parametrize("page", [*pages(), *sorted((ROOT / "examples").rglob("README.md"))], **page_ids)
def test_links_lead_somewhere(page):
    lost = [
        link
        for link in links(page)
        if not link.startswith(("http://", "https://", "#", "mailto:"))
        and not (page.parent / link.split("#")[0]).exists()
    ]
    assert not lost


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.split("#")[0]).resolve() for link in links(index)}
    missing = [page for page in pages() if page.is_relative_to(index.parent) and page != index and page not in listed]
    assert not missing, [str(page.relative_to(ROOT)) for page in missing]


@pytest.mark.parametrize("folder", ["", "engine", "model", "store", "testing", "sync"])
def test_architecture_names_every_file(folder):
    told = (ROOT / "docs" / "explain" / "architecture.md").read_text(encoding="utf-8")
    files = [path.name for path in sorted((SRC / "outlive" / folder).glob("[a-z]*.py"))]
    assert files
    assert not [name for name in files if f"{name}`" not in told and f"`{name.removesuffix('.py')}`" not in told]


def test_every_error_is_described():
    names = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.OutliveError)
    ]
    reference = _reference()
    assert not [name for name in names if f"`{name}`" not in reference]


def test_the_tree_of_errors_is_that_of_their_classes():
    drawn: dict[str, str] = {}
    above: list[str] = ["OutliveError"]
    for line in (errors.__doc__ or "").splitlines():
        branch, _, rest = line.partition("── ")
        names = re.match(r"(?:[A-Z]\w+  )*[A-Z]\w+", rest)
        if names is not None:
            above[len(branch) // 4 :] = [rest.split()[0]]
            drawn |= dict.fromkeys(names[0].split(), above[-2])
    classes = [value for value in vars(errors).values() if isinstance(value, type) and value.__name__ in errors.__all__]
    assert drawn == {one.__name__: one.__bases__[0].__name__ for one in classes if one is not errors.OutliveError}


def test_every_command_is_described():
    reference = _reference()
    assert not [command for command in _commands(cli) if f"`{command}" not in reference]


def test_every_option_is_described():
    reference = _reference()
    options = set()
    pending: list[click.Command] = [cli]
    while pending:
        command = pending.pop()
        pending += command.commands.values() if isinstance(command, click.Group) else []
        options |= {name for option in command.params for name in option.opts if name.startswith("--")}
    assert not sorted(option for option in options if f"`{option}" not in reference)
