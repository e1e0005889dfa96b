"""At every commit site the database may be gone: before it has heard the statement, or before it could reply.

One process meets that and lives on: it asks again, or finds out what became of
it. What is left equals an undisturbed course, and no step is repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.children import Child
from tests.crash.conftest import LEASE_S, make_url
from tests.crash.points import COVERED, STORES, Case, gather, name_course, share
from tests.crash.records import Moment, Place, Record, check_ledger, read_ledger, read_record, read_settled
from tests.support.evidence import Evidence
from tests.support.faults import PointFault

Undisturbed = Callable[[str], tuple[Record, Counter[Place]]]

PASSAGES = {"commit": (1, 3, 9), "transaction": (1, 3), "session": (1, 2)}

COURSES = gather(
    share(
        [
            Case(store, PointFault(f"{site}.{edge}", action, passage))
            for store in STORES
            for site in sorted(COVERED)
            for edge, action in (("before", "refuse"), ("after", "lose_reply"))
            for passage in PASSAGES.get(site, (1,))
        ]
    )
)


@pytest.mark.parametrize("course", COURSES, ids=name_course)
def test_a_lost_reply_changes_nothing(
    course: tuple[Case, ...], undisturbed: Undisturbed, tmp_path: Path, evidence: Evidence
) -> None:
    case = course[0]  # the only one, or none of them needs anything of its own
    expected, first_attempts = undisturbed(case.store)
    url = make_url(case.store, tmp_path, bare=case.site == "migrate")
    lease_s = case.lease_s(LEASE_S)
    moments = []
    if case.before is not None:
        with Child("drive", url, tmp_path, lease_s=lease_s, faults=[case.before]) as child:
            child.wait_dead()
        moments.append(Moment(len(read_ledger(tmp_path)), read_settled(url)))
    faults = [fault for one in course for fault in one.faults]
    with Child("drive", url, tmp_path, lease_s=lease_s, faults=faults, linger_s=case.linger_s) as child:
        child.wait_done()
    for one in course:
        assert one.fault.notice in child.said.splitlines(), f"{one.fault} was never reached:\n{child.said}"
    raised = sum(one.site == "start_in" for one in course)  # in a transaction, which is rolled back and executed again
    first_attempts = first_attempts + Counter({("starter", "book_and_start#1"): raised})
    found = read_record(url)
    assert found.bookings == expected.bookings
    assert found.runs == expected.runs
    check_ledger(read_ledger(tmp_path), moments, first_attempts)
    evidence("replies lost at every commit site", case.store, courses=1)
