"""The sync face of an app: from plain programs, from many threads, and where it is refused."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import outlive
from outlive import (
    RunCancelled,
    RunNotFound,
    RunOnHold,
    RunTimedOut,
    Status,
    UsageError,
    step,
    sync,
    transaction,
    workflow,
)
from tests.house.source import SRC


@step
def double(number: int) -> int:
    return 2 * number


@workflow
def doubles(number: int) -> int:
    return double(number)


@workflow
async def waits() -> Any:
    return await outlive.receive("go")


@workflow
def talks() -> list[Any]:
    promise = sync.promise()
    sync.publish("token", promise.token)
    for number in range(3):
        sync.emit("numbers", number)
    sync.on_call("add", lambda a, b: a + b)
    sync.durable()
    child = sync.start(doubles, 4, id="child")
    with pytest.raises(UsageError, match="workflow body"):
        child.result()
    return [promise.result(), sync.receive("topic"), child.id]


@workflow
async def fails() -> None:
    raise ValueError("no")


def test_start_wait_and_look(url: str) -> None:
    with sync.Outlive(url) as app:
        run = app.start(doubles, 21, id="one", attributes={"tenant": 7})
        assert (run.id, run.created, repr(run)) == ("one", True, "<run one>")
        assert run.result() == 42
        assert run.status() == Status.SUCCEEDED
        assert run.info().attributes == {"tenant": 7}
        assert [entry.name for entry in run.entries()] == ["double"]
        assert not app.start(doubles, 5, id="one").created
        assert app.run(doubles, 1) == 2
        assert app.get("one").result() == 42
        with pytest.raises(RunNotFound):
            app.get("two")
        with pytest.raises(ValueError, match="no"):
            app.run(fails)
        assert app.count() == 3


def test_pages(url: str) -> None:
    with sync.Outlive(url, worker=False) as app:
        for number in range(5):
            app.start("doubles", number, id=f"run-{number}")
        page = app.runs(limit=2).page()
        assert [info.id for info in page.items] == ["run-4", "run-3"]
        assert [info.id for info in app.runs(limit=2, after=page.next)] == ["run-2", "run-1", "run-0"]
        with pytest.raises(UsageError, match=r"limit=…"):
            app.runs(limit=0)


def test_messages_promises_streams_calls(url: str) -> None:
    with sync.Outlive(url) as app:
        run = app.start(talks)
        items = run.stream("numbers")
        assert [next(items).value for _ in range(3)] == [0, 1, 2]
        assert run.call("add", 2, 3) == 5
        app.settle(run.value("token", wait=10), "settled")
        app.send(run.id, "topic", "sent")
        assert run.result(timeout=20) == ["settled", "sent", "child"]
        assert list(items) == []
        assert [item.seq for item in run.stream("numbers", after=1)] == [2, 3]


def test_control(url: str) -> None:
    with sync.Outlive(url) as app:
        run = app.start(waits)
        with pytest.raises(RunTimedOut):
            run.result(timeout=0.05)
        assert run.pause(by="anna")
        with pytest.raises(RunOnHold):
            run.result(stop_on_hold=True)
        assert run.resume()
        assert run.cancel("enough")
        with pytest.raises(RunCancelled):
            run.result()
        run.retry()
        run.send("go", 5)
        assert run.result() == 5
        fork = run.fork(at=run.entries()[-1].key)
        assert isinstance(fork, sync.Run)
        fork.send("go", 6)
        assert fork.result() == 6
        assert {entry.action for entry in app.audit()} >= {"cancel", "pause", "resume", "retry", "fork"}
        assert [journal.id for journal in app.journals(ids=[run.id])] == [run.id]


def test_schedules(url: str) -> None:
    app = sync.Outlive(url, name="clock")
    assert app.name == "clock"
    app.schedule("nightly", doubles, 4, cron="0 2 * * *")
    with app:
        assert app.trigger_schedule("nightly").result() == 8
        start = datetime.now(UTC) - timedelta(days=3)
        runs = app.backfill_schedule("nightly", start, start + timedelta(days=2))
        assert [run.result() for run in runs] == [8, 8]
        assert [info.name for info in app.schedules()] == ["nightly"]


def test_many_threads_share_one_app(url: str) -> None:
    results = []
    with sync.Outlive(url) as app:
        threads = [
            threading.Thread(target=lambda number=number: results.append(app.run(doubles, number)))  # type: ignore[misc]
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [2 * number for number in range(20)]


def test_it_opens_again_and_handles_go_on(url: str) -> None:
    app = sync.Outlive(url)
    with app:
        run = app.start(waits)
    with pytest.raises(UsageError, match="not open"):
        run.status()
    with app:
        run.send("go", 1)
        assert run.result() == 1
        with pytest.raises(UsageError, match="open already"):
            app.open()
    with pytest.raises(UsageError, match="not open"):
        app.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "outlive-sync"]


def test_what_opening_raises_leaves_nothing_behind(tmp_path: Any) -> None:
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    app = sync.Outlive(f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(outlive.StoreError):
        app.open()
    assert not [thread for thread in threading.enumerate() if thread.name == "outlive-sync"]


def test_closing_lets_waiting_threads_go(url: str) -> None:
    told: list[Any] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        try:
            run.result()
        except UsageError as error:
            told.append(str(error))

    with sync.Outlive(url) as app:
        run = app.start(waits)
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(10)
    thread.join(10)
    assert len(told) == 1


# -- the caller's transaction ----------------------------------------------------
@contextmanager
def _connection(url: str, kind: str) -> Iterator[tuple[Any, Any, Any]]:
    """Give a connection inside a transaction, and its commit and rollback."""
    path = url.removeprefix("sqlite:///")
    if kind == "sqlalchemy":
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with Session(engine) as session:
            yield session, session.commit, session.rollback
        engine.dispose()
    elif path != url:
        with closing(sqlite3.connect(path, isolation_level=None)) as plain:
            plain.execute("BEGIN IMMEDIATE")
            yield plain, plain.commit, plain.rollback
    else:
        with psycopg.connect(url) as connection:
            yield connection, connection.commit, connection.rollback


@pytest.mark.parametrize("kind", ["driver", "sqlalchemy"])
def test_a_run_is_started_in_the_transaction_of_this_thread(url: str, kind: str) -> None:
    with sync.Outlive(url) as app:
        with _connection(url, kind) as (tx, commit, _):
            run = app.start(doubles, 3, id="joined", tx=tx)
            with pytest.raises(RunNotFound):
                app.get("joined")
            commit()
        assert run.result() == 6
        with _connection(url, kind) as (tx, _, rollback):
            app.start(doubles, 3, id="rolled back", tx=tx)
            rollback()
        with pytest.raises(RunNotFound):
            app.get("rolled back")


def test_an_asynchronous_connection_is_refused(url: str) -> None:
    class Connection:
        async def execute(self, *args: Any) -> None:
            """Never called."""

    with sync.Outlive(url, worker=False) as app, pytest.raises(UsageError, match="blocking connection"):
        app.start("doubles", 3, tx=Connection())


def test_plain_steps_use_the_app(url: str) -> None:
    @step
    def from_step() -> str:
        return app.start(doubles, 1, id="from-step").id

    @transaction
    def from_transaction(tx: Any) -> str:
        with pytest.raises(UsageError, match="inside a transaction"):
            app.get("from-step")
        return app.start(doubles, 2, id="from-transaction", tx=tx).id

    @workflow
    def starts() -> list[str]:
        return [from_step(), from_transaction()]

    with sync.Outlive(url) as app:
        assert app.run(starts) == ["from-step", "from-transaction"]
        assert [app.get(run_id).result() for run_id in ("from-step", "from-transaction")] == [2, 4]


# -- where it is refused -----------------------------------------------------------
async def test_refused_on_an_event_loop(url: str) -> None:
    with pytest.raises(UsageError, match="async with"):
        sync.Outlive(url).open()
    app = await asyncio.to_thread(sync.Outlive(url, worker=False).open)
    try:
        with pytest.raises(UsageError, match=r"async with outlive\.Outlive"):
            app.start("doubles", 1)
        assert (await asyncio.to_thread(app.start, "doubles", 1)).created
        with pytest.raises(UsageError, match=r"await outlive\.sleep"):
            sync.sleep(1)
    finally:
        await asyncio.to_thread(app.close)


def test_refused_in_workflow_bodies(url: str) -> None:
    @workflow
    def plain_body() -> None:
        app.start(doubles, 1)

    @workflow
    async def async_body() -> None:
        app.start(doubles, 1)

    with sync.Outlive(url) as app:
        with pytest.raises(UsageError, match=r"the functions of outlive\.sync"):
            app.run(plain_body)
        with pytest.raises(UsageError, match=r"the functions of outlive"):
            app.run(async_body)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_is_told_to_open_its_own(url: str) -> None:
    program = f"""
