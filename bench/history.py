"""A long history: what listing, counting and pruning cost beside a million finished runs.

    python -m bench.history --runs 1000000 [--only sqlite] [--work 10]

The history is written by SQL. Then every query is asked for its first page; then runs are started one after
the other, at first undisturbed, then while all that is older is pruned. Prints one table per store.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from bench.places import Places
from bench.stats import percentile
from outlive import Outlive, step, workflow
from outlive.ids import Ids

PAGE = 100
ROUNDS = 15
DAYS = 60  # over which the history is spread
QUERIES = """
    all|status:succeeded|status:failed|status:failed,cancelled|status:queued|-status:succeeded
    workflow:checkout|workflow:rare|workflow:rare status:failed|workflow:nothing|-workflow:checkout,refund
    tenant:42|tenant:nobody|tenant:42,43,44 status:succeeded|tenant:42 workflow:checkout|queue:mail|key:k7
    id:run-77|id:run-77*|id:run-*|id:nobody-*|version:v1|version:nothing
    age:<1d|age:>59d|created:>=2026-01-01|finished:<1d|finished:<1m|finished:>59d
"""

SERIES = {
    "sqlite": "with recursive s (n) as (select 1 union all select n + 1 from s where n < {runs}) ",
    "postgres": "with s (n) as (select * from generate_series(1, {runs})) ",
}
WORKFLOW = "case when n <= 100 then 'rare' when n % 10 = 0 then 'refund' else 'checkout' end"
STATUS = "case when n % 100 = 0 then 'failed' when n % 100 = 1 then 'cancelled' else 'succeeded' end"
COLUMNS = "id, workflow, version, codec, queue, priority, key, status, created_at, started_at, finished_at, attributes"
RUN = f"""'run-' || n, {WORKFLOW}, 'v1', 'json/1', case when n % 1000 = 0 then 'mail' else '' end, 0,
    case when n % 1000 = 7 then 'k' || (n % 10007) end, {STATUS}, MOMENT, MOMENT, MOMENT,
    '{{"tenant": ' || (n % 10000) || '}}', '{{"args": [1], "kwargs": {{}}}}', '"done"'"""
ENTRY = "row, key, seq, kind, name, outcome, attempts, started_at, finished_at, value"
FILL = [
    ("runs", f"row, {COLUMNS}, input, output", RUN),
    ("entries", ENTRY, "'act#1', 1, 'step', 'act', 'ok', 1, MOMENT, MOMENT, '\"done\"'"),
    ("run_attributes", "row, name, value", "'tenant', cast(n % 10000 as text)"),
]


@step
async def act() -> str:
    return "done"


@workflow
async def work() -> str:
    return await act()


@workflow
async def waits() -> None:
    """Nobody serves it: its runs stay queued."""


async def fill(app: Outlive, store: str, runs: int) -> None:
    """Write the history, evenly spread over the days before now."""
    now = time.time()
    span_s = DAYS * 86_400.0
    first, last = Ids.first_row(now - span_s), Ids.first_row(now - 60)
    prefix = "ol_" if store == "sqlite" else "outlive."
    at = f"({now - span_s:.3f} + n * {(span_s - 60) / runs:.9f})"
    moment = at if store == "sqlite" else f"to_timestamp({at})"
    for table, columns, values in FILL:
        row = f"({first} + n * {(last - first) // runs})"
        chosen = f"{SERIES[store].format(runs=runs)} select {row}, {values.replace('MOMENT', moment)} from s"
        await execute(app, f"insert into {prefix}{table} ({columns}) {chosen}")
    if store == "postgres":
        await execute(app, "vacuum analyze")


async def execute(app: Outlive, sql: str) -> None:
    store: Any = app._engine().store
    if hasattr(store, "_pool"):
        connection = await store._pool.take()
        try:
            await connection.execute(sql, timeout=3_600)
        finally:
            store._pool.give(connection)
    else:
        await store._writer.run(lambda db: db.run(sql))


async def timed(ask: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await ask()
    return (time.perf_counter() - begin) * 1000


async def measure_queries(app: Outlive) -> None:
    print(f"{'query':<36} {'found':>6} {'first ms':>9} {'p50 ms':>8} {'max ms':>8} {'count ms':>9}")
    for query in (query.strip() for line in QUERIES.splitlines() for query in line.split("|") if query.strip()):
        found = len((await app.runs(query, limit=PAGE)).items)
        times = [await timed(lambda query=query: _page(app, query)) for _ in range(ROUNDS)]
        counted = await timed(lambda query=query: app.count(query))
        print(f"{query:<36} {found:>6} {times[0]:>9.1f} {median(times):>8.1f} {max(times):>8.1f} {counted:>9.1f}")


async def _page(app: Outlive, query: str) -> object:
    return await app.runs(query, limit=PAGE)


async def measure_work(app: Outlive, seconds: float, until: asyncio.Task[Any] | None = None) -> list[float]:
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until is not None and until.done()):
        times.append(await timed(lambda: app.run(work)))
    return times


async def play(store: str, url: str, runs: int, work_s: float) -> None:
    async with Outlive(url, include=[work]) as app:
        begin = time.monotonic()
        await fill(app, store, runs)
        for number in range(200):
            await app._engine().store.commit(_queued(app, number), None)
        print(f"\n{store}: {runs:,} finished runs written in {time.monotonic() - begin:.0f} s")
        await measure_queries(app)
        if work_s:
            await measure_pruning(app, work_s)


def _queued(app: Outlive, number: int) -> Any:
    from outlive.model.writes import Batch, NewRun

    row = app._engine().new_row()
    return Batch(starts=[NewRun(row=row, id=f"waits-{number}", workflow="waits", input='{"args": [], "kwargs": {}}')])


async def measure_pruning(app: Outlive, work_s: float) -> None:
    for title in ("undisturbed", "undisturbed again"):
        show_times(title, await measure_work(app, work_s))
    begin = time.monotonic()
    pruning = asyncio.ensure_future(app.prune(older_than=3_600))
    times = await measure_work(app, 3_600, pruning)
    pruned = await pruning
    lasted = time.monotonic() - begin
    show_times("while pruning", times)
    print(f"pruned {pruned:,} runs in {lasted:.0f} s: {pruned / lasted:,.0f} a second")


def show_times(title: str, times: list[float]) -> None:
    p99 = percentile(times, 99)
    print(f"one run, {title:<18} p50 {median(times):6.2f} ms   p99 {p99:6.2f} ms   {len(times):,} runs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.history", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    parser.add_argument(
        "--work", type=float, default=10.0, help="seconds of undisturbed work; 0 leaves out the pruning"
    )
    options = parser.parse_args()
    with Places() as places:
        for store in ("sqlite", "postgres") if options.only is None else (options.only,):
            asyncio.run(play(store, places.fresh(store), options.runs, options.work))


if __name__ == "__main__":
    main()
