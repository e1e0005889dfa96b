"""The user's SQL: `$1…$n` parameters, and rows that are read by name or by position.

Pure: knows no connection. SQLite takes `$1` for a parameter called 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from outlive.errors import UsageError

# Text that only looks like a parameter is matched first: literals, quoted names, comments, identifiers.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
      | --[^\n]* | /\*.*?(?:\*/|\Z)
      | [^\W\d][\w$]*
      | \$([1-9]\d*)""",
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=1024)
def _count_parameters(sql: str) -> int:
    return max((int(token[1]) for token in _TOKEN.finditer(sql) if token[1]), default=0)


def arrange(sql: str, args: Sequence[Any]) -> dict[str, Any]:
    """Give the arguments by the names of their parameters."""
    expected = _count_parameters(sql)
    if expected != len(args):
        raise UsageError(f"the statement expects {expected} arguments, {len(args)} were given: {sql!r}")
    return {str(number): value for number, value in enumerate(args, 1)}


class Record(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has no slots for names
    """One row of a user's query: a tuple that also has names."""

    _names: tuple[str, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], values: Sequence[Any]) -> Record:
        record = cls(values)
        record._names = names
        return record

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._names:
            raise KeyError(f"no column {key!r}, there are {', '.join(self._names)}")
        return super().__getitem__(self._names.index(key))

    def keys(self) -> tuple[str, ...]:
        """Give the column names."""
        return self._names
