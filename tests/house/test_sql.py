"""SQL is source code: every block says what it does, is used, and has its twin in the other store."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from tests.house.source import MODULES, PACKAGE

BLOCK = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)
PART = re.compile(r"^(\w+) as (?:(?:not )?materialized )?\(", re.MULTILINE)
NAME = re.compile(r"[a-z]+(_[a-z]+)+")
SQLITE, POSTGRES = PACKAGE / "store" / "sqlite", PACKAGE / "store" / "postgres"

# Parts of which a statement has one: the fence of a batch, or what stands for it; whoever asks runs to cancel.
INSTEAD_OF_EACH_OTHER = """
    cancel_runs close_children insert_schedule list_bounded lock_fence pass_fence place_runs skip_bounded skip_runs
    update_schedule
"""

# Blocks that only one store has, by reason.
ONE_SIDED = {
    "under its one write lock SQLite looks first and writes then; PostgreSQL does it in one statement": """
        any_generation any_request bump_epoch check_fence delete_beat delete_ended_requests delete_live find_account
        find_entries find_generations find_recipient find_row find_worker forget_workers insert_live list_awaited
        list_dead list_due list_held_cancels list_lanes list_mailed list_newly_awaited list_requested list_suspects
        list_finished pin_live quarantine_owned read_claimable release_owned take_owned
    """,
    "what the next generation of a run takes is one statement of PostgreSQL's, several of SQLite's": """
        clear_entries end_generation find_standing forget_accounts forget_blobs forget_entries forget_expenses
        forget_generations forget_messages forget_promises move_entries refresh_live release_children
    """,
    "parts of SQLite's statements that are functions and views of PostgreSQL": "derive_status walk_lanes",
    "SQLite creates its first table itself and has a bug that concerns several processes on one file": """
        count_other_processes create_meta
    """,
    "parts of PostgreSQL's one statement per batch, put together in Python": """
        insert_unique_runs lock_fence pass_fence place_runs skip_bounded skip_entries
        skip_runs skip_unique_runs
    """,
    "what that of PostgreSQL does to a line, SQLite does block by block under its write lock": """
        admit_runs count_admitted delete_admissions end_delays find_delays find_queue insert_admissions list_first
        list_lines list_rooms next_priority room_for_key serve_key walk_keys
    """,
    "PostgreSQL locks the fence of a reservation, SQLite has the write lock": "hold_fence",
    "PostgreSQL locks what a start looks at, SQLite has the write lock": """
        drop_live find_bounded find_duplicate find_id find_limits insert_attribute insert_blob insert_queue
        lock_once lock_queue lock_singleton
    """,
    "server-side units of PostgreSQL that need two snapshots, or work in bulk": """
        claim_line settle_promise sweep_runs take_over wake_mailed withdraw_pause
    """,
    "only PostgreSQL has a clock, a lock and a channel of its own": "lock_schema read_now send_hint",
    "a session of PostgreSQL has a connection of its own, that of SQLite the writer's": "find_place mark_session",
    "PostgreSQL reads the entries of a run by its id as it does by its row": "list_entries",
}


def _blocks(folder: Path) -> list[tuple[Path, str, str]]:
    found = []
    for path in sorted(folder.rglob("*.sql")):
        parts = BLOCK.split(path.read_text(encoding="utf-8"))
        found += [(path, name, body) for name, body in zip(parts[1::2], parts[2::2], strict=True)]
    return found


ALL = [*_blocks(SQLITE), *_blocks(POSTGRES)]


@cache
def _strings(folder: Path) -> frozenset[str]:
    """Give every string in the Python files of a store, and the attribute names they use."""
    found = set()
    for module in MODULES.values():
        if not module.path.is_relative_to(folder) and module.path.parent != folder.parent:
            continue  # what both stores share is beside them
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


@pytest.mark.parametrize(("path", "name", "body"), ALL, ids=[f"{path.parent.name}-{name}" for path, name, _ in ALL])
def test_block(path, name, body):
    place = f"{path.parent.name}/{path.name}: {name}"
    assert NAME.fullmatch(name), f"{place}: a block is called verb_noun"
    first = body.strip().splitlines()[0]
    assert first.startswith("-- "), f"{place}: a comment line below the name says what the block does"
    store = SQLITE if path.is_relative_to(SQLITE) else POSTGRES
    assert name in _strings(store), f"{place}: no .py file of this store, or beside it, names it"


def test_names_are_unique_within_a_store():
    for folder in (SQLITE, POSTGRES):
        names = [name for _, name, _ in _blocks(folder)]
        assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_both_stores_have_the_same_blocks():
    sqlite, postgres = ({name for _, name, _ in _blocks(folder)} for folder in (SQLITE, POSTGRES))
    listed = {name for names in ONE_SIDED.values() for name in names.split()}
    assert sorted(sqlite ^ postgres) == sorted(listed), "blocks of one store are listed above, with a reason"


def test_parts_of_one_statement_do_not_share_names():
    """PostgreSQL refuses a WITH that has a name twice, and a batch may hold any of these parts."""
    alternatives = {frozenset(pair) for pair in combinations(INSTEAD_OF_EACH_OTHER.split(), 2)}
    parts: dict[str, set[str]] = {}
    for _, name, body in _blocks(POSTGRES):
        statement = re.sub(r"^--.*$", "", body, flags=re.MULTILINE).strip()
        if PART.match(statement):
            for part in PART.findall(statement):
                parts.setdefault(part, set()).add(name)
    shared = {part: names for part, names in parts.items() if not _may_share(names, alternatives)}
    assert not shared


def _may_share(names: set[str], alternatives: set[frozenset[str]]) -> bool:
    return all(frozenset(pair) in alternatives or _stand_in(*pair) for pair in combinations(sorted(names), 2))


def _stand_in(one: str, other: str) -> bool:
    return {one.partition("_")[0], other.partition("_")[0]} == {"insert", "skip"}


def test_sql_files_without_blocks_are_migrations():
    bare = [
        path
        for folder in (SQLITE, POSTGRES)
        for path in folder.rglob("*.sql")
        if not BLOCK.search(path.read_text(encoding="utf-8")) and "migrations" not in path.parts
    ]
    assert not bare
