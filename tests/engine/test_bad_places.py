"""Databases that cannot be used, and apps used where they cannot be: a clear error, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import outlive
from outlive import Outlive, RunNotFound, Status, StoreUnavailable, UsageError, step, workflow
from outlive.store.sqlite import database as sqlite_database
from tests.house.source import SRC
from tests.support.postgres import LOCKED_PASSWORD, LOCKED_ROLE, NOBODY, PostgresServer, shared_server

LIMIT_S = 20.0
gates: dict[str, asyncio.Event] = {}
entered: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _clean() -> None:
    gates.clear()
    entered.clear()


@step
async def wait_for_gate(name: str) -> str:
    entered[name] = entered.get(name, 0) + 1
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@step
async def echo(text: str) -> str:
    return text


@workflow
async def gated(name: str) -> str:
    return await echo(await wait_for_gate(name))


@workflow
async def two_steps(text: str) -> str:
    return await echo(await echo(text))


async def started(app: Outlive, name: str) -> outlive.Run:
    """Give a run that is in the middle of its step."""
    run = await app.start(gated, name, id=name)
    async with asyncio.timeout(LIMIT_S):
        while name not in gates:
            await asyncio.sleep(0)
    return run


def python(source: str, *arguments: object) -> str:
    """Run a program in a process of its own and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


# -- URLs and drivers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        ("mysql://localhost/shop", "sqlite:///relative.db"),
        ("shop.db", "sqlite:///relative.db"),
        ("/tmp/shop.db", "sqlite:///relative.db"),
        ("", "sqlite:///relative.db"),
        ("sqlite:shop.db", "sqlite:///relative.db"),
        ("sqlite://shop.db", "sqlite:///relative.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///shop.db?mode=ro", "driver="),
        ("sqlite:///shop.db?driver=other", "driver="),
        ("SQLITE:///shop.db", "sqlite:///"),
        ("postgresql+psycopg://localhost/shop", "postgresql://"),
        (None, "is text"),
        (7, "is text"),
        (b"sqlite://", "is text"),
        (Path("shop.db"), "is text"),
    ],
)
def test_a_url_that_names_no_store(bad: Any, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        Outlive(bad)


@pytest.mark.parametrize("bad", ["postgresql://localhost:port/shop", "postgresql://u@[::1/shop"])
async def test_a_url_that_postgres_does_not_understand(bad: str) -> None:
    with pytest.raises(UsageError, match="URL"):
        async with Outlive(bad):
            pass


@pytest.mark.parametrize(
    "settings",
    [{"lease": 0.1}, {"lease": -1}, {"lease": "long"}, {"pool_size": 1}, {"max_running": 0}, {"grace": -1}],
    ids=repr,
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Outlive("sqlite://", **settings)


WITHOUT_DRIVER = """
import asyncio, sys
sys.modules[sys.argv[1]] = None
import outlive

async def main():
    async with outlive.Outlive(sys.argv[2]):
        raise SystemExit("entered without a driver")

try:
    asyncio.run(main())
except outlive.UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("driver", "url", "extra"),
    [
        ("asyncpg", "postgresql://localhost/shop", "pip install 'outlive[postgres]'"),
        ("apsw", "sqlite:///{}/shop.db?driver=apsw", "pip install 'outlive[apsw]'"),
    ],
)
def test_a_missing_driver_names_its_extra(tmp_path: Path, driver: str, url: str, extra: str) -> None:
    assert extra in python(WITHOUT_DRIVER, driver, url.format(tmp_path))
    assert not (tmp_path / "shop.db").exists()


# -- SQLite files -----------------------------------------------------------------------------------

AS_ANOTHER_USER = """
import asyncio, os, sys
import outlive, outlive.store.sqlite.store

if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))

async def main():
    async with outlive.Outlive(sys.argv[1], worker=sys.argv[3] == "worker"):
        raise SystemExit("a file that cannot be written was opened")

try:
    asyncio.run(main())
except outlive.StoreReadOnly as error:
    assert isinstance(error, PermissionError)
    print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="outlive-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def allow(folder: Path, mode: int) -> None:
    folder.chmod(mode)


