"""Between Outlive and PostgreSQL the reply to a commit is lost, at every commit site: it took effect and nobody knows.

The same as test_lost_replies, but nothing within the process is armed: a proxy
swallows what the server answered and drops the connection.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from outlive.store.postgres.joining import start_statement
from outlive.store.postgres.statements import number_parameters, statement
from tests.crash.children import Child
from tests.crash.conftest import LEASE_S, make_url
from tests.crash.load import Load, draw_seed
from tests.crash.points import COVERED, PASSAGES, PASSAGES_FULL, Case
from tests.crash.records import Moment, Place, Record, check_ledger, read_ledger, read_record, read_settled
from tests.support.evidence import Evidence
from tests.support.faults import PointFault
from tests.support.postgres import shared_server
from tests.support.size import SOAK, pick
from tests.support.wire import Round, Wire, executes

Undisturbed = Callable[[str], tuple[Record, Counter[Place]]]
Choose = Callable[[Round], bool]

TRANSFERS = pick(small=150, full=5_000)
LOST_SHARE = 0.02  # of the replies under load
WORKERS = 2


JOINED = number_parameters(start_statement()).text  # what a start on the user's connection sends


def ends_with_fence(sent: Round) -> bool:
    """Choose the one statement of a batch."""
    return any("select (select count(*) from fence) as fenced" in sql and sql != JOINED for sql in sent.sql)


def begins_with(word: str) -> Choose:
    return lambda sent: any(sql.startswith(word) for sql in sent.sql)


def follows(text: str, chosen: Choose) -> Choose:
    """Choose the first of these rounds after one that executes some text."""
    seen = False

    def choose(sent: Round) -> bool:
        nonlocal seen
        if seen and chosen(sent):
            seen = False
            return True
        seen = seen or any(text in sql for sql in sent.sql)
        return False

    return choose


# What is sent at each site; the reply to it is what commits.
SENT: dict[str, dict[str, Choose]] = {
    "commit": {"batch": ends_with_fence},
    "transaction": {"commit": begins_with("commit;")},  # the library's own, which also resets the session
    "session": {"commit": follows("as written", begins_with("COMMIT"))},  # SQLAlchemy's, after the entry
    "migrate": {"commit": begins_with("COMMIT")},  # the driver's
    "start_in": {"start_run": executes(JOINED)},
    "add_request": {name: executes(statement(name).text) for name in ("insert_request", "wake_requested")},
    **{
        site: {name: executes(statement(name).text)}
        for site, name in {
            "beat": "put_beat",
            "claim": "claim_runs",
            "register": "insert_worker",
            "release_strays": "release_strays",
            "resume": "resume_run",
            "sweep": "sweep_runs",
            "take_over": "take_over",
            "unregister": "delete_worker",
            "wake": "wake_run",
        }.items()
    },
}


def list_cases() -> list[tuple[Case, str]]:
    """List the replies to lose; the fault of a case only says which passage of which site is meant."""
    more = PASSAGES_FULL if SOAK else {name: PASSAGES[name][:2] for name in ("commit", "transaction")}
    return [
        (Case("postgres", PointFault(f"{site}.after", "lose_reply", passage)), name)
        for site, names in SENT.items()
        for name in names
        for passage in (1, *more.get(site, ()))
    ]


# Sites whose statements are functions or several in one transaction: their replies are lost in test_lost_replies only.
NOT_ON_THE_WIRE = frozenset(
    """
    claim_line delete_runs delete_schedule fork pin prune put_account put_memo put_queue reopen reschedule reserve
    settle start_alone take_memo write_schedules
    """.split()
)


def test_every_site_is_on_the_wire_or_named() -> None:
    assert set(SENT) | NOT_ON_THE_WIRE == COVERED


@pytest.mark.parametrize(("case", "name"), list_cases(), ids=lambda value: str(value).replace(".after", ""))
def test_a_reply_lost_on_the_wire_changes_nothing(
    case: Case, name: str, undisturbed: Undisturbed, tmp_path: Path, evidence: Evidence
) -> None:
    expected, first_attempts = undisturbed(case.store)
    url = make_url(case.store, tmp_path, bare=case.site == "migrate")
    moments = []
    lease_s = case.lease_s(LEASE_S)
    if case.before is not None:
        with Child("drive", url, tmp_path, lease_s=lease_s, faults=[case.before]) as child:
            child.wait_dead()
        moments.append(Moment(len(read_ledger(tmp_path)), read_settled(url)))
    with Wire(url) as wire:
        wire.lose(SENT[case.site][name], passage=case.fault.passage)
        faults = case.faults[:-1]
        with Child("drive", wire.url, tmp_path, lease_s=lease_s, faults=faults, linger_s=case.linger_s) as child:
            child.wait_done()
    assert len(wire.lost) == 1, f"{case.fault} was never sent:\n{child.said}"
    if case.site == "start_in":  # its connection was lost within a transaction, which is executed again
        first_attempts = first_attempts + Counter({("starter", "book_and_start#1"): 1})
    found = read_record(url)
    assert found.bookings == expected.bookings
    assert found.runs == expected.runs
    check_ledger(read_ledger(tmp_path), moments, first_attempts)
    evidence("a proxy swallows the reply to a commit", case.store, replies_lost=1, sites=case.site)


@pytest.mark.soak  # the library waits half a minute for a reply to a batch
@pytest.mark.timeout(300)
@pytest.mark.parametrize("site", ["commit", "transaction"])
def test_a_connection_that_falls_silent_changes_nothing(
    site: str, undisturbed: Undisturbed, tmp_path: Path, evidence: Evidence
) -> None:
    expected, first_attempts = undisturbed("postgres")
    url = make_url("postgres", tmp_path)
    with Wire(url) as wire:
        for choose in SENT[site].values():
            wire.lose(choose, passage=2, silently=True)
        with Child("drive", wire.url, tmp_path, lease_s=LEASE_S) as child:
            child.wait_done(patience_s=120)
    assert len(wire.lost) == 1
    found = read_record(url)
    assert found.bookings == expected.bookings
    assert found.runs == expected.runs
    check_ledger(read_ledger(tmp_path), [], first_attempts)
    evidence("a proxy swallows the reply to a commit", "postgres", connections_that_fell_silent=1)


@pytest.mark.timeout(pick(small=120, full=1_800))
def test_replies_lost_on_the_wire_under_load(tmp_path: Path, evidence: Evidence) -> None:
    seed = draw_seed()
    direct, chance = shared_server().fresh_database(), random.Random(seed)
    commits = [choose for names in SENT.values() for choose in names.values()]
    with Wire(direct) as wire:
        load = Load(wire.url, tmp_path, random.Random(seed), transfers=TRANSFERS, direct=direct)
        wire.lose_all(lambda sent: any(choose(sent) for choose in commits) and chance.random() < LOST_SHARE)
        with load.working(WORKERS, LEASE_S):
            load.run([], lambda: None)
    assert wire.lost
    bookings = load.audit()
    evidence(
        "a proxy swallows replies under load",
        "postgres",
        transfers=TRANSFERS,
        workers=WORKERS,
        replies_lost=len(wire.lost),
        bookings=bookings,
        seed=str(seed),
    )
