"""Promises as programs see them: which ones wait for somebody, and the one time that each is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outlive.clock import to_datetime
from outlive.codec.failure import record_error
from outlive.codec.payload import codec_for, encode
from outlive.control import make_note
from outlive.engine.engine import Engine
from outlive.errors import AlreadySettled, PromiseExpired, PromiseNotFound, StepFailed, UsageError
from outlive.ids import check_id
from outlive.model import mail as model
from outlive.model.mail import Settlement
from outlive.model.options import check_limit, check_name
from outlive.opened import Opened
from outlive.paging import Page, make_page, one_more


@dataclass(frozen=True)
class OpenPromise:
    """A promise that waits to be settled: of which run and entry, what it is about, and until when."""

    run_id: str
    key: str
    token: str
    topic: str
    about: Any
    created_at: datetime
    expires_at: datetime | None


class Promises(Opened):
    """What an app does with promises."""

    async def promises(
        self, topic: str, *, run_id: str | None = None, limit: int = 100, after: str | None = None
    ) -> Page[OpenPromise, str]:
        """List the promises of a topic that are open, the oldest first; of one run, or of all.

        What was made with a codec that this app does not have is a DecodeFailed.
        """
        engine = self._engine()
        if run_id is not None:
            check_id(run_id)
        count = one_more(check_limit(limit))
        rows = await engine.store.list_promises(check_name(topic), run_id, after, count)
        return make_page(rows, limit, lambda row: _open(engine, row), lambda row: row.token)

    async def find_promise(self, run_id: str, key: str) -> OpenPromise | None:
        """Find an open promise of a run by the key of its entry; None if it is settled, has expired, or never was.

        It has a topic: others are known to those who have their tokens.
        """
        engine = self._engine()
        if not isinstance(key, str) or not key.isprintable():
            raise UsageError(f"the key of an entry is printable text, not {key!r}")
        row = await engine.store.find_open_promise(check_id(run_id), key)
        return None if row is None else _open(engine, row)

    async def settle(
        self,
        token: str,
        value: Any = None,
        error: BaseException | str | None = None,
        *,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Settle a promise: whoever awaits it gets the value, or the error raised.

        With `by` it is a person's action, noted in the audit of the promise's run in the same transaction.
        *Durable*: before this returns. *Raises* AlreadySettled, PromiseExpired, PromiseNotFound.
        """
        await self._settle_noting(token, value, error, by, reason, None)

    async def _settle_noting(
        self,
        token: str,
        value: Any,
        error: BaseException | str | None,
        by: str | None,
        reason: str | None,
        facts: Mapping[str, Any] | None,
    ) -> None:
        """Settle a promise; the audit tells, with who and why, what else there is to say of it."""
        engine = self._engine()
        if not isinstance(token, str):
            raise UsageError(f"settle(token, …) takes the token of a promise, which is text, not {token!r}")
        if not isinstance(error, BaseException | str | None):
            raise UsageError(f"error=… is an exception, or a text that says why, not {error!r}")
        if error is not None and value is not None:
            raise UsageError("settle(…) takes a value or error=…, not both")
        codec = engine.codec
        settlement = Settlement(None, None, token, "ok", None, None, codec.id)
        if error is None:
            settlement.value = encode(codec, value, where="value of a promise")
        else:
            failure = StepFailed("Rejected", error) if isinstance(error, str) else error
            settlement.outcome, settlement.error = "error", record_error(failure, codec)
        if by is None and reason is not None:
            raise UsageError("settle(…, reason=…) is for the audit: say by whom, with by=…")
        note = None if by is None else make_note(engine, "settle", "run", "", reason, by, facts)
        settling = await engine.settle(settlement, note)
        if settling == "already":
            raise AlreadySettled(token)
        if settling == "expired":
            raise PromiseExpired(f"{token[:12]}…")
        if settling == "unknown":
            raise PromiseNotFound(token)


def _open(engine: Engine, row: model.OpenPromise) -> OpenPromise:
    what = f"what promise {row.key} of run {row.run!r} is about"
    about = codec_for(row.about_codec, [engine.codec], what=what).decode(row.about, where=what)
    expires_at = None if row.expires_at is None else to_datetime(row.expires_at)
    return OpenPromise(row.run, row.key, row.token, row.topic, about, to_datetime(row.created_at), expires_at)
