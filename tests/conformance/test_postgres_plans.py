"""Plans are made once, perhaps while the tables are empty: none of them may read a whole table that can grow."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import asyncpg
import pytest

from outlive.clock import SystemClock
from outlive.model.reads import RunQuery
from outlive.store.postgres import PostgresStore
from outlive.store.postgres.commit import assemble
from outlive.store.postgres.connect import SESSION_SQL
from outlive.store.postgres.joining import start_statement
from outlive.store.postgres.reading import compose_list
from outlive.store.postgres.statements import number_parameters, statement
from tests.support.postgres import shared_server

# fmt: off
BLOCKS = (
    "claim_runs", "find_taken", "insert_request", "list_ended", "list_requests", "load_entries",
    "next_due", "resume_run", "settle_entry", "sweep_runs", "wake_requested", "wake_run",
)
# fmt: on
PARTS = ("insert_runs", "finish_run", "close_children", "release_run", "mark_run", "delete_request")
LISTS = {
    "find": compose_list(RunQuery(), run_id="x"),
    "children": compose_list(RunQuery(), parent_row=1, unfinished=True),
    "running": compose_list(RunQuery(statuses=("running",))),
}
WHOLE = re.compile(
    r"Seq Scan on (?:live|runs|entries)\b.*"
    r"|Index(?: Only)? Scan (?:Backward )?using (?:live|runs|entries)_(?:pkey|id_key|parent) .*\n(?!.*Index Cond)"
)


def texts() -> dict[str, str]:
    found = {name: statement(name).text for name in BLOCKS}
    found["start_run"] = number_parameters(start_statement()).text
    found |= {name: text for name, (text, _) in LISTS.items()}
    for single in (True, False):
        for entries in ("insert_entries", "skip_entries"):
            parts = ("lock_fence", entries, *PARTS)
            found[f"batch {entries} {single}"] = assemble(parts, single).text
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    url = shared_server().fresh_database()
    yield url
    shared_server().drop_database(url)


@pytest.mark.parametrize("name", texts())
async def test_a_plan_made_on_empty_tables_uses_the_indexes(url, name):
    store = PostgresStore(url, clock=SystemClock(), chance=random.Random())
    await store.open(migrate=True)
    await store.close()
    connection = await asyncpg.connect(url)
    for table in ("live", "runs", "entries", "requests"):
        await connection.execute(f"vacuum analyze outlive.{table}")
    await connection.execute(SESSION_SQL)
    await connection.execute("set plan_cache_mode = force_generic_plan")
    text = texts()[name]
    await connection.execute(f"prepare it as {text}")
    count = max((int(number) for number in re.findall(r"\$(\d+)", text)), default=0)
    arguments = f"({', '.join(['null'] * count)})" if count else ""
    plan = "\n".join(row[0] for row in await connection.fetch(f"explain execute it{arguments}")) + "\n"
    await connection.close()
    assert not WHOLE.findall(plan), plan
