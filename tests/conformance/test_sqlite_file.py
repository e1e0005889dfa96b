"""What is special about a SQLite file: URLs, places that are refused, locks, full disks, two libraries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from outlive import hooks
from outlive.clock import SystemClock
from outlive.errors import SchemaMismatch, StoreError, StoreReadOnly, StoreUnavailable, UsageError
from outlive.model.reads import RunQuery
from outlive.model.writes import Batch
from outlive.store.interface import Store
from outlive.store.refusals import WriteRefused
from outlive.store.sqlite import SqliteStore
from outlive.store.sqlite.connect import Location, file_system, parse_url
from outlive.store.sqlite.failures import translate
from tests.conformance.records import (
    LEASE_S,
    claim_all,
    finish,
    new_entry,
    new_run,
    register,
    release,
    start,
    start_owned,
    status,
)


def make(url: str, **settings) -> SqliteStore:
    return SqliteStore(url, clock=SystemClock(), chance=random.Random(3), **settings)


def conforms(store: SqliteStore) -> Store:
    """Checked by mypy: the seam is complete."""
    return store


def file_of(database) -> str:
    return database.url.removeprefix("sqlite:///").partition("?")[0]


# -- URLs and places -----------------------------------------------------------------


def test_urls_name_files(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = os.path.realpath(tmp_path)
    assert parse_url("sqlite:///shop.db") == Location("sqlite:///shop.db", f"{base}/shop.db", "stdlib")
    assert parse_url("sqlite:////data/shop.db").path == "/data/shop.db"
    assert parse_url("sqlite:///a%20b.db?driver=apsw").path == f"{base}/a b.db"
    assert parse_url("sqlite:///shop.db?driver=apsw").driver == "apsw"
    assert parse_url("sqlite://").path is None
    assert parse_url("sqlite://?driver=apsw") == Location("sqlite://?driver=apsw", None, "apsw")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:////",
        "sqlite:///folder/",
        "sqlite://host/shop.db",
        "sqlite:///shop.db?mode=ro",
        "sqlite:///shop.db?driver=other",
        "sqlite:///shop.db#part",
        "postgresql:///shop",
        "shop.db",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(UsageError):
        make(url)


async def test_two_stores_in_memory_are_apart():
    one, two = make("sqlite://"), make("sqlite://")
    for store in (one, two):
        await store.open(migrate=True)
    await start(one, "order-1")
    assert await two.find_run("order-1") is None
    for store in (one, two):
        await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"missing does not exist; create it first"):
        await make(f"sqlite:///{tmp_path}/missing/shop.db").open(migrate=True)


async def test_a_directory_is_no_database(tmp_path: Path):
    with pytest.raises(UsageError, match="is a directory"):
        await make(f"sqlite:///{tmp_path}").open(migrate=True)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/x /mnt/data nfs4 rw 0 0
tmpfs /mnt/data/fast tmpfs rw 0 0
//nas/y /mnt/my\\040share cifs rw 0 0
short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/u", "ext4"),
        ("/mnt/data", "nfs4"),
        ("/mnt/data/sub", "nfs4"),
        ("/mnt/data2", "ext4"),
        ("/mnt/data/fast/x", "tmpfs"),
        ("/mnt/my share/x", "cifs"),
    ],
)
def test_the_file_system_of_a_path(path, kind):
    assert file_system(path, MOUNTS) == kind
    assert file_system(path, "") is None


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("outlive.store.sqlite.connect._read_mounts", lambda: f"server:/x {tmp_path} nfs4 rw 0 0\n")
    with pytest.raises(UsageError, match=r"network file system \(nfs4\)"):
        await make(f"sqlite:///{tmp_path}/shop.db").open(migrate=True)
    assert not (tmp_path / "shop.db").exists()


def _let_all_read(path: Path) -> None:
    path.chmod(0o444)
    path.parent.chmod(0o755)


READ_ONLY = """
import asyncio, os, random, sys
from outlive.clock import SystemClock
from outlive.errors import StoreReadOnly
from outlive.store.sqlite import SqliteStore
if os.getuid() == 0:
    os.setuid(65534)

