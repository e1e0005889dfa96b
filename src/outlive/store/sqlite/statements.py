"""The user's SQL: `$1…$n` parameters, and rows that are read by name or by position.

Pure: knows no connection. Text that only looks like a parameter, within
literals, quoted names, comments or identifiers, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from outlive.errors import UsageError

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]   # literals and quoted names
      | --[^\n]* | /\*.*?(?:\*/|\Z)                                     # comments
      | [^\W\d][\w$]*                                                   # identifiers may hold a dollar sign
      | \$([1-9]\d*)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """A statement as SQLite takes it, and which argument goes into each of its parameters."""

    sql: str
    order: tuple[int, ...]

    def arrange(self, args: Sequence[Any]) -> Sequence[Any]:
        """Give the arguments in the order of the parameters; one without `$n` takes them as they are."""
        if not self.order:
            return args
        if max(self.order) + 1 != len(args):
            raise UsageError(
                f"the statement expects {max(self.order) + 1} arguments, {len(args)} were given: {self.sql!r}"
            )
        return [args[place] for place in self.order]


@lru_cache(maxsize=1024)
def convert(sql: str) -> Statement:
    """Write each `$n` as `?`: some versions of Python warn of numbered parameters."""
    order: list[int] = []

    def replace(token: re.Match[str]) -> str:
        if token[1] is None:
            return token[0]
        order.append(int(token[1]) - 1)
        return "?"

    return Statement(_TOKEN.sub(replace, sql), tuple(order))


class Record(Sequence[Any]):
    """One row of a user's query."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._values[key]
        try:
            return self._values[self._names.index(key)]
        except ValueError:
            raise KeyError(f"no column {key!r}, there are {', '.join(self._names)}") from None

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self._values == other._values
        return self._values == other

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"<Record {' '.join(f'{name}={value!r}' for name, value in self.items())}>"

    def keys(self) -> tuple[str, ...]:
        """Give the column names."""
        return self._names

    def values(self) -> tuple[Any, ...]:
        """Give the values."""
        return self._values

    def items(self) -> Iterator[tuple[str, Any]]:
        """Give names with values."""
        return zip(self._names, self._values, strict=True)
