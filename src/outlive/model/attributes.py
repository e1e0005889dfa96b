"""What a start says about its run for people who search: checked here, and spelled as the index has it.

Attributes are plain JSON whatever the app's codec is, since a database cannot search what it cannot
read. Text, numbers and booleans up to a length are indexed by name and value; anything else is only
kept. Pure. Invariant: values that are equal have one spelling, `42` and `42.0` too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from outlive.errors import UsageError
from outlive.limits import ATTRIBUTE_NAME_MAX_CHARS, ATTRIBUTE_VALUE_MAX_CHARS, ATTRIBUTES_MAX

_WHOLE_MAX = 2**53  # above it a float has no exact neighbour


def check_attributes(attributes: Any) -> dict[str, Any]:
    """Give the attributes of a start as a dict of their own."""
    if not isinstance(attributes, Mapping):
        raise UsageError(f"attributes=… is a mapping, not {attributes!r}")
    if len(attributes) > ATTRIBUTES_MAX:
        raise UsageError(f"a run has at most {ATTRIBUTES_MAX} attributes, not {len(attributes)}")
    for name in attributes:
        if not isinstance(name, str) or not 1 <= len(name) <= ATTRIBUTE_NAME_MAX_CHARS or not name.isprintable():
            raise UsageError(
                f"a name in attributes=… has 1 to {ATTRIBUTE_NAME_MAX_CHARS} printable characters, not {name!r}"
            )
    return dict(attributes)


def read_attributes(text: str | None) -> Any:
    """Give the stored attributes of a run, None if it has none."""
    return None if text is None else json.loads(text)


def index_attributes(text: str | None) -> Iterator[tuple[str, str]]:
    """Give name and value of each attribute that can be searched for."""
    if text is None:
        return
    attributes = msgspec.json.decode(text)
    if isinstance(attributes, dict):
        for name, value in attributes.items():
            spelled = spell(value)
            if spelled is not None and len(spelled) <= ATTRIBUTE_VALUE_MAX_CHARS:
                yield name, spelled


def spell(value: Any) -> str | None:
    """Give the text under which a value is found; None for what is not indexed."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float() if value.is_integer() and abs(value) < _WHOLE_MAX:
            return str(int(value))
        case int() | float():
            return repr(value)
    return None


def spellings(text: str) -> tuple[str, ...]:
    """Give the values that a word of a query may mean: the text itself, and the number that it writes otherwise."""
    try:
        number = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return (text,)
    spelled = spell(number) if isinstance(number, int | float) else None
    return (text,) if spelled in (None, text) else (text, str(spelled))
