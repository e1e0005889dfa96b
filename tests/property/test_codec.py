"""Whatever a hint can hold comes back from its text; whatever comes back is stored as the same text again."""

# ruff: noqa: DTZ001 - naive datetimes are values like others

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from outlive.codec import (
    CallShape,
    JsonCodec,
    decode_arguments,
    digest_arguments,
    encode_arguments,
    error_facts,
    rebuild_error,
    record_error,
)
from outlive.errors import DecodeFailed, EncodeFailed, StepFailed

CODEC = JsonCodec()
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: float


class Row(TypedDict, total=False):
    name: str
    amount: Decimal


@dataclass
class Leaf:
    name: str
    weight: float | None = None


@dataclass
class Branch(Generic[T]):
    left: T
    right: Branch[T] | None = None
    leaf: Leaf | None = None
    marks: set[Color] = field(default_factory=set)
    seen: list[dt.date | int] = field(default_factory=list, init=False)


@dataclass
class Box:
    inside: Leaf | Crate | None
    beside: Crate | Leaf | None


@attrs.define
class Crate:
    _inside: list[int]
    label: str = ""


class Wire(msgspec.Struct, frozen=True, tag=True):
    ids: frozenset[uuid.UUID] = frozenset()


class Coin(msgspec.Struct, frozen=True, tag=True):
    cents: int


text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
minutes = st.integers(-1439, 1439).map(lambda count: dt.timezone(dt.timedelta(minutes=count)))
moments = st.datetimes() | st.datetimes(
    min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1), timezones=minutes
)
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.builds(Leaf, text, st.none() | floats)


def with_seen(branch: Branch[Any], seen: list[Any]) -> Branch[Any]:
    branch.seen = seen
    return branch


branches = st.recursive(
    st.none(),
    lambda inner: st.builds(
        with_seen,
        st.builds(Branch, st.integers(), inner, st.none() | leaves, st.sets(st.sampled_from(Color))),
        st.lists(st.dates() | st.integers()),
    ),
    max_leaves=5,
)

# A hint, and the values it declares.
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (type(None), st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (float, floats),
    (str, text),
    (bytes, st.binary()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (dt.datetime, moments),
    (dt.date, st.dates()),
    (dt.time, st.times() | st.times(timezones=minutes)),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
]
RECORDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Point, st.builds(Point, st.integers(), floats)),
    (Row, st.fixed_dictionaries({}, optional={"name": text, "amount": st.decimals(allow_nan=False)})),
    (Leaf, leaves),
    (Branch[int] | None, branches),
    (Crate, st.builds(Crate, st.lists(st.integers()), text)),
    (Wire, st.builds(Wire, st.frozensets(st.uuids()))),
    (Wire | Coin, st.builds(Wire, st.frozensets(st.uuids())) | st.builds(Coin, st.integers())),
]
KEYS = [int, str, float, Color, Level, uuid.UUID, dt.date]


def declared() -> st.SearchStrategy[tuple[Any, Any]]:
    """Give pairs of a hint, however nested, and a value that it declares."""

    def pairs(kinds: list[tuple[Any, st.SearchStrategy[Any]]]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
        return st.sampled_from(kinds)

    keys = pairs([pair for pair in SCALARS if pair[0] in KEYS])
    hashable = pairs([pair for pair in SCALARS if pair[0] not in (type(None), float)])

    def nest(inner: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
        return st.one_of(
            inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=4))),
            inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=4).map(tuple))),
            st.tuples(inner, inner).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),
            hashable.map(lambda one: (set[one[0]], st.sets(one[1], max_size=4))),
            hashable.map(lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=4))),
            st.tuples(keys, inner).map(
                lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=4))
            ),
            inner.map(lambda one: (one[0] | None, st.none() | one[1])),
            inner.map(lambda one: (Branch[one[0]], st.builds(Branch, one[1], st.none(), leaves))),
        )

    return st.recursive(pairs(SCALARS + RECORDS), nest, max_leaves=4).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), pair[1])
    )


