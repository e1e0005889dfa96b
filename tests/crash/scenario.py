"""What the crash suite runs: a few workflows that touch every commit site, with effects that can be counted.

A step's effect is a line in a ledger file, written and synced by its body, so a
second execution shows. A transaction's effect is a row of the user's table
`bookings`, which nothing keeps from being doubled but the transaction itself.
Results and journals are the same in every undisturbed course.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import outlive
from outlive import Outlive, Retry, StepInfo, step, transaction, workflow
from outlive.agents import Budget, durable

TABLE = "create table if not exists bookings (label text not null, cents integer not null)"
FINAL_ID = "after-all"

app: Outlive = None  # type: ignore[assignment]  # the open app of this process, for starts inside transactions
ledger: Path = Path()


def executed() -> StepInfo:
    """Write down that a body executes, on disk, before its effect counts."""
    info = outlive.info()
    assert isinstance(info, StepInfo)
    line = {"run": info.run_id, "key": info.key, "attempt": info.attempt, "pid": os.getpid(), "at": time.time()}
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return info


@step
async def label(text: str) -> str:
    executed()
    return f"<{text}>"


@step(retry=Retry(attempts=9, first_delay=0.01))
async def charge(cents: int) -> int:
    if executed().attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return cents


@step
def pack(item: str) -> str:
    executed()
    return f"packed {item}"


@transaction
async def book(tx: Any, text: str, cents: int) -> int:
    executed()
    await tx.execute("insert into bookings (label, cents) values ($1, $2)", text, cents)
    return int(await tx.fetchval("select count(*) from bookings where label = $1", text))


@transaction
def book_plainly(tx: Any, text: str, cents: int) -> int:
    executed()
    tx.execute("insert into bookings (label, cents) values ($1, $2)", text, cents)
    return int(tx.fetchval("select count(*) from bookings where label = $1", text))


@transaction
async def book_and_start(tx: Any, text: str, run_id: str) -> str:
    executed()
    await tx.execute("insert into bookings (label, cents) values ($1, $2)", text, 3)
    run = await app.start(errand, 7, id=run_id, tx=tx)
    return run.id


# -- through sessions ------------------------------------------------------------
sessions = sessionmaker()
async_sessions = async_sessionmaker()
BOOKING = sqlalchemy.text("insert into bookings (label, cents) values (:label, :cents)")


def bind_sessions(url: str) -> None:
    """Let sessions lead to the app's database; where there are none (apsw, async on SQLite) the bodies get a tx."""
    if url.startswith("sqlite"):
        sessions.configure(bind=create_engine(url.partition("?")[0]))
        book_in_async_session.spec.session = None
        if "apsw" in url:
            book_in_session.spec.session = None
    else:
        sessions.configure(bind=create_engine(url.replace("postgresql:", "postgresql+psycopg:")))
        plain, no_tls = url.partition("?")[0], {"ssl": False}  # this dialect does not read sslmode=…
        engine = create_async_engine(plain.replace("postgresql:", "postgresql+asyncpg:"), connect_args=no_tls)
        async_sessions.configure(bind=engine)


@transaction(session=sessions)
def book_in_session(session: Any, text: str, cents: int) -> None:
    executed()
    if isinstance(session, Session):
        session.execute(BOOKING, {"label": text, "cents": cents})
    else:
        session.execute("insert into bookings (label, cents) values ($1, $2)", text, cents)


@transaction(session=async_sessions)
async def book_in_async_session(session: Any, text: str, cents: int) -> None:
    executed()
    if isinstance(session, AsyncSession):
        await session.execute(BOOKING, {"label": text, "cents": cents})
    else:
        await session.execute("insert into bookings (label, cents) values ($1, $2)", text, cents)


@workflow
async def books_in_sessions() -> str:
    await asyncio.to_thread(book_in_session, "in a session", 5)
    between = await label("between sessions")
    await book_in_async_session("in an async session", 6)
    await asyncio.to_thread(book_in_session, "in another session", 7)
    return between + await label("after sessions")


@workflow
async def talks() -> list[Any]:
    """What runs and programs say to each other: messages both ways, a stream, a value, a promise."""
    promise = await outlive.promise()
    await outlive.publish("token", promise.token)
    letters = [await outlive.receive("letters") for _ in range(3)]
    for letter in letters:
        await outlive.emit("log", letter)
    await outlive.send("listens", "letters", letters)
    return [letters, await promise]


@workflow
async def listens() -> list[Any]:
    return [await outlive.receive("letters")]


@workflow
async def order(item: str, cents: int) -> dict[str, Any]:
    await label(f"reserve {item}")
    paid = await charge(cents)
    booked = await book(f"{item}, async", paid)
    packed = await asyncio.to_thread(pack, item)
    booked += await asyncio.to_thread(book_plainly, f"{item}, sync", paid)
    number = outlive.uuid()
    await label(f"send {item}")
    return {"booked": booked, "packed": packed, "number": str(number)}


