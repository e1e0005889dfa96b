"""PostgreSQL is stopped and started again while workers are busy: every transfer ends, and is booked once.

`fast` sends clients away, `immediate` and `crash` leave the server to recover from
its log. Now and then it stays away for longer than a lease.
"""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.load import Load, draw_seed
from tests.support.evidence import Evidence
from tests.support.postgres import PostgresServer
from tests.support.size import pick

LEASE_S = 1.5
TRANSFERS = pick(small=200, full=5_000)
RESTARTS = pick(small=4, full=40)
WORKERS = 2
LONG_AWAY = 4  # each so manieth time for longer than the lease

STOPS = {
    "fast": lambda server: server.stop(signal.SIGINT),
    "immediate": lambda server: server.stop(signal.SIGQUIT),
    "crash": lambda server: server.kill(),
}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own."""
    with PostgresServer() as server:
        if server.external:
            pytest.skip("somebody else's server is not stopped")
        yield server


@pytest.mark.timeout(pick(small=120, full=1_800))
def test_nothing_is_lost_when_the_server_is_restarted(
    server: PostgresServer, tmp_path: Path, evidence: Evidence
) -> None:
    seed = draw_seed()
    load = Load(server.fresh_database(), tmp_path, random.Random(seed), transfers=TRANSFERS)
    stops = itertools.cycle(STOPS.values())
    numbers = itertools.count(1)

    def restart() -> None:
        next(stops)(server)
        time.sleep(LEASE_S * 1.5 if next(numbers) % LONG_AWAY == 0 else load.chance.uniform(0, LEASE_S / 2))
        server.start()

    with load.working(WORKERS, LEASE_S):
        load.run(load.draw_moments(RESTARTS), restart)
    bookings = load.audit()
    evidence(
        "the server is restarted under load",
        "postgres",
        transfers=TRANSFERS,
        workers=WORKERS,
        restarts=RESTARTS,
        modes=" / ".join(STOPS),
        bookings=bookings,
        quarantined=0,
        seed=str(seed),
    )
