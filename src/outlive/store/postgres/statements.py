"""Named SQL of this store, with its parameters numbered as the driver wants them.

In the files a parameter is `:name`; the server gets `$1…$n` in the order of
first appearance. Invariant: a statement's text never depends on values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from outlive.store.sqlfile import load_sql

PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(slots=True, frozen=True)
class Statement:
    """The text for the server, and the names of its parameters by position."""

    text: str
    names: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Give the values in the order of the parameters."""
        return [values[name] for name in self.names]


def named_block(name: str) -> str:
    """Give a block of SQL as it is written there."""
    return load_sql("outlive.store.postgres")[name]


@cache
def number_parameters(sql: str) -> Statement:
    """Turn `:name` into `$n`."""
    names: dict[str, int] = {}

    def position(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}"

    return Statement(PARAMETER.sub(position, sql), tuple(names))


@cache
def statement(name: str) -> Statement:
    """Give a block of SQL, ready to be sent."""
    return number_parameters(named_block(name))
