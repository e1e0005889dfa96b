"""Values taken apart: what of a value cannot be stored, and what of it did not come back, each with its path.

`jsontext` asks here only when msgspec's own text of a value does not read back equal.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

_KEYS = (str, int, float, enum.Enum, bytes, uuid.UUID, decimal.Decimal, dt.date, dt.time, dt.timedelta)
_LEAVES = (bytearray, memoryview, *_KEYS)
_ORDERED = frozenset({str, int})
_SCALARS = frozenset({str, int, float, bool, type(None)})


def name_class(cls: type) -> str:
    """Give the qualified name of a class, under which errors are recorded, too."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def storable_text(text: str) -> str:
    """Put something else for what no database stores as text: NUL, and halves of characters."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def storable(value: Any) -> Any:
    """Put something else for what of JSON data no database stores as text: who said it may say anything."""
    try:
        if b"\\u0000" not in msgspec.json.encode(value):
            return value
    except UnicodeEncodeError:
        pass
    return _storable(value)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(part) for key, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list) else value


class Unfit(Exception):
    """What is wrong with a part of a value; `path` grows on the way up."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""


def is_pydantic(cls: Any) -> bool:
    """Say whether this is a model class of pydantic, which is never imported for it."""
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump_json")


def _encode_unknown(value: Any) -> Any:
    """Give msgspec something that it can write: the data of a model, the plain value of a subclass."""
    if is_pydantic(type(value)):
        return msgspec.Raw(value.model_dump_json(by_alias=True, round_trip=True).encode())
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dt.datetime):
        return dt.datetime.combine(dt.date(*value.timetuple()[:3]), value.timetz())
    if isinstance(value, dt.date):
        return dt.date(value.year, value.month, value.day)
    raise TypeError(f"{name_class(type(value))} cannot be stored as JSON")


def _encode_steadily(value: Any) -> Any:
    """Do the same without the order in which a model writes its sets."""
    return value.model_dump(by_alias=True, round_trip=True) if is_pydantic(type(value)) else _encode_unknown(value)


ENCODER = msgspec.json.Encoder(enc_hook=_encode_unknown)
STEADY_ENCODER = msgspec.json.Encoder(enc_hook=_encode_steadily, order="sorted")  # equal values, equal bytes