@pytest.mark.parametrize("role", ["worker", "client"])
@pytest.mark.parametrize("what", ["the file", "the folder", "a new file"])
async def test_a_file_that_may_not_be_written(open_folder: Path, what: str, role: str) -> None:
    url = f"sqlite:///{open_folder}/shop.db"
    if what != "a new file":
        async with Outlive(url, include=[two_steps]) as app:
            assert await app.run(two_steps, "before", id="before") == "before"
        (open_folder / "shop.db").chmod(0o444 if what == "the file" else 0o666)
    allow(open_folder, 0o777 if what == "the file" else 0o555)
    said = await asyncio.to_thread(python, AS_ANOTHER_USER, url, NOBODY, role)
    assert "cannot be written by this process" in said
    assert str(open_folder) in said
    allow(open_folder, 0o755)
    (open_folder / "shop.db").touch()
    (open_folder / "shop.db").chmod(0o644)
    async with Outlive(url, include=[two_steps]) as app:
        assert (await app.start(two_steps, "before", id="before")).created is (what == "a new file")


async def test_a_file_in_a_folder_that_may_not_be_entered(open_folder: Path) -> None:
    allow(open_folder, 0o700)
    said = await asyncio.to_thread(python, AS_ANOTHER_USER, f"sqlite:///{open_folder}/in/shop.db", NOBODY, "worker")
    assert "cannot be reached by this process" in said


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"these are my notes, not a database " * 100)
    with pytest.raises(outlive.StoreError, match="no SQLite database"):
        async with Outlive(f"sqlite:///{path}"):
            pass
    assert path.read_bytes().startswith(b"these are my notes")
    for place, advice in ((tmp_path, "is a directory"), (tmp_path / "no" / "shop.db", "create it first")):
        with pytest.raises(UsageError, match=advice):
            async with Outlive(f"sqlite:///{place}"):
                pass


async def test_an_empty_database_is_refused_without_migrate(url: str) -> None:
    if url.startswith("postgresql"):
        url = shared_server().fresh_database()  # the other one has its schema already
    with pytest.raises(outlive.SchemaMismatch, match="outlive db migrate"):
        async with Outlive(url, migrate=False):
            pass
    async with Outlive(url):
        pass
    async with Outlive(url, migrate=False, include=[two_steps]) as app:
        assert await app.run(two_steps, "x") == "x"


async def test_two_sqlite_libraries_on_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match="driver"):
            async with Outlive(f"{url}?driver=apsw"):
                pass
        assert await app.run(two_steps, "x", id="x") == "x"
    async with Outlive(f"{url}?driver=apsw") as app:  # one after the other is fine
        assert await (await app.get("x")).result(timeout=LIMIT_S) == "x"


FULL_DISK = """
import asyncio, os, resource, sys
import outlive
from outlive import Outlive, StoreUnavailable, step, workflow

url, room = sys.argv[1], sys.argv[2]
folder = os.path.dirname(url.removeprefix("sqlite:///"))
gate = asyncio.Event()

@step
async def wait() -> str:
    print("waiting", flush=True)
    await gate.wait()
    return "x" * 100_000

@workflow
async def gated() -> int:
    return len(await wait())

@workflow
async def filler(text: str) -> int:
    return len(text)

def shrink() -> None:
    if room == "limit":
        largest = max(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 300_000, resource.RLIM_INFINITY))

def free() -> None:
    if room == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        os.unlink(os.path.join(folder, "ballast"))

async def main():
    if room != "limit":
        with open(os.path.join(folder, "ballast"), "wb") as ballast:
            ballast.write(bytes(4_000_000))
    async with Outlive(url) as app:
        run = await app.start(gated, id="gated")
        while not (await run.entries()) and "waiting" == "":
            await asyncio.sleep(0)
        await app.run(filler, "small")
        shrink()
        failed = None
        for number in range(400):
            try:
                await app.start(filler, "y" * 50_000, id=f"filler-{number}")
            except StoreUnavailable as error:
                failed = error
                break
        assert failed is not None, "the disk was never full"
        assert failed.run_id == f"filler-{number}", failed.run_id
        print("refused:", failed)
        gate.set()  # a run that cannot write its entry now
        try:
            await run.result(timeout=0.5)
        except outlive.RunTimedOut:
            print("waits for room")
        try:
            print("status", await run.status())
        except outlive.StoreError as error:
            print("status", error)
        free()
        print("result", await run.result(timeout=20))
        again = await app.start(filler, "y" * 50_000, id=failed.run_id)
        print("again", await again.result(timeout=20))
        done = 0
        for n in range(number):
            assert await (await app.get(f"filler-{n}")).result(timeout=20) == 50_000
            done += 1
        print("kept", done == number)

asyncio.run(main())
"""


