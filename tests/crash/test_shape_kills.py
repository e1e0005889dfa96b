"""Random workflow shapes in a real process, killed at random: the journal only grows, and it alone gives the end.

What stood in a journal at a death is the beginning of what stands there at the
end, and none of it executes again. A copy of each run that begins with the whole
journal ends in the same way without executing anything. Programs whose result
does not depend on time have the result of an undisturbed play.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from tests.crash import databases, shaped
from tests.crash.children import Child
from tests.crash.load import draw_seed
from tests.crash.points import STORES, list_points
from tests.crash.records import read_ledger, read_settled
from tests.property.shapes import Program, child, programs, shape, timeless_programs
from tests.support.evidence import Evidence
from tests.support.faults import PointFault
from tests.support.postgres import shared_server
from tests.support.size import pick
from tests.support.solo import Solo

LEASE_S = 3.0
SHAPES = pick(small=24, full=500)  # on each store
TOGETHER = 25  # in one course
DEATHS = 5  # at most, in one course
PASSAGES = {"commit": 40, "transaction": 4, "claim": 4}  # of points that every course passes so often
SMALLEST_CHARS = 100
EXAMPLES = 10  # drawn for each that is kept
CHECKS = list(HealthCheck)
COURSES = -(-SHAPES // TOGETHER)
PATIENCE_S = 90.0

JOURNALS = """select run, seq, key, kind, name, outcome, value, error from outlive_entries where seq is not null
    order by run, seq"""
UNFINISHED = "select id from outlive_runs where finished_at is null and started_at is not null"
ENDS = "select id, status, output, error from outlive_runs"

Journals = dict[str, list[tuple[Any, ...]]]
Ends = dict[str, tuple[Any, ...]]  # status, output, error by run


def draw_programs(count: int, seed: int) -> list[Program]:
    """Draw so many programs by seed, a third of them without anything that depends on time; the smallest are left out.

    They would have ended before anybody could kill them.
    """
    drawn: list[Program] = []
    for number, (strategy, wanted) in enumerate([(programs, count - count // 3), (timeless_programs, count // 3)]):

        @hypothesis_seed(seed + number)
        @settings(
            max_examples=wanted * EXAMPLES,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(program=strategy)
        def collect(program: Program, some: list[Program]) -> None:
            if len(repr(program)) >= SMALLEST_CHARS:
                some.append(program)

        some: list[Program] = []
        collect(some=some)
        assert len(some) >= wanted
        drawn += some[:wanted]
    return drawn


@dataclass(frozen=True)
class Death:
    """How a process ends: at a fault point, or after some time."""

    fault: PointFault | None
    after_s: float


def draw_deaths(store: str, chance: random.Random) -> Iterator[Death]:
    """Draw deaths by moment and by point; at the first one most of the shapes are under way."""
    points = list_points(store)
    yield Death(PointFault(chance.choice(["commit.before", "commit.after"]), "kill", chance.randint(2, 8)), PATIENCE_S)
    for _ in range(chance.randint(1, DEATHS - 1)):
        if chance.random() < 0.4:
            yield Death(None, chance.uniform(0.0, 0.6))
        else:
            site, passages = chance.choice(list(PASSAGES.items()))
            point = chance.choice([point for point in points if point.startswith(site)])
            yield Death(PointFault(point, "kill", chance.randint(1, passages)), PATIENCE_S)


def read_journals(rows: list[tuple[Any, ...]]) -> Journals:
    journals: Journals = {}
    for run, *facts in rows:
        journals.setdefault(run, []).append(tuple(facts))
    return journals


def read_ends(url: str) -> Ends:
    return {run_id: tuple(facts) for run_id, *facts in databases.read(url, ENDS)}


def make_database(store: str, folder: Path, name: str) -> str:
    url = shared_server().fresh_database() if store == "postgres" else f"sqlite:///{folder}/{name}.db"
    databases.create_table(url, shaped.TABLE)
    return url


def live(process: Child, death: Death) -> bool:
    """Let a process live until it dies, or has done everything; True if it died."""
    until = time.monotonic() + PATIENCE_S
    while process.alive and "ready" not in process.said and time.monotonic() < until:
        time.sleep(0.005)
    until = time.monotonic() + death.after_s
    while process.alive and time.monotonic() < until:
        time.sleep(0.01)
    if process.alive and death.fault is None:
        process.kill()
        return True
    assert not process.alive, process.told()
    process.kill()
    if "done" in process.said.splitlines():
        return False
    assert death.fault is not None and death.fault.notice in process.said, process.said
    return True


@pytest.mark.timeout(pick(small=180, full=900))
@pytest.mark.parametrize("course", range(COURSES))
@pytest.mark.parametrize("store", STORES)
def test_shapes_survive_kills(store: str, course: int, tmp_path: Path, evidence: Evidence) -> None:
    seed = draw_seed()
    chance = random.Random(seed)
    url, url_again = (make_database(store, tmp_path, name) for name in ("shapes", "again"))
    drawn = {
        f"shape-{number}": program
        for number, program in enumerate(draw_programs(min(TOGETHER, SHAPES), chance.randrange(2**32)))
    }
    cancels = {run_id: chance.uniform(0, 3) if chance.random() < 0.2 else None for run_id in drawn}
    (tmp_path / shaped.FILE).write_text(
        json.dumps(
            [{"id": run_id, "program": program, "cancel_after_s": cancels[run_id]} for run_id, program in drawn.items()]
        )
    )
    kills = 0
    cut: set[str] = set()
    before: list[tuple[Journals, int, set[tuple[str, str]]]] = []
    for death in draw_deaths(store, chance):
        with Child(
            "drive-shapes", url, tmp_path, lease_s=LEASE_S, faults=[death.fault] if death.fault else []
        ) as process:
            kills += live(process, death)
        journals = read_journals(databases.read_untouched(url, JOURNALS))
        before.append((journals, len(read_ledger(tmp_path)), read_settled(url)))
        cut |= {run_id for (run_id,) in databases.read_untouched(url, UNFINISHED)} & drawn.keys()
    for role, where in (("drive-shapes", url), ("replay-shapes", url_again)):
        executed = len(read_ledger(tmp_path))
        with Child(role, where, tmp_path, lease_s=LEASE_S) as process:
            assert not live(process, Death(None, PATIENCE_S)), process.said
    assert len(read_ledger(tmp_path)) == executed, "a whole journal executed something"
    ended = read_journals(databases.read(url, JOURNALS))
    ends = read_ends(url)
    check_growth(before, ended, tmp_path)
    check_same(ends, read_ends(url_again))
    assert read_journals(databases.read(url_again, JOURNALS)) == ended
    check_undisturbed(ends, drawn, cancels)
    booked = sorted(int(value) for journal in ended.values() for value in _booked(journal))
    assert sorted(number for (number,) in databases.read(url, "select number from bookings")) == booked
    evidence(
        "random workflow shapes killed at random",
        store,
        shapes=len(drawn),
        kills=kills,
        shapes_cut_off=len(cut),
        entries=sum(map(len, ended.values())),
        bookings=len(booked),
        replayed_whole=len(ended),
        cancelled=sum(end[0] == "cancelled" for end in ends.values()),
        seeds=str(seed),
    )


def check_growth(deaths: list[Any], ended: Journals, folder: Path) -> None:
    """Check that what was in a journal at a death is how it begins at the end, and that none of it executed again."""
    ledger = read_ledger(folder)
    for journals, executed, settled in deaths:
        for run_id, journal in journals.items():
            assert ended[run_id][: len(journal)] == journal, run_id
        again = settled & set(ledger[executed:])
        assert not again, f"recorded before the death, executed after it: {sorted(again)}"


def check_same(ends: Ends, again: Ends) -> None:
    """Check that replay has come to the same ends; what differs first is told."""
    assert again.keys() == ends.keys()
    for run_id, end in ends.items():
        assert end[0] in ("succeeded", "failed", "cancelled")
        for one, other in zip(_lines(end), _lines(again[run_id]), strict=False):
            assert other == one, run_id
        assert again[run_id] == end, run_id


def check_undisturbed(ends: Ends, drawn: dict[str, Program], cancels: dict[str, Any]) -> None:
    """Check that what does not depend on time came out as if nothing had happened."""
    timeless = list(drawn)[len(drawn) - len(drawn) // 3 :]
    with Solo() as solo:
        solo.serve(child)
        for run_id in timeless:
            if cancels[run_id] is None:
                undisturbed = solo.play(shape, drawn[run_id])
                status, output, _ = ends[run_id]
                assert (status, json.loads(output or "null")) == (undisturbed.status, undisturbed.value)


def _lines(end: tuple[Any, ...]) -> list[Any]:
    output = json.loads(end[1] or "[]")
    return output if isinstance(output, list) else [output]


def _booked(journal: list[tuple[Any, ...]]) -> list[str]:
    return [value for _, _, _, name, outcome, value, _ in journal if name == "book" and outcome == "ok"]
