"""Named SQL: splits a `.sql` file of this package into its blocks.

A block begins with `-- name: verb_noun`; comment lines right below say what it
does and which isolation it counts on. Both stores use the same names.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: *([a-z_.]+) *$", re.MULTILINE)


@cache
def load_sql(package: str, filename: str) -> dict[str, str]:
    """Give the blocks of a file by name."""
    text = files(package).joinpath(filename).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return dict(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True))