@pytest.mark.parametrize("room", ["limit", "file system"])
def test_a_full_disk_makes_runs_wait(tmp_path: Path, room: str) -> None:
    """A limit on the size of files fails writes as a full disk does; a real, small file system needs root."""
    if room == "file system":
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "outlive-test", str(tmp_path)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("may not mount a small file system here")
    try:
        said = python(FULL_DISK, f"sqlite:///{tmp_path}/shop.db", room)
    finally:
        if room == "file system":
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert "the same id" in said, said
    assert ("the disk is full; free some space" if room == "file system" else "check the disk") in said, said
    for line in ("waits for room", "result 100000", "again 50000", "kept True"):
        assert line in said.splitlines(), said


async def test_a_locked_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "LOCK_WAIT_S", 0.2)
    path = tmp_path / "shop.db"
    async with Outlive(f"sqlite:///{path}") as app:
        run = await started(app, "gate")
        stranger = sqlite3.connect(path, isolation_level=None)
        stranger.execute("begin immediate")
        try:
            refused = await asyncio.gather(
                *(app.start(two_steps, "x", id=f"locked-{n}") for n in range(3)), return_exceptions=True
            )
            for n, error in enumerate(refused):
                assert isinstance(error, StoreUnavailable), error
                assert error.run_id == f"locked-{n}"
                assert "lock" in str(error)
            gates["gate"].set()
            with pytest.raises(outlive.RunTimedOut):
                await run.result(timeout=0.5)
        finally:
            stranger.execute("rollback")
            stranger.close()
        assert await run.result(timeout=LIMIT_S) == "gate"
        for n in range(3):
            assert await (await app.start(two_steps, "x", id=f"locked-{n}")).result(timeout=LIMIT_S) == "x"
        assert entered == {"gate": 1}


# -- PostgreSQL servers -------------------------------------------------------------------------------


async def test_a_wrong_password_is_named_without_showing_it() -> None:
    server = shared_server()
    name = server.fresh_database().rpartition("/")[2]
    for password in ("wr0ng-word", None):
        with pytest.raises(UsageError, match="password") as caught:
            async with Outlive(server.url(name, role=LOCKED_ROLE, password=password)):
                pass
        assert "wr0ng-word" not in str(caught.value)
        assert LOCKED_ROLE in str(caught.value)
    with pytest.raises(UsageError, match="permission") as caught:
        async with Outlive(server.url(name, role=LOCKED_ROLE, password=LOCKED_PASSWORD)):
            pass
    assert LOCKED_PASSWORD not in str(caught.value)
    with pytest.raises(UsageError, match="there is no database 'nobody_made_it'"):
        async with Outlive(server.url("nobody_made_it")):
            pass
    with pytest.raises(UsageError, match="role"):
        async with Outlive(server.url(name, role="nobody_at_all")):
            pass


