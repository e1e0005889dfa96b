"""Puts a batch into one statement: a CTE per kind of write, only those that the batch needs.

Pure: makes text and arguments, reads the answer; who sends it is another's
business. The text depends only on which parts are there, so the driver
prepares each combination once. Invariant: everything derives from the fence
row that the same statement locks, and what belongs to an entry from its insert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Sized
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec

from outlive.model.writes import (
    Batch,
    EntryWrite,
    Fence,
    Finish,
    Mark,
    Release,
)
from outlive.store.blobs import Blob, Blobs
from outlive.store.interface import WriteRefused
from outlive.store.postgres.statements import Statement, named_block, number_parameters

Values = dict[str, Any]
_FINISH = ("row", "claim", "status", "output", "error", "started_at")
_RELEASE = ("row", "claim", "wake_at", "hold", "hold_reason")
_RECORDS = ("entry", "run")
_PAYLOADS = ("entry", "run", "entry_value", "entry_error", "run_input", "finish_output", "finish_error", "blob_text")
STATEMENT_MAX_CHARS = 200 * 1024 * 1024  # a message of PostgreSQL has at most 1 GB, and a character up to 4 bytes
_MARK = ("row", "claim", "in_user_code", "clear_crashes")
_ARRAYS = re.compile(r"unnest\(((?:\s*cast\(:\w+ as \w+\[\]\),?\s*)+)\)")
_KEYS = re.compile(r"any \(cast\(:(\w+) as (\w+)\[\]\)\)")
_ROWS = re.compile(r"json_to_recordset\(cast\(:(\w+) as json\)\) as g \(([^)]+)\)")
_ID = attrgetter("id")
_encode = msgspec.json.Encoder().encode
_FINAL = "select (select count(*) from fence) as fenced, array(select r.row from refused r) as refused"


@cache
def assemble(parts: tuple[str, ...], single: bool) -> Statement:
    """Give the statement made of these blocks; `single` if no kind of write has more than one row.

    Then scalars take the place of arrays and records, which saves the server 40 µs of the 400 that a lone entry takes.
    """
    final = _FINAL + (", (select count(*) from started) as started" if "insert_runs" in parts else ", 0 as started")
    text = "with " + ",\n".join(named_block(part) for part in parts) + "\n" + final
    if single:
        text = _ROWS.sub(_spell_row, text)
        text = _ARRAYS.sub(lambda found: f"(values ({found[1].replace('[]', '')}))", text)
        text = _KEYS.sub(r"any (array[cast(:\1 as \2)])", text)
    return number_parameters(text)


def _spell_row(found: re.Match[str]) -> str:
    """Give one row of scalars in place of the records of a JSON text."""
    columns = [column.split() for column in found[2].split(",")]
    values = ", ".join(f"cast(:{found[1]}_{name} as {kind})" for name, kind in columns)
    return f"(values ({values})) as g ({', '.join(name for name, _ in columns)})"


def compose(batch: Batch, fence: Fence | None) -> tuple[Statement, list[Any]]:
    """Give the statement and the arguments that write a batch."""
    values: Values = {"worker": None, "epoch": None}
    if fence is None:
        _check_unfenced(batch)
        parts = ["pass_fence"]
    else:
        values["worker"], values["epoch"] = fence.worker, fence.epoch
        parts = ["lock_fence"]
    blobs = Blobs()
    if batch.large:
        batch = blobs.move_out_of(batch)
    if batch.entries:
        parts.append("insert_entries")
        values["entry"] = entries = _settle_within(batch.entries)
        values["entry_count"] = len(entries)
    else:
        parts.append("skip_entries")
    if batch.starts:
        parts.append("insert_runs")
        values["run"] = sorted(batch.starts, key=_ID)  # two batches that insert the same ids wait in the same order
    if blobs:
        parts += ["insert_blobs"] if batch.starts else ["skip_runs", "insert_blobs"]
        _add_rows(values, "blob", ("row", "name", "text"), blobs)
    if batch.finishes:
        parts.append("finish_run")
        _add_rows(values, "finish", _FINISH, batch.finishes)
        if closing := [finish for finish in batch.finishes if finish.close_reason is not None]:
            parts.append("close_children")
            values["close_row"] = [finish.row for finish in closing]
            values["close_reason"] = [finish.close_reason for finish in closing]
    if batch.releases:
        parts.append("release_run")
        _add_rows(values, "release", _RELEASE, batch.releases)
    if marks := _effective_marks(batch):
        parts.append("mark_run")
        _add_rows(values, "mark", _MARK, marks)
    if batch.handled_requests:
        parts.append("delete_request")
        values["request"] = batch.handled_requests
    rows: tuple[Sized, ...] = (batch.starts, batch.entries, batch.finishes, batch.releases, batch.marks, blobs)
    single = max(map(len, rows)) < 2 and len(batch.handled_requests) < 2
    made = assemble(tuple(parts), single)
    values = _only(values) if single else _as_json(values)
    _check_size(values)
    return made, made.arguments(values)


def _as_json(values: Values) -> Values:
    """Send records as one text: an element of an array costs the driver 0.3 µs, and a record has thirteen."""
    try:
        return values | {name: _encode(values[name]).decode() for name in _RECORDS if name in values}
    except UnicodeEncodeError as error:
        raise WriteRefused(f"the database has no such character: {error}") from error


def _only(values: Values) -> Values:
    """Give each value of the one row there is of each kind."""
    only: Values = {}
    for name, value in values.items():
        if name in _RECORDS:
            only |= {f"{name}_{field}": getattr(value[0], field) for field in value[0].__struct_fields__}
        else:
            only[name] = (value[0] if value else None) if isinstance(value, list) else value
    return only


def _check_size(values: Values) -> None:
    """Refuse what the protocol cannot carry: the server would hang up, as if it were gone."""
    chars = 0
    for name in _PAYLOADS:
        found = values.get(name) or ()
        chars += len(found) if isinstance(found, str) else sum(map(len, filter(None, found)))
    if chars > STATEMENT_MAX_CHARS:
        raise WriteRefused(f"a batch of {chars:,} characters is too large for one statement; split it")


def find_collisions(runs: Iterable[tuple[int, str]]) -> set[int]:
    """Give the row numbers that stand with more than one id."""
    first: dict[int, str] = {}
    return {row for row, run_id in runs if first.setdefault(row, run_id) != run_id}


def _check_unfenced(batch: Batch) -> None:
    if len(batch) > len(batch.starts) or any(run.owned or run.parent is not None for run in batch.starts):
        raise WriteRefused("without a fence a batch may only start runs that nobody owns yet")


def _settle_within(entries: list[EntryWrite]) -> list[EntryWrite]:
    """Drop a started entry that the same batch settles: one statement cannot write a row twice."""
    if all(entry.outcome != "started" for entry in entries):
        return entries
    last: dict[tuple[int, str], EntryWrite] = {}
    for entry in entries:
        before = last.get((entry.row, entry.key))
        if before is not None and before.outcome != "started":
            raise WriteRefused(f"the batch has two outcomes for entry {entry.key!r} of run row {entry.row}")
        last[entry.row, entry.key] = entry
    return list(last.values())


def _add_rows(
    values: Values, prefix: str, names: tuple[str, ...], rows: Sequence[Finish | Release | Mark | Blob]
) -> None:
    for name in names:
        values[f"{prefix}_{name}"] = [getattr(row, name) for row in rows]


def _effective_marks(batch: Batch) -> list[Mark]:
    """Give one mark per run, the last one; a run that leaves in this batch needs none."""
    if not batch.marks:
        return []
    left = {finish.row for finish in batch.finishes} | {release.row for release in batch.releases}
    marks: dict[int, Mark] = {}
    for mark in batch.marks:
        before = marks.get(mark.row)
        if before is not None and before.claim == mark.claim and before.clear_crashes:
            mark = Mark(mark.row, mark.claim, mark.in_user_code, clear_crashes=True)
        marks[mark.row] = mark
    return [mark for row, mark in marks.items() if row not in left]