@functools.lru_cache(maxsize=1024)
def fields_of(cls: Any) -> tuple[str, ...] | None:
    """Give the names of the fields of a dataclass, attrs class, Struct, NamedTuple or model, of anything else None."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(field.name for field in cls.__attrs_attrs__)
    if is_pydantic(cls):
        return tuple(cls.model_fields)
    return getattr(cls, "__struct_fields__", None) or getattr(cls, "_fields", None)


def compares_whole(cls: Any) -> bool:
    """Say whether equal instances of a class have equal fields: no field is left out, no `__eq__` hand-written."""
    cls = typing.get_origin(cls) or cls
    fields = [*getattr(cls, "__dataclass_fields__", {}).values(), *getattr(cls, "__attrs_attrs__", ())]
    code = getattr(getattr(cls, "__eq__", None), "__code__", None)
    generated = code is None or code.co_filename.startswith(("<string>", "<attrs generated")) or is_pydantic(cls)
    return generated and all(getattr(field, "compare", True) and getattr(field, "eq", True) for field in fields)


def _parts_of(value: Any) -> Mapping[Any, Any] | None:
    """Give the parts of a record, dict, list or tuple by key, None of anything else."""
    cls: Any = type(value)
    fields = fields_of(cls)
    if fields is not None:
        return {name: getattr(value, name) for name in fields if hasattr(value, name)}
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, (list, tuple)) else None


def check_sets(value: Any) -> None:
    """Raise Unfit where a value has a set that sorting does not bring into one order, as a set of sets."""
    kind = type(value)
    if kind in _SCALARS:
        return
    if isinstance(value, (set, frozenset)):
        if not _ORDERED.issuperset(map(type, value)):
            raise Unfit("a set whose items have no order")
        return
    parts = value if kind in (dict, list, tuple) else _parts_of(value)
    if parts is not None:
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            check_sets(part)


def lower(value: Any, loose: bool = False, in_model: bool = False) -> Any:
    """Give a value as data that the encoder writes as it is, with sets in one order. Raises Unfit.

    What is `loose` is only compared, never read back: NaN, NUL and any key may pass. `in_model` marks the
    data of a pydantic model, which has types of its own.
    """
    if isinstance(value, enum.Enum):
        return lower(value.value, loose)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return _text(value, loose)
    if isinstance(value, decimal.Decimal):
        broken = value.is_nan()
    else:
        broken = isinstance(value, float) and not math.isfinite(value)
    if broken and not loose:
        raise Unfit(f"{name_class(type(value))} {value} cannot be stored as JSON")
    if isinstance(value, _LEAVES):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted((lower(item, loose, in_model) for item in value), key=ENCODER.encode)
    if is_pydantic(type(value)):
        data = lower(value.model_dump(by_alias=True, round_trip=True), loose, in_model=True)
        return data if loose else value
    parts = _parts_of(value)
    if parts is None:
        if in_model:
            return str(value)
        raise Unfit(f"{name_class(type(value))} cannot be stored as JSON")
    made = {key: _within(key, lower, part, loose, in_model) for key, part in parts.items()}
    if isinstance(value, (list, tuple)):
        return list(made.values())
    if not isinstance(value, msgspec.Struct):
        return {_key(key, loose): part for key, part in made.items()}
    twin = copy.copy(value)  # keeps the tag, the renamed fields and the left out defaults of the Struct
    for name, lowered in made.items():
        msgspec.structs.force_setattr(twin, name, lowered)
    return twin


def compare(value: Any, back: Any) -> None:
    """Raise Unfit where a value would not come back. What no hint declares comes back as plain JSON data."""
    kind: Any = type(value)
    other: Any = type(back)
    parts = _parts_of(value)
    if parts is None:
        if isinstance(value, str) and isinstance(back, (bytes, bytearray, memoryview)):
            raise Unfit(f"a str where {other.__name__} is declared")
        if (isinstance(value, other) or {kind, other} == {int, float}) and value != back:
            raise Unfit(f"{value!r:.200} would come back as {back!r:.200}")
        return
    others = _parts_of(back)
    is_record = fields_of(kind) is not None
    if others is None or is_record is (fields_of(other) is None):
        return
    if is_record and kind is not other:
        raise Unfit(
            f"a {kind.__name__} would come back as {other.__name__}; declare {kind.__name__}, or if fields do not tell "
            "the members of a union apart, make them msgspec.Structs with tag=True"
        )
    for key, part in parts.items():
        if key not in others:
            name = name_class(type(key))
            problem = f"key {key!r} is of type {name} and would come back as text; declare dict[{name}, ...]"
            raise Unfit("it would not come back" if isinstance(key, str) else problem)
        _within(key, compare, part, others[key])


def _within(key: Any, look: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return look(*arguments)
    except Unfit as unfit:
        named = isinstance(key, str) and key.isidentifier()
        unfit.path = (f".{key}" if named else f"[{key!r}]") + unfit.path
        raise


def _key(key: Any, loose: bool) -> Any:
    if isinstance(key, bool) or not isinstance(key, _KEYS):
        raise Unfit(f"key {key!r} is of type {name_class(type(key))}, which cannot be a key in JSON")
    try:
        return lower(key, loose)
    except Unfit as unfit:
        raise Unfit(f"key {key!r}: {unfit.problem}") from None


def _text(value: str, loose: bool) -> str:
    if "\x00" in value and not loose:
        raise Unfit("text with a NUL character cannot be stored")
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise Unfit(f"text with the lone surrogate {value[problem.start]!r} cannot be stored") from None
    return str.__str__(value)