async def test_a_server_that_is_down_at_the_start() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"postgresql://outlive@127.0.0.1:{probe.getsockname()[1]}/shop"
        for worker in (True, False):
            app = Outlive(url, worker=worker)
            with pytest.raises(StoreUnavailable, match=r"no PostgreSQL answers at .*; start it"):
                await app.open()
            with pytest.raises(UsageError, match="async with"):
                await app.start(two_steps, "x")


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_server_that_goes_down_and_comes_back(how: str) -> None:
    with PostgresServer() as server:
        async with Outlive(server.fresh_database(), lease=30) as app:
            run = await started(app, "gate")
            await asyncio.to_thread(server.kill if how == "killed" else server.stop)
            gates["gate"].set()
            with pytest.raises(StoreUnavailable, match="start it again with the same id") as caught:
                async with asyncio.timeout(LIMIT_S):
                    await app.start(two_steps, "x", id="while-down")
            assert caught.value.run_id == "while-down"
            with pytest.raises(StoreUnavailable, match="start it again with the same id") as caught:
                async with asyncio.timeout(LIMIT_S):
                    await app.start(two_steps, "nameless")
            nameless = caught.value.run_id
            assert nameless
            for ask in (run.status, run.info, run.entries, run.cancel, lambda: app.get("gate"), app.runs):
                with pytest.raises(StoreUnavailable):
                    await ask()
            with pytest.raises(outlive.RunTimedOut):
                await run.result(timeout=0.1)
            await asyncio.to_thread(server.start)
            assert await run.result(timeout=LIMIT_S) == "gate"
            assert await (await app.start(two_steps, "x", id="while-down")).result(timeout=LIMIT_S) == "x"
            assert await (await app.start(two_steps, "y", id=nameless)).result(timeout=LIMIT_S) in ("y", "nameless")
            assert [info.id async for info in app.runs(workflow="gated")] == ["gate"]
            assert len([info async for info in app.runs(workflow="two_steps")]) == 2
            assert entered == {"gate": 1}  # nothing was executed twice


FULL = """create function refuse() returns trigger language plpgsql as $$ begin
  raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$"""


async def test_a_full_disk_of_the_server_makes_runs_wait() -> None:
    """The server's answer for a full disk (SQLSTATE 53100), raised by triggers: no disk is filled for it."""
    url = shared_server().fresh_database()
    async with Outlive(url) as app:
        run = await started(app, "gate")
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(FULL)
            for table in ("runs", "entries"):
                db.execute(
                    f"create trigger disk_full before insert on outlive.{table} execute function refuse()".encode()
                )
            with pytest.raises(StoreUnavailable, match=r"No space left.*the same id") as caught:
                await app.start(two_steps, "x", id="full")
            assert caught.value.run_id == "full"
            assert not caught.value.outcome_unknown
            gates["gate"].set()
            with pytest.raises(outlive.RunTimedOut):
                await run.result(timeout=0.5)
            assert await run.status() == Status.RUNNING
            with pytest.raises(outlive.RunNotFound):
                await app.get("full")
            for table in ("runs", "entries"):  # in a thread: it waits for statements that this loop has to finish
                await asyncio.to_thread(db.execute, f"drop trigger disk_full on outlive.{table}".encode())
        assert await run.result(timeout=LIMIT_S) == "gate"
        assert await (await app.start(two_steps, "x", id="full")).result(timeout=LIMIT_S) == "x"
        assert entered == {"gate": 1}


# -- apps at the wrong place ----------------------------------------------------------------------------


async def all_uses(app: Outlive, run: outlive.Run | None) -> list[BaseException]:
    """Try whatever an app and a handle offer and give the errors."""
    calls: list[Any] = [
        lambda: app.start(two_steps, "x"),
        lambda: app.run(two_steps, "x"),
        lambda: app.get("x"),
        lambda: app.runs(),
        lambda: app.close(),
    ]
    if run is not None:
        calls += [run.status, run.info, run.entries, run.result, run.cancel, run.pause, run.resume]
        calls += [lambda: run.resolve("x#1", value=1)]
    errors = []
    for call in calls:
        try:
            await call()
        except BaseException as error:
            errors.append(error)
        else:
            raise AssertionError(f"{call} was not refused")
    return errors


async def test_an_app_before_entry_and_after_exit(url: str) -> None:
    app = Outlive(url)
    assert all(isinstance(error, UsageError) and "async with" in str(error) for error in await all_uses(app, None))
    async with app:
        run = await app.start(two_steps, "x")
        assert await run.result(timeout=LIMIT_S) == "x"
        with pytest.raises(UsageError, match="open already"):
            await app.open()
    assert all(isinstance(error, UsageError) and "async with" in str(error) for error in await all_uses(app, run))
    async with app:  # it may be entered again
        assert await (await app.get(run.id)).result(timeout=LIMIT_S) == "x"
        assert await run.status() == Status.SUCCEEDED


