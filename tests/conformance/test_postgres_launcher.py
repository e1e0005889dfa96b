"""The server that the tests start: it is gone when they are, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_no_server_outlives_the_process_that_started_it(end):
    if os.environ.get("OUTLIVE_TEST_POSTGRES_URL"):
        pytest.skip("no server is started")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.postgres"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url, pid, base = (process.stdout.readline().strip() for _ in range(3))
        psycopg.connect(url).close()
        if end is None:
            process.stdin.close()
        else:
            process.send_signal(end)
        process.wait(20)
    deadline = time.monotonic() + 20
    while (runs(int(pid)) or Path(base).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(int(pid))
    assert not Path(base).exists()


def test_a_killed_server_starts_again_with_what_was_committed():
    with PostgresServer() as server:
        if server.external:
            pytest.skip("somebody else's server is not killed")
        url = server.fresh_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table seats as select 1 as seat")
        server.restart(kill=True)
        with psycopg.connect(url) as connection:
            assert connection.execute("select seat from seats").fetchall() == [(1,)]
        with psycopg.connect(server.fresh_database(template=url.rpartition("/")[2])) as connection:
            assert connection.execute("select seat from seats").fetchall() == [(1,)]
        base = server.base
    assert not base.exists()