import os, sys
from outlive import UsageError, sync
app = sync.Outlive({url!r}, worker=False).open()
app.start("some", id="before")
pid = os.fork()
if pid:
    _, status = os.waitpid(pid, 0)
    app.close()
    sys.exit(os.waitstatus_to_exitcode(status))
try:
    app.get("before")
except UsageError as error:
    assert "fork" in str(error), error
    with sync.Outlive({url!r}, worker=False) as own:
        assert own.get("before").info().workflow == "some"
    sys.exit(7)
"""
    assert _run(program).returncode == 7


# -- the end of the process ----------------------------------------------------------
def test_an_app_that_nobody_closes_is_closed_at_the_end(url: str) -> None:
    program = f"""
import threading
from outlive import step, sync, workflow
begun = threading.Event()
@step
def slow() -> int:
    begun.set()
    threading.Event().wait(0.3)
    return 5
@workflow
def waits() -> int:
    return slow()
app = sync.Outlive({url!r}).open()
app.start(waits, id="late")
begun.wait()
"""
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    with sync.Outlive(url, worker=False) as app:
        assert app.get("late").entries()[0].value == 5  # the step in flight was let finish


def test_ctrl_c_ends_a_wait(url: str) -> None:
    program = f"""
import signal, threading, os
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, which would be inherited
import outlive
from outlive import sync, workflow
@workflow
async def waits():
    await outlive.receive("never")
with sync.Outlive({url!r}) as app:
    run = app.start(waits, id="held")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        run.result()
    except KeyboardInterrupt:
        print(app.get("held").status())
"""
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("running", "suspended")


def test_nobody_waits_for_a_loop_that_has_ended(url: str) -> None:
    program = f"""
from outlive import UsageError, step, sync, workflow
@step
async def interrupt():
    raise KeyboardInterrupt  # which ends an event loop, wherever it is raised
@workflow
async def interrupts():
    await interrupt()
app = sync.Outlive({url!r}).open()
for use in (lambda: app.run(interrupts), lambda: app.get("some")):
    try:
        use()
    except UsageError as error:
        print(error)
"""
    done = _run(program)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert "was closed" in first
    assert "not open" in second


def _run(program: str) -> subprocess.CompletedProcess[str]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    print(done.stdout, done.stderr, time.monotonic() - began)
    return done
