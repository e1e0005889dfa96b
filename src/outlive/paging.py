"""Pages: how a list that may be long is read, a part at a time.

Invariant: `next` is None at the end, also where the last page is full: one row more is read than is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")
Item = TypeVar("Item")
Cursor = TypeVar("Cursor")

_ROWS_MAX = 2**31 - 1  # the largest limit that PostgreSQL takes


@dataclass(frozen=True)
class Page(Generic[Item, Cursor]):
    """A part of a list; `next` is the `after` (of a ledger, the `before`) of the following page, None at the end."""

    items: list[Item]
    next: Cursor | None


def one_more(limit: int) -> int:
    """Give how many rows to read for a page."""
    return min(limit, _ROWS_MAX - 1) + 1


def make_page(
    rows: Sequence[Row], limit: int, read: Callable[[Row], Item], place: Callable[[Row], Cursor]
) -> Page[Item, Cursor]:
    """Make a page of rows, of which one more may have been read than it shows."""
    shown = rows[:limit]
    return Page([read(row) for row in shown], place(shown[-1]) if len(rows) > limit else None)
