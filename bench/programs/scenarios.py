"""The scenarios, as the measured process runs them. Each says its figures as one JSON line.

Throughput and CPU are read in a window while the load stands still at its full
width, so neither the start nor the tail of a process counts. CPU is the user
and system time of the whole process, all threads; the load itself is driven
from within it, for both systems by the same few lines.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from typing import Any

from bench.programs.system import System, tally
from bench.programs.talk import Talk

ALONE_WARM_RUNS = 20
SEED = 12


@asynccontextmanager
async def opened(system: System, url: str, options: dict[str, Any]) -> AsyncIterator[None]:
    await system.open(url, options)
    try:
        yield
    finally:
        await system.close()


async def throughput(
    system: System,
    talk: Talk,
    *,
    url: str,
    options: dict[str, Any],
    long: bool,
    in_flight: int,
    warm_s: float,
    window_s: float,
) -> None:
    """Keep so many runs in flight, and count in a window what they do and cost."""
    async with opened(system, url, options):
        run = partial(system.run, long=long)
        talk.say(figures=await keep_busy(run, in_flight=in_flight, warm_s=warm_s, window_s=window_s))


async def agents(
    system: System,
    talk: Talk,
    *,
    url: str,
    options: dict[str, Any],
    in_flight: int,
    warm_s: float,
    window_s: float,
) -> None:
    """Keep so many agents busy, plain ones and then durable ones, and tell what durability adds to each step."""
    from bench.programs.agents import make_agent  # only this scenario needs Pydantic AI

    measure = partial(keep_busy, in_flight=in_flight, warm_s=warm_s, window_s=window_s)
    plain, durable = partial(make_agent().run, "go"), system.agent()
    async with opened(system, url, options):
        alone, found = await measure(plain), await measure(durable)
    alone_ms, found_ms = alone["cpu_us_per_step"] / 1000, found["cpu_us_per_step"] / 1000
    talk.say(figures={"steps_per_s": found["steps_per_s"], "plain_ms": alone_ms, "beyond_ms": found_ms - alone_ms})


async def keep_busy(
    run: Callable[[], Awaitable[object]], *, in_flight: int, warm_s: float, window_s: float
) -> dict[str, float]:
    """Give runs/s, steps/s and CPU of a window in which so many runs are always in flight."""
    stopped = False
    runs = 0

    async def run_again_and_again() -> None:
        nonlocal runs
        while not stopped:
            await run()
            runs += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(run_again_and_again())
        await asyncio.sleep(warm_s)
        at, cpu, steps, ended = time.monotonic(), time.process_time(), tally.steps, runs
        await asyncio.sleep(window_s)
        wall_s, cpu_s = time.monotonic() - at, time.process_time() - cpu
        steps, ended = tally.steps - steps, runs - ended
        stopped = True
    return {
        "steps_per_s": steps / wall_s,
        "runs_per_s": ended / wall_s,
        "cpu_us_per_step": cpu_s * 1e6 / max(steps, 1),
        "cores": cpu_s / wall_s,
    }


async def alone(system: System, talk: Talk, *, url: str, options: dict[str, Any], runs: int) -> None:
    """One run at a time, and after each of them two bare commits, so that both see the same disk."""
    run_s: list[float] = []
    commits_s: list[float] = []
    async with opened(system, url, options):
        commits = await system.commits(url)
        for _ in range(ALONE_WARM_RUNS + runs):
            at = time.perf_counter()
            await system.run(long=False)
            between = time.perf_counter()
            await commits.once()
            await commits.once()
            run_s.append(between - at)
            commits_s.append(time.perf_counter() - between)
        await commits.close()
    pairs = list(zip(run_s, commits_s, strict=True))[ALONE_WARM_RUNS:]
    figures = {
        "run_ms": median(run for run, _ in pairs) * 1000,
        "two_commits_ms": median(commits for _, commits in pairs) * 1000,
        "beyond_ms": median(run - commits for run, commits in pairs) * 1000,  # of neighbours: the disk changes its pace
    }
    talk.say(figures=figures)


async def idle(
    system: System, talk: Talk, *, url: str, options: dict[str, Any], settle_s: float, window_s: float
) -> None:
    """Do nothing, and tell what that costs."""
    async with opened(system, url, options):
        await system.run(long=False)
        await asyncio.sleep(settle_s)
        at, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(window_s)
        share = (time.process_time() - cpu) / (time.monotonic() - at)
    talk.say(figures={"cpu_percent": share * 100})


async def queue(
    system: System, talk: Talk, *, url: str, options: dict[str, Any], runs: int, in_flight: int, settle_s: float
) -> None:
    """Start runs through a queue, so many starts at a time, and execute them: from the first start to the last step."""
    width = asyncio.Semaphore(in_flight)

    async def enqueue() -> None:
        async with width:
            await system.enqueue()

    async with opened(system, url, options):
        await system.run(long=False)
        await asyncio.sleep(settle_s)
        before, at, cpu = tally.steps, time.monotonic(), time.process_time()
        await asyncio.gather(*(enqueue() for _ in range(runs)))
        await _until(lambda: tally.steps - before >= runs)
        wall_s, cpu_s = time.monotonic() - at, time.process_time() - cpu
    talk.say(figures={"runs_per_s": runs / wall_s, "cpu_us_per_run": cpu_s * 1e6 / runs})


async def serve(system: System, talk: Talk, *, url: str, options: dict[str, Any], settle_s: float) -> None:
    """Execute what a client in another process starts; the runner says how many to expect."""
    async with opened(system, url, options):
        await asyncio.sleep(settle_s)
        talk.say(ready=True)
        expected = int(await talk.hear())
        await _until(lambda: len(tally.latencies_ns) >= expected)
        talk.say(latencies_ms=[latency / 1e6 for latency in tally.latencies_ns])


async def fill(system: System, talk: Talk, *, url: str, runs: int, in_flight: int) -> None:
    """Start runs in a queue while nobody executes them."""
    client, width = await system.client(url), asyncio.Semaphore(in_flight)

    async def enqueue() -> None:
        async with width:
            await client.enqueue()

    await asyncio.gather(*(enqueue() for _ in range(runs)))
    talk.say(filled=runs)
    await client.close()


async def send(system: System, talk: Talk, *, url: str, messages: int, gap_s: float, lined: bool) -> None:
    """Start runs for another process at random moments, `gap_s` apart on average; `lined`: in a queue."""
    chance = random.Random(SEED)
    client = await system.client(url)
    for _ in range(messages):
        await asyncio.sleep(min(chance.expovariate(1 / gap_s), 10 * gap_s))
        await client.send(time.monotonic_ns(), lined=lined)
    talk.say(sent=messages)
    await client.close()


async def hold(system: System, talk: Talk, *, url: str, options: dict[str, Any], runs: int, in_flight: int) -> None:
    """Start runs that get stuck in their second step, and wait there to be killed."""
    tally.holding = True
    width = asyncio.Semaphore(in_flight)

    async def start() -> None:
        async with width:
            await system.start_held()

    async with opened(system, url, options):
        await asyncio.gather(*(start() for _ in range(runs)))
        await _until(lambda: tally.held >= runs)
        talk.say(ready=True)
        await talk.hear()


async def recover(system: System, talk: Talk, *, url: str, options: dict[str, Any]) -> None:
    """Open the app that was killed; the runner watches its runs end in the database."""
    talk.say(opening_ns=time.monotonic_ns())
    async with opened(system, url, options):
        await talk.hear()
    talk.say(figures={"repeated_steps": tally.steps, "ended_steps": tally.held})


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
