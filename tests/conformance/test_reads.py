"""Reading runs: pages, statuses, children; test_search.py has the other conditions."""

from __future__ import annotations

from outlive.model.reads import RunQuery
from outlive.model.writes import Batch
from tests.conformance.records import finish, new_entry, new_run, register, release, start, start_owned


async def ids(store, **facts) -> list[str]:
    return [run.id for run in await store.list_runs(RunQuery(**facts))]


async def test_nothing_is_there(database):
    async with database.open() as store:
        assert await store.find_run("never") is None
        assert await store.list_runs(RunQuery()) == []
        assert await store.list_workers() == []


async def test_newest_first_by_pages(database):
    async with database.open() as store:
        runs = await start(store, *(f"r{number}" for number in range(7)))
        newest = [f"r{number}" for number in reversed(range(7))]
        assert await ids(store) == newest
        assert await ids(store, limit=3) == newest[:3]
        assert await ids(store, limit=3, after=runs[4].row) == newest[3:6]
        assert await ids(store, limit=3, after=runs[0].row) == []


async def test_by_status(database):
    async with database.open() as store:
        fence = await register(store)
        names = ("running", "suspended", "paused", "succeeded", "failed", "cancelled")
        runs = dict(zip(names, await start_owned(store, fence, *names), strict=True))
        await start(store, "queued")
        await start(store, "scheduled", delay_s=500.0)
        await store.commit(
            Batch(
                releases=[release(runs["suspended"].row), release(runs["paused"].row, hold="paused")],
                finishes=[finish(runs[name].row, status=name) for name in names[3:]],
            ),
            fence,
        )
        everything = {run.id: run.status for run in await store.list_runs(RunQuery())}
        assert everything == {name: name for name in (*names, "queued", "scheduled")}
        for name in everything:
            assert await ids(store, statuses=(name,)) == [name]
        assert await ids(store, statuses=("scheduled", "running", "failed")) == ["scheduled", "failed", "running"]
        assert await ids(store, statuses=("failed", "cancelled"), limit=1) == ["cancelled"]
        assert await ids(store, statuses=("queued", "running"), after=runs["suspended"].row) == ["running"]


async def test_children_of_a_run(database):
    async with database.open() as store:
        fence = await register(store)
        parent, other = await start_owned(store, fence, "parent", "other")
        for number in range(3):
            child = new_run(f"child-{number}", parent=parent.row, parent_key=f"/c#{number}", owned=True)
            entry = new_entry(parent.row, f"/c#{number}", outcome="started")
            await store.commit(Batch(starts=[child], entries=[entry]), fence)
            if number == 1:
                await store.commit(Batch(finishes=[finish(child.row)]), fence)
        children = await store.list_children(parent.row, unfinished=False)
        assert sorted(run.id for run in children) == ["child-0", "child-1", "child-2"]
        assert {run.parent_id for run in children} == {"parent"}
        open_children = await store.list_children(parent.row, unfinished=True)
        assert sorted(run.id for run in open_children) == ["child-0", "child-2"]
        assert await store.list_children(other.row, unfinished=False) == []


async def test_the_clock_of_the_database_moves_on(database):
    async with database.open() as store:
        first = await store.now()
        await start(store, "order-1")
        found = await store.find_run("order-1")
        assert found is not None
        assert first - 0.001 <= found.created_at <= await store.now() + 0.001
        assert found.wake_at is not None
