"""How commands print: tables of plain text for people, one JSON document for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from outlive.inbox import visible

VALUE_MAX_CHARS = 60
ERROR_MAX_CHARS = 160


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, BaseException):
        return {"type": type(value).__qualname__, "message": str(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need."""
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def as_json(value: Any, max_chars: int | None = VALUE_MAX_CHARS) -> str:
    """Give a value as JSON that fits into a table, or all of it."""
    text = visible(json.dumps(value, default=_plain, ensure_ascii=False))
    return text if max_chars is None else cut(text, max_chars)


def cut(text: str, max_chars: int = ERROR_MAX_CHARS) -> str:
    """Give a text as one line that fits into a table."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def when(at: datetime | None) -> str:
    """Give an instant in UTC, to the second."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasted(start: datetime | None, end: datetime | None) -> str:
    """Give a duration in the unit that suits it."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
