"""Messages, promises, values and streams as others than the run's owner read and write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from outlive import hooks
from outlive.model.mail import Message, OpenPromise, Settled, Settlement, Settling, Shown, StreamPart
from outlive.model.writes import Note, note_of_settling
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.control import write_audit
from outlive.store.sqlite.database import Database, reading, writing
from outlive.store.sqlite.drivers import Connection
from outlive.store.sqlite.sides import settlement_values


class Mail(Database):
    """What a Store does for messages, promises, values and streams."""

    @reading
    def list_mail(
        self, db: Connection, wanted: Sequence[tuple[int, str]], limit: int
    ) -> Mapping[tuple[int, str], Sequence[Message]]:
        found = {place: [Message(*facts) for facts in db.rows(SQL["list_mail"], (*place, limit))] for place in wanted}
        return {place: messages for place, messages in found.items() if messages}

    @hooks.commit_site("settle")
    @writing
    def settle(
        self, db: Connection, settlement: Settlement, note: Note | None = None, *, at_expiry: bool = False
    ) -> tuple[Settling, int | None]:
        found = db.rows(SQL["find_promise"], (settlement.token,))
        if not found:
            return "unknown", None
        ((row, outcome, expires_at, key, run),) = found
        now = self._wall()
        if outcome is not None:
            return "already", row
        if expires_at is not None and expires_at <= now and not at_expiry:
            return "expired", row
        db.run(SQL["settle_promises"], settlement_values(settlement, now))
        if note is not None:
            hooks.point("settle.noting")
            write_audit(db, note_of_settling(note, run, key), now)
        return "settled", row

    @reading
    def list_promises(
        self, db: Connection, topic: str, run_id: str | None, after: str | None, limit: int
    ) -> list[OpenPromise]:
        facts = {"topic": topic, "run": run_id, "after": after, "limit": limit, "now": self._wall()}
        query = open_promises("from_topic" if run_id is None else "from_run_topic")
        return [OpenPromise(*row) for row in db.rows(query, facts)]

    @reading
    def find_open_promise(self, db: Connection, run_id: str, key: str) -> OpenPromise | None:
        found = db.rows(open_promises("from_run_key"), {"run": run_id, "key": key, "now": self._wall()})
        return OpenPromise(*found[0]) if found else None

    @reading
    def list_settled(self, db: Connection, tokens: Sequence[str]) -> Mapping[str, Settled]:
        found = db.rows(SQL["list_settled"], (json.dumps(list(tokens)),))
        return {facts[0]: Settled(*facts) for facts in found}

    @reading
    def list_values(self, db: Connection, wanted: Sequence[tuple[int, str]]) -> Mapping[tuple[int, str], Shown]:
        found = {place: db.rows(SQL["list_values"], place) for place in wanted}
        return {place: Shown(0, *rows[0]) for place, rows in found.items() if rows}

    @reading
    def list_items(
        self, db: Connection, wanted: Sequence[tuple[int, str, int]], limit: int
    ) -> Mapping[tuple[int, str, int], StreamPart]:
        rows = json.dumps([place[0] for place in wanted])
        finished = {row for (row,) in db.rows(SQL["list_finished"], (rows,))}
        parts = {}
        for place in wanted:
            items = [Shown(*facts) for facts in db.rows(SQL["list_items"], (*place, limit))]
            is_over = place[0] in finished and len(items) < limit
            if items or is_over:
                parts[place] = StreamPart(items, is_over)
        return parts


def open_promises(source: str) -> str:
    """Give the statement that reads open promises from somewhere."""
    return f"{SQL['select_open_promises']}\n{SQL[source]}"
