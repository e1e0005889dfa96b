"""Outlive, as its README says to use it: one app, its defaults, asyncio's own loop."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import asyncpg

import outlive
from bench.programs.system import STEPS_OF_LONG_RUN, Client, Commits, System, tally
from outlive import Outlive, step, workflow
from outlive.store.postgres import PostgresStore
from outlive.store.sqlite import SqliteStore

QUEUE = "bench-queue"
QUEUE_CONCURRENCY = 1_000_000  # a limit that is counted at each claim, and never reached


@step
async def add_one(number: int) -> int:
    tally.steps += 1
    return number + 1


@workflow
async def long_run(number: int) -> int:
    for _ in range(STEPS_OF_LONG_RUN):
        number = await add_one(number)
    return number


@workflow
async def short_run(number: int) -> int:
    return await add_one(number)


@step
async def wait_a_little() -> None:
    await asyncio.sleep(0.02)


@workflow
async def slow_run() -> None:
    await wait_a_little()


@step
async def stay(number: int) -> int:
    tally.held += 1
    if tally.holding:
        await asyncio.Event().wait()
    return number


@workflow
async def held_run(number: int) -> int:
    return await stay(await add_one(number))


@step
async def arrive(sent_ns: int) -> None:
    tally.latencies_ns.append(time.monotonic_ns() - sent_ns)


@workflow
async def handed_over(sent_ns: int) -> None:
    await arrive(sent_ns)


async def _hear_nothing(_store: Any, timeout_s: float) -> bool:
    await asyncio.sleep(timeout_s)
    return False


class OutliveSystem:
    """One app as worker."""

    _app: Outlive

    def versions(self) -> dict[str, str]:
        return {
            "Outlive": outlive.__version__,
            "asyncpg": version("asyncpg"),
            "msgspec": version("msgspec"),
            "SQLite of Outlive": sqlite3.sqlite_version,
        }

    async def open(self, url: str, options: dict[str, Any]) -> None:
        if options.pop("deaf", False):
            for store in (PostgresStore, SqliteStore):
                store.wait_hint = _hear_nothing  # type: ignore[assignment, method-assign]
        self._app = Outlive(url, **options)
        self._app.queue(QUEUE, concurrency=QUEUE_CONCURRENCY)
        await self._app.open()

    async def close(self) -> None:
        await self._app.close()

    async def run(self, *, long: bool) -> None:
        await self._app.run(long_run if long else short_run, 1)

    def agent(self) -> Callable[[], Awaitable[object]]:
        from bench.programs.agents import make_agent
        from outlive.agents import durable, pure

        agent = durable(make_agent(metadata=pure()))
        return lambda: self._app.run(agent, "go")

    async def start_held(self) -> None:
        await self._app.start(held_run, 1)

    async def enqueue(self) -> None:
        await self._app.start(short_run, 1, queue=QUEUE)

    async def client(self, url: str) -> Client:
        return OutliveClient(await Outlive(url, worker=False).open())

    async def commits(self, url: str) -> Commits:
        connection = await asyncpg.connect(url)
        await connection.execute("create table bench_commits (row bigint primary key, value text)")
        return AsyncpgCommits(connection)


class OutliveClient:
    """An app without a worker, which knows the workflow by name only."""

    def __init__(self, app: Outlive) -> None:
        self._app = app

    async def send(self, sent_ns: int, *, lined: bool) -> None:
        await self._app.start("handed_over", sent_ns, queue=QUEUE if lined else None)

    async def enqueue(self) -> None:
        await self._app.start("slow_run", queue=QUEUE)

    async def close(self) -> None:
        await self._app.close()


class AsyncpgCommits:
    """Commits through asyncpg."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._row = 0

    async def once(self) -> None:
        self._row += 1
        await self._connection.execute("insert into bench_commits values ($1, $2)", self._row, "a value")

    async def close(self) -> None:
        await self._connection.close()


def make() -> System:
    return OutliveSystem()
