"""`python -m tests.upgrade.freeze FOLDER`: freeze what this release leaves when its process dies with runs under way.

Writes, for each store, a database as SQL, taken while the app is open: it looks
as after a SIGKILL; and the journals of its runs. Plain public API, so that it
runs under any release.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from outlive import Outlive, RunRefused, Status
from outlive.agents import approvals, questions
from tests.support.postgres import shared_server
from tests.upgrade import agents, workflows
from tests.upgrade.workflows import FROZEN_AT, RUNS

LIMIT_S = 20.0


async def begin(url: str, dump: Any) -> str:
    """Bring each run where it is to be frozen, then dump the database under the open app; give the journals."""
    async with Outlive(url, include=[workflows], lease=5) as app, asyncio.timeout(LIMIT_S):
        for run_id, (workflow, args) in RUNS.items():
            await app.start(workflow, *args, id=run_id, delay=10 if run_id == "later" else None)
        ended = await app.start(workflows.item, 0, id="ended", key="k", attributes={"tier": "gold"})
        await ended.cancel("not wanted")
        await (await app.get("cancelled")).cancel("too late")
        held = await app.get("held")
        await held.pause("for a while")
        while await held.status() != Status.PAUSED or not (await ended.status()).final:
            await asyncio.sleep(0.01)
        for run_id, count in FROZEN_AT.items():
            while len(await (await app.get(run_id)).entries()) < count:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # the last of it is on disk
        await asyncio.to_thread(dump)
        return "".join([journal.to_line() + "\n" async for journal in app.journals()])


async def play_agents(url: str) -> str:
    """Let the agents work, but for one that is left waiting for an approval; give the journals."""
    async with Outlive(url, include=[agents]) as app, asyncio.timeout(LIMIT_S):
        runs = {run_id: await app.start(one, *args, id=run_id) for run_id, (one, args) in agents.RUNS.items()}
        await agents.talk.say(runs["chat"], "hello")
        await agents.talk.end(runs["chat"])
        waiting = set(runs) - {"waits"}
        while waiting:
            for one in (await approvals(app).list()).items:
                if one.run_id in waiting:
                    who = "ben" if "ana" in one.votes else "ana"
                    edit = {"cents": 500} if one.arguments == {"cents": 900} else None
                    with suppress(RunRefused):
                        await approvals(app).decide(one.id, approve=True, by=who, roles={"finance"}, edit=edit)
            for asked in (await questions(app).list()).items:
                with suppress(RunRefused):
                    await questions(app).answer(asked.id, True, by="ana")
            waiting = {run_id for run_id in waiting if not (await runs[run_id].status()).final}
            await asyncio.sleep(0.05)
        for run_id in set(runs) - {"waits"}:
            await runs[run_id].result()
        while not (await approvals(app).list(run_id="waits")).items:
            await asyncio.sleep(0.05)
        return "".join([journal.to_line() + "\n" async for journal in app.journals()])


def dump_sqlite(database: Path, target: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        target.write_text(_nowhere("\n".join(connection.iterdump()) + "\n"))


def dump_postgres(url: str, target: Path) -> None:
    """Write the rows; the tables are those of the migrations that `meta` names."""
    import psycopg

    lines = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select table_name from information_schema.tables "
            "where table_schema = 'outlive' and table_type = 'BASE TABLE'"
        ).fetchall()
        for (table,) in sorted(tables, key=lambda row: (row[0] != "runs", row[0])):
            columns = [
                name
                for (name,) in connection.execute(
                    "select column_name from information_schema.columns where table_schema = 'outlive' "
                    "and table_name = %s order by ordinal_position",
                    (table,),
                )
            ]
            values = " || ', ' || ".join(f"quote_nullable({name}::text)" for name in columns)
            for (row,) in connection.execute(f"select {values} from outlive.{table}"):  # type: ignore[arg-type]
                named = ", ".join(columns)
                lines.append(f"insert into outlive.{table} ({named}) overriding system value values ({row});")
    target.write_text(_nowhere("\n".join(lines) + "\n"))


def _nowhere(sql: str) -> str:
    """Take out where it was frozen: on that very host its worker would be looked for by its lock file."""
    sql = re.sub(r"'[^']*/[0-9a-f]{8}'", "'frozen'", sql)
    return re.sub(r"'[^']*\.lock'", "NULL", sql)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        database = Path(place) / "frozen.db"
        journals = asyncio.run(begin(f"sqlite:///{database}", lambda: dump_sqlite(database, folder / "sqlite.sql")))
        (folder / "journals.jsonl").write_text(journals)
        (folder / "agents.jsonl").write_text(asyncio.run(play_agents(f"sqlite:///{Path(place) / 'agents.db'}")))
    url = shared_server().fresh_database()
    asyncio.run(begin(url, lambda: dump_postgres(url, folder / "postgres.sql")))


if __name__ == "__main__":
    main()