async def main():
    for path in sys.argv[1:]:
        store = SqliteStore("sqlite:///" + path, clock=SystemClock(), chance=random.Random())
        try:
            await store.open(migrate=True)
        except StoreReadOnly as error:
            print("refused:", error)
        await store.close()

asyncio.run(main())
"""


async def test_a_read_only_file_or_directory_is_told(tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.db")
        store = make(f"sqlite:///{path}")
        await store.open(migrate=True)
        await store.close()
        _let_all_read(path)
        root = Path(__file__).parents[2]
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", READ_ONLY, str(path), f"{folder}/new.db"],
            env={"PYTHONPATH": f"{root}/src"},
            capture_output=True,
            text=True,
        )
        assert process.stdout.count("refused:") == 2, process.stderr
        assert "right to write" in process.stdout


async def test_a_file_that_turns_read_only_is_told(sqlite_file):
    async with sqlite_file.open() as store:
        tx = await store.begin(5.0)
        tx.raw.execute("pragma query_only = 1")
        await tx.rollback()
        with pytest.raises(StoreReadOnly):
            await start(store, "order-1")


@pytest.mark.parametrize("content", [b"this is a letter, not a database" * 40])
async def test_another_file_is_no_database(tmp_path: Path, content):
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged or no SQLite database") as caught:
        await make(f"sqlite:///{path}").open(migrate=True)
    assert not isinstance(caught.value, StoreUnavailable)
    assert path.read_bytes() == content


async def test_a_schema_of_a_newer_version_is_refused(sqlite_file):
    async with sqlite_file.open():
        pass
    connection = sqlite3.connect(file_of(sqlite_file))
    connection.execute("insert into ol_meta values ('schema.0099', 'later')")
    connection.commit()
    connection.close()
    for migrate in (True, False):
        with pytest.raises(SchemaMismatch, match="schema version 99"):
            await sqlite_file.make().open(migrate=migrate)


# -- two libraries, two connections ---------------------------------------------------


async def test_a_second_library_on_an_open_file_is_refused(sqlite_file, apsw_file, tmp_path: Path):
    async with sqlite_file.open(), sqlite_file.open():
        with pytest.raises(UsageError, match=r"'stdlib' already"):
            await apsw_file.make().open(migrate=True)
        link = tmp_path / "link.db"
        link.symlink_to(tmp_path / "test.db")
        with pytest.raises(UsageError, match="already"):
            await make(f"sqlite:///{link}?driver=apsw").open(migrate=True)
    async with apsw_file.open():
        with pytest.raises(UsageError, match=r"'apsw' already"):
            await sqlite_file.make().open(migrate=True)
    async with sqlite_file.open():
        pass


PRAGMAS = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys", "query_only")


async def test_connections_are_durable_and_in_wal_mode(sqlite_file, apsw_file):
    for database in (sqlite_file, apsw_file):
        async with database.open() as store:
            for lane, read_only in ((store._writer, 0), (store._reader, 1)):
                values = await lane.run(lambda db: [db.rows(f"pragma {name}")[0][0] for name in PRAGMAS])
                assert values == ["wal", 2, 0, 0, read_only]


async def test_a_locked_file_is_waited_for(sqlite_file):
    async with sqlite_file.open() as store:
        holder = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        holder.execute("begin immediate")
        waiting = asyncio.create_task(start(store, "order-1"))
        assert await store.find_run("order-1") is None, "reads do not wait for the writer"
        holder.execute("commit")
        await waiting
        holder.close()
        assert await status(store, "order-1") == "queued"


async def test_a_file_that_stays_locked_is_unavailable(sqlite_file, monkeypatch):
    monkeypatch.setattr("outlive.store.sqlite.database.LOCK_WAIT_S", 0.05)
    async with sqlite_file.open() as store:
        holder = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        holder.execute("begin immediate")
        for work in (start(store, "order-1"), store.begin(5.0)):
            with pytest.raises(StoreUnavailable, match="another process holds its lock") as caught:
                await work
            assert not caught.value.outcome_unknown
        holder.close()
        await start(store, "order-1")


async def test_an_inline_store_does_not_wait(sqlite_file):
    threads = threading.active_count()
    async with sqlite_file.open(inline=True) as store:
        holder = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        holder.execute("begin immediate")
        with pytest.raises(StoreUnavailable):
            await start(store, "order-1")
        holder.close()
        await start(store, "order-1")
        assert threading.active_count() == threads


async def test_a_full_disk_is_told_and_heals(any_sqlite):
    async with any_sqlite.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await _set_page_limit(store, used_up=True)
        batch = Batch(entries=[new_entry(run.row, value="x" * 1_000_000)], finishes=[finish(run.row)])
        with pytest.raises(StoreUnavailable, match="disk is full") as caught:
            await store.commit(batch, fence)
        assert not caught.value.outcome_unknown
        assert await store.list_entries("order-1") == []
        assert await status(store, "order-1") == "running"
        await _set_page_limit(store, used_up=False)
        await store.commit(batch, fence)
        assert await status(store, "order-1") == "succeeded"


async def _set_page_limit(store, *, used_up: bool) -> None:
    tx = await store.begin(5.0)
    (pages,) = await tx.fetchrow("pragma page_count")
    await tx.execute(f"pragma max_page_count = {pages if used_up else 2**30}")
    await tx.rollback()


async def test_a_full_disk_in_a_users_transaction(any_sqlite):
    async with any_sqlite.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        await _set_page_limit(store, used_up=True)
        tx = await store.begin(5.0)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await tx.execute("create table t as select zeroblob(1000000) as b")
        await tx.rollback()
        await _set_page_limit(store, used_up=False)
        tx = await store.begin(5.0)
        await tx.commit(fence, new_entry(run.row))
        assert len(await store.list_entries("order-1")) == 1


class Failed(Exception):
    """As a driver raises it."""

    def __init__(self, code: int, text: str = "some failure") -> None:
        super().__init__(text)
        self.sqlite_errorcode = code


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable, "lock"),
        (sqlite3.SQLITE_LOCKED, StoreUnavailable, "lock"),
        (sqlite3.SQLITE_PROTOCOL, StoreUnavailable, "lock"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable, "check the disk"),
        (sqlite3.SQLITE_FULL, StoreUnavailable, "free some space"),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable, "directory"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StoreReadOnly, "right to write"),
        (sqlite3.SQLITE_CORRUPT, StoreError, "backup"),
        (sqlite3.SQLITE_NOTADB, StoreError, "no SQLite database"),
        (sqlite3.SQLITE_CONSTRAINT_NOTNULL, WriteRefused, "refuses the data"),
        (sqlite3.SQLITE_TOOBIG, WriteRefused, "refuses the data"),
        (sqlite3.SQLITE_ERROR, StoreError, "some failure"),
    ],
)
def test_errors_say_what_to_do(code, expected, text):
    translated = translate(Failed(code), "shop.db")
    assert type(translated) is expected
    assert text in str(translated)
    assert "shop.db" in str(translated)


def test_an_error_of_the_disk_at_commit_is_an_unknown_outcome():
    for committing in (True, False):
        translated = translate(Failed(sqlite3.SQLITE_IOERR_FSYNC), "shop.db", committing=committing)
        assert isinstance(translated, StoreUnavailable)
        assert translated.outcome_unknown is committing
    missing = translate(Failed(sqlite3.SQLITE_ERROR, "no such table: ol_runs"), "shop.db")
    assert isinstance(missing, SchemaMismatch)
    other = ValueError("not of a driver")
    assert translate(other, "shop.db") is other


# -- fault points ---------------------------------------------------------------------


@contextlib.contextmanager
def failing_at(name: str):
    def fire(point: str) -> None:
        if point == name:
            hooks.arm(None)
            raise StoreUnavailable(f"failed at {name}")

    hooks.arm(fire)
    try:
        yield
    finally:
        hooks.arm(None)


@pytest.mark.parametrize(("point", "written"), [("commit.before", False), ("commit.after", True)])
async def test_a_fault_around_commit(any_sqlite, point, written):
    async with any_sqlite.open() as store:
        batch = Batch(starts=[new_run("order-1")])
        with failing_at(point), pytest.raises(StoreUnavailable):
            await store.commit(batch, None)
        assert (await store.find_run("order-1") is not None) is written
        assert not (await store.commit(batch, None)).existing
        assert await claim_all(store, await register(store)) == ["order-1"]


@pytest.mark.parametrize(
    ("point", "written"),
    [
        ("transaction.before", False),
        ("transaction.begun", False),
        ("transaction.entry_written", False),
        ("transaction.after", True),
    ],
)
async def test_a_fault_within_a_transaction(any_sqlite, point, written):
    async with any_sqlite.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1")
        with failing_at(point), pytest.raises(StoreUnavailable):
            tx = await store.begin(5.0)
            await tx.execute("create table t (n integer)")
            await tx.commit(fence, new_entry(run.row))
        assert bool(await store.list_entries("order-1")) is written
        tx = await store.begin(5.0)
        tables = await tx.fetchval("select count(*) from sqlite_schema where name = 't'")
        assert bool(tables) is written
        await tx.rollback()


KILLED = """
import asyncio, os, random, signal, sys
from outlive import hooks
from outlive.clock import SystemClock
from outlive.model.writes import Batch
from outlive.store.sqlite import SqliteStore
from tests.conformance.records import new_entry, new_run, register, start_owned

