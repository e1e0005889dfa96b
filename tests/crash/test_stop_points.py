"""Every commit site is a stopping point: a process sleeps there for twice its lease while a peer works, then goes on.

The peer takes its runs over meanwhile; what the sleeper still wants to write
for them is refused, it registers again and works on. What is left equals an
undisturbed course. A process that holds SQLite's write lock when it is stopped
blocks its peer until it continues: then nothing is taken over, and nothing is lost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.children import Child
from tests.crash.conftest import make_url
from tests.crash.points import STORES, Case, list_cases, share
from tests.crash.records import Moment, Place, Record, check_ledger, read_ledger, read_record, read_settled
from tests.support.evidence import Evidence
from tests.support.faults import PointFault

LEASE_S = 0.6

Undisturbed = Callable[[str], tuple[Record, Counter[Place]]]


# Several processes use SQLite through apsw here, for which SQLAlchemy has no dialect.
CASES = share([case for case in list_cases("stop", passages=False) if (case.store, case.site) != ("sqlite", "session")])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stop_changes_nothing(case: Case, undisturbed: Undisturbed, tmp_path: Path, evidence: Evidence) -> None:
    expected, first_attempts = undisturbed(case.store)
    url = make_url(case.store, tmp_path, several=True, bare=case.site == "migrate")
    moments = []
    if case.before is not None:
        with Child("drive", url, tmp_path, lease_s=LEASE_S, faults=[case.before]) as dead:
            dead.wait_dead()
        moments.append(Moment(len(read_ledger(tmp_path)), read_settled(url)))
    with Child("drive", url, tmp_path, lease_s=LEASE_S, faults=case.faults, linger_s=case.linger_s) as sleeper:
        sleeper.wait_stopped()
        stopped_at = time.monotonic()
        moments.append(Moment(len(read_ledger(tmp_path)), read_settled(url, alive=True)))
        with Child("serve", url, tmp_path, lease_s=LEASE_S) as peer:
            time.sleep(max(0.0, stopped_at + 2 * LEASE_S - time.monotonic()))
            sleeper.go_on()
            sleeper.wait_done()
            peer.end()
    found = read_record(url)
    assert found.bookings == expected.bookings
    assert found.runs == expected.runs
    if (
        "lease lost" not in peer.said and sleeper.said.count("lease lost") <= 1
    ):  # else a busy machine has stopped one too
        torn = 1 if case.store == "sqlite" else 0  # its writer's thread stops the loop's in the middle of anything
        check_ledger(read_ledger(tmp_path), moments, first_attempts, torn=torn)
    if "took over" in peer.said and "took over 0 runs" not in peer.said:
        assert "lease lost" in sleeper.said or case.site == "unregister"  # it was about to leave
    evidence("stopped at every fault point for two leases", case.store, courses=1)


@pytest.mark.parametrize("store", STORES)
def test_a_handle_of_a_stale_process_says_lease_lost(store: str, tmp_path: Path) -> None:
    url = make_url(store, tmp_path, several=True)
    with Child("wait", url, tmp_path, lease_s=LEASE_S, faults=[PointFault("commit.after", "stop", 3)]) as sleeper:
        sleeper.wait_stopped()
        with Child("serve", url, tmp_path, lease_s=LEASE_S) as peer:
            peer.wait_for("took over")
            sleeper.go_on()
            sleeper.wait_done()
            peer.end()
    assert "lost order" in sleeper.said.splitlines()
    assert read_record(url).runs["order"]["status"] == "succeeded"


@pytest.mark.parametrize("passage", [1, 2, 3, 4])
@pytest.mark.parametrize("store", STORES)
def test_a_stopped_process_without_a_peer_goes_on(store: str, passage: int, tmp_path: Path) -> None:
    url = make_url(store, tmp_path)
    with Child("wait", url, tmp_path, lease_s=LEASE_S, faults=[PointFault("commit.after", "stop", passage)]) as sleeper:
        sleeper.wait_stopped()
        time.sleep(2 * LEASE_S)
        sleeper.go_on()
        sleeper.wait_done()
    assert read_record(url).runs["order"]["status"] == "succeeded"
