"""Why a run does not move, in every state: the cause, and what helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outlive.model.reads import EntryRow, RunRow, WorkerRow
from outlive.model.why import Facts, explain

NOW = 1_800_000_000.0
ALIVE = WorkerRow(7, 1, "host-a", 12, "shop", None, NOW + 10)
PEER = WorkerRow(8, 1, "host-b", 13, "peer", None, NOW + 10)
DEAD = WorkerRow(9, 1, "host-c", 14, "gone", None, NOW - 3)


def run(status: str, **facts: Any) -> RunRow:
    plain: dict[str, Any] = dict.fromkeys(["key", "attributes", "output", "error", "parent_id", "finished_at"])
    plain |= {"row": 1, "id": "order-1", "workflow": "checkout", "version": "v1", "status": status, "queue": ""}
    plain |= {"priority": 0, "input": "[]", "codec": "json/1", "created_at": NOW - 600, "started_at": NOW - 500}
    return RunRow(**plain | facts)


def entry(kind: str, name: str, key: str, **facts: Any) -> EntryRow:
    plain: dict[str, Any] = {"seq": None, "digest": None, "outcome": "started", "value": None, "error": None}
    plain |= {"attempts": 1, "started_at": NOW - 50, "finished_at": None}
    return EntryRow(key=key, kind=kind, name=name, **plain | facts)


CHILD = Facts(run("suspended", id="child-1", parent_key="pay#1", wake_at=NOW + 7200), NOW, workers=[ALIVE])
LOST = ("ConnectionError", "no route")
SUSPENDED, RUNNING, QUEUED = run("suspended"), run("running", worker=7), run("queued", wake_at=NOW - 30)

CASES: list[tuple[Facts, str]] = [
    (Facts(run("succeeded", finished_at=NOW - 90), NOW), "has succeeded 90 s ago: there is nothing to do"),
    (
        Facts(run("failed", finished_at=NOW - 7200), NOW, problem=LOST),
        "has failed 2 h ago with ConnectionError: no route → retry() it",
    ),
    (
        Facts(run("cancelled", finished_at=NOW), NOW, problem=("x", "too late")),
        "was cancelled 0 s ago, because: too late → retry()",
    ),
    (Facts(run("scheduled", wake_at=NOW + 60), NOW), "has a delayed start: until 2027-01-15 08:01:00 UTC (in 60 s)"),
    (
        Facts(QUEUED, NOW),
        "waits to be claimed since 30 s ago: no worker is alive → start one that serves workflow 'checkout'",
    ),
    (Facts(QUEUED, NOW, workers=[DEAD]), "no worker is alive"),
    (
        Facts(QUEUED, NOW, workers=[ALIVE]),
        "the one worker that is alive does not serve workflow 'checkout', or has no room → start",
    ),
    (Facts(QUEUED, NOW, workers=[ALIVE, PEER]), "none of the 2 workers alive serves workflow 'checkout'"),
    (Facts(replace(QUEUED, pinned=True), NOW), "that serves workflow 'checkout' in version v1"),
    (
        Facts(replace(QUEUED, queue="mail"), NOW, workers=[ALIVE], notes=["it is full"]),
        "its turn in queue 'mail' since 30 s ago: it is full",
    ),
    (Facts(RUNNING, NOW, workers=[DEAD, PEER]), "was in the hands of a worker: a peer takes over within a second"),
    (
        Facts(run("running", worker=9), NOW, workers=[DEAD]),
        "worker 'gone', whose lease has expired: no other worker is alive → start one",
    ),
    (Facts(RUNNING, NOW, workers=[ALIVE]), "is in the hands of worker 'shop' (process 12 on host-a) and executing"),
    (
        Facts(RUNNING, NOW, workers=[ALIVE], last=entry("step", "pay", "pay#1", finished_at=NOW - 5)),
        "the last it has recorded is pay#1 5 s ago",
    ),
    (
        Facts(
            RUNNING, NOW, workers=[ALIVE], open_entries=[entry("step", "pay", "pay#1", attempts=2)], open_problem=LOST
        ),
        "and is at step 'pay' (pay#1), after 2 attempts with ConnectionError: no route",
    ),
    (Facts(run("suspended", wake_at=NOW + 259_200), NOW), "sleeps until 2027-01-18 08:00:00 UTC (in 3 d)"),
    (Facts(run("suspended", wake_at=NOW - 9), NOW), "is due 9 s ago, and no worker is alive → start one"),
    (Facts(run("suspended", wake_at=NOW - 9), NOW, workers=[ALIVE]), "is due, and about to be claimed"),
    (Facts(SUSPENDED, NOW), "waits to be woken"),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("receive", "review", "r#1")]),
        "waits for a message 'review' → send('review', …)",
    ),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("wait", "promise#1", "w#1")]),
        "waits for the promise made at promise#1 → settle(",
    ),
    (Facts(SUSPENDED, NOW, open_entries=[entry("child", "pay", "pay#1")]), "waits for a child of workflow 'pay'"),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("child", "pay", "pay#1")], child=CHILD),
        "run 'order-1' waits for child 'child-1', which sleeps until 2027-01-15 10:00:00 UTC (in 2 h)",
    ),
    (
        Facts(
            run("suspended", wake_at=NOW + 60),
            NOW,
            open_entries=[entry("receive", f"t{n}", f"r#{n}") for n in range(5)],
        ),
        "'t2' → send('t2', …); and for 2 more; at the longest until",
    ),
    (
        Facts(run("paused"), NOW, problem=("x", "look first"), by="ann"),
        "is paused by ann, because: look first → resume() it",
    ),
    (Facts(run("paused"), NOW), "is paused → resume() it"),
    (
        Facts(run("paused"), NOW, problem=("outlive.errors.OutcomeUnknown", "… then run.resolve('pay#1')")),
        "because … then run.resolve('pay#1')",
    ),
    (
        Facts(run("paused"), NOW, problem=("outlive.errors.JournalMismatch", "it diverged; deploy")),
        "is paused, because it diverged; deploy",
    ),
    (
        Facts(run("quarantined"), NOW, problem=("Quarantined", "died")),
        "is quarantined, because: died → resume() it when",
    ),
    (Facts(SUSPENDED, NOW, cancelling=True), "waits to be woken, and its cancellation is asked for"),
    (Facts(run("failed", finished_at=NOW), NOW, problem=("E", "long " * 100)), "long…"),
]


@pytest.mark.parametrize(("facts", "said"), CASES, ids=[said[:40] for _, said in CASES])
def test_the_cause_and_what_helps(facts: Facts, said: str) -> None:
    sentence = explain(facts)
    assert sentence.startswith("run 'order-1' ")
    assert said in sentence, sentence


def test_a_chain_of_children_ends() -> None:
    facts = Facts(SUSPENDED, NOW)
    for _ in range(100):
        awaited = replace(facts.run, parent_key="pay#1")
        facts = Facts(SUSPENDED, NOW, open_entries=[entry("child", "pay", "pay#1")], child=replace(facts, run=awaited))
    assert explain(facts).count("which") == 20
