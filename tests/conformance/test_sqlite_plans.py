"""What SQLite walks along for each kind of query: an index in the order of rows, never a sort of history."""

from __future__ import annotations

import re

import pytest

from outlive.model.mail import Settlement
from outlive.model.query import compile_query, parse
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.mail import open_promises
from outlive.store.sqlite.search import make_composer
from tests.conformance.records import register

# Queries by the index that they walk along; the newest runs, or those of a time, are found along all of them.
QUERIES = {
    "status:running": "SCAN l",
    "status:queued,paused workflow:ship": "SCAN l",
    "status:failed": "SEARCH r USING COVERING INDEX ol_runs_unsuccessful (status=?)",
    "status:failed,cancelled workflow:ship": "SEARCH r USING INDEX ol_runs_unsuccessful (status=?)",
    "status:failed,running tenant:7": "SEARCH a USING COVERING INDEX ol_run_attributes_found (name=? AND value=?)",
    "tenant:42": "SEARCH a USING COVERING INDEX ol_run_attributes_found (name=? AND value=?)",
    "tenant:42,43 workflow:ship": "SEARCH a USING COVERING INDEX ol_run_attributes_found (name=? AND value=?)",
    "workflow:ship": "SEARCH r USING COVERING INDEX ol_runs_workflow (workflow=?)",
    "workflow:ship,bill status:succeeded": "SEARCH r USING INDEX ol_runs_workflow (workflow=?)",
    "workflow:ship -tenant:42 created:>2026-05-01": "SEARCH r USING INDEX ol_runs_workflow (workflow=? AND rowid>?)",
    "queue:mail": "SEARCH r USING COVERING INDEX ol_runs_queue (queue=?)",
    "key:k1,k2 queue:mail": "SEARCH r USING INDEX ol_runs_key (key=?)",
    "parent:mum": "SEARCH r USING COVERING INDEX ol_runs_parent (parent=?)",
    "id:a,b status:failed": "SEARCH r USING INDEX sqlite_autoindex_ol_runs_1 (id=?)",
    "all": "SCAN r",
    "age:<1h -workflow:ship": "SEARCH r USING INTEGER PRIMARY KEY (rowid>?)",
    "status:succeeded": "SCAN r",
}


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_walks_along_its_index(any_sqlite, query):
    async with any_sqlite.open() as store:
        for block in ("list_ids", "count_runs"):
            composer = make_composer(compile_query(parse(query), 1_800_000_000.0))
            sql = composer.compose(block)
            plan = await store._reader.run(
                lambda db, sql=sql, composer=composer: db.rows(
                    f"EXPLAIN QUERY PLAN {sql}", {**composer.values, "now": 0.0}
                )
            )
            lines = [detail for *_, detail in plan]
            walks = [line for line in lines if re.match(r"(SCAN|SEARCH) [rla]\b", line)]
            assert QUERIES[query] in walks, "\n".join(lines)
            if "MERGE (UNION ALL)" not in lines:  # what is merged is sorted by pages
                assert not [line for line in lines if "TEMP B-TREE" in line], "\n".join(lines)


OPEN_PROMISES = {
    "from_topic": "USING INDEX ol_promises_open (topic=? AND (created_at,token)>(?,?))",
    "from_run_topic": "USING INDEX sqlite_autoindex_ol_promises_2 (row=?)",
    "from_run_key": "USING INDEX sqlite_autoindex_ol_promises_2 (row=? AND key=?)",
}


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("source", OPEN_PROMISES)
async def test_open_promises_are_read_along_their_index(any_sqlite, source, analyzed):
    async with any_sqlite.open() as store:
        if analyzed:
            await store._writer.run(_fill_promises)
        facts = {"topic": "review", "run": "r1", "key": "p#1", "after": "token", "now": 0.0, "limit": 5}
        plan = await store._reader.run(lambda db: db.rows(f"EXPLAIN QUERY PLAN {open_promises(source)}", facts))
        lines = [detail for *_, detail in plan]
        assert f"SEARCH p {OPEN_PROMISES[source]}" in lines, lines
        sorts = [line for line in lines if "TEMP B-TREE" in line]
        assert bool(sorts) == (source == "from_run_topic"), lines  # a run has made few


