"""Queues as users see them: declared with the app, read, changed, paused and drained while it is open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from outlive.clock import Duration, seconds
from outlive.control import make_note
from outlive.engine.engine import Engine
from outlive.engine.looper import Backoff
from outlive.errors import UsageError
from outlive.model.line import KEPT, Rate, check_limits, decode_limits, encode_limits, list_facts
from outlive.model.options import check_queue_name, check_wait
from outlive.model.reads import QueueRow
from outlive.model.writes import NewRun, Terms
from outlive.opened import Opened


@dataclass(frozen=True)
class Debounce:
    """Start once for many calls: `wait` after the last of them, but not later than `cap` after the first."""

    wait: Duration
    cap: Duration | None = None


@dataclass(frozen=True)
class QueueInfo:
    """What is known of a queue: the limits in force, and how many runs stand where.

    `delayed` runs join the line later, `waiting` ones are in it, `running` ones were
    admitted and have not ended. `is_changed`: an operator's limits win over those of code.
    """

    name: str
    concurrency: int | None
    per_worker: int | None
    per_key: int | None
    rate: Rate | None
    rate_per_key: Rate | None
    backlog: int | None
    on_full: str
    paused: bool
    is_changed: bool
    delayed: int
    waiting: int
    running: int


def make_terms(run: NewRun, debounce: Any, singleton: Any, tx: Any) -> Terms | None:
    """Give the terms on which a run is started alone, None if there are none; refuse what does not fit together."""
    given = {"dedupe": run.dedupe, "debounce": debounce, "singleton": singleton}
    names = [name for name, value in given.items() if value is not None]
    if tx is not None and names:
        raise UsageError(f"{names[0]}=… is decided by a transaction of its own: start such a run without tx=")
    if len(names) > 1:
        raise UsageError(f"{names[0]}=… and {names[1]}=… exclude each other")
    if debounce is not None:
        return _debounce_terms(run, debounce)
    if singleton is None:
        return None
    if singleton not in ("skip", "replace"):
        raise UsageError(f"singleton=… is 'skip' or 'replace', not {singleton!r}")
    return Terms("singleton", replaces=singleton == "replace")


def _debounce_terms(run: NewRun, debounce: Any) -> Terms:
    if not isinstance(debounce, Debounce):
        raise UsageError(f"debounce=… is an outlive.Debounce(wait, cap), not {debounce!r}")
    if run.key is None:
        raise UsageError("debounce=… needs key=…, which says whose calls are one run")
    if run.delay_s:
        raise UsageError("debounce=… is a delay itself: leave out delay=…")
    wait_s = check_wait(debounce.wait, "Debounce(wait=…)")
    cap_s = None if debounce.cap is None else check_wait(debounce.cap, "Debounce(cap=…)")
    if cap_s is not None and cap_s < wait_s:
        raise UsageError(f"Debounce(wait, cap) waits {wait_s:g} s, which is longer than its cap of {cap_s:g} s")
    return Terms("debounce", wait_s, cap_s)


class Queues(Opened):
    """The part of an app that is about queues."""

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        per_worker: int | None = None,
        per_key: int | None = None,
        rate: tuple[int, Duration] | None = None,
        rate_per_key: tuple[int, Duration] | None = None,
        backlog: int | None = None,
        on_full: Literal["reject", "drop_oldest"] = "reject",
    ) -> None:
        """Declare a queue, before the app is entered; without a limit there is none.

        `concurrency` bounds the runs that were admitted and have not ended, over
        all workers; `per_worker` and `per_key` those of one worker and of one key.
        `rate=(10, 60)` admits at most 10 in any 60 seconds, `rate_per_key` of one
        key. `backlog` bounds the runs that are not admitted yet: a start beyond it
        raises QueueFull, or drops the oldest of them.
        *Again*: the last declaration counts, but what an operator has changed wins.
        """
        limits = {
            "concurrency": concurrency, "per_worker": per_worker, "per_key": per_key, "rate": rate,
            "rate_per_key": rate_per_key, "backlog": backlog, "on_full": on_full,
        }  # fmt: skip
        declared = encode_limits({limit: value for limit, value in check_limits(limits).items() if value is not None})
        check_queue_name(name)
        if self._entered is not None:
            raise UsageError(f"queue {name!r} is declared before the app is entered; now use await app.put_queue(…)")

        async def declare(engine: Engine) -> None:
            await engine.store.put_queue(name, declared=declared)

        self._declarations["queue", name] = declare

    async def put_queue(
        self,
        name: str,
        *,
        concurrency: int | None = KEPT,
        per_worker: int | None = KEPT,
        per_key: int | None = KEPT,
        rate: tuple[int, Duration] | None = KEPT,
        rate_per_key: tuple[int, Duration] | None = KEPT,
        backlog: int | None = KEPT,
        on_full: Literal["reject", "drop_oldest"] = KEPT,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Change limits of a queue for all processes, at once; None lifts one, those not named stay.

        *Durable*: what is changed here wins over what code declares, until `reset_queue`.
        """
        limits = {
            "concurrency": concurrency, "per_worker": per_worker, "per_key": per_key, "rate": rate,
            "rate_per_key": rate_per_key, "backlog": backlog, "on_full": on_full,
        }  # fmt: skip
        named = {limit: value for limit, value in limits.items() if value is not KEPT}
        if not named:
            raise UsageError(f"put_queue({name!r}, …) needs a limit to change: {', '.join(limits)}")
        await self._put("limit", name, reason, by, named, changed=encode_limits(check_limits(named)))

    async def reset_queue(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Go back to the limits that code declares."""
        await self._put("reset", name, reason, by, reset=True)

    async def pause_queue(self, name: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Admit nothing more; what was admitted goes on."""
        await self._put("pause", name, reason, by, paused=True)

    async def resume_queue(self, name: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit again."""
        await self._put("resume", name, reason, by, paused=False)

    async def _put(
        self, action: str, name: str, reason: str | None, by: str | None, told: Any = None, **facts: Any
    ) -> None:
        engine = self._engine()
        note = make_note(engine, action, "queue", check_queue_name(name), reason, by, told)
        await engine.store.put_queue(name, **facts, note=note)
        engine.hint()

    async def queues(self) -> list[QueueInfo]:
        """List the queues that were declared or have runs, by name."""
        return [_make_info(row) for row in await self._engine().store.list_queues()]

    async def drain_queue(self, name: str, timeout: Duration | None = None) -> None:
        """Wait until nobody waits in the line of a queue and nothing of it runs; of a paused one, until nothing runs.

        Runs may still be started, and delayed ones are not waited for.
        *Raises* TimeoutError.
        """
        engine = self._engine()
        check_queue_name(name)
        backoff = Backoff(engine.chance)
        limit = asyncio.timeout(None if timeout is None else seconds(timeout))
        rows: list[QueueRow] = []
        try:
            async with limit:
                while rows := [row for row in await engine.store.list_queues(name) if _is_busy(row)]:
                    await asyncio.sleep(backoff.after(False))
        except TimeoutError:
            if not limit.expired() or timeout is None:
                raise
            left = "".join(f": {row.running} running, {row.waiting} waiting" for row in rows)
            raise TimeoutError(f"queue {name!r} is not empty after {seconds(timeout):g} s{left}") from None


def _is_busy(row: QueueRow) -> bool:
    return bool(row.running or (row.waiting and not row.paused))


def _make_info(row: QueueRow) -> QueueInfo:
    limits = list_facts(decode_limits(row.limits))
    return QueueInfo(
        name=row.queue,
        **limits,
        paused=row.paused,
        is_changed=row.changed != "{}",
        delayed=row.delayed,
        waiting=row.waiting,
        running=row.running,
    )
