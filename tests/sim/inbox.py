"""The simulated inbox: runs that wait for people, who look through what is open and settle it, while processes die.

At each question to the store its answer is compared with what the tables say.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import outlive
from outlive import Outlive, workflow
from outlive.errors import PromiseError, PromiseExpired
from outlive.testing import Simulation, SimWorld
from tests.sim.insist import insist

RUNS = 4
ASKED = 3  # of each run, at the same time
PATIENCE_S = 1.0
TOPIC = "review"


@workflow
async def asks(number: int) -> list[Any]:
    await outlive.promise(topic="elsewhere", about=number)

    async def ask(place: int) -> Any:
        expires = None if place % 2 else PATIENCE_S
        try:
            return await (await outlive.promise(expires, topic=TOPIC, about=[number, place]))
        except PromiseExpired:
            return "late"

    return list(await asyncio.gather(*(ask(place) for place in range(ASKED))))


@workflow
async def leaves(number: int) -> None:
    """Ask, and end without waiting."""
    await outlive.promise(topic=TOPIC, about=number)
    await outlive.promise(topic="elsewhere", about=number)
    await outlive.promise()


KINDS = (asks, leaves)


async def drive(app: Outlive, world: SimWorld) -> None:
    """Start the runs, and settle what is open until nothing is, each of two people on his own."""
    for number in range(RUNS):
        await insist(lambda number=number: app.start(asks, number, id=f"asks-{number}"))
        await insist(lambda number=number: app.start(leaves, number, id=f"leaves-{number}"))
    await asyncio.gather(*(_decide(app, world, who) for who in ("ada", "eve")))


async def _decide(app: Outlive, world: SimWorld, who: str) -> None:
    ids = [f"asks-{number}" for number in range(RUNS)]
    while not all([(await insist(lambda run_id=run_id: _status(app, run_id))).final for run_id in ids]):
        for run_id in (None, *ids[:2]):
            for one in await _read_all(app, run_id):
                if world.chance.random() < 0.4:
                    await asyncio.sleep(world.chance.uniform(0, 0.4))  # people think
                    await _settle(app, one, who)
        await asyncio.sleep(world.chance.uniform(0, 0.6))


async def _status(app: Outlive, run_id: str) -> outlive.Status:
    return await (await app.get(run_id)).status()


async def _read_all(app: Outlive, run_id: str | None) -> list[Any]:
    items: list[Any] = []
    after: str | None = None
    while True:
        page = await insist(lambda after=after: app.promises(TOPIC, run_id=run_id, limit=2, after=after))
        items += page.items
        if page.next is None:
            return items
        after = page.next


async def _settle(app: Outlive, one: Any, who: str) -> None:
    found = await insist(lambda: app.find_promise(one.run_id, one.key))
    try:
        await insist(lambda: app.settle((found or one).token, who, by=who))
    except PromiseError:
        pass  # somebody else was first, or it has expired


# -- what has to be so -----------------------------------------------------------
def prepare(world: SimWorld) -> None:
    """Compare what the store says with what the tables say."""
    store: Any = world.store
    list_promises, find_open_promise, settle = store.list_promises, store.find_open_promise, store.settle

    async def watched_list(topic: str, run_id: str | None, after: str | None, limit: int) -> Any:
        found = await list_promises(topic, run_id, after, limit)
        is_open = [row for row in _list_open(world) if row[0] == topic and run_id in (None, row[1])]
        behind = [row for row in is_open if after is None or row[3:] > _place(world, after)]
        if [one.token for one in found] != [row[4] for row in behind[:limit]]:
            world.problem(f"listed are {found}, open are {behind}")
        return found

    async def watched_find(run_id: str, key: str) -> Any:
        found = await find_open_promise(run_id, key)
        is_open = [row[4] for row in _list_open(world) if row[1:3] == (run_id, key)]
        if ([found.token] if found else []) != is_open:
            world.problem(f"found is {found}, open is {is_open}")
        return found

    async def watched_settle(settlement: Any, note: Any = None, *, at_expiry: bool = False) -> Any:
        before, noted = _read(world, settlement.token), _count_notes(world)
        settling, row = await settle(settlement, note, at_expiry=at_expiry)
        if settling != _expect(world, before, at_expiry):
            world.problem(f"a promise that was {before} is {settling}")
        after = _read(world, settlement.token)
        if settling != "settled" and after != before:
            world.problem(f"a promise that was {before} and is {settling} has become {after}")
        if _count_notes(world) - noted != (settling == "settled" and note is not None):
            world.problem(f"a promise is {settling}, with {_count_notes(world) - noted} notes")
        return settling, row

    store.list_promises, store.find_open_promise, store.settle = watched_list, watched_find, watched_settle


def _list_open(world: SimWorld) -> list[tuple[Any, ...]]:
    now = world.database_now()
    rows = world.sql(
        "select topic, id, p.key, p.created_at, token, settled_at, status, expires_at"
        " from ol_promises p join ol_runs using (row) where topic is not null order by p.created_at, token"
    )
    return [row[:5] for row in rows if row[5:7] == (None, None) and (row[7] is None or row[7] > now)]


def _place(world: SimWorld, token: str) -> tuple[Any, ...]:
    return world.sql(f"select created_at, token from ol_promises where token = '{token}'")[0]


def _read(world: SimWorld, token: str) -> tuple[Any, ...] | None:
    rows = world.sql(f"select outcome, expires_at, value, error from ol_promises where token = '{token}'")
    return rows[0] if rows else None


def _expect(world: SimWorld, before: tuple[Any, ...] | None, at_expiry: bool) -> str:
    if before is None:
        return "unknown"
    if before[0] is not None:
        return "already"
    late = before[1] is not None and before[1] <= world.database_now()
    return "expired" if late and not at_expiry else "settled"


def _count_notes(world: SimWorld) -> int:
    ((count,),) = world.sql("select count(*) from ol_audit where action = 'settle'")
    return int(count)


def check(world: SimWorld, simulation: Simulation) -> None:
    """What a run got is what the one in the audit said."""
    said: dict[tuple[str, str], str] = {}
    for who, target, facts in world.sql("select who, target, facts from ol_audit where action = 'settle'"):
        place = (target, json.loads(facts)["promise"])
        assert place not in said, f"{place} was settled by {said[place]} and by {who}"
        said[place] = who
    for number in range(RUNS):
        run = simulation.runs[f"asks-{number}"]
        assert run.status == "succeeded", f"{run.id} {run.status} {run.error}"
        got = sorted(json.loads(run.output or "null"))
        told = sorted(who for (run_id, _), who in said.items() if run_id == run.id)
        assert got == sorted([*told, *["late"] * (ASKED - len(told))]), f"{run.id} got {got}, the audit says {told}"
