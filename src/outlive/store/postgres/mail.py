"""Messages, promises, values and streams as others than the run's owner read and write them.

What a run sends or shows itself rides in its batches (commit.py). Invariant: a
promise is settled by one statement that waits for any other one's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from outlive import hooks
from outlive.model.mail import Message, OpenPromise, Settled, Settlement, Settling, Shown, StreamPart
from outlive.model.writes import Note, note_of_settling
from outlive.store.postgres.control import write_audit
from outlive.store.postgres.database import Database
from outlive.store.postgres.statements import Statement, named_block, number_parameters


class Mail(Database):
    """What a Store does for messages, promises, values and streams."""

    async def list_mail(
        self, wanted: Sequence[tuple[int, str]], limit: int
    ) -> Mapping[tuple[int, str], Sequence[Message]]:
        found: dict[tuple[int, str], list[Message]] = {}
        rows, topics = zip(*wanted, strict=True)
        for row, topic, *facts in await self._read("list_mail", row=rows, topic=topics, limit=limit):
            found.setdefault((row, topic), []).append(Message(*facts))
        return found

    @hooks.commit_site("settle")
    async def settle(
        self, settlement: Settlement, note: Note | None = None, *, at_expiry: bool = False
    ) -> tuple[Settling, int | None]:
        facts = {**asdict(settlement), "at_expiry": at_expiry}
        if note is None:
            found = await self._write("settle_promise", **facts)
        else:
            async with self._transaction() as send:
                found = await send("settle_promise", **facts)
                if found and found[0]["settled"]:
                    hooks.point("settle.noting")
                    await write_audit(send, note_of_settling(note, found[0]["run"], found[0]["key"]))
        if not found:
            return "unknown", None
        ((row, settled, *_),) = found
        if settled:
            return "settled", row
        ((_, outcome),) = await self._read("find_promise", token=settlement.token)
        return "expired" if outcome is None else "already", row

    async def list_promises(self, topic: str, run_id: str | None, after: str | None, limit: int) -> list[OpenPromise]:
        query = open_promises("from_topic" if run_id is None else "from_run_topic")
        facts = {"topic": topic, "run": run_id, "after": after, "limit": limit}
        return [OpenPromise(**row) for row in await self._pool.fetch(query.text, query.arguments(facts))]

    async def find_open_promise(self, run_id: str, key: str) -> OpenPromise | None:
        query = open_promises("from_run_key")
        found = await self._pool.fetch(query.text, query.arguments({"run": run_id, "key": key}))
        return OpenPromise(**found[0]) if found else None

    async def list_settled(self, tokens: Sequence[str]) -> Mapping[str, Settled]:
        return {row["token"]: Settled(**row) for row in await self._read("list_settled", token=list(tokens))}

    async def list_values(self, wanted: Sequence[tuple[int, str]]) -> Mapping[tuple[int, str], Shown]:
        rows, names = zip(*wanted, strict=True)
        found = await self._read("list_values", row=rows, name=names)
        return {(row, name): Shown(0, value, codec) for row, name, value, codec in found}

    async def list_items(
        self, wanted: Sequence[tuple[int, str, int]], limit: int
    ) -> Mapping[tuple[int, str, int], StreamPart]:
        parts: dict[tuple[int, str, int], StreamPart] = {}
        rows, names, afters = zip(*wanted, strict=True)
        for place, *facts in await self._read("list_items", row=rows, name=names, after=afters, limit=limit):
            part = parts.setdefault(wanted[place - 1], StreamPart([], is_over=False))
            if facts[0] is None:
                part.is_over = len(part.items) < limit
            else:
                part.items.append(Shown(*facts))
        return parts


def open_promises(source: str) -> Statement:
    """Give the statement that reads open promises from somewhere."""
    return number_parameters(f"{named_block('select_open_promises')}\n{named_block(source)}")
