"""Says where the CPU of a durable step goes: `python -m bench.profile`.

The 10-step scenario, with 64 runs in flight, first bare for the true cost per
step, then under a profiler. The profiler gives shares; the table shares out
the true cost in proportion.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from bench.catalogue import IN_FLIGHT
from bench.children import ROOT
from bench.places import Places
from bench.profilers import Found, Place, sampled, traced
from bench.programs.outlive_side import make
from bench.programs.scenarios import keep_busy
from bench.programs.system import tally

# Parts of a path, and what lies below them; the first that fits counts.
AREAS = (
    ("outlive/engine/runloop", "run loop"),
    ("outlive/engine/execution", "run: delivery, entries"),
    ("outlive/engine/calls", "run: delivery, entries"),
    ("outlive/engine/journal", "run: delivery, entries"),
    ("outlive/engine/bodies", "step bodies"),
    ("outlive/engine/committer", "committer"),
    ("outlive/engine", "engine, rest"),
    ("outlive/codec", "codec"),
    ("outlive/store/postgres", "store: PostgreSQL"),
    ("outlive/store/sqlite", "store: SQLite"),
    ("outlive/", "definitions, ids, clock"),
    ("asyncpg", "asyncpg"),
    ("asyncio", "asyncio in Python"),
    ("selectors", "asyncio in Python"),
    ("bench/", "the benchmark itself"),
)
C_AREAS = (
    ("asyncpg", "asyncpg"),
    ("sqlite3", "SQLite in C"),
    ("msgspec", "codec"),
    ("blake2", "codec"),
    ("select.", "waiting for the network (left out)"),
    ("lock", "waiting for work (left out)"),
    ("SimpleQueue", "waiting for work (left out)"),
)


def area_of(place: Place) -> str:
    """Give the part of the system that a function belongs to."""
    for part, area in AREAS if place.file else C_AREAS:
        if part in (place.file or place.name):
            return area
    return "rest in Python" if place.file else "built-in functions"


async def measure(url: str, seconds: float, profiler: Callable[[], AbstractContextManager[Found]]) -> None:
    """Measure one store bare, then profiled, and print the tables."""
    system = make()
    await system.open(url, {})
    bare = await keep_busy(partial(system.run, long=True), in_flight=IN_FLIGHT, warm_s=1.0, window_s=seconds)
    await system.close()
    before = tally.steps
    with profiler() as found:
        await system.open(url, {})
        await keep_busy(partial(system.run, long=True), in_flight=IN_FLIGHT, warm_s=0, window_s=seconds)
        await system.close()
    _print(found, tally.steps - before, bare)


def _print(found: Found, steps: int, bare: dict[str, float]) -> None:
    cost_us = bare["cpu_us_per_step"]
    print(f"bare: {cost_us:.1f} µs of CPU per step, {bare['steps_per_s']:,.0f} steps/s, {bare['cores']:.2f} cores")
    busy = {place: spent for place, spent in found.self_s.items() if "left out" not in area_of(place)}
    total_s = sum(busy.values())
    areas: Counter[str] = Counter()
    for place, spent in busy.items():
        areas[area_of(place)] += spent
    print(f"\n{'µs/step':>8}  {'share':>6}  area")
    for area, spent in areas.most_common():
        print(f"{spent / total_s * cost_us:8.2f}  {spent / total_s:6.1%}  {area}")
    print(f"\n{'µs/step':>8}  {'share':>6}  {'calls/step':>10}  function, by self time")
    for place, spent in sorted(busy.items(), key=lambda item: -item[1])[:_TOP]:
        calls = f"{found.calls[place] / steps:10.2f}" if found.calls else " " * 10
        print(f"{spent / total_s * cost_us:8.2f}  {spent / total_s:6.1%}  {calls}  {_shown(place)}")


def _shown(place: Place) -> str:
    if not place.file:
        return place.name
    path = Path(place.file)
    try:
        shown = path.relative_to(ROOT / "src")
    except ValueError:
        shown = Path(*path.parts[-2:])
    return f"{shown}:{place.line} {place.name}"


_TOP = 45


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.profile", description="Where the CPU of a durable step goes.")
    parser.add_argument("--store", choices=("postgres", "sqlite"), help="default: both")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each of the two windows")
    parser.add_argument("--sample", action="store_true", help="by samples of the main thread instead of cProfile")
    options = parser.parse_args()
    with Places() as places:
        for store in [options.store] if options.store else ["postgres", "sqlite"]:
            print(f"\n== {store}, 10-step runs, {IN_FLIGHT} in flight")
            url = places.fresh(store)
            asyncio.run(measure(url, options.seconds, sampled if options.sample else traced))
            places.drop(url)


if __name__ == "__main__":
    main()