def fire(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = SqliteStore(sys.argv[1], clock=SystemClock(), chance=random.Random())
    await store.open(migrate=True)
    fence = await register(store)
    (run,) = await start_owned(store, fence, "order-1")
    hooks.arm(fire)
    if sys.argv[2].startswith("commit"):
        await store.commit(Batch(starts=[new_run("order-2")], entries=[new_entry(run.row)]), fence)
    else:
        tx = await store.begin(5.0)
        await tx.execute("create table t (n integer)")
        await tx.commit(fence, new_entry(run.row))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "written"),
    [
        ("commit.before", False),
        ("commit.after", True),
        ("transaction.begun", False),
        ("transaction.entry_written", False),
        ("transaction.after", True),
    ],
)
async def test_a_kill_leaves_all_or_nothing(sqlite_file, point, written):
    root = Path(__file__).parents[2]
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, sqlite_file.url, point],
        cwd=root,
        env={"PYTHONPATH": f"{root}/src:{root}"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == -9, process.stderr
    async with sqlite_file.open() as store:
        assert bool(await store.list_entries("order-1")) is written
        if point.startswith("commit"):
            assert (await store.find_run("order-2") is not None) is written
        tx = await store.begin(5.0)
        tables = await tx.fetchval("select count(*) from sqlite_schema where name = 't'")
        await tx.rollback()
        assert bool(tables) is (written and point.startswith("transaction"))


# -- threads, loops, readers ------------------------------------------------------------


async def test_a_beat_comes_from_another_threads_loop(sqlite_file):
    async with sqlite_file.open() as store:
        fence = await register(store)

        async def beat() -> float:
            channel = await store.side_channel()
            at = await channel.beat(fence, LEASE_S)
            await channel.close()
            return at

        assert await asyncio.to_thread(lambda: asyncio.run(beat())) > 0


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_file_that_is_gone_gets_no_beats(sqlite_file, replaced):
    async with sqlite_file.open() as store:
        fence = await register(store)
        channel = await store.side_channel()
        await channel.beat(fence, LEASE_S)
        await asyncio.to_thread(os.rename, file_of(sqlite_file), file_of(sqlite_file) + ".old")
        if replaced:
            sqlite3.connect(file_of(sqlite_file)).close()
        for work in (
            lambda: channel.beat(fence, LEASE_S),
            lambda: start(store, "order-1"),
            lambda: store.find_run("order-1"),
            lambda: store.begin(1.0),
            lambda: claim_all(store, fence),
        ):
            with pytest.raises(StoreUnavailable, match="deleted or replaced"):
                await work()
        await asyncio.to_thread(os.rename, file_of(sqlite_file) + ".old", file_of(sqlite_file))
        await channel.beat(fence, LEASE_S)
        await start(store, "order-1")
        assert await claim_all(store, fence) == ["order-1"]


async def test_a_loop_that_is_gone_harms_nobody(sqlite_file):
    async with sqlite_file.open() as store:
        holder = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        holder.execute("begin immediate")

        def leave() -> None:
            async def ask() -> None:
                task = asyncio.create_task(start(store, "order-1"))
                await asyncio.wait([task], timeout=0.02)
                task.cancel()

            asyncio.run(ask())

        await asyncio.to_thread(leave)
        holder.execute("commit")
        holder.close()
        await start(store, "order-2")


async def test_a_closed_store_takes_no_jobs(any_sqlite):
    store = any_sqlite.make()
    with pytest.raises(UsageError, match="not open"):
        await store.list_workers()
    await store.open(migrate=True)
    await store.close()
    with pytest.raises(UsageError, match="not open"):
        await start(store, "order-1")
    assert store._writer._connection is None


async def test_jobs_of_other_threads_while_the_store_closes_are_all_answered(sqlite_file):
    for turn in range(10):
        store = sqlite_file.make()
        await store.open(migrate=True)
        fence = await register(store)

        async def beat_till_closed(store=store, fence=fence) -> None:
            channel = await store.side_channel()
            with pytest.raises(UsageError, match="not open"):
                while True:
                    await asyncio.wait_for(channel.beat(fence, LEASE_S), 5.0)

        beating = [
            asyncio.create_task(asyncio.to_thread(lambda beat=beat_till_closed: asyncio.run(beat()))) for _ in range(3)
        ]
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(start(store, f"order-{turn}-{n}")) for n in range(3)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*beating, *waiting)
        assert store._writer._connection is None