def _fill_promises(db, first=1, last=2_000):
    for statement in _FILL.format(first=first, last=last, **PLACES["sleeping"]).split(";"):
        db.run(statement)
    db.run(
        "INSERT INTO ol_promises (token, row, key, created_at, topic, about, about_codec)"
        f" SELECT 't' || row, row, 'p#1', row, 'review', '1', 'json' FROM ol_runs WHERE row BETWEEN {first} AND {last}"
    )
    db.run("ANALYZE")


async def test_deciding_takes_as_many_steps_however_many_wait(any_sqlite):
    async with any_sqlite.open() as store:
        few = await _count_steps_of_deciding(store, first=1, last=100)
        many = await _count_steps_of_deciding(store, first=101, last=10_000)
        assert 0 < many < 2 * few, f"{few} steps with 100 promises, {many} with 10,000"


async def _count_steps_of_deciding(store, *, first, last):
    """Fill in promises that wait, and count what the machine does to list some, to find one and to settle it."""
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        return False

    await store._writer.run(lambda db: _fill_promises(db, first, last))
    for lane in (store._writer, store._reader):
        await lane.run(lambda db: db.raw.set_progress_handler(step, 10))
    assert len(await store.list_promises("review", None, f"t{last - 50}", 10)) == 10
    assert len(await store.list_promises("review", f"r{last}", None, 10)) == 1
    found = await store.find_open_promise(f"r{last}", "p#1")
    settlement = Settlement(None, None, found.token, "ok", "1", None, "json/1")
    assert await store.settle(settlement) == ("settled", last)
    for lane in (store._writer, store._reader):
        await lane.run(lambda db: db.raw.set_progress_handler(None, 10))
    return steps


async def test_pages_are_read_by_their_rows(any_sqlite):
    async with any_sqlite.open() as store:
        composer = make_composer(compile_query(parse("workflow:ship"), 1_800_000_000.0))
        head = SQL["select_runs"].replace("{status}", SQL["derive_status"])
        sql = f"EXPLAIN QUERY PLAN {head}\n{composer.compose('read_found')}\nORDER BY r.row DESC"
        plan = await store._reader.run(lambda db: db.rows(sql, {**composer.values, "now": 0.0}))
        assert "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)" in [detail for *_, detail in plan]


_FILL = """
    INSERT INTO ol_runs (row, id, workflow, version, codec, queue, input, created_at)
    WITH RECURSIVE t (n) AS (VALUES ({first}) UNION ALL SELECT n + 1 FROM t WHERE n < {last})
    SELECT n, 'r' || n, 'ship', '1', 'json/1', '{queue}', '[]', 1.0 FROM t;
    INSERT INTO ol_live (row, workflow, queue, priority, {when}) SELECT row, 'ship', queue, 0, {at} FROM ol_runs
    WHERE row BETWEEN {first} AND {last};
"""
PLACES = {
    "line": {"queue": "mail", "when": "line, line_at", "at": "'waiting', 1.0"},
    "lane": {"queue": "", "when": "wake_at", "at": "1.0"},
    "sleeping": {"queue": "", "when": "started_at, wake_at", "at": "1.0, 9e9"},
}


@pytest.mark.parametrize("place", PLACES)
async def test_claiming_takes_as_many_steps_however_many_wait(any_sqlite, place):
    async with any_sqlite.open() as store:
        fence = await register(store)
        few = await _count_steps(store, fence, place, first=1, last=100)
        many = await _count_steps(store, fence, place, first=101, last=10_000)
        assert 0 < many < 2 * few, f"{few} steps with 100 runs, {many} with 10,000"


async def _count_steps(store, fence, place, *, first, last):
    """Fill in runs that wait, let the planner know of them, and count what its machine does for one claim."""
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        return False

    def prepare(db):
        for statement in _FILL.format(first=first, last=last, **PLACES[place]).split(";"):
            db.run(statement)
        db.run("ANALYZE")

    await store._writer.run(prepare)
    await store.sweep()  # the first one looks at all that waits
    for lane in (store._writer, store._reader):
        await lane.run(lambda db: db.raw.set_progress_handler(step, 10))
    await store.claim_line(fence, ["ship"], None, 10, "")
    await store.claim(fence, ["ship"], None, 10)
    await store.claim(fence, ["ship"], None, 10, suspect=True)
    await store.next_due()
    await store.has_suspects()
    await store.sweep()
    return steps
