"""The schema: made once, whoever comes first; refused where it does not fit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from outlive.errors import SchemaMismatch
from outlive.model.reads import RunQuery
from outlive.store.migrate import list_pending, refuse_pending
from tests.conformance.records import start

ROOT = Path(__file__).parents[2]

UNMIGRATED = True  # its databases have no schema yet

OPENER = """
import asyncio, random, sys
from outlive.clock import SystemClock
from outlive.store.factory import make_store

async def main():
    store = make_store(sys.argv[1], clock=SystemClock(), chance=random.Random(), pool_size=2)
    sys.stdin.readline()
    await store.open(migrate=True)
    await store.close()

asyncio.run(main())
"""


async def test_a_schema_is_made_once_and_kept(shared):
    async with shared.open() as store:
        await start(store, "order-1")
    async with shared.open() as store:
        assert [run.id for run in await store.list_runs(RunQuery())] == ["order-1"]
    store = shared.make()
    assert abs(await store.open(migrate=False) - await store.now()) < 5
    await store.close()


async def test_several_stores_migrate_at_once(shared):
    stores = [shared.make() for _ in range(5)]
    await asyncio.gather(*(store.open(migrate=True) for store in stores))
    for store in stores:
        assert await store.list_runs(RunQuery()) == []
        await store.close()


def test_several_processes_migrate_at_once(shared):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, shared.url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT / "src")},
        )
        for _ in range(5)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors


async def test_an_empty_database_is_left_empty(shared):
    store = shared.make()
    with pytest.raises(SchemaMismatch, match="outlive db migrate"):
        await store.open(migrate=False)
    await store.close()
    async with shared.open() as store:
        assert await store.list_runs(RunQuery()) == []


SHIPPED = ["0001_initial.sql", "0002_queues.sql", "0003_blobs.sql"]


def test_what_is_missing_is_applied_in_order():
    assert list_pending([], reversed(SHIPPED), "db") == SHIPPED
    assert list_pending([1], SHIPPED, "db") == SHIPPED[1:]
    assert list_pending([3, 1], SHIPPED, "db") == ["0002_queues.sql"]
    assert list_pending([1, 2, 3], SHIPPED, "db") == []


def test_a_newer_schema_is_refused():
    with pytest.raises(SchemaMismatch, match=r"db has schema version 4, .* knows up to 3: .*upgrade"):
        list_pending([1, 2, 3, 4], SHIPPED, "db")


def test_pending_migrations_are_refused_with_the_command_to_run():
    with pytest.raises(SchemaMismatch, match=r"db has schema version 1, .* needs 3: run `outlive db migrate`"):
        refuse_pending(SHIPPED[1:], [1], "db")
    with pytest.raises(SchemaMismatch, match="db has no Outlive schema yet"):
        refuse_pending(SHIPPED, [], "db")
    refuse_pending([], [1, 2, 3], "db")


@pytest.mark.parametrize("shipped", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["first.sql"]])
def test_files_that_are_not_numbered_are_a_bug(shipped):
    with pytest.raises(ValueError, match=r"number|named"):
        list_pending([], shipped, "db")