@workflow
async def branches(count: int) -> list[str]:
    async def branch(number: int) -> str:
        await outlive.sleep(0.01 * number)
        booked = await book(f"branch {number}", number)
        return await label(f"branch {number} of {booked}")

    return await outlive.gather(*(branch(number) for number in range(count)))


@workflow
async def errand(number: int) -> str:
    went = await label(f"errand {number}")
    await outlive.sleep(0.02)
    return went + await label("back")


async def _answer(messages: Any, info: Any) -> ModelResponse:
    return ModelResponse(parts=[TextPart("thrifty")], timestamp=datetime(2026, 1, 1, tzinfo=UTC))


thrifty = durable(Agent(FunctionModel(_answer), name="thrifty"), budget=Budget(requests=99, account="crash"))


@workflow(version="1", pin=True)
async def pinned_errand(number: int) -> str:
    return await label(f"pinned errand {number}")


@workflow
def plain_errand(text: str) -> str:
    outlive.sync.sleep(0.01)
    return pack(text) + pack("again")


@workflow
async def family() -> list[str]:
    first = await errand(1)
    sent = await outlive.start(errand, 2, parent_close="abandon")
    doomed = await outlive.start(waits_for_ever, parent_close="cancel")
    second = await asyncio.to_thread(plain_errand, "child")
    return [first, sent.id, doomed.id, second]


@workflow
async def relay(number: int) -> str:
    """Goes on as new, with a child and a booking in each generation."""
    await book(f"relay {number}", number)
    went = await errand(number)
    await label(f"relay {number}")
    if number < 3:
        await outlive.continue_as_new(number + 1)
    return went


@step
async def grow(text: str) -> str:
    executed()
    return text * 2


@workflow
async def bulky(text: str) -> str:
    """Arguments, values, a child's arguments and results that are committed apart, and small ones between them."""
    grown = await grow(text)
    small = await label(f"{len(grown)}")
    return small + (await bulky(text[1:]) if text[0] == "<" else grown)


@workflow
async def waits_for_ever() -> None:
    try:
        await outlive.sleep(hours=2)
    finally:
        await label("cleared up")


@workflow
async def starts_in_transaction() -> str:
    return await book_and_start("started in a transaction", "from-transaction")


@workflow
async def can_be_held() -> list[str]:
    before = await label("before")
    await outlive.sleep(0.3)
    return [before, await label("after")]


# -- what operators do -----------------------------------------------------------
@step
async def try_it() -> str:
    """Fail until somebody has mended the world."""
    executed()
    if not ledger.with_name("mended").exists():
        raise LookupError("it is broken")
    return "it works"


@workflow
async def mends() -> list[str]:
    return [await label("before"), await needs_mending(), await label("after")]


@workflow
async def needs_mending() -> str:
    return await try_it()


@workflow
async def is_undone() -> None:
    """Fails, and undoes what it did: by a transaction, which shows if it is repeated, and by a step."""
    await book("to be undone", 11)
    await outlive.on_rollback(book, "undone", -11)
    await outlive.on_rollback(label, "given back")
    async with outlive.shielded():
        await label("within")
    raise LookupError("it cannot be had")


@step
async def last_until_rewound() -> None:
    """Keep the run at a worker, which therefore has to be asked to let go of it."""
    executed()
    ledger.with_name("lasting").touch()
    while not ledger.with_name("rewound").exists():
        await asyncio.sleep(0.01)


@workflow
async def is_rewound() -> list[str]:
    first = await label("first")
    await outlive.sleep(0.05)
    await last_until_rewound()
    return [first, await label("second")]


@workflow
async def passes_away() -> None:
    raise ValueError("so that it can be told from the others, and pruned")


# -- what goes wrong in user code ----------------------------------------------
@step
async def stall() -> int:
    """Hang for ever, unless the attempt before was cut off by a death."""
    attempt = executed().attempt
    if attempt == 1:
        await asyncio.sleep(600)
    return attempt


@workflow
async def stalls() -> int:
    return await stall()


@step
async def block(seconds: float) -> int:
    """Block the event loop, as no step should."""
    attempt = executed().attempt
    if attempt == 1:
        time.sleep(seconds)
    return attempt


@workflow
async def blocks(seconds: float) -> int:
    return await block(seconds)


@step
async def kill_own_process() -> None:
    executed()
    os.kill(os.getpid(), signal.SIGKILL)


@workflow
async def poison() -> None:
    await kill_own_process()


@step
async def take_long(seconds: float) -> None:
    executed()
    await asyncio.sleep(seconds)


@workflow
async def innocent(seconds: float) -> str:
    await label("begin")
    await outlive.sleep(seconds)
    await take_long(seconds)
    return await label("end")


@workflow
async def sleeps_long() -> str:
    await outlive.sleep(3)
    return await label("awake")
