"""Finding runs by a query: every condition, alone and with others, against a plain filter over all runs."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from outlive.model.query import compile_query, parse
from outlive.model.reads import RunQuery, RunRow
from outlive.model.writes import Batch
from outlive.store.interface import Store
from tests.conformance.records import finish, new_entry, new_run, register, release, start, start_owned

HOUR = 3_600.0


async def ids(store: Store, text: str, **facts) -> list[str]:
    query = replace(compile_query(parse(text), await store.now()), **facts)
    found = [run.id for run in await store.list_runs(query)]
    assert [run_id for _, run_id in await store.list_ids(query)] == found
    assert await store.count_runs(query) == len(found)
    return found


async def test_by_every_field(database):
    async with database.open() as store:
        await start(store, "order-1", queue="mail", key="k1")
        await start(store, "order-2", workflow="refund", version="v1")
        await start(store, "Order-3", key="k2", version="v2")
        await start(store, "or%er-4", queue="print")
        await start(store, "or_er-5")
        assert await ids(store, "workflow:refund") == ["order-2"]
        assert await ids(store, "-workflow:refund,other") == ["or_er-5", "or%er-4", "Order-3", "order-1"]
        assert await ids(store, "workflow:ref*") == ["order-2"]
        assert await ids(store, "queue:mail") == ["order-1"]
        assert await ids(store, "queue:mail,print") == ["or%er-4", "order-1"]
        assert await ids(store, 'queue:"" workflow:refund') == ["order-2"]
        assert await ids(store, 'queue:"",print') == ["or_er-5", "or%er-4", "Order-3", "order-2"]
        assert await ids(store, "id:order-1,or_er-5,nobody") == ["or_er-5", "order-1"]
        assert await ids(store, "id:order-*") == ["order-2", "order-1"]
        assert await ids(store, "id:or%*,order-1") == ["or%er-4", "order-1"]
        assert await ids(store, "id:or_*") == ["or_er-5"]
        assert await ids(store, "-id:o*") == ["Order-3"]
        assert await ids(store, "key:k1,k2,k3") == ["Order-3", "order-1"]
        assert await ids(store, "key:*") == ["Order-3", "order-1"]
        assert await ids(store, "-key:k1") == ["or_er-5", "or%er-4", "Order-3", "order-2"]
        assert await ids(store, "-key:*") == ["or_er-5", "or%er-4", "order-2"]
        assert await ids(store, "version:v1") == ["order-2"]
        assert await ids(store, "-version:v1 key:k1,k2") == ["Order-3", "order-1"]
        assert await ids(store, "key:k1 key:k2") == []
        assert await ids(store, "all") == ["or_er-5", "or%er-4", "Order-3", "order-2", "order-1"]
        assert await ids(store, "all", limit=2, oldest_first=True) == ["order-1", "order-2"]


async def test_by_attributes(database):
    async with database.open() as store:
        for number, attributes in enumerate(
            [
                {"tenant": 42},
                {"tenant": 42.0, "eu": True},
                {"tenant": "42", "note": "a, 'b' %_"},
                {"tenant": 7},
                {},
                None,
            ]
        ):
            await start(store, f"r{number}", attributes=None if attributes is None else json.dumps(attributes))
        assert await ids(store, "tenant:42") == ["r2", "r1", "r0"]
        assert await ids(store, "tenant:42", limit=2) == ["r2", "r1"]
        assert await ids(store, "tenant:42.0") == ["r2", "r1", "r0"]
        assert await ids(store, "tenant:7,42 eu:true") == ["r1"]
        assert await ids(store, "-tenant:42") == ["r5", "r4", "r3"]
        assert await ids(store, "tenant:*") == ["r3", "r2", "r1", "r0"]
        assert await ids(store, "-tenant:*") == ["r5", "r4"]
        assert await ids(store, "note:\"a, 'b' %_\"") == ["r2"]
        assert await ids(store, "tenant:42 -eu:true -note:*") == ["r0"]
        assert await ids(store, "Tenant:42") == []
        assert await ids(store, "tenant:42 status:queued") == ["r2", "r1", "r0"]
        assert await ids(store, "tenant:42 status:failed") == []


async def test_attributes_come_and_stay_with_their_run(database):
    async with database.open() as store:
        first = new_run("order-1", attributes='{"tenant": 1}')
        for _ in range(2):  # the reply was lost
            await store.commit(Batch(starts=[first]), None)
        await store.commit(Batch(starts=[new_run("order-1", attributes='{"tenant": 2}')]), None)
        assert await ids(store, "tenant:1") == ["order-1"]
        assert await ids(store, "tenant:2") == []
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent", attributes='{"tenant": 3}')
        child = new_run("child", parent=parent.row, parent_key="/c#1", attributes='{"tenant": 4}')
        await store.commit(Batch(starts=[child], entries=[new_entry(parent.row, "/c#1", outcome="started")]), fence)
        again = new_run("child-2", parent=parent.row, parent_key="/c#1", attributes='{"tenant": 5}')
        await store.commit(Batch(starts=[again], entries=[new_entry(parent.row, "/c#1", outcome="started")]), fence)
        assert await ids(store, "tenant:3") == ["parent"]
        assert await ids(store, "tenant:4") == ["child"]
        assert await ids(store, "tenant:5") == []


async def test_by_parent(database):
    async with database.open() as store:
        fence = await register(store)
        parents = await start_owned(store, fence, "mum", "dad", "none")
        for number, parent in enumerate([parents[0], parents[1], parents[0]]):
            child = new_run(f"child-{number}", parent=parent.row, parent_key=f"/c#{number}")
            entry = new_entry(parent.row, f"/c#{number}", outcome="started")
            await store.commit(Batch(starts=[child], entries=[entry]), fence)
        assert await ids(store, "parent:mum") == ["child-2", "child-0"]
        assert await ids(store, "parent:mum", limit=1) == ["child-2"]
        assert await ids(store, "parent:mum,dad,nobody") == ["child-2", "child-1", "child-0"]
        assert await ids(store, "parent:*") == ["child-2", "child-1", "child-0"]
        assert await ids(store, "-parent:*") == ["none", "dad", "mum"]
        assert await ids(store, "-parent:mum status:queued") == ["child-1"]
        assert await ids(store, "-parent:mum") == ["child-1", "none", "dad", "mum"]


async def test_by_time(database):
    async with database.open() as store:
        fence = await register(store)
        first, _ = await start_owned(store, fence, "first", "second")
        await store.commit(Batch(finishes=[finish(first.row)]), fence)
        now = await store.now()
        assert await ids(store, "age:<1h") == ["second", "first"]
        assert await ids(store, "age:>1h") == []
        assert await ids(store, "age:<99999999d") == ["second", "first"]  # before any calendar
        assert await ids(store, "age:>99999999d") == []
        assert await ids(store, "finished:<1h") == ["first"]
        assert await ids(store, "finished:>1h") == []
        for facts, found in (
            ({"created_before": now + 5, "created_after": now - 50}, ["second", "first"]),
            ({"created_after": now + 5}, []),
            ({"created_before": now - 50}, []),
            ({"finished_after": now - 50, "finished_before": now + 5}, ["first"]),
            ({"finished_before": now - 50}, []),
            ({"finished_after": now + 5}, []),
        ):
            assert await ids(store, "all", **facts) == found


STATUSES = ("running", "suspended", "paused", "quarantined", "queued", "scheduled", "succeeded", "failed", "cancelled")
POOLS = {
    "status": STATUSES,
    "workflow": ("ship", "refund", "bill"),
    "queue": ("", "mail", "print"),
    "key": (None, "k1", "k2"),
    "version": (None, "v1"),
    "tenant": (None, 1, 2, 3),
    "eu": (None, True),
}


async def fill(store: Store, chance: random.Random, count: int) -> list[dict]:
    """Start runs of all kinds; give their facts, newest first."""
    fence = await register(store)
    facts = []
    for number in range(count):
        fact = {name: chance.choice(pool) for name, pool in POOLS.items()} | {"id": f"r{number}"}
        attributes = {name: fact[name] for name in ("tenant", "eu") if fact[name] is not None}
        columns = {name: fact[name] for name in ("workflow", "queue", "key", "version")}
        status = fact["status"]
        run = new_run(
            fact["id"],
            owned=status not in ("queued", "scheduled"),
            delay_s=500.0 if status == "scheduled" else 0.0,
            attributes=json.dumps(attributes) if attributes else None,
            **columns,
        )
        batch = Batch(starts=[run])
        await store.commit(batch, fence)
        if status in ("succeeded", "failed", "cancelled"):
            await store.commit(Batch(finishes=[finish(run.row, status=status)]), fence)
        elif status in ("suspended", "paused", "quarantined"):
            hold = None if status == "suspended" else status
            await store.commit(Batch(releases=[release(run.row, hold=hold)]), fence)
        facts.append(fact)
    return facts[::-1]


def holds(fact: dict, field: str, values: list, negated: bool) -> bool:
    return (fact[field] in values) is not negated


def word(value: object) -> str:
    return {"": '""', "True": "true"}.get(str(value), str(value))


@pytest.mark.timeout(120)
async def test_any_conditions_together(database):
    chance = random.Random(11)
    async with database.open() as store:
        facts = await fill(store, chance, 150)
        assert {run.id: run.status for run in await store.list_runs(RunQuery(limit=500))} == {
            fact["id"]: fact["status"] for fact in facts
        }
        for _ in range(150):
            conditions = []
            for field in chance.sample(list(POOLS), chance.randint(1, 3)):
                able = [value for value in POOLS[field] if value is not None]
                values = chance.sample(able, chance.randint(1, min(2, len(able))))
                conditions.append((field, values, chance.random() < 0.3))
            text = " ".join(
                f"{'-' if negated else ''}{field}:{','.join(word(value) for value in values)}"
                for field, values, negated in conditions
            )
            expected = [fact["id"] for fact in facts if all(holds(fact, *condition) for condition in conditions)]
            assert await ids(store, text, limit=500) == expected, text
            assert await ids(store, text, limit=3) == expected[:3], text
            assert await ids(store, text, limit=3, oldest_first=True) == expected[::-1][:3], text
            pages: list[RunRow] = []
            query = replace(compile_query(parse(text), await store.now()), limit=7)
            while page := await store.list_runs(replace(query, after=pages[-1].row if pages else None)):
                pages += page
            assert [run.id for run in pages] == expected, text
