"""DBOS 3.4, as its documentation says to use it from async code, with the settings that were fastest here.

Async workflows and steps, called directly (no handle to wait for), on the
caller's loop; a queue and DBOSClient between processes; recovery on launch.
Settings are its own documented ones: see `_settings`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from dbos import DBOS, DBOSClient  # type: ignore[import-not-found, unused-ignore]

from bench.programs.system import STEPS_OF_LONG_RUN, Client, Commits, System, tally

APP = "bench"
CODE_VERSION = "bench-1"  # recovery looks for the runs of its own version only
QUEUE = "bench-queue"
POOL_SIZE = 64  # as many as runs in flight: +15 % steps/s over its default of 20 in our trials
SQLITE_THREADS = 4  # unbounded, its default, threads contend for SQLite's lock: half the steps/s


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def add_one(number: int) -> int:
    tally.steps += 1
    return number + 1


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def long_run(number: int) -> int:
    for _ in range(STEPS_OF_LONG_RUN):
        number = await add_one(number)
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def short_run(number: int) -> int:
    return int(await add_one(number))


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def stay(number: int) -> int:
    tally.held += 1
    if tally.holding:
        await asyncio.Event().wait()
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def held_run(number: int) -> int:
    return int(await stay(await add_one(number)))


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def wait_a_little() -> None:
    await asyncio.sleep(0.02)


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def slow_run() -> None:
    await wait_a_little()


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def arrive(sent_ns: int) -> None:
    tally.latencies_ns.append(time.monotonic_ns() - sent_ns)


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def handed_over(sent_ns: int) -> None:
    await arrive(sent_ns)


def _settings(url: str) -> dict[str, Any]:
    settings = {"name": APP, "system_database_url": url, "application_version": CODE_VERSION, "log_level": "ERROR"}
    if not url.startswith("sqlite"):
        return settings | {"sys_db_pool_size": POOL_SIZE}
    # DBOS leaves SQLite's journal mode alone; the mode stays with the file, and WAL is three times as fast for it.
    with sqlite3.connect(Path(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("pragma journal_mode = wal")
    connection.close()
    return settings | {"max_executor_threads": SQLITE_THREADS}


class DbosSystem:
    """The one DBOS instance of the process, launched."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("dbos", "psycopg", "SQLAlchemy")}

    async def open(self, url: str, options: dict[str, Any]) -> None:
        DBOS(config=_settings(url))
        DBOS.launch()
        if options:
            await DBOS.register_queue_async(QUEUE, **options)

    async def close(self) -> None:
        await asyncio.to_thread(DBOS.destroy)

    async def run(self, *, long: bool) -> None:
        await (long_run if long else short_run)(1)

    def agent(self) -> Callable[[], Awaitable[object]]:
        from pydantic_ai.durable_exec.dbos import DBOSDurability

        from bench.programs.agents import add_one, make_agent

        # A tool is recorded only if it is a step of DBOS.
        agent = make_agent(DBOS.step()(add_one), capabilities=[DBOSDurability()])

        async def ask(prompt: str) -> str:
            return (await agent.run(prompt)).output

        return partial(DBOS.workflow()(ask), "go")

    async def start_held(self) -> None:
        await DBOS.start_workflow_async(held_run, 1)

    async def enqueue(self) -> None:
        await DBOS.enqueue_workflow_async(QUEUE, short_run, 1)

    async def client(self, url: str) -> Client:
        return DbosClient(DBOSClient(system_database_url=url, application_name=APP))

    async def commits(self, url: str) -> Commits:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        await connection.execute("create table bench_commits (row bigint primary key, value text)")
        return PsycopgCommits(connection)


class DbosClient:
    """DBOSClient, which knows the workflow and its queue by name only, and starts nothing outside of one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(self, sent_ns: int, *, lined: bool) -> None:
        await self._client.enqueue_async({"queue_name": QUEUE, "workflow_name": "handed_over"}, sent_ns)

    async def enqueue(self) -> None:
        await self._client.enqueue_async({"queue_name": QUEUE, "workflow_name": "slow_run"})

    async def close(self) -> None:
        self._client.destroy()


class PsycopgCommits:
    """Commits through psycopg."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._row = 0

    async def once(self) -> None:
        self._row += 1
        await self._connection.execute(
            "insert into bench_commits values (%s, %s)", (self._row, "a value"), prepare=True
        )

    async def close(self) -> None:
        await self._connection.close()


def make() -> System:
    return DbosSystem()
