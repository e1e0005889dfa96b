"""Why a run does not move, in every state: the cause, and what helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outlive.model.reads import EntryRow, LineRow, QueueRow, RunRow, WorkerRow
from outlive.model.why import Facts, explain, find_before

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


def line(**facts: Any) -> LineRow:
    """Give what stands in front of a run: nothing but what is named."""
    plain: dict[str, Any] = dict.fromkeys(
        ["oldest", "oldest_of_key", "rate_at", "key_rate_at", "least_owned", "replaced"]
    )
    return LineRow(**plain | {"ahead": 0, "beside": 0, "of_key": 0} | facts)


def in_line(limits: str = "{}", queue: dict[str, Any] | None = None, **facts: Any) -> Facts:
    """Give the facts of a run in the line of a queue with these limits, of which one worker is alive."""
    row = {
        "queue": "mail",
        "limits": limits,
        "changed": "{}",
        "paused": False,
        "delayed": 0,
        "waiting": 1,
        "running": 0,
    }
    plain: dict[str, Any] = {"run": LINED, "now": NOW, "workers": [ALIVE], "line": line()}
    return Facts(**plain | {"queue": QueueRow(**row | (queue or {}))} | facts)


LINED = run("queued", queue="mail", key="ada", line="waiting", line_at=NOW - 30, wake_at=NOW + 300)
BUSY = Facts(run("running", id="job-1", worker=7), NOW, workers=[ALIVE])
LISTENS = Facts(run("suspended", id="job-1"), NOW, workers=[ALIVE], open_entries=[entry("receive", "review", "r#1")])
BOUNCED = run("scheduled", once="debounce", line="delayed", line_at=NOW + 60, cap_at=NOW + 7200)
LATE = run("scheduled", queue="mail", line="delayed", line_at=NOW + 60, wake_at=NOW + 300, deadline_at=NOW + 300)
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
        Facts(LATE, NOW),
        "has a delayed start: until 2027-01-15 08:01:00 UTC (in 60 s); its deadline is at 2027-01-15 08:05:00",
    ),
    (Facts(LATE, NOW), " (in 5 m) → reschedule(0) lets it start now"),
    (
        Facts(LATE, NOW, queue=in_line(queue={"paused": True}).queue, line=line()),
        "(in 60 s), and the queue is paused; its deadline is at 2027-01-15 08:05:00 UTC (in 5 m) → resume_",
    ),
    (
        Facts(BOUNCED, NOW),
        "is debounced until 2027-01-15 08:01:00 UTC (in 60 s), at the latest until 2027-01-15 10:00:00 UTC (in 2 h) → ",
    ),
    (
        Facts(replace(BOUNCED, cap_at=NOW + 60), NOW),
        "is debounced until 2027-01-15 08:01:00 UTC (in 60 s) → reschedule(0)",
    ),
    (
        Facts(replace(LATE, once="singleton"), NOW, line=line(replaced="old")),
        "(in 60 s), and then until the end of 'old', which it replaces; its deadline",
    ),
    (
        in_line(line=line(ahead=2, beside=1)),
        "its turn in queue 'mail' since 30 s ago, behind 2 runs and by turns with 1 of other keys: if that lasts,",
    ),
    (in_line(line=line(beside=4)), "since 30 s ago, by turns with 4 of other keys: if that lasts"),
    (in_line(workers=[]), "since 30 s ago: no worker is alive → start one that serves workflow 'checkout'"),
    (in_line(queue={"paused": True}), "since 30 s ago: the queue is paused → resume_queue('mail')"),
    (
        in_line(queue={"paused": True}, queue_by="ann", workers=[]),
        "the queue is paused by ann; no worker is alive → resume_queue('mail'); start one that serves workf",
    ),
    (
        in_line('{"concurrency": 3}', {"running": 3}, line=line(oldest="job-1", ahead=1), before=BUSY),
        "behind 1 run: 3 of 3 runs are admitted, first of all 'job-1', which is in the hands of worker 'shop' (process",
    ),
    (
        in_line('{"concurrency": 3}', {"running": 3}, line=line(oldest="job-1", ahead=1), before=BUSY),
        "(process 12 on host-a) and executing → put_queue('mail', concurrency=…) admits more",
    ),
    (
        in_line('{"concurrency": 1}', {"running": 1}, line=line(oldest="job-1"), before=LISTENS),
        "1 of 1 run is admitted, first of all 'job-1', which waits for a message 'review' → send('review', …), or put",
    ),
    (
        in_line('{"concurrency": 1}', {"running": 1}, line=line(oldest="job-1")),
        "1 of 1 run is admitted, first of all 'job-1' → put_queue('mail', concurrency=…) admits more",
    ),
    (
        in_line('{"per_key": 2}', line=line(of_key=2, oldest_of_key="job-1"), before=BUSY),
        "2 of 2 runs of its key 'ada' are admitted, first of all 'job-1', which is",
    ),
    (
        in_line(
            '{"per_key": 1}', run=replace(LINED, key=None), line=line(of_key=1, oldest_of_key="job-1"), before=BUSY
        ),
        "1 of 1 run without a key is admitted, first of all 'job-1', which is in",
    ),
    (
        in_line('{"rate": [10, 60]}', line=line(rate_at=NOW + 12)),
        "10 runs in 60 s are admitted, the next one at 2027-01-15 08:00:12 UTC (in 12 s) → put_queue('mail', rate=…)",
    ),
    (in_line('{"rate": [10, 60]}', line=line(rate_at=NOW - 1)), "if that lasts"),
    (
        in_line('{"rate_per_key": [1, 5]}', line=line(key_rate_at=NOW + 2)),
        "1 run of its key 'ada' in 5 s is admitted, the next one at 2027-01-15 08:00:02 UTC (in 2 s) → put_queue('mail",
    ),
    (
        in_line('{"per_worker": 2}', line=line(least_owned=2)),
        "the one worker alive has 2 of its runs → start another worker, or put_queue('mail', per_worker=…) admits more",
    ),
    (
        in_line('{"per_worker": 2}', line=line(least_owned=2), workers=[ALIVE, PEER, DEAD]),
        "each of the 2 workers alive has 2 of its runs",
    ),
    (in_line('{"per_worker": 2}', line=line(least_owned=1)), "if that lasts"),
    (
        in_line(
            '{"concurrency": 1, "rate": [1, 9]}',
            {"running": 1},
            line=line(oldest="job-1", rate_at=NOW + 9),
            before=BUSY,
        ),
        "and executing; 1 run in 9 s is admitted, the next one at 2027-01-15 08:00:09 UTC (in 9 s) → put_queue('mail",
    ),
    (
        in_line(run=replace(LINED, line="delayed", once="singleton"), line=line(replaced="job-1"), before=LISTENS),
        "since 30 s ago: it replaces 'job-1', which waits for a message 'review' → send('review', …)",
    ),
    (
        in_line(run=replace(LINED, deadline_at=NOW + 300)),
        "or has no room; its deadline is at 2027-01-15 08:05:00 UTC (in 5 m) → start another one",
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
    (
        Facts(run("suspended", wake_at=NOW - 9), NOW),
        "is due since 9 s ago: no worker is alive → start one that serves workflow 'checkout'",
    ),
    (
        Facts(run("suspended", wake_at=NOW - 9, pinned=True), NOW, workers=[ALIVE]),
        "does not serve workflow 'checkout' in version v1, or has no room → start another one",
    ),
    (Facts(SUSPENDED, NOW), "waits to be woken"),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("receive", "review", "r#1")]),
        "waits for a message 'review' → send('review', …)",
    ),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("receive", "call/approve", "r#1")]),
        "waits for a call 'approve' → call('approve', …)",
    ),
    (
        Facts(SUSPENDED, NOW, open_entries=[entry("wait", "promise#1", "w#1")], expiries={"promise#1": NOW + 7200}),
        "made at promise#1, which expires at 2027-01-15 10:00:00 UTC (in 2 h) → settle(its token, …)",
    ),
    (
        Facts(
            run("suspended", wake_at=NOW + 60, deadline_at=NOW + 60), NOW, open_entries=[entry("receive", "a", "r#1")]
        ),
        "waits for a message 'a'; its deadline is at 2027-01-15 08:01:00 UTC (in 60 s) → send('a', …)",
    ),
    (Facts(run("suspended", deadline_at=NOW - 60), NOW), "waits to be woken; its deadline has passed 60 s ago"),
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
        "waits for a message 't2'; and for 2 more; at the longest until 2027-01-15 08:01:00 UTC (in 60 s) → send('t0",
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
        Facts(run("paused"), NOW, problem=("outlive.errors.DecodeFailed", "written by codec aes/1")),
        "is paused, because: written by codec aes/1 → resume() it when the code, codec or key that reads it runs",
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


def test_who_is_in_the_way() -> None:
    limits, busy = '{"concurrency": 1, "per_key": 1}', {"running": 1}
    found = line(oldest="first", of_key=1, oldest_of_key="of its key")
    assert find_before(in_line(limits, busy, line=found)) == "first"
    assert find_before(in_line(limits, line=found)) == "of its key"
    assert find_before(in_line(limits, busy, line=replace(found, replaced="old"))) == "old"
    for nobody in (in_line(limits, {**busy, "paused": True}, line=found), in_line(line=found), in_line(line=None)):
        assert find_before(nobody) is None
