"""Stand-ins: how msgspec is made to decode the hints that it cannot decode by itself.

What it cannot tell apart or restore (a union of two classes, fields set after
`__init__`, enums of odd values) is replaced by a class that `revive` decodes in
Python. A member of such a union is stored under the name of its type:
`{"Card": {...}}`.
"""

from __future__ import annotations

import enum
import functools
import operator
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from outlive.codec.hints import Field, arms_of, bare, class_of, fields_of, is_pydantic, parts_of, remembered, show


class _StandIn(type):
    """Passes msgspec's check that a decoded value is an instance of the class that was asked for."""

    read: Callable[[Any], Any]
    arms: dict[str, Any]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def _stand_in(read: Callable[[Any], Any], arms: dict[str, Any] | None = None) -> _StandIn:
    return _StandIn("StandIn", (), {"read": staticmethod(read), "arms": arms or {}})


def _builds(hint: Any) -> bool:
    try:
        msgspec.json.Decoder(hint)
    except TypeError:
        return False
    return True


def _is_late(hint: Any) -> bool:
    return any(field.parameter != field.name for field in fields_of(hint) or ())


@remembered
def decodable(hint: Any) -> Any:
    """Give the hint that msgspec can decode in place of this one: itself, if that needs no stand-in."""
    if _builds(hint) and not any(_is_late(part) for part in parts_of(hint)):
        return hint
    hint = bare(hint)
    arms, arguments, cls = arms_of(hint), typing.get_args(hint), class_of(hint)
    if arms:
        joined = functools.reduce(operator.or_, [decodable(arm) for arm in arms])
        return joined if _builds(joined) else _either(arms)
    if cls is typing.Literal:
        return _stand_in(functools.partial(_read_literal, arguments))
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return _stand_in(cls.__getitem__)
    if fields_of(hint) is not None and not issubclass(cls, msgspec.Struct):
        return _stand_in(functools.partial(_read_record, hint))
    return cls[tuple(one if one is ... else decodable(one) for one in arguments)] if arguments else hint


def _either(arms: tuple[Any, ...]) -> _StandIn:
    names = [show(arm) for arm in arms]
    named = {name if names.count(name) == 1 else str(arm): arm for name, arm in zip(names, arms, strict=True)}

    def read(raw: Any) -> Any:
        if isinstance(raw, dict) and len(raw) == 1 and next(iter(raw)) in named:
            ((name, inner),) = raw.items()
            return convert(inner, named[name])
        for arm in arms:  # stored before the union had this member, or written by hand
            try:
                return convert(raw, arm)
            except (ValueError, TypeError):
                continue
        raise ValueError(f"Expected one of {', '.join(named)}, got `{type(raw).__name__}`")

    return _stand_in(read, named)


def _read_literal(members: tuple[Any, ...], raw: Any) -> Any:
    for member in members:
        plain = member.value if isinstance(member, enum.Enum) else member
        if type(plain) is type(raw) and plain == raw:
            return member
    raise ValueError(f"Expected one of {members}, got {raw!r}")


def _read_record(hint: Any, raw: Any) -> Any:
    cls, fields = class_of(hint), fields_of(hint) or ()
    if isinstance(raw, list) and issubclass(cls, tuple):
        raw = dict(zip((field.name for field in fields), raw, strict=False))
    if not isinstance(raw, dict) or not getattr(cls, "__required_keys__", frozenset()) <= raw.keys():
        raise ValueError(f"Expected all of `{cls.__name__}`, got {raw!r:.100}")
    values: dict[Field, Any] = {}
    for field in fields:
        try:
            values |= {field: convert(raw[field.name], field.hint)} if field.name in raw else {}
        except ValueError as problem:
            raise ValueError(f"{problem} - at `$.{field.name}`") from problem
    made = cls(**{field.parameter: value for field, value in values.items() if field.parameter})
    for field, value in values.items():
        if field.parameter is None:
            object.__setattr__(made, field.name, value)
    return made


def convert(raw: Any, hint: Any) -> Any:
    """Turn plain JSON data into a value of this hint."""
    return msgspec.convert(raw, decodable(hint), str_keys=True, dec_hook=revive)


def revive(cls: Any, raw: Any) -> Any:
    """Decode what msgspec asks about: stand-ins, pydantic models, subclasses of plain types."""
    if isinstance(cls, _StandIn):
        return cls.read(raw)
    if is_pydantic(cls):
        return cls.model_validate_json(msgspec.json.encode(raw))
    return cls(raw) if isinstance(cls, type) and type(raw) in (str, int, float) and type(raw) in cls.__mro__ else raw
