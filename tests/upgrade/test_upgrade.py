"""Every older release: its database opens and is migrated, its runs go on and end as they would, its journals fit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from outlive import Outlive, RunCancelled, SchemaMismatch, Status
from outlive.store.migrate import number_of
from outlive.testing import replay
from tests.house.source import PACKAGE
from tests.support.postgres import shared_server
from tests.upgrade import agents, workflows
from tests.upgrade.workflows import LATER, RESULTS

HERE = Path(__file__).parent
RELEASES = sorted(folder.name for folder in HERE.iterdir() if (folder / "sqlite.sql").exists())
MIGRATIONS = PACKAGE / "store" / "postgres" / "migrations"
LIMIT_S = 40.0


@pytest.fixture(params=[(release, store) for release in RELEASES for store in ("sqlite", "postgres")], ids="-".join)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The database of a release, as its process left it when it died."""
    workflows.executed.clear()
    release, store = request.param
    frozen = (HERE / release / f"{store}.sql").read_text()
    if store == "sqlite":
        with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
            connection.executescript(frozen)
        return f"sqlite:///{tmp_path / 'old.db'}"
    import psycopg

    fresh: str = shared_server().fresh_database()
    with psycopg.connect(fresh) as connection:
        connection.execute("create schema outlive")
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if f"migration/{number_of(file.name):04}" in frozen:
                connection.execute(file.read_bytes())
        connection.execute(frozen.encode())
    return fresh


async def test_runs_under_way_go_on(url: str) -> None:
    """Nothing that is recorded executes again, and what follows does once."""
    async with Outlive(url, include=[workflows], lease=2) as app:
        for run_id, result in RESULTS.items():
            run = await app.get(run_id)
            assert await run.result(timeout=LIMIT_S, stop_on_hold=True) == result
        for run_id in ("ended", "cancelled"):
            with pytest.raises(RunCancelled):
                await (await app.get(run_id)).result(timeout=LIMIT_S)
        held = await app.get("held")
        assert await held.status() == Status.PAUSED
        assert await held.resume()
        await held.cancel()
        with pytest.raises(RunCancelled):
            await held.result(timeout=LIMIT_S)
        assert [entry.name for entry in await (await app.get("checkout")).entries()].count("charge") == 3
    assert Counter(workflows.executed) == Counter(LATER)


async def test_what_it_stored_is_read(url: str) -> None:
    async with Outlive(url, worker=False, include=[]) as client:
        info = await (await client.get("ended")).info()
        assert (info.status, info.key, info.attributes, info.version) == (Status.CANCELLED, "k", {"tier": "gold"}, "1")
        assert len((await (await client.get("checkout")).entries())[-1].value) == 70_000
        assert {count.workflow for count in await client.versions()} >= {
            "frozen-checkout",
            "frozen-family",
            "frozen-waits",
        }


async def test_its_journals_fit_the_code(url: str) -> None:
    async with Outlive(url, worker=False, include=[]) as client:
        journals = [journal async for journal in client.journals()]
    reports = await asyncio.to_thread(replay, journals, include=[workflows])
    assert len(reports) == 10
    assert {report.verdict for report in reports} == {"fits"}, "\n".join(map(str, reports))
    assert workflows.executed == []


async def test_without_leave_to_migrate_it_is_refused(url: str) -> None:
    with pytest.raises(SchemaMismatch, match="outlive db migrate"):
        async with Outlive(url, worker=False, migrate=False):
            pass


@pytest.mark.parametrize("release", RELEASES)
def test_frozen_journals_fit_the_code(release: str) -> None:
    """A file that `outlive runs export` of that release wrote, or of the first one that had it."""
    reports = replay(HERE / release / "journals.jsonl", include=[workflows])
    assert len(reports) == 10
    assert {report.verdict for report in reports} == {"fits"}, "\n".join(map(str, reports))


@pytest.mark.parametrize("release", RELEASES)
def test_frozen_journals_of_agents_fit_the_code(release: str) -> None:
    """Models are not asked, tools are not called; three runs have ended, and one waits for an approval."""
    agents.executed.clear()
    reports = replay(HERE / release / "agents.jsonl", include=[agents])
    assert sorted(report.run_id for report in reports) == sorted(agents.RUNS)
    assert {report.verdict for report in reports} == {"fits"}, "\n".join(map(str, reports))
    assert agents.executed == []