def exactly(value: Any) -> Any:
    """Make a difference of types visible to a comparison, also below containers."""
    if isinstance(value, dict):
        return (type(value), [(exactly(key), exactly(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), [exactly(item) for item in value])
    if isinstance(value, (Box, Branch, Leaf)):
        return (type(value), exactly(vars(value)))
    return (type(value), value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(declared())
def test_declared_values_come_back(pair):
    hint, value = pair
    stored = CODEC.encode(value, where="it", hint=hint)
    back = CODEC.decode(stored, hint, where="it")
    assert exactly(back) == exactly(value)
    again = CODEC.encode(back, where="it", hint=hint)
    assert exactly(CODEC.decode(again, hint, where="it")) == exactly(value)
    assert CODEC.round_trip(value, where="it", hint=hint) == (stored, back)
    assert "\x00" not in stored
    assert json.loads(stored) == CODEC.decode(stored, where="it")


members = (
    leaves | st.builds(Crate, st.lists(st.integers()), text) | st.builds(Box, st.none() | leaves, st.none() | leaves)
)


@given(st.lists(members | st.none() | text))
def test_members_of_a_union_come_back(values):
    back = CODEC.round_trip(values, where="it", hint=list[Box | Leaf | Crate | str | None])[1]
    assert exactly(back) == exactly(values)


@given(declared())
def test_without_a_hint_the_text_is_stable(pair):
    try:
        stored, back = CODEC.round_trip(pair[1], where="it")
    except EncodeFailed as failed:
        refused = failed.problem
    else:
        refused = ""
    if refused:
        assert "would come back as text" in refused
        return
    assert json.loads(stored) == back
    assert CODEC.round_trip(back, where="it") == (stored, back)


@given(plain)
def test_plain_json_comes_back_exactly(value):
    stored, back = CODEC.round_trip(value, where="it")
    assert exactly(back) == exactly(value)
    assert exactly(json.loads(stored)) == exactly(value)


@given(declared(), declared())
def test_a_value_of_another_type_fits_or_is_refused(pair, other):
    """Whatever is let through is of the declared type: what it gives is stored and read again unchanged."""
    try:
        stored, back = CODEC.round_trip(pair[1], where="it", hint=other[0])
    except EncodeFailed:
        return
    assert exactly(CODEC.decode(stored, other[0], where="it")) == exactly(back)
    assert exactly(CODEC.round_trip(back, where="it", hint=other[0])[1]) == exactly(back)


@given(st.text() | plain.map(json.dumps), declared())
def test_any_text_is_read_or_refused(stored, pair):
    with contextlib.suppress(DecodeFailed):
        CODEC.decode(stored, pair[0], where="it")


async def work(first: int, second: Leaf | None = None, *rest: dt.date, key: str = "", **more: Color): ...


SHAPE = CallShape(work)
names = st.text("abcdefgh", min_size=2, max_size=6)


@given(
    st.integers(),
    st.none() | leaves,
    st.lists(st.dates()),
    st.dictionaries(names, st.sampled_from(Color)),
    st.none() | text,
)
def test_arguments_come_back(first, second, rest, more, key):
    args, kwargs = (first, second, *rest), more | ({} if key is None else {"key": key})
    stored = encode_arguments(CODEC, SHAPE, args, kwargs, where="it")
    assert decode_arguments(CODEC, SHAPE, stored, where="it") == (args, kwargs)
    assert digest_arguments(SHAPE, args, kwargs, where="it") == digest_arguments(SHAPE, args, kwargs, where="it")
    if not rest:
        by_name = {"second": second, "first": first} | kwargs
        assert encode_arguments(CODEC, SHAPE, (), by_name, where="it") == stored
        assert digest_arguments(SHAPE, (), by_name, where="it") == digest_arguments(SHAPE, args, kwargs, where="it")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([ValueError, KeyError, OSError, RuntimeError, KeyboardInterrupt]), st.lists(anything), anything)
def test_a_record_can_always_be_made(cls, arguments, attribute):
    try:
        error = cls(*arguments)
    except TypeError:  # OSError minds some of its arguments
        return
    error.attribute = attribute
    record = record_error(error, CODEC)
    assert "\x00" not in record
    facts = error_facts(record)
    back = rebuild_error(record)
    assert type(back) in (type(error), StepFailed)
    if type(back) is type(error):
        assert str(back) == facts["text"]
    assert record_error(back, CODEC) == record or type(back) is not StepFailed
    assert record_error(rebuild_error(record_error(back, CODEC)), CODEC) == record_error(back, CODEC)
