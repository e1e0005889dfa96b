"""Makes a used database of the tests as good as new: faster than to create one and to drop one.

Its rows go, its numbers begin again, tables that a test added are dropped. Then
the catalog has to be as it was, to the last row: each row names the transaction
that wrote it, so that any change shows. A database that fails this is not used again.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

LARGEST_BYTES = 256 * 1024  # of a table: what is deleted stays until a vacuum, and would have to be read

_NEWEST = b"select max(oid::bigint) from pg_class"
_STRAYS = "select format('drop table %s cascade', oid::regclass) from pg_class where relkind = 'r' and oid > {newest}"
_WHOLE = ("pg_namespace", "pg_extension", "outlive.meta")
# Each catalog with the column that tells its own rows from those of every database.
_CATALOG = {
    **dict.fromkeys(
        """pg_attrdef pg_cast pg_class pg_collation pg_constraint pg_default_acl pg_event_trigger
        pg_largeobject_metadata pg_operator pg_policy pg_proc pg_publication pg_rewrite
        pg_statistic_ext pg_trigger pg_type""".split(),
        "oid",
    ),
    "pg_attribute": "attrelid",
    "pg_description": "objoid",
    "pg_index": "indexrelid",
    "pg_inherits": "inhrelid",
    "pg_sequence": "seqrelid",
}
_OWN = 16384  # the first oid of what is not built in
_STATE = f"""
    select
      (select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
        where d.datname = current_database()),
      (select datacl::text from pg_database where datname = current_database()),
      {", ".join(f"(select (count(*), max(xmin::text::bigint))::text from {name})" for name in _WHOLE)},
      {
    ", ".join(
        f"(select (count(*), max(xmin::text::bigint))::text from {name} where {oid} >= {_OWN})"
        for name, oid in _CATALOG.items()
    )
}
""".encode()
_EMPTY = b"""
    select coalesce(string_agg(format('delete from %s', c.oid::regclass), '; '), 'select'),
      max(pg_relation_size(c.oid)),
      (select count(setval(format('%I.%I', schemaname, sequencename), start_value, false))
        from pg_sequences where last_value is not null)
    from pg_class c where c.relkind = 'r' and c.relnamespace = 'outlive'::regnamespace and c.relname <> 'meta'
      and (c.relname = 'runs' or pg_relation_size(c.oid) > 0)
"""


@dataclass(frozen=True)
class State:
    """What tells a database that has a schema and nothing else from any other one."""

    newest: int  # the last of its tables, which copies of it have by the same number
    rows: object


def read_state(url: str) -> State:
    """Read the state of a database to be copied."""
    with psycopg.connect(url, autocommit=True) as connection:
        (newest,) = connection.execute(_NEWEST).fetchone() or (0,)
        return State(newest, connection.execute(_STATE).fetchone())


def clean(url: str, state: State) -> bool:
    """Empty a database that nobody uses, and say whether it is in that state then."""
    with psycopg.connect(url, autocommit=True) as connection:
        for (drop,) in connection.execute(_STRAYS.format(newest=state.newest).encode()).fetchall():
            connection.execute(drop.encode())
        try:
            delete, size, _ = connection.execute(_EMPTY).fetchone() or ("", 0, 0)
        except psycopg.errors.InvalidSchemaName:
            return False
        if size is None or size > LARGEST_BYTES:  # the first: there are no tables
            return False
        connection.execute(delete.encode())
        return connection.execute(_STATE).fetchone() == state.rows
