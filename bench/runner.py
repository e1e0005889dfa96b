"""The runner's part of each scenario: which processes to start, and how their lines become figures."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from bench.catalogue import IN_FLIGHT, Cell, Sizes
from bench.children import ANSWER_TIMEOUT_S, Child, Interpreters, MeasurementFailed
from bench.stats import percentile

RECOVERY_TIMEOUT_S = 90.0
FILL_TIMEOUT_S = 600.0  # a million rows are written first
LOOK_EVERY_S = 0.01
_CLIENTS = ("send", "fill", "read_items")  # scenarios of processes without a worker

_UNFINISHED = {
    ("outlive", "postgres"): "select count(*) from outlive.live",
    ("outlive", "sqlite"): "select count(*) from ol_live",
    ("dbos", "postgres"): "select count(*) from dbos.workflow_status where status in ('PENDING', 'ENQUEUED')",
}


@dataclass
class Task:
    """One cell for one system, on a database of its own."""

    cell: Cell
    system: str
    sizes: Sizes
    url: str
    interpreters: Interpreters
    versions: dict[str, str] = field(default_factory=dict)

    def measure(self) -> dict[str, float]:
        """Run the processes; give the figures. Raises MeasurementFailed."""
        return _SCENARIOS[self.cell.scenario](self)

    def start(self, scenario: str, **arguments: Any) -> Child:
        if scenario not in _CLIENTS:
            arguments["options"] = self.cell.options.get(self.system, {})
        return self.interpreters.start(self.system, scenario, {"url": self.url, **arguments})

    def figures_of(self, scenario: str, timeout_s: float = ANSWER_TIMEOUT_S, **arguments: Any) -> dict[str, float]:
        with self.start(scenario, **arguments) as child:
            figures: dict[str, float] = child.hear("figures", timeout_s)
            child.end()
            self.versions.update(child.versions)
        return figures

    def size(self, *names: str) -> dict[str, Any]:
        sizes = asdict(self.sizes)
        return {name: sizes[name] for name in names}


def _long(task: Task) -> dict[str, float]:
    return task.figures_of("throughput", long=True, in_flight=IN_FLIGHT, **task.size("warm_s", "window_s"))


def _short(task: Task) -> dict[str, float]:
    return task.figures_of("throughput", long=False, in_flight=IN_FLIGHT, **task.size("warm_s", "window_s"))


def _agents(task: Task) -> dict[str, float]:
    return task.figures_of("agents", in_flight=IN_FLIGHT // 4, **task.size("warm_s", "window_s"))


def _alone(task: Task) -> dict[str, float]:
    return task.figures_of("alone", runs=task.sizes.alone_runs)


def _idle(task: Task) -> dict[str, float]:
    return task.figures_of("idle", settle_s=task.sizes.settle_s, window_s=task.sizes.idle_window_s)


def _queue(task: Task) -> dict[str, float]:
    return task.figures_of("queue", runs=task.sizes.queued_runs, in_flight=IN_FLIGHT, settle_s=task.sizes.settle_s)


def _crowd(task: Task) -> dict[str, float]:
    return task.figures_of("crowd", FILL_TIMEOUT_S, **task.size("sleepers", "settle_s", "idle_window_s"))


def _backlog(task: Task) -> dict[str, float]:
    return task.figures_of("backlog", FILL_TIMEOUT_S, **task.size("finished", "queued", "claims"))


def _prune(task: Task) -> dict[str, float]:
    return task.figures_of(
        "prune", FILL_TIMEOUT_S, in_flight=IN_FLIGHT // 4, **task.size("finished", "warm_s", "window_s")
    )


def _handover(task: Task) -> dict[str, float]:
    """A client process starts, a worker process executes."""
    with task.start("serve", settle_s=task.sizes.settle_s) as worker:
        worker.hear("ready")
        messages, gap_s = task.sizes.messages, task.sizes.message_gap_s
        with task.start("send", messages=messages, gap_s=gap_s, lined=task.cell.lined) as client:
            client.hear("sent")
            client.end()
        worker.say(str(messages))
        latencies = worker.hear("latencies_ms", timeout_s=30)
        worker.end()
    return {"p50_ms": percentile(latencies, 50), "p99_ms": percentile(latencies, 99)}


def _stream(task: Task) -> dict[str, float]:
    """A run emits items in one process, a program reads them in another."""
    with task.start("emit_items", items=task.sizes.messages, gap_s=task.sizes.message_gap_s) as worker:
        worker.hear("ready")
        with task.start("read_items") as reader:
            latencies = reader.hear("latencies_ms")
            reader.end()
        worker.hear("done")
        worker.end()
    return {"p50_ms": percentile(latencies, 50), "p99_ms": percentile(latencies, 99)}


def _drain(task: Task) -> dict[str, float]:
    """A client fills a line; then some workers execute it, watched from outside from when they have opened."""
    runs = task.sizes.queued_runs
    with task.start("fill", runs=runs, in_flight=IN_FLIGHT) as client:
        client.hear("filled")
        client.end()
    with _Unfinished(task) as unfinished, ExitStack() as stack:
        workers = [stack.enter_context(task.start("serve", settle_s=0.0)) for _ in range(task.cell.workers)]
        while unfinished.count() == runs:  # nobody has opened yet
            time.sleep(LOOK_EVERY_S)
        at, left = time.monotonic(), unfinished.count()
        while unfinished.count():
            if time.monotonic() > at + RECOVERY_TIMEOUT_S:
                raise MeasurementFailed(f"{unfinished.count()} runs of the line were not executed")
            time.sleep(LOOK_EVERY_S)
        wall_s = time.monotonic() - at
        for worker in workers:
            worker.say("0")
            worker.hear("latencies_ms")
            worker.end()
    return {"runs_per_s": left / wall_s}


def _recovery(task: Task) -> dict[str, float]:
    """Kill a process with many runs in it; watch, from outside, a second one end them all."""
    runs = task.sizes.recovered_runs
    with task.start("hold", runs=runs, in_flight=IN_FLIGHT) as first:
        first.hear("ready")
        first.kill()
    with _Unfinished(task) as unfinished:
        if unfinished.count() != runs:
            raise MeasurementFailed(f"{task.system}: {unfinished.count()} runs to recover, not {runs}")
        with task.start("recover") as second:
            opening_ns = second.hear("opening_ns")
            deadline = time.monotonic() + RECOVERY_TIMEOUT_S
            while unfinished.count():
                if time.monotonic() > deadline:
                    raise MeasurementFailed(f"{task.system}: {unfinished.count()} runs were not recovered")
                time.sleep(LOOK_EVERY_S)
            all_ns = time.monotonic_ns()
            second.say("done")
            figures = second.hear("figures")
            second.end()
    if figures["repeated_steps"] or figures["ended_steps"] != runs:
        raise MeasurementFailed(f"{task.system}: recovery of {runs} runs executed {figures}")
    return {"all_ms": (all_ns - opening_ns) / 1e6}


class _Unfinished:
    """Counts unfinished runs in the tables of a system, by a connection of the runner's own."""

    def __init__(self, task: Task) -> None:
        self._sql = _UNFINISHED[task.system, task.cell.store]
        self._closing: closing[Any]
        if task.cell.store == "sqlite":
            path = task.url.removeprefix("sqlite:///")
            self._closing = closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))
        else:
            self._closing = closing(psycopg.connect(task.url, autocommit=True))

    def __enter__(self) -> _Unfinished:
        self._connection = self._closing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036 - handed on as they are
        self._closing.__exit__(*error)

    def count(self) -> int:
        row = self._connection.execute(self._sql).fetchone()
        return int(row[0])


_SCENARIOS: dict[str, Callable[[Task], dict[str, float]]] = {
    "long": _long,
    "short": _short,
    "agents": _agents,
    "alone": _alone,
    "idle": _idle,
    "queue": _queue,
    "crowd": _crowd,
    "backlog": _backlog,
    "prune": _prune,
    "handover": _handover,
    "drain": _drain,
    "stream": _stream,
    "recovery": _recovery,
}
