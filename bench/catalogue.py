"""What is measured: the cells (one system, one store, one scenario) and the figures read from them.

The budgets are those of section 12 of the design.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SYSTEMS = ("outlive", "dbos")
IN_FLIGHT = 64


@dataclass(frozen=True)
class Sizes:
    """How long and how often. `slow_rounds` is for scenarios that mostly wait."""

    rounds: int
    slow_rounds: int
    warm_s: float
    window_s: float
    alone_runs: int
    messages: int
    message_gap_s: float
    settle_s: float
    idle_window_s: float
    recovered_runs: int
    queued_runs: int
    sleepers: int
    finished: int
    queued: int
    claims: int


FULL = Sizes(
    rounds=5, slow_rounds=3, warm_s=1.0, window_s=3.0, alone_runs=250, messages=40, message_gap_s=0.1,
    settle_s=1.5, idle_window_s=3.0, recovered_runs=1000, queued_runs=6_000, sleepers=100_000, finished=1_000_000,
    queued=100_000, claims=300,
)  # fmt: skip
QUICK = Sizes(
    rounds=1, slow_rounds=1, warm_s=0.7, window_s=1.5, alone_runs=80, messages=20, message_gap_s=0.1,
    settle_s=1.5, idle_window_s=2.0, recovered_runs=300, queued_runs=2_000, sleepers=5_000, finished=50_000,
    queued=10_000, claims=100,
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One scenario on one store; `options` are those of the system's worker, by system."""

    name: str
    scenario: str
    store: Literal["postgres", "sqlite"]
    systems: tuple[str, ...] = SYSTEMS
    slow: bool = False
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    lined: bool = False  # what is handed over goes through a queue
    workers: int = 1


_QUEUE = {"dbos": {"polling_interval_sec": 1.0}}  # DBOS's default
_FAST_QUEUE = {"dbos": {"polling_interval_sec": 0.02}}
_NARROW = {"outlive": {"max_running": 16}}
_DEAF = {"outlive": {"deaf": True}}  # the notifier is broken on purpose: polling is all there is

CELLS = (
    Cell("long-postgres", "long", "postgres"),
    Cell("long-sqlite", "long", "sqlite"),
    Cell("short-postgres", "short", "postgres"),
    Cell("agents-postgres", "agents", "postgres"),
    Cell("agents-sqlite", "agents", "sqlite"),
    Cell("alone", "alone", "postgres"),
    Cell("handover-postgres", "handover", "postgres", slow=True, options=_QUEUE),
    Cell("handover-sqlite", "handover", "sqlite", slow=True, options=_QUEUE),
    Cell("handover-polled", "handover", "postgres", slow=True, options=_FAST_QUEUE, systems=("dbos",)),
    Cell("handover-queue-postgres", "handover", "postgres", slow=True, systems=("outlive",), lined=True),
    Cell("handover-queue-sqlite", "handover", "sqlite", slow=True, systems=("outlive",), lined=True),
    Cell("handover-deaf-postgres", "handover", "postgres", slow=True, systems=("outlive",), options=_DEAF),
    Cell("handover-deaf-sqlite", "handover", "sqlite", slow=True, systems=("outlive",), options=_DEAF),
    Cell("stream-postgres", "stream", "postgres", slow=True, systems=("outlive",)),
    Cell("stream-sqlite", "stream", "sqlite", slow=True, systems=("outlive",)),
    Cell("drain-by-one", "drain", "postgres", slow=True, systems=("outlive",), options=_NARROW, workers=1),
    Cell("drain-by-two", "drain", "postgres", slow=True, systems=("outlive",), options=_NARROW, workers=2),
    Cell("queue-postgres", "queue", "postgres", slow=True, options=_QUEUE),
    Cell("queue-sqlite", "queue", "sqlite", slow=True, systems=("outlive",)),
    Cell("queue-polled", "queue", "postgres", slow=True, options=_FAST_QUEUE, systems=("dbos",)),
    Cell("backlog", "backlog", "postgres", slow=True, systems=("outlive",)),
    Cell("backlog-sqlite", "backlog", "sqlite", slow=True, systems=("outlive",)),
    Cell("crowd-postgres", "crowd", "postgres", slow=True, systems=("outlive",)),
    Cell("crowd-sqlite", "crowd", "sqlite", slow=True, systems=("outlive",)),
    Cell("prune-postgres", "prune", "postgres", slow=True, systems=("outlive",)),
    Cell("prune-sqlite", "prune", "sqlite", slow=True, systems=("outlive",)),
    Cell("recovery-postgres", "recovery", "postgres", slow=True),
    Cell("recovery-sqlite", "recovery", "sqlite", slow=True, systems=("outlive",)),
    Cell("idle-postgres", "idle", "postgres", slow=True),
    Cell("idle-sqlite", "idle", "sqlite", slow=True),
    Cell("idle-polled", "idle", "postgres", slow=True, options=_FAST_QUEUE, systems=("dbos",)),
)


