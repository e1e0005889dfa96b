"""A bank whose workers are killed at random moments: money is conserved, and every transfer is booked once.

The moments are drawn as numbers of finished transfers, so that a slow machine
sees as many transfers between two deaths as a fast one.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.load import Load, draw_seed
from tests.crash.points import STORES
from tests.support.evidence import Evidence
from tests.support.postgres import shared_server
from tests.support.size import pick

LEASE_S = 3.0
TRANSFERS = pick(small=200, full=10_000)
KILLS = pick(small=6, full=200)
WORKERS = 4


@pytest.mark.timeout(pick(small=120, full=3_600))
@pytest.mark.parametrize("store", STORES)
def test_money_is_conserved(store: str, tmp_path: Path, evidence: Evidence) -> None:
    seed = draw_seed()
    url = shared_server().fresh_database() if store == "postgres" else f"sqlite:///{tmp_path}/bank.db?driver=apsw"
    load = Load(url, tmp_path, random.Random(seed), transfers=TRANSFERS)
    kills = load.draw_moments(KILLS)
    with load.working(WORKERS, LEASE_S):
        load.run(kills, lambda: load.replace(load.chance.randrange(WORKERS), LEASE_S))
    bookings = load.audit()
    evidence(
        "workers killed at random moments",
        store,
        transfers=TRANSFERS,
        workers=WORKERS,
        kills=KILLS,
        runs_taken_over=load.taken_over(),
        bookings=bookings,
        doubled=0,
        quarantined=0,
        seed=str(seed),
    )