async def test_an_app_in_another_thread_and_on_another_loop(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(two_steps, "x")
        errors: list[BaseException] = []

        def elsewhere() -> None:
            errors.extend(asyncio.run(all_uses(app, run)))
            try:
                app.runs()
            except UsageError as error:
                errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join, LIMIT_S)
        assert len(errors) == 14
        assert all(isinstance(error, UsageError) and "another event loop" in str(error) for error in errors), errors
        assert await run.result(timeout=LIMIT_S) == "x"


AFTER_FORK = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from outlive import Outlive, UsageError, workflow

@workflow
async def double(n: int) -> int:
    return 2 * n

async def main(url):
    async with Outlive(url) as app:
        run = await app.start(double, 1)
        await run.result(timeout=20)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = []
            for use in (lambda: app.start(double, 2, id="child"), lambda: run.status(), lambda: app.close()):
                try:
                    use().send(None)
                    said.append("nothing was wrong")
                except UsageError as error:
                    said.append(str(error))
                except BaseException as error:
                    said.append(repr(error))
            os.write(writing, "\\n".join(said).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        print(os.read(reading, 10_000).decode())
        print("parent", await app.run(double, 21))
        print("children", [info.id async for info in app.runs(id_prefix="child")])

asyncio.run(main(sys.argv[1]))
"""


def test_an_app_after_a_fork(url: str) -> None:
    said = python(AFTER_FORK, url).splitlines()
    assert len(said) == 5, said
    assert all("before a fork" in line and "in each process" in line for line in said[:3]), said
    assert said[3:] == ["parent 42", "children []"]


async def test_two_apps_on_one_database_in_one_process(url: str) -> None:
    async with Outlive(url) as first, Outlive(url) as second:
        assert first.name == second.name  # names are labels, not identities
        runs = [await (first, second)[n % 2].start(two_steps, str(n), id=f"r{n}") for n in range(20)]
        others = [await (second, first)[n % 2].get(f"r{n}") for n in range(20)]
        for n, (run, other) in enumerate(zip(runs, others, strict=True)):
            assert await run.result(timeout=LIMIT_S) == await other.result(timeout=LIMIT_S) == str(n)
        assert not (await second.start(two_steps, "again", id="r0")).created
        run = await started(first, "gate")
        far = await second.get("gate")
        assert await far.cancel("from the other app")
        with pytest.raises(outlive.RunCancelled, match="from the other app"):
            await run.result(timeout=LIMIT_S)
        await started(first, "left behind")
        first._engine().options.grace_s = 0.0
        await first.close()
        gates["left behind"].set()
        taken = await second.get("left behind")  # the other app goes on with it
        assert await taken.result(timeout=LIMIT_S) == "left behind"
        assert entered["left behind"] == 2


async def test_a_start_is_told_of_an_outage_while_an_outcome_waits_for_its_end(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Outlive(url) as app:
        waits = await started(app, "waits")
        store = app._engine().store

        async def gone(*_: object) -> None:
            raise StoreUnavailable("it is gone")

        def warnings() -> list[str]:
            return [record.getMessage() for record in caplog.records if record.name == "outlive.committer"]

        with monkeypatch.context() as outage:
            outage.setattr(store, "commit", gone)
            gates["waits"].set()
            async with asyncio.timeout(LIMIT_S):
                while not warnings():
                    await asyncio.sleep(0.01)
                for name in ("late", "later"):
                    with pytest.raises(StoreUnavailable, match="may not have been started: it is gone") as told:
                        await app.start(gated, name, id=name)
                    assert not told.value.outcome_unknown
                    assert told.value.run_id == name
            assert len(warnings()) < 5
        assert await waits.result(timeout=LIMIT_S) == "waits"
        for name in ("late", "later"):
            with pytest.raises(RunNotFound):
                await app.get(name)
