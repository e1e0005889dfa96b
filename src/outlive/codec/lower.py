"""From a value to plain JSON data, step by step, naming the path of whatever cannot be stored.

This is the slow way: `jsontext` takes it only when msgspec's own encoding did not
come back equal. Here nothing changes silently: what the hint cannot restore is
refused, and sets get an order that is the same in every process.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import math
import typing
import uuid
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from outlive.codec.hints import arms_of, bare, class_of, fields_of, is_odd_enum, is_pydantic, show
from outlive.codec.standins import convert, decodable
from outlive.errors import name_class

_LEAVES = (bytes, bytearray, memoryview, uuid.UUID, decimal.Decimal, dt.date, dt.time, dt.timedelta)
_KEYS = (str, int, float, enum.Enum, *_LEAVES)
_JSON = (bool, int, float, str, list, dict)
_SETS = (set, frozenset)


class Unfit(Exception):
    """What is wrong with a part of a value; `path` grows on the way up."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def below(self, key: Any) -> Unfit:
        """Give the same as seen from the container that has the part at this key."""
        if isinstance(key, int):
            return Unfit(self.problem, f"[{key}]{self.path}")
        return Unfit(self.problem, (f".{key}" if str(key).isidentifier() else f"[{key!r}]") + self.path)


def dump_model(model: Any) -> str:
    """Give the JSON text that a pydantic model writes to be read again."""
    return str(model.model_dump_json(by_alias=True, round_trip=True))


def _encode_unknown(value: Any) -> Any:
    if is_pydantic(type(value)):
        return msgspec.Raw(dump_model(value).encode())
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"{name_class(type(value))} cannot be stored as JSON")


ENCODER = msgspec.json.Encoder(enc_hook=_encode_unknown)
STEADY_ENCODER = msgspec.json.Encoder(enc_hook=_encode_unknown, order="deterministic")  # equal dicts, equal bytes


class Lowering:
    """One walk over a value; a `loose` one makes text that is only compared, never read back."""

    def __init__(self, loose: bool = False) -> None:
        self.loose = loose
        self.coerced = False  # plain JSON data stands where the hint has a richer type

    def lower(self, value: Any, hint: Any) -> Any:
        """Give a value of this hint as data that the encoder writes as it is. Raises Unfit."""
        hint = bare(hint)
        if arms_of(hint):
            return self._union(value, hint)
        self._fits(value, hint)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return value.name if is_odd_enum(type(value)) else value.value
        if isinstance(value, str):
            return _text(value, self.loose)
        if isinstance(value, (int, float)):
            return float(value) if self.loose and isinstance(value, float) else _number(value, hint)
        if isinstance(value, dict):
            return self._dict(value, hint)
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return self._items(value, hint)
        if isinstance(value, _SETS):
            return sorted(self._items(value, hint), key=ENCODER.encode)
        if is_pydantic(type(value)):
            return _model(value)
        return self._record(value, hint)

    def _fits(self, value: Any, hint: Any) -> None:
        """Refuse what decoding by the hint would turn into something else without a word."""
        cls, kind = class_of(hint), type(value)
        if kind is cls or hint is Any or not isinstance(cls, type) or typing.is_typeddict(cls):
            return
        if isinstance(value, _SETS) and not issubclass(cls, AbstractSet):
            raise Unfit(f"a {kind.__name__} where {show(hint)} is declared")
        if isinstance(value, str) and issubclass(cls, (bytes, bytearray, memoryview)):
            raise Unfit(f"a str where {show(hint)} is declared")
        if isinstance(value, cls) and (fields_of(cls) is not None or is_pydantic(cls)):
            problem = f"a {kind.__name__} where {show(hint)} is declared would come back as {show(hint)}"
            raise Unfit(f"{problem}; declare {kind.__name__}, or a union of both")
        self.coerced = self.coerced or (kind in _JSON and not issubclass(kind, cls))

    def _union(self, value: Any, hint: Any) -> Any:
        arms = arms_of(hint)
        if value is None and type(None) in arms:
            return None
        named: dict[str, Any] = getattr(decodable(hint), "arms", {})
        fitting = [arm for arm in arms if _is_exactly(value, arm)] or [arm for arm in arms if _is_like(value, arm)]
        if not fitting and named:
            raise Unfit(f"{name_class(type(value))} is none of {show(hint)}")
        self.coerced = self.coerced or not fitting
        arm = _choose(value, fitting) if fitting else Any
        lowered = self.lower(value, arm)
        return next(({name: lowered} for name, one in named.items() if one == arm), lowered)

    def _dict(self, value: dict[Any, Any], hint: Any) -> dict[Any, Any]:
        arguments = typing.get_args(hint)
        key_hint, item_hint = arguments if len(arguments) == 2 and arguments[1] is not ... else (Any, Any)
        hints = {field.name: field.hint for field in fields_of(hint) or ()}
        made = {}
        for key, item in value.items():
            self._check_key(key, bare(key_hint))
            made[key] = self._inside(key, item, hints.get(key, item_hint))
        return made

    def _check_key(self, key: Any, hint: Any) -> None:
        kind = name_class(type(key))
        odd = isinstance(key, enum.Enum) and is_odd_enum(type(key))
        if key is None or isinstance(key, bool) or odd or not isinstance(key, _KEYS):
            raise Unfit(f"key {key!r} is of type {kind}, which cannot be a key in JSON")
        if not isinstance(key, str) and not self.loose and (hint is Any or arms_of(hint)):
            raise Unfit(f"key {key!r} is of type {kind} and would come back as text; declare dict[{kind}, ...]")
        try:
            Lowering(self.loose).lower(key, Any)
        except Unfit as unfit:
            raise Unfit(f"key {key!r}: {unfit.problem}") from None

    def _items(self, value: Any, hint: Any) -> list[Any]:
        arguments = typing.get_args(hint)
        if class_of(hint) is tuple and len(arguments) == len(value) and arguments[1:] != (...,):
            return [self._inside(index, item, arguments[index]) for index, item in enumerate(value)]
        each = arguments[0] if len(arguments) == 1 or arguments[1:] == (...,) else Any
        return [self._inside(index, item, each) for index, item in enumerate(value)]

    def _record(self, value: Any, hint: Any) -> Any:
        cls = type(value)
        fields = fields_of(hint if class_of(hint) is cls else cls)
        if fields is None:
            return _leaf(value)
        present = [one for one in fields if hasattr(value, one.name)]
        made = {one.name: self._inside(one.name, getattr(value, one.name), one.hint) for one in present}
        if isinstance(value, tuple):
            return list(made.values())
        if not isinstance(value, msgspec.Struct):
            return made
        twin = copy.copy(value)  # keeps the tag, the renamed fields and the left out defaults of the Struct
        for name, lowered in made.items():
            msgspec.structs.force_setattr(twin, name, lowered)
        return twin

    def _inside(self, key: Any, value: Any, hint: Any) -> Any:
        try:
            return self.lower(value, hint)
        except Unfit as unfit:
            raise unfit.below(key) from None


