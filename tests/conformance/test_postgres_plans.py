"""Plans are made once, perhaps while the tables are empty: none of them may read a whole table that can grow."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import asyncpg
import pytest

from outlive.clock import SystemClock
from outlive.model.query import compile_query, parse
from outlive.store.postgres import PostgresStore
from outlive.store.postgres.commit import assemble
from outlive.store.postgres.connect import SESSION_SQL
from outlive.store.postgres.joining import start_statement
from outlive.store.postgres.mail import open_promises
from outlive.store.postgres.reading import select_runs
from outlive.store.postgres.search import compose
from outlive.store.postgres.statements import named_block, number_parameters, statement
from tests.support.postgres import shared_server

# fmt: off
BLOCKS = (
    "claim_runs", "find_duplicates", "find_taken", "insert_request", "list_ended", "list_requests", "load_entries",
    "next_due", "resume_run", "settle_entry", "sweep_runs", "wake_requested", "wake_run",
)
# fmt: on
UNIQUE = ("insert_unique_runs", "skip_unique_runs")
PARTS = ("place_runs", "finish_run", "close_children", "release_run", "mark_run", "delete_request")
FINDS = {name: select_runs(named_block(f"where_{name}")).text for name in ("id", "parent")}
# Queries by what they walk along; the newest runs, or those of a time, are found along all of them.
QUERIES = {
    "status:running": "live_pkey",
    "status:queued,paused workflow:ship": "live_pkey",
    "status:failed": "runs_unsuccessful",
    "status:failed,cancelled workflow:ship": "runs_unsuccessful",
    "status:failed,running tenant:7": "run_attributes_found",
    "tenant:42": "run_attributes_found",
    "tenant:42,43 workflow:ship": "run_attributes_found",
    "workflow:ship": "runs_workflow",
    "workflow:ship,bill status:succeeded": "runs_workflow",
    "workflow:ship -tenant:42 created:>2026-05-01": "runs_workflow",
    "queue:mail": "runs_queue",
    "key:k1,k2 queue:mail": "runs_key",
    "parent:mum": "runs_parent",
    "id:a,b status:failed": "runs_id_key",
    "all": "runs_pkey",
    "age:<1h -workflow:ship": "runs_pkey",
    "status:succeeded": "runs_pkey",
}
OPEN_PROMISES = {
    "from_topic": "promises_open",
    "from_run_topic": "promises_row_key_key",
    "from_run_key": "promises_row_key_key",
}
WHOLE = re.compile(
    r"Seq Scan on (?:live|runs|entries|promises)\b.*"
    r"|Index(?: Only)? Scan (?:Backward )?using (?:live|runs|entries)_(?:pkey|id_key|parent) .*\n(?!.*Index Cond)"
)


def texts() -> dict[str, str]:
    found = {name: statement(name).text for name in BLOCKS}
    found["start_run"] = number_parameters(start_statement()).text
    found |= FINDS
    for single in (True, False):
        for entries in ("insert_entries", "skip_entries"):
            for unique in UNIQUE:
                parts = ("lock_fence", entries, "list_bounded", "insert_runs", unique, *PARTS)
                found[f"batch {entries} {unique} {single}"] = assemble(parts, single).text
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    url = shared_server().fresh_database()
    yield url
    shared_server().take_back(url)


@pytest.mark.parametrize("name", texts())
async def test_a_plan_made_on_empty_tables_uses_the_indexes(url, name):
    plan = await explain(url, texts()[name])
    assert not WHOLE.findall(plan), plan


@pytest.mark.parametrize("block", ["read_found", "list_ids", "count_runs"])
@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_walks_along_its_index(url, query, block):
    text, _ = compose(compile_query(parse(query), 1_800_000_000.0), block)
    plan = await explain(url, text)
    assert not re.search(r"Seq Scan on (?:live|runs|entries|run_attributes)", plan), plan
    assert f"using {QUERIES[query]} " in plan, plan
    expected = {"live_pkey", QUERIES[query]} if "live" in QUERIES[query] or "running" in query else {QUERIES[query]}
    whole = set(re.findall(r"Index(?: Only)? Scan (?:Backward )?using (\w+) .*\n(?!.*Index Cond)", plan))
    assert whole <= (expected & {"live_pkey", "runs_pkey"}), plan
    if QUERIES[query] not in ("runs_id_key", "runs_parent"):  # a few ids; the children of one run
        assert "Sort" not in plan.partition("InitPlan")[2] or "," in query, plan


@pytest.mark.parametrize("source", OPEN_PROMISES)
async def test_open_promises_are_read_along_their_index(url, source):
    plan = await explain(url, open_promises(source).text)
    assert not WHOLE.findall(plan), plan
    assert re.search(rf"using {OPEN_PROMISES[source]} on promises [np] .*\n.*Index Cond", plan), plan
    assert ("Sort" in plan) == (source == "from_run_topic"), plan  # a run has made few


async def explain(url: str, text: str) -> str:
    """Give the plan of a statement, made on empty tables."""
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random())
    await store.open(migrate=True)
    await store.close()
    connection = await asyncpg.connect(url)
    for table in ("live", "runs", "entries", "promises", "requests"):
        await connection.execute(f"vacuum analyze outlive.{table}")
    await connection.execute(SESSION_SQL)
    await connection.execute("set plan_cache_mode = force_generic_plan")
    await connection.execute(f"prepare it as {text}")
    count = max((int(number) for number in re.findall(r"\$(\d+)", text)), default=0)
    arguments = f"({', '.join(['null'] * count)})" if count else ""
    plan = "\n".join(row[0] for row in await connection.fetch(f"explain execute it{arguments}")) + "\n"
    await connection.close()
    return plan