async def test_a_transaction_that_waits_while_the_store_closes_is_told(any_sqlite):
    async with any_sqlite.open() as store:
        tx = await store.begin(60.0)
        waiting = asyncio.create_task(store.begin(60.0))
        await asyncio.sleep(0.01)
        await store.close()
        with pytest.raises(UsageError, match="not open"):
            await waiting
        await tx.rollback()


async def test_several_processes_worth_of_stores_write_at_once(sqlite_file):
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(sqlite_file.open()) for _ in range(4)]
        batches = [
            asyncio.create_task(store.commit(Batch(starts=[new_run(f"r-{number}-{n}")]), None))
            for n in range(25)
            for number, store in enumerate(stores)
        ]
        await asyncio.gather(*batches)
        assert len(await stores[0].list_runs(RunQuery(limit=1_000))) == 100


async def test_the_database_clock_is_the_one_given():
    now = 1_800_000_000.0
    store = make("sqlite://", inline=True, wall=lambda: now)
    assert await store.open(migrate=True) == now
    fence = await register(store, lease_s=10.0)
    await start(store, "later", delay_s=30.0)
    assert await claim_all(store, fence) == []
    now += 31.0
    assert await store.now() == now
    assert (await store.take_over([])).workers == [fence.worker]
    assert await claim_all(store, await register(store)) == ["later"]
    await store.close()


