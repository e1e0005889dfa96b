"""Scenarios which only Outlive's side has: sleepers, a long line, pruning beside work, a stream that is read."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

import outlive
from bench.programs.outlive_side import QUEUE, short_run
from bench.programs.talk import Talk
from outlive import Outlive, step, workflow
from outlive.clock import SystemClock
from outlive.model.reads import WorkerRow
from outlive.store.factory import make_store
from outlive.store.interface import Store

SHORT_LINE = 1_000
CLAIM_RUNS = 50
AT_ONCE = 500
YEAR_S = 365 * 86_400

# Finished runs with an entry each, a year old; and runs that wait in the line of a queue.
_FINISHED = {
    "postgres": """
        insert into outlive.runs (row, id, workflow, version, codec, queue, priority, input, output, status, created_at,
          started_at, finished_at)
        select n, 'old-' || n, 'short_run', '1', 'json/1', '', 0, '[1]', '2', 'succeeded', t.at, t.at, t.at
        from generate_series({first}, {first} + {count} - 1) n, (select now() - interval '1 year' as at) t;
        insert into outlive.entries (row, key, seq, kind, name, outcome, value, attempts, started_at, finished_at)
        select n, 'add_one#1', 1, 'step', 'add_one', 'ok', '2', 1, now(), now()
        from generate_series({first}, {first} + {count} - 1) n;
    """,
    "sqlite": """
        insert into ol_runs (
          row, id, workflow, version, codec, input, output, status, created_at, started_at, finished_at)
        with recursive t (n) as (values ({first}) union all select n + 1 from t where n < {first} + {count} - 1)
        select n, 'old-' || n, 'short_run', '1', 'json/1', '[1]', '2', 'succeeded', {then}, {then}, {then} from t;
        insert into ol_entries (row, key, seq, kind, name, outcome, value, attempts, started_at, finished_at)
        with recursive t (n) as (values ({first}) union all select n + 1 from t where n < {first} + {count} - 1)
        select n, 'add_one#1', 1, 'step', 'add_one', 'ok', '2', 1, {then}, {then} from t;
    """,
}
_QUEUED = {
    "postgres": """
        insert into outlive.runs (row, id, workflow, version, codec, queue, priority, input, created_at)
        select n, 'new-' || n, 'short_run', '1', 'json/1', '{queue}', 0, '[1]', now()
        from generate_series({first}, {first} + {count} - 1) n;
        insert into outlive.live (row, workflow, queue, priority, line, line_at)
        select n, 'short_run', '{queue}', 0, 'waiting', now() from generate_series({first}, {first} + {count} - 1) n;
    """,
    "sqlite": """
        insert into ol_runs (row, id, workflow, version, codec, queue, input, created_at)
        with recursive t (n) as (values ({first}) union all select n + 1 from t where n < {first} + {count} - 1)
        select n, 'new-' || n, 'short_run', '1', 'json/1', '{queue}', '[1]', {then} from t;
        insert into ol_live (row, workflow, queue, priority, line, line_at)
        with recursive t (n) as (values ({first}) union all select n + 1 from t where n < {first} + {count} - 1)
        select n, 'short_run', '{queue}', 0, 'waiting', {then} from t;
    """,
}


@workflow
async def sleeps_for_days() -> None:
    await asyncio.sleep(3 * 86_400)


async def crowd(
    _system: Any, talk: Talk, *, url: str, options: dict[str, Any], sleepers: int, settle_s: float, idle_window_s: float
) -> None:
    """Let so many runs sleep for days, and tell what the process costs while nothing else happens."""
    async with Outlive(url, **options) as app:
        await app.run(short_run, 1)
        before_mb = _rss_mb()
        for _ in range(0, sleepers, AT_ONCE):
            await asyncio.gather(*(app.start(sleeps_for_days) for _ in range(min(AT_ONCE, sleepers))))
        while app._engine().roster.executions:
            await asyncio.sleep(0.05)
        await asyncio.sleep(settle_s)
        at, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(idle_window_s)
        share = (time.process_time() - cpu) / (time.monotonic() - at)
        talk.say(figures={"cpu_percent": share * 100, "grown_mb": _rss_mb() - before_mb})


async def backlog(
    _system: Any, talk: Talk, *, url: str, options: dict[str, Any], finished: int, queued: int, claims: int
) -> None:
    """Time claims from a short line in an empty database, then from a long one behind many finished runs."""
    kind = "sqlite" if url.startswith("sqlite") else "postgres"
    store = make_store(url, clock=SystemClock(), chance=random.Random(7), pool_size=2)
    await store.open(migrate=True)
    try:
        _fill(url, _QUEUED[kind], first=1, count=SHORT_LINE)
        few_ms = await _claim(store, SHORT_LINE // CLAIM_RUNS)
        _fill(url, _FINISHED[kind], first=SHORT_LINE + 1, count=finished)
        _fill(url, _QUEUED[kind], first=SHORT_LINE + finished + 1, count=queued)
        full_ms = await _claim(store, claims)
    finally:
        await store.close()
    talk.say(figures={"few_ms": few_ms, "full_ms": full_ms, "times": full_ms / few_ms})


async def _claim(store: Store, claims: int) -> float:
    """Give the median time of a claim."""
    worker = random.getrandbits(60)
    fence = await store.register(WorkerRow(worker, 1, "bench", os.getpid(), "bench", None, 0.0), 3600.0)
    took_ms = []
    for _ in range(claims):
        at = time.perf_counter()
        line = await store.claim_line(fence, ["short_run"], None, CLAIM_RUNS, "")
        took_ms.append((time.perf_counter() - at) * 1000)
        assert len(line.claimed) == CLAIM_RUNS, len(line.claimed)
    return median(took_ms)


async def prune(
    _system: Any,
    talk: Talk,
    *,
    url: str,
    options: dict[str, Any],
    finished: int,
    in_flight: int,
    warm_s: float,
    window_s: float,
) -> None:
    """Time runs undisturbed, then while old ones are pruned."""
    kind = "sqlite" if url.startswith("sqlite") else "postgres"
    async with Outlive(url, **options) as app:
        await asyncio.to_thread(_fill, url, _FINISHED[kind], first=1, count=finished)
        await _latency(app, in_flight, warm_s)
        calm_ms = await _latency(app, in_flight, window_s)
        pruning = asyncio.create_task(app.prune(older_than=YEAR_S / 2))
        busy_ms = await _latency(app, in_flight, window_s)
        ended = pruning.done()
        at = time.monotonic()
        pruned = await pruning
    figures = {"calm_ms": calm_ms, "busy_ms": busy_ms, "times": busy_ms / calm_ms, "pruned": pruned}
    talk.say(figures=figures | {"ended_within": float(ended), "rest_s": time.monotonic() - at})


async def _latency(app: Outlive, in_flight: int, window_s: float) -> float:
    """Give the median time of a run in ms, with so many in flight."""
    took_ms: list[float] = []
    until = time.monotonic() + window_s

    async def run_again_and_again() -> None:
        while time.monotonic() < until:
            at = time.perf_counter()
            await app.run(short_run, 1)
            took_ms.append((time.perf_counter() - at) * 1000)

    await asyncio.gather(*(run_again_and_again() for _ in range(in_flight)))
    return median(took_ms)


@step
async def read_clock() -> int:
    return time.monotonic_ns()


@workflow
async def newsagent(items: int, gap_s: float) -> None:
    await outlive.receive("begin")
    for _ in range(items):
        await asyncio.sleep(gap_s)
        await outlive.emit("news", await read_clock())


async def emit_items(_system: Any, talk: Talk, *, url: str, options: dict[str, Any], items: int, gap_s: float) -> None:
    """Execute a run that emits so many items, once it is told to begin."""
    async with Outlive(url, **options) as app:
        run = await app.start(newsagent, items, gap_s, id="news")
        talk.say(ready=True)
        await run.result()
        talk.say(done=True)


async def read_items(_system: Any, talk: Talk, *, url: str) -> None:
    """Read the stream of a run in another process, and tell how long each item took."""
    latencies_ms = []
    async with Outlive(url, worker=False) as app:
        run = await app.get("news")
        await run.send("begin", None)
        async for item in run.stream("news"):
            latencies_ms.append((time.monotonic_ns() - item.value) / 1e6)
    talk.say(latencies_ms=latencies_ms)


def _fill(url: str, script: str, **facts: Any) -> None:
    text = script.format(queue=QUEUE, then=time.time() - YEAR_S, **facts)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
            connection.executescript("begin immediate;" + text + "commit;")
            connection.execute("analyze")
        return
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(text)
        connection.execute("vacuum analyze")


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
