"""The PostgreSQL store: batches and transactions; ownership.py and reading.py have its other methods.

Owns what is sent and in which order; the text is in sql/*.sql, errors and
connections in connect.py. Knows nothing of replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from outlive import hooks
from outlive.errors import UsageError
from outlive.model.mail import Delivery
from outlive.model.writes import Batch, Committed, ExistingRun, Fence, NewRun
from outlive.store.postgres import joining
from outlive.store.postgres.commit import compose, find_collisions
from outlive.store.postgres.connect import load_driver
from outlive.store.postgres.control import Control
from outlive.store.postgres.ledger import Ledger
from outlive.store.postgres.mail import Mail
from outlive.store.postgres.memos import Memos
from outlive.store.postgres.ownership import Ownership
from outlive.store.postgres.queues import Queues
from outlive.store.postgres.reading import Reading
from outlive.store.postgres.retention import Retention
from outlive.store.postgres.schedules import Schedules
from outlive.store.postgres.search import Search
from outlive.store.postgres.session import PostgresSession
from outlive.store.postgres.starting import Starting
from outlive.store.postgres.statements import Statement
from outlive.store.postgres.transaction import PostgresTransaction
from outlive.store.postgres.versions import Versions
from outlive.store.refusals import FenceLost, RowTaken, WriteRefused

_COMMIT = hooks.declare_site("commit")


class PostgresStore(
    Ownership, Control, Ledger, Mail, Memos, Queues, Reading, Search, Retention, Schedules, Starting, Versions
):
    """One database. See `outlive.store.interface.Store` for what each method promises."""

    async def commit(self, batch: Batch, fence: Fence | None) -> Committed:
        made, arguments = compose(batch, fence)
        if batch.continues:
            hooks.point("generation.ending")
        hooks.point("commit.before")
        row = await self._send_batch(made, arguments, batch.starts)
        if batch.continues:
            hooks.point("generation.ended")
        hooks.point("commit.after")
        if fence is not None and not row["fenced"]:
            raise FenceLost(fence)
        committed = Committed(refused=set(row["refused"]))
        for run, key, recipient, problem in msgspec.json.decode(row.get("deliveries") or "[]"):
            committed.deliveries[run, key] = Delivery(recipient, problem)
        if row["started"] < len(batch.starts):
            await self._find_existing(batch.starts, committed)
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

    async def _find_existing(self, starts: Sequence[NewRun], committed: Committed) -> None:
        """Read, in a snapshot after the batch's, who has the ids of its starts; our own earlier sends are no news."""
        taken = await self._find_taken(starts)
        by_id = {row["id"]: ExistingRun(**row) for row in taken}
        asked = [run for run in starts if run.parent not in committed.refused]
        missing = [run for run in asked if run.id not in by_id and run.parent is None]
        by_dedupe = await self._find_duplicates([run for run in missing if run.dedupe is not None])
        rows = {row["row"] for row in taken}
        for run in asked:
            existing = by_id.get(run.id) or by_dedupe.get((run.queue, run.dedupe))
            if existing is not None:
                if existing.row != run.row:
                    committed.existing[run.row] = existing
            elif run.parent is not None:
                continue
            elif run.row in rows:
                raise RowTaken({run.row})  # all else is written, and may be sent again
            else:
                committed.deferred.add(run.row)

    async def _find_duplicates(self, starts: Sequence[NewRun]) -> dict[tuple[str, str | None], ExistingRun]:
        if not starts:
            return {}
        dedupe, queues = [run.dedupe for run in starts], list({run.queue for run in starts})
        found = await self._write("find_duplicates", dedupe=dedupe, queues=queues)
        return {(row["queue"], row["dedupe"]): ExistingRun(row["row"], row["id"], row["workflow"]) for row in found}

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
