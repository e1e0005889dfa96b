"""Reads what msgspec does not: hints that hold a union of several classes, at whatever depth.

The JSON carries no names of classes. A member of a union is the first one that
reads the data and writes the same again; where two would, a value of the second
does not come back equal, and is refused when it is written.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Union

import msgspec

from outlive.codec.plain import ENCODER, fields_of

Read = Callable[[Any], Any]
Revive = Callable[[Any, Any], Any]


def make_reader(hint: Any, revive: Revive) -> Read:
    """Give the function that turns plain JSON data into a value. TypeError for a hint that cannot be read."""

    def reader_of(part: Any) -> Read:
        return make_reader(part, revive)

    try:
        msgspec.json.Decoder(hint)
    except TypeError:
        origin, parts = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return reader_of(parts[0])
        if origin in (Union, types.UnionType) and any(map(_is_record, parts)):
            others = tuple(part for part in parts if not _is_record(part))
            joined = [reader_of(Union[others])] if others else []  # noqa: UP007 - made of a tuple
            return _first_of([*joined, *(reader_of(part) for part in parts if _is_record(part))])
        if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
            return _record_of(hint, {name: reader_of(part) for name, part in typing.get_type_hints(hint).items()})
        if origin is dict:
            key, value = reader_of(types.GenericAlias(dict, (parts[0], Any))), reader_of(parts[1])
            return lambda raw: {name: value(item) for name, item in key(raw).items()}
        if origin is tuple and parts[-1] is not ...:
            readers = [reader_of(part) for part in parts]
            return lambda raw: tuple(read(item) for read, item in zip(readers, raw, strict=True))
        if origin in (list, set, frozenset, tuple):
            read = reader_of(parts[0])
            return lambda raw: origin(read(item) for item in raw)
        raise
    return lambda raw: msgspec.convert(raw, hint, str_keys=True, dec_hook=revive)


def _is_record(hint: Any) -> bool:
    """Say whether values of a hint are objects in JSON that have the fields of a class."""
    cls = typing.get_origin(hint) or hint
    return typing.is_typeddict(cls) or (isinstance(cls, type) and fields_of(cls) is not None)


def _first_of(readers: list[Read]) -> Read:
    def read(raw: Any) -> Any:
        fitting: list[Any] = []
        problems = []
        for reader in readers:
            try:
                value = reader(raw)
            except (ValueError, TypeError) as problem:
                problems.append(str(problem))
                continue
            written = msgspec.json.decode(ENCODER.encode(value))
            if written == raw:
                return value
            has_same_fields = isinstance(written, dict) and isinstance(raw, dict) and written.keys() == raw.keys()
            fitting.insert(0 if has_same_fields else len(fitting), value)  # with a set, which has no order
        if not fitting:
            raise ValueError("; ".join(problems))
        return fitting[0]

    return read


def _record_of(cls: Any, readers: dict[str, Read]) -> Read:
    def read(raw: Any) -> Any:
        if not isinstance(raw, dict) or not getattr(cls, "__required_keys__", frozenset()) <= raw.keys():
            raise ValueError(f"Expected all of `{cls.__name__}`, got {raw!r:.100}")
        return cls(**{name: reader(raw[name]) for name, reader in readers.items() if name in raw})

    return read