@dataclass(frozen=True)
class Measure:
    """One row of the report: a figure of a cell, and the most or least it may be."""

    title: str
    cell: str
    figure: str
    unit: str
    budget: float | None = None
    more_is_better: bool = False


MEASURES = (
    Measure("CPU of the worker per durable async step, PostgreSQL", "long-postgres", "cpu_us_per_step", "µs", 50),
    Measure("the same, SQLite", "long-sqlite", "cpu_us_per_step", "µs", 50),
    Measure("10-step runs, PostgreSQL", "long-postgres", "steps_per_s", "steps/s", 15_000, True),
    Measure("10-step runs, SQLite", "long-sqlite", "steps_per_s", "steps/s", 15_000, True),
    Measure("one-step runs, PostgreSQL", "short-postgres", "runs_per_s", "runs/s", 5_000, True),
    Measure("CPU of a plain agent per answer of the model or call of a tool", "agents-sqlite", "plain_ms", "ms"),
    Measure("what a durable one adds to that, PostgreSQL", "agents-postgres", "beyond_ms", "ms", 1),
    Measure("the same, SQLite", "agents-sqlite", "beyond_ms", "ms", 1),
    Measure("enqueue to start between processes, PostgreSQL, p50", "handover-postgres", "p50_ms", "ms", 5),
    Measure("the same, p99", "handover-postgres", "p99_ms", "ms", 50),
    Measure("enqueue to start between processes, SQLite, p50", "handover-sqlite", "p50_ms", "ms", 5),
    Measure("the same, p99", "handover-sqlite", "p99_ms", "ms", 50),
    Measure("the same through a queue, PostgreSQL, p50", "handover-queue-postgres", "p50_ms", "ms", 5),
    Measure("the same, p99", "handover-queue-postgres", "p99_ms", "ms", 50),
    Measure("the same through a queue, SQLite, p50", "handover-queue-sqlite", "p50_ms", "ms", 5),
    Measure("the same, p99", "handover-queue-sqlite", "p99_ms", "ms", 50),
    Measure("enqueue to start with a broken notifier, PostgreSQL, p99", "handover-deaf-postgres", "p99_ms", "ms", 1000),
    Measure("the same, SQLite", "handover-deaf-sqlite", "p99_ms", "ms", 1000),
    Measure("one async one-step run alone, PostgreSQL, p50", "alone", "run_ms", "ms"),
    Measure("two bare commits between those runs, p50", "alone", "two_commits_ms", "ms"),
    Measure("the run beyond the two commits", "alone", "beyond_ms", "ms", 0.3),
    Measure("{recovered_runs} runs recovered after kill -9, PostgreSQL", "recovery-postgres", "all_ms", "ms", 1000),
    Measure("the same, SQLite", "recovery-sqlite", "all_ms", "ms", 1000),
    Measure("one-step runs through a queue, PostgreSQL", "queue-postgres", "runs_per_s", "runs/s", 3_000, True),
    Measure("the same, SQLite", "queue-sqlite", "runs_per_s", "runs/s", 3_000, True),
    Measure("the same, DBOS polling every 20 ms", "queue-polled", "runs_per_s", "runs/s", None, True),
    Measure("a step to who reads its run's stream elsewhere, PostgreSQL, p99", "stream-postgres", "p99_ms", "ms", 50),
    Measure("the same, SQLite", "stream-sqlite", "p99_ms", "ms", 50),
    Measure(
        "runs with a step of 20 ms, 16 at a time in one worker", "drain-by-one", "runs_per_s", "runs/s", None, True
    ),
    Measure("the same with a second worker", "drain-by-two", "runs_per_s", "runs/s", None, True),
    Measure(
        "claim from a line of {queued} behind {finished} finished runs, PostgreSQL, p50", "backlog", "full_ms", "ms"
    ),
    Measure("of what it is with 1,000 runs, the same", "backlog", "times", "times", 2),
    Measure("the same, SQLite", "backlog-sqlite", "times", "times", 2),
    Measure("idle CPU with {sleepers} sleeping runs, PostgreSQL", "crowd-postgres", "cpu_percent", "% of a core", 1),
    Measure("the same, SQLite", "crowd-sqlite", "cpu_percent", "% of a core", 1),
    Measure("memory that they take, PostgreSQL", "crowd-postgres", "grown_mb", "MB"),
    Measure(
        "run latency while {finished} runs are pruned, PostgreSQL, of the undisturbed",
        "prune-postgres",
        "times",
        "times",
        2,
    ),
    Measure("the same, SQLite", "prune-sqlite", "times", "times", 2),
    Measure("idle CPU of one app, PostgreSQL", "idle-postgres", "cpu_percent", "% of a core", 1),
    Measure("idle CPU of one app, SQLite", "idle-sqlite", "cpu_percent", "% of a core", 1),
    Measure("enqueue to start, DBOS polling every 20 ms, p50", "handover-polled", "p50_ms", "ms"),
    Measure("the same, p99", "handover-polled", "p99_ms", "ms"),
    Measure("idle CPU, DBOS polling every 20 ms", "idle-polled", "cpu_percent", "% of a core"),
)