def _is_exactly(value: Any, arm: Any) -> bool:
    cls = class_of(arm)
    if cls is typing.Literal:
        return any(type(one) is type(value) and one == value for one in typing.get_args(arm))
    return type(value) is (dict if typing.is_typeddict(cls) else cls)


def _is_like(value: Any, arm: Any) -> bool:
    cls = class_of(arm)
    if arm is Any or isinstance(value, bool) or not isinstance(cls, type) or typing.is_typeddict(cls):
        return arm is Any
    pairs = ((int, float), (list, tuple), (tuple, list))
    return isinstance(value, cls) or any(isinstance(value, one) and cls is other for one, other in pairs)


def _choose(value: Any, arms: list[Any]) -> Any:
    """Take the first of several alike members, as `list[int]` and `list[str]`, that gives the value back."""
    for arm in arms if len(arms) > 1 else ():
        try:
            if convert(msgspec.json.decode(ENCODER.encode(Lowering().lower(value, arm))), arm) == value:
                return arm
        except (Unfit, TypeError, ValueError):
            continue
    return arms[0]


def _text(value: str, loose: bool) -> str:
    if "\x00" in value and not loose:
        raise Unfit("text with a NUL character cannot be stored")
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise Unfit(f"text with the lone surrogate {value[problem.start]!r} cannot be stored") from None
    return str.__str__(value)


def _number(value: float, hint: Any) -> float:
    if isinstance(value, int):
        if hint is float and abs(value) > 2**53 and (abs(value) >= 2**1023 or int(float(value)) != value):
            raise Unfit(f"int {value} does not fit a float exactly")
        return float(value) if hint is float else int(value)
    if not math.isfinite(value):
        raise Unfit(f"float {value!r} cannot be stored as JSON")
    return float(value)


def _leaf(value: Any) -> Any:
    if not isinstance(value, _LEAVES):
        raise Unfit(f"{name_class(type(value))} cannot be stored as JSON")
    if isinstance(value, dt.date) and type(value) not in (dt.date, dt.datetime):
        return _plain_date(value)
    if isinstance(value, (dt.datetime, dt.time)) and value.tzinfo:
        offset = value.utcoffset()
        if offset is None or offset % dt.timedelta(minutes=1):
            raise Unfit(f"{value!r} has no UTC offset in whole minutes")
    return value


def _plain_date(value: Any) -> Any:
    """Give what a subclass of date or datetime stands for, if that is all of it."""
    plain: Any = dt.date(value.year, value.month, value.day)
    if isinstance(value, dt.datetime):
        time = dt.time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)
        plain = _leaf(dt.datetime.combine(plain, time))
    if value == plain:
        return plain
    raise Unfit(f"{value!r} holds more than {plain!r}")


def _model(model: Any) -> Any:
    """Give what a pydantic model writes of itself, if it reads the same from it."""
    text = dump_model(model)
    lowered = _steady(msgspec.json.decode(text), model)
    if type(model).model_validate_json(text) != model:
        raise Unfit(f"{type(model).__name__} reads something else than it writes; look at excluded and secret fields")
    return lowered


def _steady(dumped: Any, value: Any) -> Any:
    """Check the text and numbers of a model, and give its sets the same order in every process."""
    if isinstance(value, (str, float)):
        Lowering().lower(value, Any)
    if isinstance(value, _SETS) and isinstance(dumped, list):
        return sorted(dumped, key=ENCODER.encode)
    if isinstance(dumped, dict) and is_pydantic(type(value)):
        names = {field.serialization_alias: name for name, field in type(value).model_fields.items()}
        pairs = [(key, item, getattr(value, str(names.get(key) or key), None)) for key, item in dumped.items()]
    elif isinstance(dumped, dict) and isinstance(value, dict):
        pairs = list(zip(dumped, dumped.values(), value.values(), strict=False))
    elif isinstance(dumped, list) and isinstance(value, (list, tuple)):
        pairs = list(zip(range(len(dumped)), dumped, value, strict=False))
    else:
        return dumped
    made = {}
    for key, item, inner in pairs:
        try:
            made[key] = _steady(item, inner)
        except Unfit as unfit:
            raise unfit.below(key) from None
    return made if isinstance(dumped, dict) else list(made.values())
