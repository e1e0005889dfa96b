"""The child process of the crash suite: `python -m tests.crash.program ROLE URL LEDGER LEASE LINGER`.

`drive` starts the scenario, waits for its end and may be killed at any point:
another one started on the same database goes on where it stood. `serve` is a
plain worker. Both end when their stdin does, so that none outlives its parent.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from outlive import (
    AlreadySettled,
    LeaseLost,
    Outlive,
    OutliveError,
    Run,
    RunCancelled,
    RunNotFound,
    RunRefused,
    ScheduleNotFound,
    Status,
    StoreUnavailable,
    retention,
)
from outlive.budgets import budgets
from outlive.engine import roster
from tests.crash import bank, databases, scenario
from tests.crash.scenario import (
    books_in_sessions,
    branches,
    bulky,
    can_be_held,
    errand,
    family,
    is_rewound,
    is_undone,
    listens,
    mends,
    order,
    passes_away,
    relay,
    starts_in_transaction,
    talks,
    thrifty,
    waits_for_ever,
)
from tests.support.faults import arm_from_environment

T = TypeVar("T")

DOOMED = 5  # runs that are pruned, two at a time
PAUSE_S = 0.01  # between two looks at a run
BULK = "<" + "large " * 15_000
STAGE_ONE = ("order", "branches")  # the first app is closed when these have ended; the rest is still going


def say(*words: str) -> None:
    """Tell the parent."""
    os.write(1, (" ".join(words) + "\n").encode())


# -- what an application does about a database that does not answer -------------
async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again until the database answers: starting with the same id, or asking for the same, is safe to repeat."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            say("again")
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Outlive]:
    """Open an app on the scenario, as soon as the database answers."""
    app = Outlive(url, **{"include": ["tests.crash.scenario", "tests.crash.bank"], **settings})
    app.queue("errands", concurrency=2, per_key=1, rate=(100, 1))
    await insist(app.open)
    scenario.app = app
    try:
        yield app
    finally:
        await app.close()


# -- the scenario -------------------------------------------------------------
async def drive(url: str, lease_s: float, linger_s: float) -> None:
    """Start everything, wait for everything; each part may have been done by a process that died."""
    async with opened(url, worker=False) as client:
        await start(client, errand, 0, id="by-client")
    async with opened(url, worker=False, include=[]) as stranger:
        await start(stranger, "pinned_errand", 1, id="by-name")
    for stage in (STAGE_ONE, None):
        async with opened(url, lease=lease_s) as app:
            await start_all(app)
            await asyncio.gather(
                insist(lambda: cancel_once(app, "victim", url)),
                insist(lambda: hold_and_resume(app, "held")),
                insist(lambda: start_by_connection(app, url)),
                start_by_schedule(app),
                insist(lambda: retry_once(app)),
                insist(lambda: rewind_once(app)),
                insist(lambda: hurry(app, "hurried")),
                insist(lambda: delete_once(app)),
                insist(lambda: budgets(app).put("crash", requests=100)),
                fail_once(app),
                talk(app),
            )
            await asyncio.sleep(linger_s)
            for run_id in stage or await list_ids(app):
                await wait_for(app, run_id)
    async with opened(url, lease=lease_s) as app:
        await start(app, errand, 99, id=scenario.FINAL_ID)
        await wait_for(app, scenario.FINAL_ID)
        await remember(app)
        await start_doomed(app)
        await prune_doomed(app)
    say("done")


async def fail_once(app: Outlive) -> None:
    """Start a run that fails and undoes what it did; when the last run of all is there, it may have been pruned."""
    try:
        await insist(lambda: app.get(scenario.FINAL_ID))
    except RunNotFound:
        await start(app, is_undone, id="undone")
        await insist(lambda: wait_failed(app, "undone"))


async def remember(app: Outlive) -> None:
    """Let all processes know something for a while, as requests to models do."""
    engine = app._engine()
    await insist(lambda: engine.store.take_memo("answer", "drive", engine.fence(), 60.0))
    await insist(lambda: engine.store.put_memo("answer", "drive", "42", 60.0))


async def start_doomed(app: Outlive) -> None:
    """Start runs that fail, and wait for their ends."""
    for number in range(DOOMED):
        run = await start(app, passes_away, id=f"doomed-{number}")
        with suppress(ValueError):
            await wait_for(app, run.id)


async def prune_doomed(app: Outlive) -> None:
    """Prune what has failed; each is on disk in the archive before it is gone."""
    archive = scenario.ledger.with_name("archive")
    while await insist(
        lambda: app.count("id:doomed-*")
    ):  # an end may be some milliseconds ahead of the database's clock
        await insist(lambda: app.prune(0, status="failed", archive=archive))


async def start_all(app: Outlive) -> None:
    await asyncio.gather(
        start(app, order, "book", 500, id="order"),
        start(app, branches, 3, id="branches"),
        start(app, family, id="family"),
        start(app, books_in_sessions, id="in-sessions"),
        start(app, starts_in_transaction, id="starter"),
        start(app, waits_for_ever, id="victim"),
        start(app, bulky, BULK, id="bulky"),
        start(app, can_be_held, id="held"),
        start(app, relay, 1, id="relay"),
        start(app, mends, id="mends"),
        start(app, is_rewound, id="rewound"),
        start(app, talks, id="talks"),
        start(app, listens, id="listens"),
        *(start(app, errand, 20 + n, id=f"queued-{n}", queue="errands", key=f"{n % 2}") for n in range(4)),
        start(app, thrifty, "spend", id="thrifty"),
        start(app, errand, 30, id="only", key="only", singleton="skip"),
        start(app, errand, 31, id="hurried", queue="errands", priority=9, delay=86_400),
    )


async def start(app: Outlive, workflow: Any, *args: Any, **options: Any) -> Run:
    return await insist(lambda: app.start(workflow, *args, **options))


async def wait_for(app: Outlive, run_id: str) -> None:
    """Wait for the end of a run, whoever executes it in the end."""
    while True:
        try:
            await (await app.get(run_id)).result()
            return
        except LeaseLost:
            say("lost", run_id)
        except RunCancelled:
            return
        except OutliveError as error:
            say(f"run {run_id} failed: {error}")
            raise


async def list_ids(app: Outlive) -> list[str]:
    """List the runs; those that `family` starts are there when it has ended, and it is waited for before them."""
    own = [info.id async for info in app.runs("-parent:* -id:doomed-* -id:undone")]  # that one fails, as it should
    return ["family", *own, *await children_of(app)]


async def children_of(app: Outlive) -> list[str]:
    await wait_for(app, "family")
    return [info.id async for info in app.runs() if info.parent is not None]


async def cancel_once(app: Outlive, run_id: str, url: str) -> None:
    """Cancel a run, unless that was asked for before: two requests are two cancellations."""
    run = await app.get(run_id)
    open_requests = await read_requests(url)
    if (run_id, "cancel") in open_requests or any(entry.kind == "cancel" for entry in await run.entries()):
        return
    await run.cancel("nobody wants it")


async def read_requests(url: str) -> list[tuple[Any, ...]]:
    """Read the open requests as anyone may, through the view."""
    sql = "select run, kind from outlive_requests"
    if databases.is_sqlite(url):
        return await asyncio.to_thread(databases.read, url, sql)
    async with connected(url) as connection:
        return [tuple(row) for row in await connection.fetch(sql)]


async def hold_and_resume(app: Outlive, run_id: str) -> None:
    """Pause a run and let it go on."""
    run = await app.get(run_id)
    await run.pause("for a while")
    while True:
        status = await run.status()
        if status.final:
            return
        if status == Status.PAUSED and await run.resume():
            return
        await asyncio.sleep(PAUSE_S)


async def hurry(app: Outlive, run_id: str) -> None:
    """Let a run begin whose start is delayed, unless it has begun."""
    await (await app.get(run_id)).reschedule(0, priority=1)


async def retry_once(app: Outlive) -> None:
    """Wait for a run to fail, mend what made it fail, retry it, and fork it when it has ended."""
    run = await app.get("mends")
    while (status := await run.status()) != Status.SUCCEEDED:
        if status == Status.FAILED:
            scenario.ledger.with_name("mended").touch()
            with suppress(RunRefused):  # a reply was lost: it has been retried
                await run.retry()
        await asyncio.sleep(PAUSE_S)
    await run.fork("label#2", {"label#1": "<patched>"}, id="forked")


async def rewind_once(app: Outlive) -> None:
    """Rewind a run, wherever it stands, unless that was done before."""
    run = await app.get("rewound")
    while (await run.info()).generation == 0:
        if scenario.ledger.with_name("lasting").exists():
            await run.rewind("label#1")
        await asyncio.sleep(PAUSE_S)
    scenario.ledger.with_name("rewound").touch()
    if await run.status() == Status.PAUSED:  # who has rewound it died before it had asked for its end
        await run.resume()


async def wait_failed(app: Outlive, run_id: str) -> None:
    """Wait for the end of a run that fails as it should."""
    run = await app.get(run_id)
    while not (await run.status()).final:
        await asyncio.sleep(PAUSE_S)


async def delete_once(app: Outlive) -> None:
    """Start a run, wait for its end, and delete it."""
    run = await start(app, errand, 9, id="doomed")
    await wait_for(app, "doomed")
    with suppress(RunNotFound):
        await run.delete()


async def start_by_connection(app: Outlive, url: str) -> None:
    """Start a run in a transaction of the application's own connection, with the row that says that it was done."""
    text = "started by a connection"
    said, insert = f"select 1 from bookings where label = '{text}'", f"insert into bookings values ('{text}', 4)"
    if databases.is_sqlite(url):
        with closing(databases.connect(url)) as connection:
            await asyncio.to_thread(connection.execute, "begin immediate")  # may wait for a transaction of this loop
            if not list(connection.execute(said)):
                connection.execute(insert)
                await app.start(errand, 8, id="from-connection", tx=connection)
            connection.execute("commit")
        return
    async with connected(url) as connection, connection.transaction():
        if not await connection.fetch(said):
            await connection.execute(insert)
            await app.start(errand, 8, id="from-connection", tx=connection)


