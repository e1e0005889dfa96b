"""What a soak run has shown, filed in docs/evidence: facts that tests tell, by part and store.

A test asks for the fixture `evidence` and calls it with the facts that it has
checked. They travel with the test's report to the process that controls the run,
which files them when the sizes are full. Numbers of tests of the same part and
store are added up, other facts are listed. A part that is run again replaces
what was filed of it, so that the soak may be run in pieces.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT
from tests.support.size import SHARE, SOAK

FOLDER = Path(ROOT) / "docs" / "evidence"
Facts = dict[str, Any]
Evidence = Callable[..., None]

_told: dict[tuple[str, str], Facts] = {}


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Tell what was shown: `evidence("transfers", store, kills=200, seed=7)`."""

    def tell(part: str, store: str, **facts: Any) -> None:
        request.node.user_properties.append(("evidence", [part, store, facts]))

    return tell


def file_module(request: pytest.FixtureRequest, evidence: Evidence, package: str) -> None:
    """File a test by its package, its module and its store."""
    store = request.node.callspec.params.get("url", "none") if hasattr(request.node, "callspec") else "none"
    evidence(f"{package}: {request.path.stem.removeprefix('test_').replace('_', ' ')}", store)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what a test has told, in the process that controls the run."""
    if report.when != "call":
        return
    for name, value in report.user_properties:
        if name == "evidence":
            part, store, facts = value
            add_facts(
                _told.setdefault((part, store), {}),
                {"tests": 1, "failed": int(not report.passed), **facts, "seconds": round(report.duration, 1)},
            )


def add_facts(known: Facts, facts: Facts) -> None:
    """Add numbers to numbers; list what differs."""
    for name, value in facts.items():
        before = known.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            known[name] = round((before or 0) + value, 1)
        elif before is None:
            known[name] = str(value)
        elif str(value) not in before.split(", "):
            known[name] = f"{before}, {value}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """File everything, at the end of a soak run."""
    if SOAK and _told and not hasattr(session.config, "workerinput"):
        file_facts(FOLDER if SHARE == 1.0 else Path(tempfile.gettempdir()) / "outlive-evidence", _told)


def file_facts(folder: Path, told: dict[tuple[str, str], Facts]) -> None:
    """Write soak.json, where each part has its latest facts, and soak.md, which a person reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "soak.json"
    filed: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": []}
    filed["machine"] = _describe_machine()
    now = {key: {"commit": _commit(), "day": time.strftime("%Y-%m-%d", time.gmtime()), **told[key]} for key in told}
    known = {(each["part"], each["store"]): each["facts"] for each in filed["parts"]} | now
    filed["parts"] = [{"part": part, "store": store, "facts": known[part, store]} for part, store in sorted(known)]
    path.write_text(json.dumps(filed, indent=1) + "\n")
    (folder / "soak.md").write_text("\n".join(_write_page(filed)) + "\n")


def _write_page(filed: Facts) -> Iterable[str]:
    yield "# What the soak tests have shown"
    yield ""
    yield "Written by `make soak`, and as facts in `soak.json` beside it. A part that is run alone replaces its rows."
    yield ""
    yield from (f"* {name}: {value}" for name, value in filed["machine"].items())
    for part in sorted({each["part"] for each in filed["parts"]}):
        yield f"\n## {part[0].upper()}{part[1:]}\n"
        yield "| store | shown | tests | time | commit, day |"
        yield "|---|---|---|---|---|"
        for each in filed["parts"]:
            if each["part"] == part:
                yield _write_row(each["store"], dict(each["facts"]))


def _write_row(store: str, facts: Facts) -> str:
    tests, failed, took_s = facts.pop("tests"), facts.pop("failed"), facts.pop("seconds")
    commit, day = facts.pop("commit"), facts.pop("day")
    shown = " · ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in facts.items())
    outcome = f"{tests}, **{failed} failed**" if failed else f"{tests} passed"
    return f"| {store} | {shown} | {outcome} | {took_s:,.0f} s | {commit}, {day} |"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _describe_machine() -> Facts:
    from bench import disk, machine
    from tests.support.postgres import shared_server

    with tempfile.TemporaryDirectory() as folder:
        flush_ms = disk.fdatasync_ms(Path(folder))
    facts = {name: value for name, value in machine.facts().items() if name not in ("commit", "day")}
    return {
        **facts,
        "SQLite": f"{sqlite3.sqlite_version} (sqlite3), {_apsw_version()} (apsw)",
        "PostgreSQL": shared_server().version(),
        "fdatasync of 4 KiB": f"{flush_ms:.2f} ms",
    }


def _apsw_version() -> str:
    import apsw

    return str(apsw.sqlite_lib_version())


def _commit() -> str:
    """Name the code that was tested."""
    head, changed = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "src", "tests"])
    )
    return f"{head}, changed" if changed else head or "unknown"
