"""The lease of a process is lost: its runs go on, here or elsewhere, and the process goes on too."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import outlive
from outlive import Outlive, StoreUnavailable, step, transaction, workflow
from outlive.engine.transactions import Transactions
from outlive.store.postgres import PostgresStore
from outlive.store.sqlite import SqliteStore

asked: asyncio.Event


@step
async def ask() -> str:
    asked.set()
    await asyncio.sleep(0.2)
    return "answer"


@workflow
async def asking() -> str:
    return await ask()


async def test_news_of_a_loss_that_comes_twice_costs_one_incarnation(url: str) -> None:
    """A write and the beat both hear of it, and the second may come when the process has registered again."""
    global asked
    asked = asyncio.Event()
    async with Outlive(url, lease=1) as app:
        run = await app.start(asking)
        await asked.wait()
        engine = app._engine()
        lost = engine.fence()
        engine.lease_lost(lost)
        assert not engine.roster.executions
        asked.clear()
        async with asyncio.timeout(10):
            await asked.wait()  # registered again, and claimed what the lost incarnation had
        regained = engine.fence()
        engine.lease_lost(lost)
        assert engine.fence() == regained != lost
        assert len(engine.roster.executions) == 1
        assert await (await app.get(run.id)).result(timeout=10) == "answer"


async def test_a_store_that_is_away_when_the_beat_begins_is_asked_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is registered, and the way of its beat to the database cannot be opened for longer than the lease."""
    global asked
    asked = asyncio.Event()
    left = 4
    for store in (SqliteStore, PostgresStore):

        async def refuse_at_first(self: Any, open_channel: Any = store.side_channel) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise StoreUnavailable("it is away")
            return await open_channel(self)

        monkeypatch.setattr(store, "side_channel", refuse_at_first)
    async with Outlive(url, lease=0.6) as app:
        await asyncio.sleep(0.8)
        assert await (await app.start(asking)).result(timeout=10) == "answer"


async def test_registering_again_and_again_leaves_no_lock_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is lost, and the store is away when a new incarnation is to be registered."""
    async with Outlive(url, lease=1) as app:
        engine = app._engine()
        register, hold, held = engine.store.register, engine.locks.hold, []
        left = 3

        async def refuse_at_first(*facts: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise StoreUnavailable("it is away")
            return await register(*facts)

        monkeypatch.setattr(engine.locks, "hold", lambda worker: held.append(hold(worker)) or held[-1])
        monkeypatch.setattr(engine.store, "register", refuse_at_first)
        engine.lease_lost(engine.fence())
        async with asyncio.timeout(10):
            while engine.lease.fence is None:
                await asyncio.sleep(0.01)
        assert list(map(os.path.exists, [lock.path for lock in held])) == [False, False, False, True]


@transaction
async def book(tx: Any, number: int) -> int:
    await tx.execute("select 1")
    return number


@workflow
async def two_branches() -> list[Any]:
    async def first() -> float:
        await book(1)
        await outlive.emit("log", "booked")
        return outlive.random()

    return await outlive.gather(first(), book(2))


async def test_what_was_lost_before_a_transaction_that_was_committed_is_made_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One branch has recorded something in memory; the transaction of another one, which began before, is on disk."""
    async with Outlive(url, lease=1) as app:
        engine = app._engine()
        commit, lost = engine.store.commit, asyncio.Event()

        async def commit_late(batch: Any, fence: Any) -> Any:
            if not lost.is_set() and any(entry.kind == "emit" for entry in batch.entries):
                await lost.wait()
            return await commit(batch, fence)

        monkeypatch.setattr(engine.store, "commit", commit_late)
        run = await app.start(two_branches)
        async with asyncio.timeout(10):
            while len(await engine.store.list_entries(run.id)) < 2:
                await asyncio.sleep(0.01)
        worker = engine.fence().worker
        engine.lease_lost(engine.fence())
        async with asyncio.timeout(10):
            while (await engine.store.find_run(run.id)).worker == worker:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
        lost.set()
        _, second = await (await app.get(run.id)).result(timeout=10, stop_on_hold=True)
        assert second == 2
        assert [item.value async for item in run.stream("log")] == ["booked"]


async def test_a_transaction_does_not_hold_the_database_while_another_one_has_the_turn(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to the first commit is lost; whoever asks whether it took effect waits for the second transaction."""
    began: list[str] = []
    again = asyncio.Event()
    commit, begin = Transactions._commit, Transactions._begin

    async def begin_and_tell(self: Any, *facts: Any) -> Any:
        began.append("transaction")
        if len(began) == 3:
            again.set()
        return await begin(self, *facts)

    async def commit_and_wait(self: Any, *facts: Any) -> None:
        await commit(self, *facts)
        await again.wait()

    monkeypatch.setattr(Transactions, "_begin", begin_and_tell)
    monkeypatch.setattr(Transactions, "_commit", commit_and_wait)
    async with Outlive(url, lease=1) as app:
        _, second = await (await app.start(two_branches)).result(timeout=10)
    assert second == 2