async def talk(app: Outlive) -> None:
    """Send letters and settle a promise, whoever has done that before."""
    for number in range(3):
        await insist(lambda number=number: app.send("talks", "letters", number, key=f"letter-{number}"))
    token = await insist(lambda: _read_token(app))
    try:
        await insist(lambda: app.settle(token, "kept", by="ops", reason="as promised"))
    except AlreadySettled:
        pass  # by a process that died, or the reply was lost


async def _read_token(app: Outlive) -> str:
    return str(await (await app.get("talks")).value("token", wait=60))


async def start_by_schedule(app: Outlive) -> None:
    """Let a schedule start one run; when that is there, the schedule has done its work and goes."""
    tick = datetime(2026, 11, 22, tzinfo=UTC)
    await insist(lambda: app.put_schedule("once", errand, 9, at=tick, catch_up=timedelta(days=36_500)))
    while True:
        try:
            await insist(lambda: app.get("once@2026-11-22T00:00:00Z"))
            break
        except RunNotFound:
            await asyncio.sleep(PAUSE_S)
    try:
        await insist(lambda: app.delete_schedule("once"))
    except ScheduleNotFound:
        pass  # the reply to an earlier deletion was lost


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Open a connection of one's own; that it is lost is no reason to give up."""
    import asyncpg

    connection = await asyncpg.connect(url, server_settings={"search_path": "outlive, public"})
    try:
        yield connection
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable("the application's own connection was lost") from error
    finally:
        await connection.close()


