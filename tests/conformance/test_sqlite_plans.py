"""What SQLite walks along for each kind of query: an index in the order of rows, never a sort of history."""

from __future__ import annotations

import re

import pytest

from outlive.model.query import compile_query, parse
from outlive.store.sqlite.batch import SQL
from outlive.store.sqlite.search import make_composer

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


async def test_pages_are_read_by_their_rows(any_sqlite):
    async with any_sqlite.open() as store:
        composer = make_composer(compile_query(parse("workflow:ship"), 1_800_000_000.0))
        head = SQL["select_runs"].replace("{status}", SQL["derive_status"])
        sql = f"EXPLAIN QUERY PLAN {head}\n{composer.compose('read_found')}\nORDER BY r.row DESC"
        plan = await store._reader.run(lambda db: db.rows(sql, {**composer.values, "now": 0.0}))
        assert "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)" in [detail for *_, detail in plan]
