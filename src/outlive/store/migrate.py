"""Decides which schema migrations to apply; pure, the same for both stores.

A store ships files `0001_title.sql`, `0002_title.sql`, … and records the number
of each one it has applied. This module never reads a file or a database.
Invariant: a database that a newer version of Outlive has changed is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from outlive.errors import SchemaMismatch

_FILE = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


def number_of(filename: str) -> int:
    """Give the version that a migration file leads to."""
    match = _FILE.match(filename)
    if match is None:
        raise ValueError(f"{filename!r} is not named like 0001_title.sql")
    return int(match[1])


def list_pending(found: Iterable[int], shipped: Iterable[str], where: str) -> list[str]:
    """Give the shipped files to apply, in order, to a database that has the versions `found`.

    Raises SchemaMismatch if it has a version that is not shipped: newer code made it.
    """
    files = {number_of(filename): filename for filename in shipped}
    if sorted(files) != list(range(1, len(files) + 1)):
        raise ValueError(f"migrations are not numbered 1 to n without gaps: {sorted(files)}")
    applied = set(found)
    if applied - files.keys():
        raise SchemaMismatch(
            f"{where} has schema version {max(applied)}, this version of Outlive knows up to {max(files, default=0)}: "
            "a newer Outlive has migrated it; upgrade the package in this process"
        )
    return [files[number] for number in sorted(files.keys() - applied)]


def refuse_pending(pending: list[str], found: Iterable[int], where: str) -> None:
    """Raise SchemaMismatch if migrations are pending that the caller was told not to apply."""
    if not pending:
        return
    have = max(found, default=0)
    state = f"has schema version {have}" if have else "has no Outlive schema yet"
    raise SchemaMismatch(
        f"{where} {state}, this version of Outlive needs {number_of(pending[-1])}: "
        "run `outlive db migrate`, or open it with migrate=True"
    )