# -- pruning --------------------------------------------------------------------
async def doom(url: str, lease_s: float, linger_s: float) -> None:
    """Leave runs that are to be pruned."""
    async with opened(url, lease=lease_s) as app:
        await start_doomed(app)
        say("done")


async def prune(url: str, lease_s: float, linger_s: float) -> None:
    """Prune them."""
    async with opened(url, lease=lease_s) as app:
        await prune_doomed(app)
        say("done")


# -- one run ------------------------------------------------------------------
async def wait(url: str, lease_s: float, linger_s: float) -> None:
    """Start one run and wait for it."""
    async with opened(url, lease=lease_s) as app:
        await start(app, order, "book", 500, id="order")
        await wait_for(app, "order")
        say("done")


async def bulk(url: str, lease_s: float, linger_s: float) -> None:
    """Start one run with large payloads and wait for it."""
    async with opened(url, lease=lease_s) as app:
        await start(app, bulky, BULK, id="bulky")
        await wait_for(app, "bulky")
        say("done")


# -- random shapes --------------------------------------------------------------
async def drive_shapes(url: str, lease_s: float, linger_s: float) -> None:
    from tests.crash import shaped

    await shaped.drive(url, lease_s, cancel_once)
    say("done")


async def replay_shapes(url: str, lease_s: float, linger_s: float) -> None:
    from tests.crash import shaped

    await shaped.replay(url, lease_s)
    say("done")


ROLES = {
    "bulk": bulk,
    "doom": doom,
    "drive": drive,
    "drive-shapes": drive_shapes,
    "prune": prune,
    "replay-shapes": replay_shapes,
    "wait": wait,
}


# -- a worker -----------------------------------------------------------------
async def serve(url: str, lease_s: float) -> None:
    """Work until stdin ends."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (_read_stdin(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    async with opened(url, lease=lease_s):
        say("ready")
        await ended.wait()


def _run(role: Awaitable[None]) -> None:
    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, _show_tasks)
        await role

    asyncio.run(run())


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=6)


def _end_with_parent() -> None:
    _read_stdin()
    os._exit(1)


def _read_stdin() -> None:
    """Read to the end; not through sys.stdin, whose lock must be free when the interpreter ends."""
    while os.read(0, 1024):
        pass


def main() -> None:
    """Run a role."""
    role, url, ledger, lease_s, linger_s = sys.argv[1:6]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    roster.RESIDENT_IDLE_RUNS = 0  # waiting runs leave memory at once
    retention.PRUNE_BATCH_RUNS = 2
    scenario.ledger = bank.ledger = Path(ledger)
    scenario.bind_sessions(url)
    faulthandler.register(signal.SIGUSR1)  # the parent asks where a child hangs
    arm_from_environment()
    if role == "serve":
        _run(serve(url, float(lease_s)))
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _run(ROLES[role](url, float(lease_s), float(linger_s)))


if __name__ == "__main__":
    main()