async def test_the_sweep_looks_at_all_now_and_then():
    now = 1_800_000_000.0
    store = make("sqlite://", inline=True, wall=lambda: now)
    await store.open(migrate=True)
    fence = await register(store)
    (parent,) = await start_owned(store, fence, "parent")
    child = new_run("child", parent=parent.row, parent_key="/c#1", owned=True)
    entries = [new_entry(parent.row, "/c#1", outcome="started")]
    await store.commit(Batch(starts=[child], entries=entries), fence)
    await store.commit(Batch(finishes=[finish(child.row)]), fence)
    now += 3_600.0  # the child ended long before the last sweep: only a look at all finds it
    assert await store.sweep() == 0
    await store.commit(Batch(releases=[release(parent.row)]), fence)
    woken = [await store.sweep() for _ in range(60)]
    assert sum(woken) == 1
    assert woken[-1] == 1
    await store.close()


async def test_an_old_library_is_told_once_and_only_beside_others(sqlite_file, monkeypatch, caplog):
    monkeypatch.setattr("outlive.store.sqlite.ownership.library_version", lambda _: (3, 51, 2))
    async with sqlite_file.open() as store:
        fence = await register(store)
        await register(store)  # a second app of this process
        await store.beat(fence, 15.0)
        assert not caplog.records
        await register(store, pid=1, host="elsewhere")
        await store.beat(fence, 15.0)
        await store.beat(fence, 15.0)
        (record,) = caplog.records
        assert "3.51.3" in record.getMessage()


