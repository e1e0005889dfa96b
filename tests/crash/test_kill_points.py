"""Every commit site is a kill point: a process is killed before and after each, and another one finishes its work.

What is left must equal an undisturbed course: statuses, results, journals, the
user's table. Steps may be repeated only where they were in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.children import Child
from tests.crash.conftest import LEASE_S, make_url
from tests.crash.points import Case, line_up, list_cases, name_course, share
from tests.crash.records import Moment, Place, Record, check_ledger, read_ledger, read_record, read_settled
from tests.support.evidence import Evidence

Undisturbed = Callable[[str], tuple[Record, Counter[Place]]]


COURSES = line_up(share(list_cases("kill", passages=True)))


@pytest.mark.parametrize("course", COURSES, ids=name_course)
def test_a_kill_changes_nothing(
    course: tuple[Case, ...], undisturbed: Undisturbed, tmp_path: Path, evidence: Evidence
) -> None:
    store = course[0].store
    expected, first_attempts = undisturbed(store)
    url = make_url(store, tmp_path, bare=course[0].site == "migrate")
    moments = []
    for case in course:
        for faults in ([case.before] if case.before else [], case.faults):
            if not faults:
                continue
            with Child(
                "drive", url, tmp_path, lease_s=case.lease_s(LEASE_S), faults=faults, linger_s=case.linger_s
            ) as child:
                child.wait_dead()
            moments.append(Moment(len(read_ledger(tmp_path)), read_settled(url)))
    with Child("drive", url, tmp_path, lease_s=LEASE_S) as child:
        child.wait_done()
    found = read_record(url)
    assert found.bookings == expected.bookings
    assert found.runs == expected.runs
    check_ledger(read_ledger(tmp_path), moments, first_attempts)
    evidence("killed at every fault point", store, kills=len(moments), courses=1)


def test_undisturbed_courses_agree(undisturbed: Undisturbed) -> None:
    assert undisturbed("sqlite")[0] == undisturbed("postgres")[0]
