"""Memos: what all processes know for a while; one makes a value, until he has made it, has given up, or is dead."""

from __future__ import annotations

import asyncio

from outlive.limits import MEMOS_FORGOTTEN
from outlive.model.reads import Memo
from tests.conformance.records import EXPIRED_S, register

LONG_S = 600.0
PASSED_S = -1.0


async def value_of(store, name: str) -> str | None:
    memo = await store.read_memo(name)
    assert isinstance(memo, Memo)
    assert 0 < memo.left_s <= LONG_S
    return memo.value


async def test_a_memo_is_known_until_it_passes(database):
    async with database.open() as store:
        assert await store.read_memo("limit") is None
        await store.put_memo("limit", "", "1", LONG_S)
        assert await value_of(store, "limit") == "1"
        await store.put_memo("limit", "", "2", LONG_S)  # again: what was said last
        assert await value_of(store, "limit") == "2"
        await store.put_memo("limit", "", None, PASSED_S)
        assert await store.read_memo("limit") is None
        assert await store.read_memo("other") is None


async def test_one_makes_a_value(database):
    async with database.open() as store:
        fence, other = await register(store), await register(store)
        assert await store.take_memo("answer", "a", fence, LONG_S)
        assert not await store.take_memo("answer", "b", other, LONG_S)
        assert await store.take_memo("answer", "a", fence, LONG_S)  # as a reply that was lost
        assert await value_of(store, "answer") is None
        await store.put_memo("answer", "a", "42", LONG_S)
        assert await value_of(store, "answer") == "42"
        for maker in ("a", "b"):  # it is made, even if its maker asks again
            assert not await store.take_memo("answer", maker, other, LONG_S)
        assert await value_of(store, "answer") == "42"


async def test_of_many_at_once_one(shared):
    async with shared.open() as store, shared.open() as second:
        fence, other = await register(store), await register(second)
        taken = await asyncio.gather(
            *(store.take_memo("answer", f"a{n}", fence, LONG_S) for n in range(5)),
            *(second.take_memo("answer", f"b{n}", other, LONG_S) for n in range(5)),
        )
        assert sum(taken) == 1


async def test_who_gives_up_leaves_it_to_the_next(database):
    async with database.open() as store:
        fence = await register(store)
        assert await store.take_memo("answer", "a", fence, LONG_S)
        await store.put_memo("answer", "b", None, PASSED_S)  # nobody else gives it up
        assert not await store.take_memo("answer", "b", fence, LONG_S)
        await store.put_memo("answer", "a", None, PASSED_S)
        assert await store.take_memo("answer", "b", fence, LONG_S)
        await store.put_memo("answer", "a", "late", LONG_S)  # what comes too late is not heard
        assert await value_of(store, "answer") is None


async def test_who_is_dead_makes_nothing(database):
    async with database.open() as store:
        dead, left, alive = await register(store, EXPIRED_S), await register(store), await register(store)
        assert await store.take_memo("one", "a", dead, LONG_S)
        assert await store.take_memo("two", "a", left, LONG_S)
        assert not await store.take_memo("one", "b", alive, LONG_S)  # nobody has found him yet
        await store.take_over([])
        await store.unregister(left)
        assert await store.take_memo("one", "b", alive, LONG_S)
        assert await store.take_memo("two", "b", alive, LONG_S)


async def test_who_takes_too_long_makes_nothing(database):
    async with database.open() as store:
        fence = await register(store)
        assert await store.take_memo("answer", "a", fence, PASSED_S)
        assert await store.read_memo("answer") is None
        assert await store.take_memo("answer", "b", fence, LONG_S)


async def test_what_has_passed_is_deleted(database):
    async with database.open() as store:
        fence = await register(store)
        for number in range(MEMOS_FORGOTTEN + 2):
            await store.take_memo(f"old-{number}", "a", fence, PASSED_S)
        await store.put_memo("kept", "", "1", LONG_S)
        await store.put_memo("kept", "", "1", LONG_S)
        tx = await store.begin(5.0)
        table = "outlive.memos" if database.kind == "postgres" else "ol_memos"
        assert [tuple(row) for row in await tx.fetch(f"select name from {table}")] == [("kept",)]
        await tx.rollback()
