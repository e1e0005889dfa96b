"""Claims from a line that meet each other, and how much of a long line one of them reads."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from outlive.model.writes import Batch, Terms
from outlive.store.postgres.connect import SESSION_SQL
from tests.conformance.records import finish, new_run, register, start
from tests.conftest import Database
from tests.support.postgres import shared_server

CLAIM = "select run_row from outlive.claim_line($1, 1, array['ship'], null, $2, '') where run_row is not null"


@pytest.fixture
def database():
    url = shared_server().migrated_database()
    yield Database("postgres", url)
    shared_server().take_back(url)


async def waits_for_lock(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)


async def test_a_claim_counts_behind_the_lock(database):
    """What another claim has given away while this one waited for the lock is counted."""
    async with database.open() as store:
        fence = await register(store)
        await store.put_queue("q", declared=json.dumps({"concurrency": 1, "rate": [1, 600]}))
        first, _ = await start(store, "a", "b", queue="q")
        connection, watch = await asyncpg.connect(database.url), await asyncpg.connect(database.url)
        async with connection.transaction():
            await connection.execute("select from outlive.queues where queue = 'q' for update")
            claiming = asyncio.create_task(store.claim_line(fence, ["ship"], None, 9, ""))
            await waits_for_lock(watch)
            await connection.execute("update outlive.live set line = 'admitted', owner = 7 where row = $1", first.row)
        found = await claiming
        await connection.close()
        await watch.close()
        assert (found.claimed, found.waiting) == ([], True)


async def test_a_start_counts_the_backlog_behind_the_lock(database):
    async with database.open() as store:
        await store.put_queue("q", declared='{"backlog": 3}')
        runs = [new_run(f"r{number}", queue="q") for number in range(12)]
        starts = (store.start_alone(run, Terms(), "{}") for run in runs)
        made = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(one is None for one in made) == 3
        (row,) = await store.list_queues("q")
        assert row.waiting == 3


async def test_two_processes_share_one_queue(database):
    limits = {"concurrency": 5, "per_worker": 3, "per_key": 2}
    async with database.open() as one, database.open() as other:
        await one.put_queue("q", declared=json.dumps(limits))
        for number in range(120):
            await start(one, f"r{number}", queue="q", key=f"k{number % 4}")
        watch = await asyncpg.connect(database.url)
        done: list[int] = []
        seen: list[int] = []

        async def work(store) -> None:
            fence = await register(store)
            while len(done) < 120:
                found = await store.claim_line(fence, ["ship"], None, 9, "")
                assert len(found.claimed) <= 3
                done.extend(run.row for run in found.claimed)
                await asyncio.sleep(0)
                ends = [finish(run.row, claim=run.claim, started_at=run.started_at) for run in found.claimed]
                if ends:
                    await store.commit(Batch(finishes=ends), fence)

        async def look() -> None:
            counting = "select count(*) from outlive.live where queue = 'q' and started_at is not null"
            by_key = f"select coalesce(max(n), 0) from ({counting.replace('count(*)', 'count(*) as n')} group by key) k"
            while len(done) < 120:
                seen.append(await watch.fetchval(counting))
                assert await watch.fetchval(by_key) <= 2

        await asyncio.gather(work(one), work(one), work(other), look())
        await watch.close()
        assert sorted(done) == sorted(set(done))
        assert max(seen) <= 5


@pytest.mark.parametrize(
    "limits", [{}, {"concurrency": 50, "per_worker": 40, "rate": [100, 5]}, {"per_key": 1, "rate_per_key": [1, 9]}]
)
@pytest.mark.parametrize("planned", ["before", "after"])
async def test_a_claim_reads_little_of_a_long_line(database, limits, planned):
    """Whether its plans were made while the tables were empty, and are kept, or when they were full and analysed."""
    async with database.open() as store:
        fence = await register(store)
        await store.put_queue("q", declared=json.dumps(limits))
    connection = await asyncpg.connect(database.url)
    await connection.execute(SESSION_SQL)
    for _ in range(8 if planned == "before" else 0):
        await connection.fetch(CLAIM, fence.worker, 20)
    await connection.execute(
        "insert into outlive.runs (row, id, workflow, codec, queue, priority, key, input, created_at)"
        " select n, 'r' || n, 'ship', 'json/1', 'q', n % 3, 'k' || n % 7, '[]', now() from generate_series(1, 20000) n"
    )
    await connection.execute(
        "insert into outlive.live (row, workflow, queue, priority, key, line, line_at)"
        " select r.row, r.workflow, r.queue, r.priority, r.key, 'waiting', now() from outlive.runs r"
    )
    if planned == "after":
        await connection.execute("vacuum analyze outlive.live")
    transaction = connection.transaction()
    await transaction.start()
    assert len(await connection.fetch(CLAIM, fence.worker, 20)) == (7 if "per_key" in limits else 20)
    scanned, fetched = await connection.fetchrow(
        "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables"
        " where schemaname = 'outlive' and relname = 'live'"
    )
    await transaction.rollback()
    await connection.close()
    assert (scanned, fetched < 1_000) == (0, True), fetched
