"""The PostgreSQL store: every method of the seam, one or two statements each.

Owns what is sent and in which order; the text is in queries.sql, errors and
connections in connect.py. Knows nothing of replay. Invariant: a second
statement that must see what others have committed meanwhile is a statement of
its own, with its own snapshot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from outlive import hooks
from outlive.clock import Clock
from outlive.errors import StoreUnavailable, UsageError
from outlive.limits import SUSPECT_CRASHES, SUSPECT_GROUPS
from outlive.model.reads import Claimed, EndedRun, EntryRow, RequestRow, RunQuery, RunRow, TakenOver, WorkerRow
from outlive.model.writes import Batch, Committed, ExistingRun, Fence, NewRun
from outlive.store.interface import FenceLost, RowTaken, WriteRefused
from outlive.store.postgres import joining, schema
from outlive.store.postgres.commit import compose, find_collisions
from outlive.store.postgres.connect import Address, load_driver
from outlive.store.postgres.hints import Hints
from outlive.store.postgres.pool import Pool
from outlive.store.postgres.reading import compose_list, to_claimed, to_entry
from outlive.store.postgres.session import PostgresSession, Room
from outlive.store.postgres.side import PostgresSideChannel
from outlive.store.postgres.statements import Statement, statement
from outlive.store.postgres.transaction import PostgresTransaction

_COMMIT = hooks.declare_site("commit")


class PostgresStore:
    """One database. See `outlive.store.interface.Store` for what each method promises."""

    def __init__(self, url: str, *, clock: Clock, chance: random.Random, pool_size: int = 5) -> None:
        load_driver()
        self._address = Address(url)
        self._pool = Pool(self._address, pool_size)
        self._room = Room(pool_size)
        self._place: str | None = None
        self._chance = chance
        self._hints = Hints(self._address, self._pool, clock, token=f"{chance.getrandbits(64):016x}")

    @property
    def url(self) -> str:
        return self._address.url

    # -- life ---------------------------------------------------------------
    async def open(self, *, migrate: bool) -> float:
        connection = await self._address.connect()
        try:
            with self._address.explaining(writing=True, opening=True):
                await schema.bring_up(connection, self.url, apply=migrate)
                now = float(await connection.fetchval(statement("read_now").text))
        except BaseException:
            connection.terminate()
            raise
        self._pool.open(connection)
        self._room = Room(self._room.size)
        return now

    async def close(self) -> None:
        await self._hints.close()
        self._room.threads.shutdown(wait=False)
        await self._pool.close()

    async def now(self) -> float:
        ((now,),) = await self._read("read_now")
        return float(now)

    async def side_channel(self) -> PostgresSideChannel:
        return await PostgresSideChannel.open(self._address)

    async def _read(self, name: str, /, **values: Any) -> list[Any]:
        query = statement(name)
        return await self._pool.fetch(query.text, query.arguments(values))

    async def _write(self, name: str, /, **values: Any) -> list[Any]:
        query = statement(name)
        return await self._pool.fetch(query.text, query.arguments(values), writing=True)

    # -- writing ------------------------------------------------------------
    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        made, arguments = compose(batch, fence)
        hooks.point("commit.before")
        row = await self._send_batch(made, arguments, batch.starts)
        hooks.point("commit.after")
        if fence is not None and not row["fenced"]:
            raise FenceLost(fence)
        committed = Committed(refused=set(row["refused"]))
        if row["started"] < len(batch.starts):
            committed.existing = await self._find_existing(batch.starts, committed.refused)
        return committed

    async def _send_batch(self, made: Statement, arguments: list[Any], starts: Sequence[NewRun]) -> Any:
        """Send a batch; tell from each other a row number that is taken and a twin of this batch under way."""
        driver = load_driver()
        while True:
            try:
                (row,) = await self._pool.fetch(made.text, arguments, writing=True)
                return row
            except WriteRefused as error:
                violated = error.__cause__
                if not isinstance(violated, driver.UniqueViolationError) or violated.constraint_name != "runs_pkey":
                    raise
                ids = [(run.row, run.id) for run in starts]
                stored = [(row["row"], row["id"]) for row in await self._find_taken(starts)]
                if taken := find_collisions([*stored, *ids]):
                    raise RowTaken(taken) from error

    async def _find_taken(self, starts: Sequence[NewRun]) -> list[Any]:
        return await self._write("find_taken", run_row=[run.row for run in starts], run_id=[run.id for run in starts])

    async def _find_existing(self, starts: Sequence[NewRun], refused: set[int]) -> dict[int, ExistingRun]:
        """Read, in a snapshot after the batch's, who has the ids of its starts; our own earlier sends are no news."""
        by_id = {row["id"]: ExistingRun(**row) for row in await self._find_taken(starts)}
        asked = [run for run in starts if run.parent not in refused]
        missing = [run.id for run in asked if run.id not in by_id and run.parent is None]
        if missing:
            raise StoreUnavailable(f"run {missing[0]!r} was deleted while it was started", outcome_unknown=True)
        return {run.row: by_id[run.id] for run in asked if run.id in by_id and by_id[run.id].row != run.row}

    async def begin(self, timeout_s: float) -> PostgresTransaction:
        return await PostgresTransaction.begin(self._address, self._pool, timeout_s)

    async def begin_session(self, maker: Any, timeout_s: float) -> PostgresSession:
        session = PostgresSession(self._address, self._room, maker, timeout_s)
        await session.open()
        try:
            if session.place != self._place:
                self._place = (await self._read("find_place"))[0]["place"]
            if session.place != self._place:
                raise UsageError(
                    f"the session leads to another database than {self.url}, where the journal is: what is written to "
                    "two databases cannot be committed together; bind the sessionmaker to an engine of the app's own "
                    "database"
                )
        except BaseException:
            await session.rollback()
            raise
        return session

    @hooks.commit_site("start_in")
    async def start_in(self, connection: Any, run: NewRun) -> ExistingRun | None:
        return await joining.start_in(connection, run)

    # -- ownership ----------------------------------------------------------
    @hooks.commit_site("register")
    async def register(self, worker: WorkerRow, lease_s: float) -> Fence:
        registered = await self._write("insert_worker", **asdict(worker), lease_s=lease_s)
        if not registered:
            raise WriteRefused(f"worker number {worker.worker} is taken by another process; draw another")
        return Fence(worker.worker, worker.epoch)

    @hooks.commit_site("unregister")
    async def unregister(self, fence: Fence) -> None:
        ((left,),) = await self._write("delete_worker", worker=fence.worker, epoch=fence.epoch)
        if not left:
            raise FenceLost(fence)

    async def list_workers(self) -> list[WorkerRow]:
        return [WorkerRow(**row) for row in await self._read("list_workers")]

    @hooks.commit_site("release_strays")
    async def release_strays(self, fence: Fence, kept: Sequence[int]) -> int:
        (row,) = await self._write("release_strays", worker=fence.worker, epoch=fence.epoch, kept=list(kept))
        if not row["stands"]:
            raise FenceLost(fence)
        return int(row["released"])

    @hooks.commit_site("take_over")
    async def take_over(self, dead: Sequence[int]) -> TakenOver:
        (row,) = await self._write("take_over", dead=list(dead))
        return TakenOver(row["workers"], row["released"], row["quarantined"])

    @hooks.commit_site("claim")
    async def claim(
        self, fence: Fence, workflows: Sequence[str], queues: Sequence[str] | None, limit: int, *, suspect: bool = False
    ) -> list[Claimed]:
        rows = await self._write(
            "claim_runs",
            worker=fence.worker,
            epoch=fence.epoch,
            workflows=list(workflows),
            queues=None if queues is None else list(queues),
            limit=limit,
            suspect=suspect,
            suspect_crashes=SUSPECT_CRASHES,
            groups=[SUSPECT_GROUPS.get(crashes, 1) for crashes in range(1, max(SUSPECT_GROUPS) + 1)],
        )
        if not rows[0]["stands"]:
            raise FenceLost(fence)
        return [to_claimed(row) for row in rows if row["row"] is not None]

    async def has_suspects(self) -> bool:
        ((found,),) = await self._read("has_suspects")
        return bool(found)

    async def next_due(self) -> float | None:
        ((due_at,),) = await self._read("next_due")
        return None if due_at is None else float(due_at)

    async def load_entries(self, rows: Sequence[int]) -> Mapping[int, list[EntryRow]]:
        entries: dict[int, list[EntryRow]] = {row: [] for row in rows}
        for record in await self._read("load_entries", rows=list(rows), id=None):
            entries[record[0]].append(to_entry(record))
        return entries

    # -- requests, wake-ups -------------------------------------------------
    @hooks.commit_site("add_request")
    async def add_request(self, run_id: str, kind: str, payload: str | None) -> bool:
        found = await self._write("insert_request", id=run_id, kind=kind, payload=payload)
        if not found:
            raise KeyError(run_id)
        if found[0]["status"] is not None:
            return False
        hooks.point("add_request.recorded")
        await self._write("wake_requested", row=found[0]["row"])
        return True

    async def list_requests(self, fence: Fence) -> list[RequestRow]:
        rows = await self._read("list_requests", worker=fence.worker, epoch=fence.epoch)
        if not rows:
            raise FenceLost(fence)
        return [RequestRow(**row) for row in rows if row["request"] is not None]

    @hooks.commit_site("resume")
    async def resume(self, run_id: str) -> bool:
        found = await self._write("resume_run", id=run_id)
        if not found:
            raise KeyError(run_id)
        return bool(found[0]["resumed"])

    @hooks.commit_site("wake")
    async def wake(self, rows: Sequence[int]) -> None:
        await self._write("wake_run", rows=list(rows))

    @hooks.commit_site("sweep")
    async def sweep(self) -> int:
        return len(await self._write("sweep_runs"))

    # -- reading ------------------------------------------------------------
    async def find_run(self, run_id: str) -> RunRow | None:
        rows = await self._list(*compose_list(RunQuery(), run_id=run_id))
        return rows[0] if rows else None

    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        return await self._list(*compose_list(query))

    async def _list(self, text: str, arguments: list[Any]) -> list[RunRow]:
        return [RunRow(**row) for row in await self._pool.fetch(text, arguments)]

    async def list_entries(self, run_id: str) -> list[EntryRow]:
        return [to_entry(record) for record in await self._read("load_entries", rows=[], id=run_id)]

    async def list_ended(self, rows: Sequence[int]) -> list[EndedRun]:
        return [EndedRun(**row) for row in await self._read("list_ended", rows=list(rows))]

    async def list_children(self, row: int, *, unfinished: bool) -> list[RunRow]:
        children = await self._list(*compose_list(RunQuery(), parent_row=row, unfinished=unfinished))
        return sorted(children, key=lambda child: child.row)

    # -- hints --------------------------------------------------------------
    async def notify(self) -> None:
        await self._hints.send()

    async def wait_hint(self, timeout_s: float) -> bool:
        return await self._hints.wait(timeout_s)
