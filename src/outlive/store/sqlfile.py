"""Named SQL: reads the blocks of a store's `.sql` files, one file for each topic.

A block begins with `-- name: verb_noun`; comment lines right below say what it
does and which isolation it counts on. Both stores use the same names.
Invariant: a name stands in one file of a store only.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: *([a-z_.]+) *$", re.MULTILINE)


@cache
def load_sql(package: str) -> dict[str, str]:
    """Give all blocks in the folder `sql` of a package, by name."""
    blocks: dict[str, str] = {}
    for file in files(package).joinpath("sql").iterdir():
        parts = _NAME.split(file.read_text(encoding="utf-8"))
        blocks.update(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True))
    return blocks