def test_a_library_that_is_too_old_is_refused(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("outlive.store.sqlite.connect.library_version", lambda _: (3, 34, 1))
    with pytest.raises(StoreError, match=r"3\.34\.1, Outlive needs"):
        asyncio.run(make(f"sqlite:///{tmp_path}/x.db").open(migrate=True))


# -- people ---------------------------------------------------------------------------


async def test_views_are_for_people(any_sqlite):
    async with any_sqlite.open() as store:
        fence = await register(store, name="shop", lease_s=100.0)
        (run,) = await start_owned(store, fence, "order-1")
        await start(store, "order-2", delay_s=100.0)
        await store.commit(Batch(entries=[new_entry(run.row)]), fence)
        await store.add_request("order-1", "cancel", '"late"')
        tx = await store.begin(5.0)
        runs = await tx.fetch("select * from outlive_runs order by row")
        assert [(row["id"], row["status"], row["worker"]) for row in runs] == [
            ("order-1", "running", fence.worker),
            ("order-2", "scheduled", None),
        ]
        assert runs[0]["created_at"][:2] == "20"
        assert runs[0]["created_at"].endswith("Z")
        (entry,) = await tx.fetch("select * from outlive_entries")
        assert (entry["run"], entry["key"], entry["outcome"]) == ("order-1", "/pay#1", "ok")
        assert entry["finished_at"] == "2023-11-14T22:13:20.750Z"
        (worker,) = await tx.fetch("select * from outlive_workers")
        assert (worker["name"], worker["alive"], worker["runs"]) == ("shop", 1, 1)
        (request,) = await tx.fetch("select * from outlive_requests")
        assert (request["run"], request["kind"], request["payload"]) == ("order-1", "cancel", '"late"')
        await tx.rollback()


def test_apsw_is_at_hand():
    assert apsw.sqlite_lib_version() >= "3.51.3"


# -- hints ----------------------------------------------------------------------------


def sockets(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def test_sockets_come_and_go(sqlite_file):
    folder = Path(file_of(sqlite_file) + "-outlive")
    async with sqlite_file.open() as one:
        assert sockets(folder) == [], "nobody listens yet"
        await one.wait_hint(0.0)
        mine = sockets(folder)
        assert len(mine) == 1
        bind_and_die(folder / "0-dead.sock")
        async with sqlite_file.open() as two:
            await two.wait_hint(0.0)
            assert len(sockets(folder)) == 3
            await two.notify()
            assert await one.wait_hint(10.0)
        assert sockets(folder) == mine
    assert sockets(folder) == []


def bind_and_die(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        folder = os.open(path.parent, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


async def test_a_change_of_the_file_is_a_hint(sqlite_file):
    async with sqlite_file.open() as one:
        while await one.wait_hint(0.1):
            pass
        await start(one, "mine")
        assert await one.wait_hint(0.2) is False, "one's own writes are no news"
        peer = sqlite3.connect(file_of(sqlite_file), isolation_level=None)
        peer.execute("create table t (n)")
        peer.close()
        assert await one.wait_hint(10.0) is True


async def test_a_long_path_has_its_socket_too(tmp_path: Path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    one, two = make(f"sqlite:///{folder}/shop.db"), make(f"sqlite:///{folder}/shop.db")
    for store in (one, two):
        await store.open(migrate=True)
    while await one.wait_hint(0.1):
        pass
    waiting = asyncio.create_task(one.wait_hint(10.0))
    await asyncio.sleep(0)
    await start(two, "order-1")
    await two.notify()
    assert await waiting is True
    for store in (one, two):
        await store.close()
