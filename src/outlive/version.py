"""The code version of a workflow: a hash that changes when its function's code or the names it calls change.

Hashed are the byte code, names and constants of the function and of functions
nested in it; not line numbers, comments, docstrings or what a called step does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from hashlib import blake2b
from types import CodeType
from typing import Any


def version_of(function: Callable[..., Any]) -> str:
    """Give the version of a workflow function, 12 hex characters."""
    made = blake2b(digest_size=6)
    code = getattr(inspect.unwrap(function), "__code__", None)
    for part in _parts(code) if code is not None else [repr(function)]:
        made.update(part.encode() if isinstance(part, str) else part)
        made.update(b"\0")
    return made.hexdigest()


def _parts(code: CodeType) -> list[str | bytes]:
    parts: list[str | bytes] = [code.co_code, *code.co_names, *code.co_varnames, *code.co_freevars]
    for index, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            parts.extend(_parts(constant))
        elif isinstance(constant, frozenset):
            parts.append(repr(sorted(map(repr, constant))))
        elif not (index == 0 and isinstance(constant, str)):  # a docstring, or a text that the byte code loads anyway
            parts.append(repr(constant))
    return parts
