"""What is left when everything has ended, in a form that two courses can be compared by."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import databases

RUNS = "select id, workflow, status, output, error, parent from outlive_runs"
ENTRIES = "select run, seq, key, kind, name, outcome, value, error from outlive_entries"
SETTLED = """
    select run, key from outlive_entries where outcome <> 'started'
    union select run, key from outlive_past_entries where outcome <> 'started'
"""
BOOKINGS = "select label, cents from bookings"
ITEMS = "select run, name, seq, value from outlive_stream_items order by run, name, seq"
MESSAGES = "select run, topic, message, value, received_by from outlive_messages order by run, topic, message"
CHANCE = ("uuid", "random", "now", "promise")  # kinds of entries whose value differs from course to course
SEVERAL_BRANCHES = {"branches": 3}  # by run: how many steps may be in flight at once
DISOWNED = dict.fromkeys([("held", "label#1"), ("held", "label#2")], 1)  # one may be in flight when its run is paused

EXECUTED_AGAIN = {("mends/needs_mending#1", "try_it#1")}  # because an operator wants it
REPEATED_RUNS = ("rewound", "doomed")  # the same, whole runs with their children

PRUNED = ("undone",)  # in the end, and their journals with them

Place = tuple[str, str]  # run and key


@dataclass
class Record:
    """One course: the runs with their journals, and the user's table."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    bookings: list[tuple[str, int]] = field(default_factory=list)


def read_record(url: str) -> Record:
    """Read what a finished course has left; what is random is replaced by its name."""
    record = Record(bookings=sorted((str(label), int(cents)) for label, cents in databases.read(url, BOOKINGS)))
    for run_id, workflow, status, output, error, parent in databases.read(url, RUNS):
        facts = json.loads(error) if error else {}
        record.runs[run_id] = {
            "workflow": workflow,
            "status": status,
            "output": output,
            "error": (facts.get("type"), facts.get("text")),
            "parent": parent,
            "journal": {},
            "said": [],
        }
    for run_id, *item in databases.read(url, ITEMS):
        record.runs[run_id]["said"].append(item)
    for run_id, topic, _, value, received_by in databases.read(url, MESSAGES):
        record.runs[run_id]["said"].append([topic, value, received_by])
    orders: dict[str, list[int | None]] = {run_id: [] for run_id in record.runs}
    for run_id, seq, key, kind, name, outcome, value, error in databases.read(url, ENTRIES):
        run = record.runs[run_id]
        orders[run_id].append(seq)
        if kind in CHANCE and value:
            run["output"] = (run["output"] or "").replace(value.strip('"'), f"<{key}>")
            value = f"<{key}>"
        if kind == "start" and value:
            value = json.loads(value)["run"]
        run["journal"][key] = (kind, name, outcome, value, json.loads(error).get("type") if error else None)
    for run_id, seqs in orders.items():
        # a transaction's entry may be on disk before entries delivered earlier: a death then leaves a gap
        assert None not in seqs and len(seqs) == len(set(seqs)), f"{run_id}: seq {seqs}"
    return record


def read_ledger(folder: Path) -> list[Place]:
    """Read which step bodies were executed, in order."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line["run"], line["key"]) for line in map(json.loads, lines)]


def read_settled(url: str, *, alive: bool = False) -> set[Place]:
    """Read which outcomes are on disk after a death, or while the process that wrote them is stopped."""
    return {(run, key) for run, key in databases.read_untouched(url, SETTLED, alive=alive)}


@dataclass
class Moment:
    """What stood in ledger and journal when a process died or was stopped."""

    executed: int
    settled: set[Place]


def check_ledger(ledger: list[Place], moments: list[Moment], first_attempts: Counter[Place], *, torn: int = 0) -> None:
    """Check that a recorded step never executed again, and that only steps in flight at a death were repeated.

    `first_attempts` counts the executions of an undisturbed course (a step that is retried has several). The body of
    a transaction may be repeated at any time, if it is overdue for example: only its effect counts. `torn`: bodies that
    may have stood between their beginning and their line in the ledger.
    """
    for moment in moments:
        again = {place for place in moment.settled & set(ledger[moment.executed :]) if not _may_repeat(place)}
        assert not again, f"recorded before the death, executed after it: {sorted(again)}"
    began = [0, *(moment.executed for moment in moments)]
    cuts = [(ledger[begin : moment.executed], moment.settled) for begin, moment in zip(began, moments, strict=False)]
    for place, count in Counter(ledger).items():
        in_flight = sum(place in since and place not in settled for since, settled in cuts)
        if place[1].rpartition("/")[2].startswith("book") or _may_repeat(place):
            continue
        allowed = first_attempts[place] + in_flight + DISOWNED.get(place, 0)
        torn -= max(0, count - allowed)
        assert torn >= 0, f"{place} was executed {count} times"
    for moment in moments:
        unsettled = set(ledger[: moment.executed]) - moment.settled
        open_now = Counter(place[0] for place in unsettled if not _may_repeat(place))
        for run, count in open_now.items():
            if run in PRUNED and not any(place[0] == run for place in moment.settled):
                continue
            assert count <= SEVERAL_BRANCHES.get(run, 1), f"{count} steps of {run} had executed and were not recorded"


def _may_repeat(place: Place) -> bool:
    return place in EXECUTED_AGAIN or place[0].partition("/")[0] in REPEATED_RUNS
