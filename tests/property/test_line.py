"""A store's queues against the model of one: any sequence of starts, claims, ends, takeovers and changes of limits.

Time passes for the store by moving back what it has noted, so that no test waits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from outlive.clock import SystemClock
from outlive.limits import SUSPECT_CRASHES
from outlive.model.line import check_limits, decode_limits
from outlive.model.writes import Batch
from outlive.store.postgres import PostgresStore
from outlive.store.sqlite import SqliteStore
from tests.conformance.records import finish, new_run, register, release
from tests.property.line_model import LineModel, Waiting
from tests.support.postgres import shared_server
from tests.support.size import pick

WINDOW_S = 1000.0
COUNT = some.none() | some.integers(1, 4)
RATE = some.none() | some.tuples(some.integers(1, 4), some.sampled_from([WINDOW_S, 2 * WINDOW_S]))
LIMITS = some.fixed_dictionaries(
    {}, optional={"concurrency": COUNT, "per_worker": COUNT, "per_key": COUNT, "rate": RATE, "rate_per_key": RATE}
)
WORKERS = some.integers(0, 2)
PLACE = some.integers(0, 99)
CROWD = some.lists(some.sampled_from(["", "a", "b", "c"]), min_size=3, max_size=9)
STEPS = some.one_of(
    some.tuples(
        some.just("start"), some.sampled_from(["", "a", "b", "c", "ä"]), some.integers(-1, 1),
        some.sampled_from([0, 0, 0, 0.4 * WINDOW_S, 1.5 * WINDOW_S]),
    ),
    some.tuples(some.just("crowd"), CROWD),
    some.tuples(some.just("claim"), WORKERS, some.integers(1, 3)),
    some.tuples(some.just("claim"), WORKERS, some.integers(0, 9)),
    some.tuples(some.just("end"), PLACE),
    some.tuples(some.just("rest"), PLACE),
    some.tuples(some.just("wake"), WORKERS),
    some.tuples(some.just("cancel"), PLACE),
    some.tuples(some.just("hold"), PLACE),
    some.tuples(
        some.just("reschedule"), PLACE, some.sampled_from([None, 0, 0.4 * WINDOW_S, 1.5 * WINDOW_S]),
        some.none() | some.integers(-1, 1),
    ),
    some.tuples(some.just("take over"), WORKERS),
    some.tuples(some.just("pass"), some.sampled_from([0.3 * WINDOW_S, 0.7 * WINDOW_S, WINDOW_S])),
    some.tuples(some.just("limit"), LIMITS),
    some.tuples(some.just("pause"), some.booleans()),
)  # fmt: skip
BEGINNING = some.tuples(some.tuples(some.just("limit"), LIMITS), some.tuples(some.just("crowd"), CROWD))
_numbers = itertools.count(1)


class Twin:
    """A queue of a store, and its model; rows of runs are the same in both."""

    def __init__(self, store: Any, shift: Any) -> None:
        self.store, self.shift = store, shift
        self.queue = f"q{next(_numbers)}"
        self.model = LineModel()
        self.rates: dict[str, Any] | None = None
        self.now = 1_000_000.0
        self.fences: list[Any] = []
        self.claims: dict[int, int] = {}
        self.crashes: Counter[int] = Counter()  # by row of who was admitted
        self.ids: dict[int, str] = {}
        self.rows = itertools.count(next(_numbers) * 1_000_000)

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        self.fences = [await register(self.store) for _ in range(3)]
        for name, *facts in steps:
            await getattr(self, "do_" + name.replace(" ", "_"))(*facts)
            await self.compare()

    async def compare(self) -> None:
        """Limits hold, and as many runs stand where they stand in the model."""
        for row in await self.store.list_queues(self.queue):
            assert row.delayed + row.waiting == len(self.model.waiting)
            assert row.running == len(self.model.admitted)

    async def do_start(self, key: str, priority: int, delay_s: float) -> None:
        run = new_run(f"{self.queue}-{next(_numbers)}", row=next(self.rows), queue=self.queue, priority=priority)
        run.key, run.delay_s = key or None, delay_s
        await self.store.commit(Batch(starts=[run]), None)
        self.ids[run.row] = run.id
        self.now += 0.001  # the next one comes later
        self.model.waiting.append(Waiting(run.row, key, priority, self.now + delay_s))

    async def do_crowd(self, keys: list[str]) -> None:
        for key in keys:
            await self.do_start(key, 0, 0)

    async def do_claim(self, worker: int, most: int) -> None:
        found = await self.store.claim_line(self.fences[worker], ["ship"], [self.queue], most, "")
        self.claims.update({run.row: run.claim for run in found.claimed})
        assert [run.row for run in found.claimed] == self.model.claim(worker, most, self.now)

    def _owned(self, place: int) -> tuple[int, int] | None:
        owned = [(row, owner) for row, (_, owner) in self.model.admitted.items() if owner is not None]
        return owned[place % len(owned)] if owned else None

    async def do_end(self, place: int) -> None:
        if (found := self._owned(place)) is not None:
            row, worker = found
            await self.store.commit(Batch(finishes=[finish(row, claim=self.claims[row])]), self.fences[worker])
            del self.model.admitted[row]

    async def do_rest(self, place: int) -> None:
        if (found := self._owned(place)) is not None:
            row, worker = found
            at = await self.store.now()
            rest = release(row, claim=self.claims[row], wake_at=at - 1)
            await self.store.commit(Batch(releases=[rest]), self.fences[worker])
            self.model.admitted[row] = (self.model.admitted[row][0], None)

    async def do_wake(self, worker: int, ending: list[Any] | None = None) -> None:
        """Whoever rests is claimed again, within what one worker may own; a waiting run only to be ended."""
        claimed = await self.store.claim(self.fences[worker], ["ship"], [self.queue], 99)
        others = [one for one in claimed if one.ending]
        assert others == [] or ending is not None
        if ending is not None:
            ending += others
        claimed = [one for one in claimed if not one.ending]
        resting = {row for row, (_, owner) in self.model.admitted.items() if owner is None}
        resting -= {row for row in resting if self.crashes[row] >= SUSPECT_CRASHES}  # it is claimed when all is quiet
        assert {run.row for run in claimed} <= resting
        most = self.model.limits.per_worker
        owned = sum(owner == worker for _, owner in self.model.admitted.values())
        assert len(claimed) == (len(resting) if most is None else max(0, min(len(resting), most - owned)))
        for run in claimed:
            self.claims[run.row] = run.claim
            self.model.admitted[run.row] = (self.model.admitted[run.row][0], worker)

    async def _claim_for(self, place: int, kind: str) -> tuple[Waiting, Any] | None:
        """Ask something of a run that waits: it is claimed for that alone, and gets no slot."""
        if not self.model.waiting:
            return None
        run = self.model.waiting[place % len(self.model.waiting)]
        assert await self.store.add_request(self.ids[run.row], kind, None)
        await self.do_wake(0, ending := [])
        assert [one.row for one in ending] == [run.row]
        return run, ending[0]

    async def do_cancel(self, place: int) -> None:
        if (found := await self._claim_for(place, "cancel")) is not None:
            run, ending = found
            await self.store.commit(Batch(finishes=[finish(run.row, claim=ending.claim)]), self.fences[0])
            self.model.waiting.remove(run)

    async def do_hold(self, place: int) -> None:
        """Pause a run that waits, and let it go on: it is where it was."""
        if (found := await self._claim_for(place, "pause")) is not None:
            run, ending = found
            held = release(run.row, claim=ending.claim, hold="paused", hold_reason="{}")
            (request,) = [one for one in await self.store.list_requests(self.fences[0]) if one.row == run.row]
            await self.store.commit(Batch(releases=[held], handled_requests=[request.request]), self.fences[0])
            assert await self.store.resume(self.ids[run.row])

    async def do_reschedule(self, place: int, delay_s: float | None, priority: int | None) -> None:
        """Move a run that waits; one that was admitted stays where it is."""
        for row in self.model.admitted:
            assert not await self.store.reschedule(self.ids[row], delay_s=delay_s, priority=priority)
        if not self.model.waiting:
            return
        run = self.model.waiting[place % len(self.model.waiting)]
        assert await self.store.reschedule(self.ids[run.row], delay_s=delay_s, priority=priority)
        self.now += 0.001
        if delay_s is not None:
            run.line_at = self.now + delay_s if delay_s else min(run.line_at, self.now)
        run.priority = run.priority if priority is None else priority

    async def do_take_over(self, worker: int) -> None:
        await self.store.take_over([self.fences[worker].worker])
        self.fences[worker] = await register(self.store)
        for row, (key, owner) in self.model.admitted.items():
            self.crashes[row] += owner == worker
            self.model.admitted[row] = (key, None if owner == worker else owner)

    async def do_pass(self, time_s: float) -> None:
        await self.shift(self.queue, time_s)
        self.now += time_s

    async def do_limit(self, limits: dict[str, Any]) -> None:
        """Change limits; rates stay as they were at the beginning: one that is set later looks back to then only."""
        if self.rates is None:
            self.rates = {name: limits[name] for name in ("rate", "rate_per_key") if name in limits}
        limits = {name: value for name, value in limits.items() if name not in ("rate", "rate_per_key")} | self.rates
        await self.store.put_queue(self.queue, declared=json.dumps(check_limits(limits)))
        self.model.limits = decode_limits(json.dumps(check_limits(limits)))

    async def do_pause(self, paused: bool) -> None:
        await self.store.put_queue(self.queue, paused=paused)
        self.model.paused = paused


@asynccontextmanager
async def in_sqlite(_: str) -> AsyncIterator[tuple[Any, Any]]:
    store = SqliteStore("sqlite://", clock=SystemClock(), chance=random.Random(7), inline=True)
    await store.open(migrate=True)

    async def shift(queue: str, time_s: float) -> None:
        await store._writer.run(lambda db: _shift(db, queue, time_s))

    try:
        yield store, shift
    finally:
        await store.close()


def _shift(db: Any, queue: str, time_s: float) -> None:
    db.run(
        "UPDATE ol_live SET line_at = line_at - ? WHERE queue = ? AND line IN ('waiting', 'delayed')", (time_s, queue)
    )
    db.run("CREATE TEMP TABLE IF NOT EXISTS noted (queue TEXT, at REAL, row INTEGER, key TEXT)")
    db.run("INSERT INTO noted SELECT queue, at - ?, row, key FROM ol_admissions WHERE queue = ?", (time_s, queue))
    db.run("DELETE FROM ol_admissions WHERE queue = ?", (queue,))
    db.run("INSERT INTO ol_admissions SELECT * FROM noted")
    db.run("DELETE FROM noted")


@asynccontextmanager
async def in_postgres(url: str) -> AsyncIterator[tuple[Any, Any]]:
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random(7))
    await store.open(migrate=True)
    connection = await asyncpg.connect(url)

    async def shift(queue: str, time_s: float) -> None:
        passed = f"interval '{time_s} s'"
        which = "queue = $1 and line in ('waiting', 'delayed')"
        await connection.execute(f"update outlive.live set line_at = line_at - {passed} where {which}", queue)
        await connection.execute(f"update outlive.admissions set at = at - {passed} where queue = $1", queue)

    try:
        yield store, shift
    finally:
        await connection.close()
        await store.close()


@pytest.fixture(scope="module")
def url() -> Any:
    fresh = shared_server().migrated_database()
    yield fresh
    shared_server().take_back(fresh)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("opened", [in_sqlite, in_postgres])
def test_a_queue_does_what_the_model_does(url: str, opened: Any) -> None:
    @settings(max_examples=pick(small=60 if opened is in_sqlite else 25, full=1_500))
    @given(BEGINNING, some.lists(STEPS, min_size=5, max_size=40))
    @example((("limit", {}), ("crowd", ["", "", ""])), [("claim", 0, 1), *2 * [("take over", 0), ("wake", 0)]])
    def play(beginning: tuple[Any, ...], steps: list[tuple[Any, ...]]) -> None:
        async def twice() -> None:
            async with opened(url) as (store, shift):
                await Twin(store, shift).play([*beginning, *steps])

        asyncio.run(twice())

    play()
