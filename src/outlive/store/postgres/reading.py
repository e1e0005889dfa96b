"""From filters to SQL, from the driver's rows to the values of the seam. Pure.

Invariant: the text of a listing depends on which filters are set, never on
their values.
"""

from __future__ import annotations

from typing import Any

from outlive.model.reads import Claimed, EntryRow, RunQuery, RunRow
from outlive.model.status import FINAL
from outlive.model.writes import Outcome
from outlive.store.postgres.statements import named_block


def compose_list(
    query: RunQuery, run_id: str | None = None, parent_row: int | None = None, unfinished: bool = False
) -> tuple[str, list[Any]]:
    """Give the statement that lists runs by these filters, and its arguments. A limit of 0 is none."""
    conditions: list[str] = []
    arguments: list[Any] = []

    def add(condition: str, value: Any) -> None:
        arguments.append(value)
        conditions.append(condition.format(f"${len(arguments)}"))

    if run_id is not None:
        add("id = {}", run_id)
    if parent_row is not None:
        add("parent_row = {}", parent_row)
    if query.statuses:
        add("status = any ({}::text[])", list(query.statuses))
    if unfinished or (query.statuses and not FINAL & set(query.statuses)):
        conditions.append("row in (select l.row from outlive.live l)")  # history is much longer than what is live
    if query.workflow is not None:
        add("workflow = {}", query.workflow)
    if query.queue is not None:
        add("queue = {}", query.queue)
    if query.id_prefix:
        add("starts_with(id, {})", query.id_prefix)
    if query.created_after is not None:
        add("created_at >= to_timestamp({}::float8)", query.created_after)
    if query.created_before is not None:
        add("created_at < to_timestamp({}::float8)", query.created_before)
    if query.after is not None:
        add("row < {}", query.after)
    where = f" where {' and '.join(conditions)}" if conditions else ""
    # children in the order of their start, lists for people newest first
    order = " order by row" + ("" if parent_row is not None else " desc")
    if query.limit:
        arguments.append(query.limit)
        order += f" limit ${len(arguments)}"
    return named_block("select_runs") + where + order, arguments


def to_run(row: Any) -> RunRow:
    """Give a row of `select_runs`."""
    return RunRow(**row)


def to_claimed(row: Any) -> Claimed:
    """Give a row of `claim_runs`."""
    facts = dict(row)
    del facts["stands"]
    return Claimed(**facts)


def to_entry(record: Any) -> EntryRow:
    """Give a row of `load_entries`; by position, since a recovery reads many."""
    row: tuple[int, str, int | None, str, str, str | None, Outcome, str | None, str | None, int, float, float | None, str]
    row = tuple(record)
    return EntryRow(*row[1:])
