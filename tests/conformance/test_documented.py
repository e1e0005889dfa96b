"""docs/explain/stores.md names every table and every view, each view with its columns in their order."""

from __future__ import annotations

import re

from tests.conformance.test_transactions import open_till
from tests.house.source import ROOT

PAGE = (ROOT / "docs" / "explain" / "stores.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^\| `outlive\.(\w+)` \| `ol_(\w+)` \|", PAGE, re.MULTILINE)
VIEWS = dict(re.findall(r"^\| `(outlive_\w+)` \| (`.+`) \|$", PAGE, re.MULTILINE))

POSTGRES = """
select t.table_type = 'VIEW', t.table_name, string_agg('`' || c.column_name || '`', ' ' order by c.ordinal_position)
from information_schema.tables t join information_schema.columns c using (table_schema, table_name)
where table_schema = 'outlive' group by 1, 2
"""
SQLITE = """
select m.type = 'view', m.name, group_concat('`' || c.name || '`', ' ')
from sqlite_master m join pragma_table_info(m.name) c
where m.type in ('table', 'view') and m.name not like 'sqlite%' group by 1, 2
"""
INTERNAL = {"live_lines"}  # a view of the claim's own, which no one else reads


async def test_tables_and_views_are_on_the_page(database):
    async with open_till(database) as till:
        tx = await till.store.begin(5.0)
        found = await tx.fetch(POSTGRES if database.kind == "postgres" else SQLITE)
        await tx.rollback()
    views = {name: columns for is_view, name, columns in map(tuple, found) if is_view and name not in INTERNAL}
    tables = {name.removeprefix("ol_") for is_view, name, _ in map(tuple, found) if not is_view}
    assert views == VIEWS
    assert tables - {"accounts"} == {name for name, _ in TABLES}  # the till's own table is the user's
    assert all(postgres == sqlite for postgres, sqlite in TABLES)
