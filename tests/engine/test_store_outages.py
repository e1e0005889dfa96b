"""A SQLite file whose name has gone under a live app: an outage like any other, which ends when it is put back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import outlive
from outlive import Outlive, StoreUnavailable, step, workflow

LIMIT_S = 20.0


@step
async def add(total: int, number: int) -> int:
    return total + number


@workflow
async def adds_what_it_hears() -> int:
    total = 0
    while (number := await outlive.receive("numbers")) is not None:
        total = await add(total, number)
    return total


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_gone_and_put_back(tmp_path: Path, replaced: bool) -> None:
    file, away = tmp_path / "test.db", tmp_path / "away.db"
    async with Outlive(f"sqlite:///{file}") as app:
        run = await app.start(adds_what_it_hears)
        await run.send("numbers", 1)
        while len(await run.entries()) < 2:
            await asyncio.sleep(0.01)
        file.rename(away)
        if replaced:
            file.touch()
        for work in (
            lambda: app.start(adds_what_it_hears, id="lost"),
            lambda: run.send("numbers", 2),
            lambda: run.status(),
        ):
            with pytest.raises(StoreUnavailable, match="deleted or replaced while it was open"):
                await work()
        away.rename(file)
        await run.send("numbers", 3)
        await run.send("numbers", None)
        assert await run.result(timeout=LIMIT_S) == 4
        assert await app.count() == 1
