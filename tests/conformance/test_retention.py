"""Pruning: what may go, what has to stay, and that nothing of a run is left behind."""

from __future__ import annotations

import json

from outlive.model.reads import RunQuery
from outlive.model.retention import Prunable
from outlive.model.writes import Batch
from tests.conformance.records import finish, new_entry, new_run, register, start, start_owned

ALL = RunQuery(statuses=("cancelled", "failed", "succeeded"), oldest_first=True)
LARGE = json.dumps("x" * 70_000)


async def ids(store) -> list[str]:
    return [run.id for run in await store.list_runs(RunQuery(oldest_first=True))]


async def start_child(store, fence, parent, run_id, *, kind="child", close="cancel", **facts):
    """Start a child: awaited from then on if it is of this kind."""
    key = f"/{run_id}#1"
    child = new_run(run_id, owned=True, parent=parent.row, parent_key=key, parent_close=close, **facts)
    outcome = "started" if kind == "child" else "ok"
    await store.commit(Batch(starts=[child], entries=[new_entry(parent.row, key, kind=kind, outcome=outcome)]), fence)
    return child


async def test_only_what_has_ended_long_enough_ago(database):
    async with database.open() as store:
        fence = await register(store)
        done, failed, running = await start_owned(store, fence, "done", "failed", "running")
        (queued,) = await start(store, "queued")
        await store.commit(Batch(finishes=[finish(done.row), finish(failed.row, status="failed")]), fence)
        now = await store.now()
        found = await store.list_prunable(ALL)
        assert found == [Prunable(done.row, None, 0, awaited=False), Prunable(failed.row, None, 0, awaited=False)]
        rows = [done.row, failed.row, running.row, queued.row, 7]
        assert await store.prune(rows, now - 60) == 0
        assert await store.prune([done.row], now + 60) == 1
        assert await store.prune(rows, now + 60) == 1
        assert await store.prune(rows, now + 60) == 0
        assert await store.prune([], now + 60) == 0
        assert await ids(store) == ["running", "queued"]


async def test_a_child_that_is_awaited_stays(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = await start_child(store, fence, parent, "child")
        begun = await start_child(store, fence, parent, "begun", kind="start")
        free = await start_child(store, fence, parent, "free", kind="start", close="abandon")
        rows = [child.row, begun.row, free.row]
        await store.commit(Batch(finishes=[finish(row) for row in rows]), fence)
        later = await store.now() + 60
        assert [(run.row, run.awaited) for run in await store.list_prunable(ALL)] == [
            (child.row, True), (begun.row, True), (free.row, False)
        ]  # fmt: skip
        assert await store.prune(rows, later) == 1
        assert await ids(store) == ["parent", "child", "begun"]
        await store.commit(Batch(entries=[new_entry(parent.row, "/child#1", kind="child")]), fence)
        assert await store.prune(rows, later) == 1  # its end is recorded
        assert await ids(store) == ["parent", "begun"]
        await store.commit(Batch(finishes=[finish(parent.row)]), fence)
        assert await store.prune(rows, later) == 1
        assert await store.prune([parent.row], later) == 1
        assert await ids(store) == []


async def test_a_parent_goes_after_its_children_or_with_them(database):
    async with database.open() as store:
        fence = await register(store)
        (parent,) = await start_owned(store, fence, "parent")
        child = await start_child(store, fence, parent, "child", kind="start", close="abandon")
        grandchild = await start_child(store, fence, child, "grandchild", kind="start", close="abandon")
        rows = [parent.row, child.row, grandchild.row]
        await store.commit(Batch(finishes=[finish(parent.row), finish(child.row)]), fence)
        later = await store.now() + 60
        assert [run.children for run in await store.list_prunable(ALL)] == [1, 1]
        assert await store.prune(rows, later) == 0
        await store.commit(Batch(finishes=[finish(grandchild.row)]), fence)
        assert await store.prune([parent.row, child.row], later) == 0
        assert await store.prune([parent.row, grandchild.row], later) == 1
        assert await store.prune([parent.row, child.row], later) == 2


async def test_nothing_of_a_run_is_left_behind_and_its_id_is_free(database):
    async with database.open() as store:
        fence = await register(store)
        (run,) = await start_owned(store, fence, "order-1", input=LARGE, attributes='{"tenant": 42}')
        await store.commit(Batch(entries=[new_entry(run.row, value=LARGE)], large=True), fence)
        await store.commit(Batch(finishes=[finish(run.row, output=LARGE)], large=True), fence)
        (kept,) = await start_owned(store, fence, "kept", attributes='{"tenant": 42}')
        assert [found.id for found in await store.read_runs([run.row, kept.row, 7])] == ["order-1", "kept"]
        assert await store.prune([run.row], await store.now() + 60) == 1
        assert await store.find_run("order-1") is None
        assert await store.load_entries([run.row]) == {run.row: []}
        for table in await side_tables(database, store):
            assert await count(database, store, table, run.row) == 0, table
        await start(store, "order-1")
        assert await ids(store) == ["kept", "order-1"]


async def side_tables(database, store) -> list[str]:
    """List the tables whose rows may belong to a run."""
    if database.kind == "postgres":
        sql = """select c.table_name from information_schema.columns c
            join information_schema.tables t using (table_schema, table_name)
            where table_schema = 'outlive' and column_name = 'row' and table_type = 'BASE TABLE'"""
    else:
        sql = """SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
            WHERE t.type = 'table' AND c.name = 'row'"""
    tables = [name for (name,) in await query(database, store, sql)]
    assert len(tables) > 8
    return tables


async def count(database, store, table: str, row: int) -> int:
    prefix = "outlive." if database.kind == "postgres" else ""
    ((found,),) = await query(database, store, f"select count(*) from {prefix}{table} where row = {row}")
    return found


async def query(database, store, sql: str) -> list:
    if database.kind == "postgres":
        return await store._pool.fetch(sql)
    return await store._writer.run(lambda db: db.rows(sql))
