"""Attempts of steps, and transactions: what is tried again, what is rolled back, what takes effect once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import outlive
from outlive import Outlive, Permanent, Retry, RetryAfter, UsageError, step, transaction, workflow

LIMIT_S = 20.0
tries: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    tries.clear()


# -- retries ----------------------------------------------------------------------------------------


@step(retry=Retry(attempts=4, first_delay=0.001, on=(ConnectionError,)))
async def picky(errors: list[str]) -> str:
    info = outlive.info()
    assert isinstance(info, outlive.StepInfo)
    tries.append(info.attempt)
    kinds = {"connection": ConnectionError, "value": ValueError, "permanent": Permanent}
    if info.attempt <= len(errors):
        raise kinds[errors[info.attempt - 1]](f"attempt {info.attempt}")
    return f"attempt {info.attempt}"


@workflow
async def tries_picky(errors: list[str]) -> str:
    try:
        return await picky(errors)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@workflow
async def fails_picky() -> str:
    return await picky(["connection"] * 4)


@pytest.mark.parametrize(
    ("errors", "result", "attempts"),
    [
        (["connection", "connection"], "attempt 3", 3),
        (["connection"] * 4, "ConnectionError: attempt 4", 4),
        (["connection", "value"], "ValueError: attempt 2", 2),
        (["permanent"], "Permanent: attempt 1", 1),
    ],
)
async def test_what_is_tried_again(url: str, errors: list[str], result: str, attempts: int) -> None:
    async with Outlive(url) as app:
        run = await app.start(tries_picky, errors)
        assert await run.result(timeout=LIMIT_S) == result
        assert tries == list(range(1, attempts + 1))
        (entry,) = await run.entries()
        assert entry.attempts == attempts


@step(retry=Retry(attempts=3, first_delay=0.001))
async def busy_service(delay: float) -> str:
    tries.append(time.monotonic())
    if len(tries) < 3:
        raise RetryAfter(delay, "busy")
    return "served"


@workflow
async def waits_for_service(delay: float) -> str:
    return await busy_service(delay)


async def test_attempts_that_are_repeated_and_runs_that_fail_are_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with Outlive(url) as app:
        with pytest.raises(ConnectionError):
            await app.run(fails_picky, id="unlucky")
    told = {record.name: record for record in caplog.records if "unlucky" in record.getMessage()}
    assert told["outlive.step"].levelname == "INFO"
    assert "step picky#1 of run 'unlucky' failed at attempt 3 and is tried again" in told["outlive.step"].getMessage()
    assert told["outlive.run"].levelname == "WARNING"
    assert "in picky" in told["outlive.run"].getMessage()


async def test_retry_after_waits_at_least_so_long(url: str) -> None:
    async with Outlive(url) as app:
        assert await app.run(waits_for_service, 0.1) == "served"
        assert len(tries) == 3
        assert tries[1] - tries[0] >= 0.1
        assert tries[2] - tries[1] >= 0.1


@step
async def bare_busy() -> str:
    tries.append(1)
    raise RetryAfter(0.001, "busy")


@workflow
async def calls_bare_busy() -> str:
    return await bare_busy()


async def test_a_bare_step_is_not_tried_again(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(RetryAfter, match="busy"):
            await (await app.start(calls_bare_busy)).result(timeout=LIMIT_S)
        assert tries == [1]


# -- transactions -------------------------------------------------------------------------------------


@transaction
async def make_table(tx: Any) -> None:
    await tx.execute("create table bookings (name text primary key, cents bigint)")


@transaction
async def names(tx: Any) -> list[str]:
    return [row["name"] for row in await tx.fetch("select name from bookings order by name")]


@workflow
async def prepare() -> None:
    await make_table()


@workflow
async def listing() -> list[str]:
    return await names()


@transaction
async def book(tx: Any, name: str, then: str) -> int:
    count = await tx.execute("insert into bookings (name, cents) values ($1, $2)", name, 5)
    assert count == 1
    row = await tx.fetchrow("select name, cents from bookings where name = $1", name)
    assert (row["name"], row[1], list(row.keys())) == (name, 5, ["name", "cents"])
    await tx.executemany("insert into bookings (name, cents) values ($1, $2)", [(f"{name}-{n}", n) for n in range(2)])
    if then == "raise":
        raise ValueError("no booking today")
    if then in ("commit", "rollback", "COMMIT", "-- note\nend"):
        await tx.execute(then)
    return int(await tx.fetchval("select count(*) from bookings"))


@transaction
def plain_book(tx: Any, name: str, then: str) -> int:
    tx.execute("insert into bookings (name, cents) values ($1, $2)", name, 5)
    row = tx.fetchrow("select name, cents from bookings where name = $1", name)
    assert (row["name"], row[1]) == (name, 5)
    tx.executemany("insert into bookings (name, cents) values ($1, $2)", [(f"{name}-{n}", n) for n in range(2)])
    if then == "raise":
        raise ValueError("no booking today")
    if then in ("commit", "rollback", "COMMIT", "-- note\nend"):
        tx.execute(then)
    return int(tx.fetchval("select count(*) from bookings"))


@workflow
async def books(name: str, then: str, plain: bool) -> Any:
    try:
        if plain:
            return await asyncio.to_thread(plain_book, name, then)
        return await book(name, then)
    except (ValueError, UsageError) as error:
        return f"{type(error).__name__}: {error}"


@workflow
def plain_books(name: str) -> int:
    return plain_book(name, "")


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_transaction_commits_with_its_entry_or_not_at_all(url: str, plain: bool) -> None:
    async with Outlive(url) as app:
        await app.run(prepare)
        run = await app.start(books, "a", "", plain)
        assert await run.result(timeout=LIMIT_S) == 3
        (entry,) = await run.entries()
        assert (entry.kind, entry.outcome, entry.value) == ("transaction", "ok", 3)
        run = await app.start(books, "b", "raise", plain)
        assert await run.result(timeout=LIMIT_S) == "ValueError: no booking today"
        (entry,) = await run.entries()
        assert (entry.kind, entry.outcome) == ("transaction", "error")
        assert await app.run(listing) == ["a", "a-0", "a-1"]
        assert await app.run(plain_books, "p") == 6


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("then", ["commit", "rollback", "COMMIT", "-- note\nend"])
async def test_a_body_may_not_end_its_transaction(url: str, then: str, plain: bool) -> None:
    async with Outlive(url) as app:
        await app.run(prepare)
        said = await (await app.start(books, "a", then, plain)).result(timeout=LIMIT_S)
        assert said.startswith("UsageError: "), said
        assert await app.run(listing) == []
        assert await (await app.start(books, "b", "", plain)).result(timeout=LIMIT_S) == 3  # the connection is sound


@transaction
async def add_one(tx: Any, name: str) -> int:
    tries.append(name)
    if hasattr(tx.raw, "get_server_version"):  # PostgreSQL
        await tx.execute("set transaction isolation level serializable")
    cents = await tx.fetchval("select cents from bookings where name = 'shared'")
    if both_read is not None:
        await both_read()
    await tx.execute("update bookings set cents = $1 where name = 'shared'", cents + 1)
    return int(cents) + 1


both_read: Any = None


@workflow
async def adds(name: str) -> int:
    return await add_one(name)


@transaction
async def make_shared(tx: Any) -> None:
    await tx.execute("insert into bookings (name, cents) values ('shared', 0)")


@workflow
async def prepare_shared() -> None:
    await make_table()
    await make_shared()


async def test_transactions_that_the_database_aborts_are_run_again(url: str) -> None:
    global both_read
    arrived, complete = 0, asyncio.Event()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived >= 2:
            complete.set()
        await complete.wait()

    async with Outlive(url) as app:
        await app.run(prepare_shared)
        both_read = meet if url.startswith("postgres") else None  # SQLite has one writer: they never meet
        try:
            runs = [await app.start(adds, name) for name in ("one", "two")]
            assert sorted([await run.result(timeout=LIMIT_S) for run in runs]) == [1, 2]
        finally:
            both_read = None
        if url.startswith("postgres"):
            assert len(tries) > 2, "the database aborted nothing"
        for run in runs:
            (entry,) = await run.entries()
            assert (entry.outcome, entry.attempts) == ("ok", 1)


apps: dict[str, Outlive] = {}


@workflow
async def started_within(value: int) -> int:
    return value + 1


@transaction
async def book_and_start(tx: Any, name: str, fail: bool) -> bool:
    await tx.execute("insert into bookings (name, cents) values ($1, 1)", name)
    run = await apps["app"].start(started_within, 41, id=f"after-{name}", tx=tx)
    if fail:
        raise ValueError("not today")
    return run.created


@workflow
async def books_and_starts(name: str, fail: bool) -> bool:
    return await book_and_start(name, fail)


async def test_a_run_started_with_tx_exists_if_the_transaction_commits(url: str) -> None:
    async with Outlive(url) as app:
        apps["app"] = app
        await app.run(prepare)
        assert await app.run(books_and_starts, "a", False) is True
        assert await (await app.get("after-a")).result(timeout=LIMIT_S) == 42
        with pytest.raises(ValueError, match="not today"):
            await app.run(books_and_starts, "b", True)
        with pytest.raises(outlive.RunNotFound):
            await app.get("after-b")
        assert await app.run(started_within, 1, id="after-c") == 2
        assert await app.run(books_and_starts, "c", False) is False  # the id was used
        assert await app.run(listing) == ["a", "c"]


@transaction(timeout=0.3)
async def too_long(tx: Any) -> None:
    await tx.execute("insert into bookings (name, cents) values ('late', 1)")
    await asyncio.sleep(30)


@workflow
async def takes_too_long() -> str:
    try:
        await too_long()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was wrong"


async def test_a_transaction_that_takes_too_long_is_rolled_back(url: str) -> None:
    async with Outlive(url) as app:
        await app.run(prepare)
        said = await (await app.start(takes_too_long)).result(timeout=LIMIT_S)
        assert "longer than 0.3 s" in said, said
        assert await app.run(listing) == []


@transaction
async def called_plainly(tx: Any, value: int) -> int:
    return int(await tx.double(value))


async def test_outside_a_run_a_transaction_takes_its_callers_tx() -> None:
    class Fake:
        async def double(self, value: int) -> int:
            return 2 * value

    assert await called_plainly(Fake(), 4) == 8  # type: ignore[arg-type,call-arg]
