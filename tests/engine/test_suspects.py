"""Suspects: a run that crashed twice executes alone, and a busy worker makes room for it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import asyncpg
import pytest

from outlive import Outlive, RunCancelled, Status, step, workflow
from outlive.engine import claimer
from outlive.limits import QUARANTINE_CRASHES

together: set[str] = set()
seen_beside_the_suspect: list[set[str]] = []


@step
async def work(name: str) -> None:
    together.add(name)
    if name == "suspect":
        seen_beside_the_suspect.append(set(together))
    await asyncio.sleep(0.02)
    together.discard(name)


@workflow
async def busy(name: str) -> None:
    while True:
        await work(name)


@workflow
async def suspect() -> str:
    await work("suspect")
    return "innocent"


async def _accuse(url: str, run_id: str, crashes: int = 2, hold: str | None = None) -> None:
    """Make the run a suspect: as takeovers would have counted its crashes."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute(
                "update ol_live set crashes = ?, hold = ?, wake_at = iif(? is null, 0, null) "
                "where row = (select row from ol_runs where id = ?)",
                (crashes, hold, hold, run_id),
            )
        return
    connection = await asyncpg.connect(url)
    await connection.execute(
        "update outlive.live set crashes = $1, hold = $2, wake_at = case when $2::text is null then now() end "
        "where row = (select row from outlive.runs where id = $3)",
        crashes,
        hold,
        run_id,
    )
    await connection.close()


async def test_a_busy_worker_makes_room_for_a_suspect(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimer, "SUSPECT_EVERY_S", 0.2)
    together.clear()
    seen_beside_the_suspect.clear()
    async with Outlive(url, include=[busy, suspect], grace=1) as app:
        others = [await app.start(busy, f"busy-{number}") for number in range(5)]
        run = await app.start(suspect, delay=3600)
        await _accuse(url, run.id)
        assert await run.result(timeout=20) == "innocent"
        assert seen_beside_the_suspect == [{"suspect"}]
        for other in others:
            await other.cancel()


entered: list[str] = []


@workflow
async def poison() -> None:
    entered.append("poison")
    await work("poison")


async def test_a_quarantined_run_is_cancelled_without_being_entered(url: str) -> None:
    """Its own code may be what kills the process."""
    entered.clear()
    async with Outlive(url, include=[poison]) as app:
        run = await app.start(poison, delay=3600)
        await _accuse(url, run.id, QUARANTINE_CRASHES, "quarantined")
        assert await run.status() == Status.QUARANTINED
        assert await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=20)
        assert entered == []
        other = await app.start(poison, delay=3600)
        await _accuse(url, other.id, QUARANTINE_CRASHES, "quarantined")
        assert await other.resume()
        assert await other.result(timeout=20) is None
        assert entered == ["poison"]
