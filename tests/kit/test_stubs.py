"""Stubs: another body, and everything else as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import call

import pytest

from outlive import EncodeFailed, UsageError, step, workflow
from tests.kit import shop


async def test_a_stub_stands_in_for_the_body(outlive_app):
    async with outlive_app() as app:
        with app.stub(shop.charge, returns="paid") as stub:
            run = await app.start(shop.order, "7")
            await app.advance("3 days")
            assert await run.result() == ["paid", "parcel of 7"]
        assert stub.calls == [call("7")]
        assert shop.effects == ["ship 7"]
        assert [entry.value for entry in await run.entries() if entry.name == "charge"] == ["paid"]
        await app.run_until_idle()
        await app.start(shop.order, "8")
        await app.run_until_idle()
        assert shop.effects == ["ship 7", "charge 8"]


async def test_a_stub_raises(outlive_app):
    async with outlive_app() as app:
        app.stub(shop.charge, raises=ConnectionError("no bank"))
        with pytest.raises(ConnectionError, match="no bank"):
            await app.run(shop.order, "7")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stub_calls_a_function(outlive_app, asynchronous):
    async def later(order: str) -> str:
        return f"later {order}"

    async with outlive_app() as app:
        app.stub(shop.ship, calls=later if asynchronous else lambda order: f"later {order}")
        assert await app.run(shop.plainly, "7") == "later 7" * 2
    assert shop.effects == []


async def test_a_value_goes_through_the_codec(outlive_app):
    @step
    async def measured() -> datetime:
        raise NotImplementedError

    @workflow
    async def measuring() -> bool:
        return type(await measured()) is datetime

    async with outlive_app(include=[measuring]) as app:
        with app.stub(measured, returns=datetime(2027, 1, 1, tzinfo=UTC)):
            assert await app.run(measuring)
        with app.stub(measured, returns=object()), pytest.raises(EncodeFailed, match="result of step"):
            await app.run(measuring)


async def test_a_stubbed_transaction_writes_through_it(outlive_app):
    async def book_twice(tx, order: str) -> None:
        await tx.executemany("insert into bookings (name) values ($1)", [(order,), (order,)])

    async with outlive_app() as app:
        app.sql("create table bookings (name text)")
        stub = app.stub(shop.book, calls=book_twice)
        await app.run(shop.booking, "7")
        assert stub.calls == [call("7")]
        assert len(app.sql("select * from bookings")) == 2


async def test_an_unused_stub_fails(outlive_app):
    async with outlive_app() as app:
        stub = app.stub(shop.charge, returns="paid")
        with pytest.raises(AssertionError, match="the stub of charge was never called"), stub:
            pass
    with pytest.raises(AssertionError, match="the stub of ship was never called"):
        async with outlive_app() as app:
            app.stub(shop.ship, returns="gone")


async def test_wrong_stubs_are_refused(outlive_app):
    async with outlive_app() as app:
        with pytest.raises(UsageError, match="takes a step or transaction"):
            app.stub(shop.order, returns=1)
        with pytest.raises(UsageError, match="takes a step or transaction"):
            app.stub("charge", returns=1)
        with pytest.raises(UsageError, match="takes one of"):
            app.stub(shop.charge)
        with pytest.raises(UsageError, match="takes one of"):
            app.stub(shop.charge, returns=1, raises=ValueError)
