"""What callers see when PostgreSQL goes away, comes back, or its reply is lost; and many calls on few connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from outlive.clock import SystemClock
from outlive.errors import StoreUnavailable, UsageError
from outlive.model.writes import Batch
from outlive.store.postgres import PostgresStore
from outlive.store.refusals import EntrySettled, FenceLost
from tests.conformance.records import new_entry, new_run, register, start_owned, status
from tests.support.postgres import PostgresServer, shared_server
from tests.support.wire import Wire, mentions


@pytest.fixture
def url() -> Iterator[str]:
    url = shared_server().fresh_database()
    yield url
    shared_server().take_back(url)


@pytest.fixture
def wire(url: str) -> Iterator[Wire]:
    """A way to the database that loses replies."""
    with Wire(url) as wire:
        yield wire


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be stopped and killed."""
    with PostgresServer() as server:
        if server.external:
            pytest.skip("somebody else's server is not stopped")
        yield server


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random(), **settings)
    await store.open(migrate=True)
    try:
        yield store
    finally:
        await store.close()


async def test_a_store_recovers_when_the_server_is_back(server):
    url = server.fresh_database()
    async with opened(url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await asyncio.to_thread(server.stop)
        with suppress(StoreUnavailable):
            await store.now()  # a connection that was open may be noticed only now
        with pytest.raises(StoreUnavailable, match="start it"):
            await store.now()
        with pytest.raises(StoreUnavailable) as refused:
            await store.commit(Batch(entries=[new_entry(run.row)]), fence)
        assert not refused.value.outcome_unknown  # it was never sent
        await asyncio.to_thread(server.start)
        assert not (await store.commit(Batch(entries=[new_entry(run.row)]), fence)).refused
        assert len(await store.list_entries("order-1")) == 1


async def test_what_was_acknowledged_before_a_kill_is_there_after_it(server):
    url = server.fresh_database()
    async with opened(url) as store:
        acknowledged: list[str] = []
        enough = asyncio.Event()
        unknown: list[Batch] = []

        async def write(lane: int) -> None:
            for number in range(10_000):
                batch = Batch(starts=[new_run(f"order-{lane}-{number}")])
                try:
                    await store.commit(batch, None)
                except StoreUnavailable as error:
                    if error.outcome_unknown:
                        unknown.append(batch)
                    return
                acknowledged.append(batch.starts[0].id)
                if len(acknowledged) > 50:
                    enough.set()

        lanes = [asyncio.create_task(write(lane)) for lane in range(4)]
        await enough.wait()
        await asyncio.to_thread(server.restart, kill=True)
        await asyncio.gather(*lanes)
        for batch in unknown:  # sending again is always right
            assert not (await store.commit(batch, None)).existing
            acknowledged.append(batch.starts[0].id)
        assert [run_id for run_id in acknowledged if await store.find_run(run_id) is None] == []


async def test_the_lease_s_connection_is_opened_again(server):
    url = server.fresh_database()
    async with opened(url) as store:
        fence = await register(store)
        side = await store.side_channel()
        await side.beat(fence, 60.0)
        await asyncio.to_thread(server.restart)
        async with asyncio.timeout(10):
            while True:
                with suppress(StoreUnavailable):
                    await side.beat(fence, 60.0)
                    break
        await store.take_over([fence.worker])
        with pytest.raises(FenceLost):
            await side.beat(fence, 60.0)
        await side.close()


async def test_a_lost_reply_to_a_batch_is_told_and_the_batch_may_be_sent_again(wire):
    async with opened(wire.url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        batch = Batch(starts=[new_run("order-2")], entries=[new_entry(run.row, value='"marked-value"')])
        wire.lose(mentions("marked-value"))
        with pytest.raises(StoreUnavailable) as lost:
            await store.commit(batch, fence)
        assert lost.value.outcome_unknown
        committed = await store.commit(batch, fence)
        assert (committed.existing, committed.refused) == ({}, set())
        assert len(await store.list_entries("order-1")) == 1
        assert await status(store, "order-2") == "queued"


async def test_a_lost_reply_to_the_commit_of_a_transaction_is_told(wire):
    async with opened(wire.url) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        tx = await store.begin(5.0)
        await tx.execute("create table bookings (id text)")
        wire.lose(mentions("commit;"))
        with pytest.raises(StoreUnavailable) as lost:
            await tx.commit(fence, new_entry(run.row))
        assert lost.value.outcome_unknown
        assert [entry.outcome for entry in await store.list_entries("order-1")] == ["ok"]
        tx = await store.begin(5.0)
        assert await tx.fetchval("select count(*) from bookings") == 0  # committed, so it can be read
        with pytest.raises(EntrySettled):
            await tx.commit(fence, new_entry(run.row))


async def test_a_connection_lost_within_a_transaction_undoes_it(url):
    async with opened(url) as store:
        tx = await store.begin(5.0)
        await tx.execute("create table bookings (id text)")
        pid = await tx.fetchval("select pg_backend_pid()")
        admin = await asyncpg.connect(url)
        await admin.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(StoreUnavailable) as lost:
            await tx.fetchval("select 1")
        assert not lost.value.outcome_unknown
        with pytest.raises(UsageError, match="lost"):
            await tx.fetchval("select 1")
        await tx.rollback()
        assert await admin.fetchval("select to_regclass('bookings')") is None
        await admin.close()


async def test_a_thousand_calls_at_once_share_five_connections(url):
    async with opened(url, pool_size=5) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")

        async def call(number: int) -> None:
            if number % 3 == 0:
                await store.commit(Batch(starts=[new_run(f"order-{number + 2}")]), None)
            elif number % 3 == 1:
                await store.commit(Batch(entries=[new_entry(run.row, f"/pay#{number}", seq=number)]), fence)
            else:
                assert await store.find_run("order-1") is not None

        await asyncio.gather(*(call(number) for number in range(1_000)))
        admin = await asyncpg.connect(url)
        used = await admin.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        await admin.close()
        assert 1 < used <= 5
        assert len(await store.list_entries("order-1")) == 333


async def test_open_transactions_never_take_the_last_connection(url):
    async with opened(url, pool_size=4) as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        waiting = [asyncio.create_task(store.begin(5.0)) for _ in range(10)]
        async with asyncio.timeout(5):
            await store.commit(Batch(entries=[new_entry(run.row)]), fence)
        for begun in asyncio.as_completed(waiting):
            await (await begun).rollback()


async def test_a_cancelled_call_gives_its_connection_back(url):
    async with opened(url, pool_size=3) as store:
        blocker = await asyncpg.connect(url)
        for _ in range(8):
            async with blocker.transaction():
                await blocker.execute("lock table outlive.runs in access exclusive mode")
                call = asyncio.create_task(store.find_run("order-1"))
                await asyncio.sleep(0.02)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        async with asyncio.timeout(5):
            assert await store.find_run("order-1") is None
        await blocker.close()


async def test_hints_pass_between_stores_and_survive_a_lost_listener(url):
    async with opened(url) as store, opened(url) as other:
        assert not await store.wait_hint(0.3)
        await store.notify()
        assert not await store.wait_hint(0.1)  # its own
        await other.notify()
        assert await store.wait_hint(5.0)
        admin = await asyncpg.connect(url)
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and query ilike 'listen%'"
        )
        await admin.close()
        assert await store.wait_hint(5.0)  # hints may have been lost: it says so when it listens again
        await other.notify()
        assert await store.wait_hint(5.0)


async def test_hints_of_a_burst_are_sent_together(url):
    async with opened(url) as store:
        received: list[str] = []
        listener = await asyncpg.connect(url)
        await listener.add_listener("outlive", lambda *facts: received.append(facts[3]))
        for _ in range(500):
            await store.notify()
        await asyncio.sleep(0.1)
        await listener.close()
        assert 2 <= len(received) <= 30


async def test_without_a_way_to_listen_waiting_just_times_out(url, monkeypatch):
    async with opened(url) as store:

        async def refuse(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("a pooler")

        monkeypatch.setattr(store._hints._address, "connect", refuse)
        assert not await store.wait_hint(0.05)
        assert not await store.wait_hint(0.05)
        monkeypatch.undo()
