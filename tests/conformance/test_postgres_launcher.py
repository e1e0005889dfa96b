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

from tests.support.postgres import PostgresServer, shared_server

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


@pytest.mark.parametrize(
    ("used", "again"),
    [
        ("insert into requests (row, kind, created_at) values (1, 'cancel', now())", True),
        ("create table seats (number int primary key); insert into seats values (1)", True),
        ("create table public.seats (run bigint references runs)", True),
        ("insert into meta values ('more', 'facts')", False),
        ("update meta set value = 'other facts'", False),
        ("create function seats() returns int language sql as 'select 1'", False),
        ("alter table runs set (fillfactor = 50)", False),
        ("do $$ begin execute format('alter database %I set work_mem = 100', current_database()); end $$", False),
        ("create schema seats", False),
        ("drop schema outlive cascade", False),
        ("insert into meta select n, repeat('x', 900) from generate_series(1, 500) n; delete from meta", False),
        ("insert into queues (queue) select n || repeat('x', 900) from generate_series(1, 500) n", False),
    ],
)
def test_a_used_database_is_as_new_or_not_used_again(used, again):
    server = shared_server()
    urls = [server.migrated_database() for _ in range(2)]
    with psycopg.connect(server.url(), autocommit=True) as admin:
        (number,) = admin.execute("select count(*) from pg_database").fetchone()
        with psycopg.connect(urls[0], autocommit=True, options="-c search_path=outlive,public") as connection:
            connection.execute(used)
            for url in urls:
                server.take_back(url)
        (left,) = admin.execute("select count(*) from pg_database").fetchone()
    assert left == number - (not again)
    for url in urls:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
    given = [server.migrated_database() for _ in range(2)]
    for url in given:
        with psycopg.connect(url, autocommit=True, options="-c search_path=outlive,public") as connection:
            assert connection.execute("select to_regclass('seats')").fetchone() == (None,)
            insert = "insert into requests (row, kind, created_at) values (1, 'cancel', now()) returning request"
            assert connection.execute(insert).fetchone() == (1,)
        server.take_back(url)


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
