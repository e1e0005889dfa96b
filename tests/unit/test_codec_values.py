"""Every kind of value that a hint can declare comes back as it was, and as readable text."""

# ruff: noqa: DTZ001, DTZ901, UP007, UP045 - older ways of writing hints, and naive datetimes, are users' ways

from __future__ import annotations

import datetime as dt
import enum
import json
import typing
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import attrs
import msgspec
import pydantic
import pytest

from outlive.codec import CallShape, JsonCodec, decode_arguments, encode_arguments, round_trip
from outlive.errors import DecodeFailed, EncodeFailed

CODEC = JsonCodec()
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


class Address(TypedDict):
    street: str
    number: NotRequired[int]


@dataclass
class Item:
    name: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: uuid.UUID
    items: list[Item]
    placed: dt.datetime | None = None
    counts: dict[Size, int] = field(default_factory=dict)


@dataclass
class Total:
    cents: int
    shown: str = field(init=False)
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.shown = f"{self.cents / 100:.2f}"


@dataclass
class Box(Generic[T]):
    content: T
    inner: Box[T] | None = None


@dataclass
class IntBox(Box[int]):
    pass


@dataclass
class Tree:
    value: int | str
    children: list[Tree] = field(default_factory=list)


@dataclass
class Card:
    number: str


@dataclass
class Invoice:
    number: str


@dataclass
class Transfer:
    number: str
    due: dt.date
    tags: set[str]


@dataclass
class Sale:
    payment: Card | Transfer
    others: dict[str, Transfer | Card]


class Ticket(TypedDict):
    payment: Card | Transfer


class Wire(msgspec.Struct, tag=True, rename="camel"):
    to_account: str
    labels: set[str] = msgspec.field(default_factory=set)


class Cash(msgspec.Struct, tag=True, frozen=True):
    cents: int


@attrs.define
class Shelf:
    _label: str
    books: list[str] = attrs.Factory(list)
    count: int = attrs.field(init=False, default=0)


@attrs.frozen
class Tag:
    text: str


class Model(pydantic.BaseModel):
    name: str
    when: dt.datetime
    tags: set[str] = set()
    part: Optional[Model] = None
    nickname: str = pydantic.Field(default="", alias="nick")


class OtherModel(pydantic.BaseModel):
    name: str


class Label(str):
    __slots__ = ()


UserId = NewType("UserId", str)
Positive = Annotated[int, msgspec.Meta(gt=0)]
UTC = dt.UTC
ID = uuid.UUID(int=7)

VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (None, type(None)),
    (True, bool),
    (0, int),
    (-(2**63), int),
    (2**64, int),
    (-(10**1000), int),
    (1.5, float),
    (-0.0, float),
    (5e-324, float),
    (1.7976931348623157e308, float),
    ("", str),
    ("naïve ✓ 🙂 \u2028 \\u0000 \x01\x7f", str),
    (b"\x00\xff", bytes),
    (bytearray(b"ab"), bytearray),
    ([1, 2], list),
    ([1, 2], list[int]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, 2, 3), tuple[int, ...]),
    ((1, 2, 3), tuple),
    ({3, 1, 2}, set[int]),
    (frozenset({"b", "a"}), frozenset[str]),
    ({(1, 2), (0, 3)}, set[tuple[int, int]]),
    ({Tag("b"), Tag("a")}, set[Tag]),
    ({"a": {"b": [1]}}, dict[str, dict[str, list[int]]]),
    ({1: "a", 2: "b"}, dict[int, str]),
    ({1.5: "a"}, dict[float, str]),
    ({Color.RED: 1}, dict[Color, int]),
    ({Size.LARGE: 1}, dict[Size, int]),
    ({ID: 1}, dict[uuid.UUID, int]),
    ({dt.date(2024, 2, 29): 1}, dict[dt.date, int]),
    ({UserId("u"): 1}, dict[UserId, int]),
    ({"b": 1, "a": 2}, dict[str, int]),
    ([1], typing.Sequence[int]),
    ({"a": 1}, typing.Mapping[str, int]),
    (Color.RED, Color),
    (Size.SMALL, Size),
    (Word.YES, Word),
    (Rights.READ | Rights.WRITE, Rights),
    (dt.datetime(2024, 2, 29, 12, 30, 1, 5), dt.datetime),
    (dt.datetime(2024, 2, 29, 12, 30, tzinfo=UTC), dt.datetime),
    (dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45))), dt.datetime),
    (dt.datetime.max, dt.datetime),
    (dt.date(1, 1, 1), dt.date),
    (dt.time(23, 59, 59, 999999), dt.time),
    (dt.time(1, tzinfo=UTC), dt.time),
    (dt.timedelta(days=-1, microseconds=1), dt.timedelta),
    (dt.timedelta.max, dt.timedelta),
    (ID, uuid.UUID),
    (Decimal("1.10"), Decimal),
    (Decimal("1E+400"), Decimal),
    ("a", Literal["a", "b"]),
    (2, Literal[1, 2]),
    (True, Literal[True, 1]),
    (1, Literal[True, 1]),
    (UserId("u"), UserId),
    (5, Positive),
    (None, int | None),
    (3, int | None),
    ("x", Union[int, str, None]),
    (Label("x"), Label),
    (Point(1, 2), Point),
    ([Point(1)], list[Point]),
    ({"street": "Main"}, Address),
    ({"street": "Main", "number": 4}, list[Address] | Address),
    (Item("pen", Decimal("1.20"), {"b", "a"}), Item),
    (Order(id=ID, items=[Item("pen", Decimal(1))], placed=dt.datetime(2024, 1, 1), counts={Size.LARGE: 3}), Order),
    (Total(250), Total),
    (Box(1, Box(2)), Box[int]),
    (Box([Color.RED]), Box[list[Color]]),
    (IntBox(3, Box(4)), IntBox),
    (Tree(1, [Tree("a"), Tree(2, [Tree(3)])]), Tree),
    (Wire("DE1", {"b", "a"}), Wire),
    (Cash(5), Wire | Cash),
    ([Cash(5), Wire("x")], list[Wire | Cash]),
    (Shelf("novels", ["Emma"]), Shelf),
    (Model(name="a", when=dt.datetime(2024, 1, 1), tags={"b", "a"}, part=Model(name="b", when="2024-01-02")), Model),
    ([Model(name="a", when="2024-01-02T00:00:00Z", nick="x")], list[Model]),
    (None, Model | None),
]


@pytest.mark.parametrize(
    ("value", "hint"), VALUES, ids=[f"{index}-{pair[1]}"[:60] for index, pair in enumerate(VALUES)]
)
def test_value_comes_back(value, hint):
    text = CODEC.encode(value, where="it", hint=hint)
    back = CODEC.decode(text, hint, where="it")
    assert back == value
    assert type(back) is type(value)
    json.loads(text)
    assert "\x00" not in text
    # a set has no order
    assert isinstance(value, (set, frozenset, Item, Model, Wire)) or CODEC.encode(back, where="it", hint=hint) == text
    assert CODEC.round_trip(value, where="it", hint=hint) == (text, back)


PAYMENTS = [Card("1"), Transfer("1", dt.date(2024, 1, 1), {"a", "b", "c", "d"})]


@pytest.mark.parametrize("payment", PAYMENTS, ids=["card", "transfer"])
def test_a_union_of_classes_comes_back_at_every_depth(payment):
    for value, hint in (
        (payment, Card | Transfer),
        (payment, str | Card | Transfer | None),
        ([payment, None], list[Card | Transfer | None]),
        ((payment, 1), tuple[Card | Transfer, int]),
        ((payment, payment), tuple[Transfer | Card, ...]),
        ({7: payment}, dict[int, Card | Transfer]),
        (Sale(payment, {"old": payment}), Sale),
        (payment, Annotated[Card | Transfer, "a note"]),
        ({"payment": payment}, Ticket),
        ([Model(name="a", when=dt.datetime(2024, 1, 1)), OtherModel(name="b")], list[Model | OtherModel]),
    ):
        text = CODEC.encode(value, where="it", hint=hint)
        back = CODEC.decode(text, hint, where="it")
        assert back == value
        assert type(back) is type(value)
    for plain in ("text", None):
        assert CODEC.round_trip(plain, where="it", hint=str | Card | Transfer | None)[1] == plain


def test_a_call_with_a_union_of_classes_comes_back():
    def pay(payment: Card | Transfer, *others: Card | Transfer, note: Card | Transfer) -> None: ...

    shape = CallShape(pay)
    text = encode_arguments(CODEC, shape, PAYMENTS, {"note": PAYMENTS[1]}, where="it")
    assert decode_arguments(CODEC, shape, text, where="it") == (tuple(PAYMENTS), {"note": PAYMENTS[1]})


def test_a_union_that_neither_types_nor_fields_tell_apart_is_refused():
    assert CODEC.round_trip(Card("1"), where="it", hint=Card | Invoice)[1] == Card("1")
    with pytest.raises(EncodeFailed, match=r"it: a Invoice would come back as Card; .*tag=True"):
        CODEC.encode(Invoice("1"), where="it", hint=Card | Invoice)
    for hint in (str | dt.date, list[Decimal | str], dict[str, list[Card] | list[Invoice]]):
        with pytest.raises(EncodeFailed, match=r"it: its declared type .* cannot be used: Type unions"):
            CODEC.encode(Card("1"), where="it", hint=hint)


def test_what_fits_no_member_of_a_union_says_why():
    for text in ('{"number": 1}', '{"due": "2024-01-01"}', "[]", "7"):
        with pytest.raises(DecodeFailed, match=r"it: .*(Expected|missing).*; what is stored does not fit"):
            CODEC.decode(text, Card | Transfer, where="it")
    for text in ("7", '{"payment": 7}', "{}"):
        with pytest.raises(DecodeFailed, match=r"it: .*Expected"):
            CODEC.decode(text, Ticket, where="it")
    old = CODEC.decode('{"number": "1", "gone": 2}', Card | Transfer, where="it")
    assert old == Card("1")  # stored before the class lost a field


def test_fields_set_after_init_come_back():
    total = Total(250)
    total.seen = 9
    back = round_trip(CODEC, total, Total, where="it")[1]
    assert (back.cents, back.shown, back.seen) == (250, "2.50", 9)
    total.shown = "two fifty"
    with pytest.raises(EncodeFailed, match=r"it: \.shown: 'two fifty' would come back as '2\.50'"):
        round_trip(CODEC, total, Total, where="it")
    shelf = Shelf("x")
    shelf.count = 4
    assert round_trip(CODEC, [shelf], list[Shelf], where="it")[1] == [shelf]


def test_defaults_fill_what_older_text_does_not_have():
    assert CODEC.decode('{"name":"pen","price":"1"}', Item, where="it") == Item("pen", Decimal(1))
    assert CODEC.decode('{"name":"pen","price":"1","gone":true}', Item, where="it").tags == set()


def test_without_a_hint_plain_json_comes_back():
    value = {"order": Order(id=ID, items=[], counts={Size.SMALL: 1}), "at": (dt.date(2024, 1, 1), {2, 1}, Color.RED)}
    text, back = round_trip(CODEC, value, where="it")
    assert back == {
        "order": {"id": str(ID), "items": [], "placed": None, "counts": {"1": 1}},
        "at": ["2024-01-01", [1, 2], "red"],
    }
    assert json.loads(text) == back
    assert round_trip(CODEC, back, where="it") == (text, back)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), [1, 2]),
        (b"a", "YQ=="),
        (Decimal("1.0"), "1.0"),
        (Model(name="a", when="2024-01-02"), None),
        (Shelf("x"), {"_label": "x", "books": [], "count": 0}),
        (Wire("x", {"b", "a"}), {"type": "Wire", "toAccount": "x", "labels": ["a", "b"]}),
        (Label("x"), "x"),
        (Word.YES, "yes"),
        ((), []),
    ],
)
def test_each_kind_is_readable_without_a_hint(value, plain):
    text, back = round_trip(CODEC, value, where="it")
    assert plain is None or back == plain
    assert json.loads(text) == back


def test_plain_json_is_read_as_the_declared_type():
    for value, hint, expected in [
        (1, float, 1.0),
        ([1, 2], tuple[int, int], (1, 2)),
        ((1, 2), list[int], [1, 2]),
        ([2, 1, 1], set[int], {1, 2}),
        ("2024-01-01", dt.date, dt.date(2024, 1, 1)),
        ({"number": "1"}, Card, Card("1")),
        ("red", Color, Color.RED),
        (Word.YES, str, "yes"),
        (Size.LARGE, int, 2),
    ]:
        back = round_trip(CODEC, value, hint, where="it")[1]
        assert (back, type(back)) == (expected, type(expected))


def test_subclasses_of_dates_come_back_as_dates():
    class Frozen(dt.datetime):
        pass

    class Day(dt.date):
        pass

    for hint in (dt.datetime, dt.datetime | None):
        back = round_trip(CODEC, Frozen(2024, 1, 2, 3, tzinfo=UTC), hint, where="it")[1]
        assert (back, type(back)) == (dt.datetime(2024, 1, 2, 3, tzinfo=UTC), dt.datetime)
    assert round_trip(CODEC, [Day(2024, 1, 2)], list[dt.date], where="it") == ('["2024-01-02"]', [dt.date(2024, 1, 2)])


Json = Union[dict[str, "Json"], list["Json"], int, str, None]


def test_recursive_alias():
    def work(value: Json) -> Json: ...

    value = {"a": [1, {"b": None}], "c": "x"}
    assert round_trip(CODEC, value, CallShape(work).result, where="it")[1] == value


def test_hints_that_say_nothing_are_any():
    for hint in (Any, object, T):
        assert round_trip(CODEC, {"a": [1]}, hint, where="it")[1] == {"a": [1]}


def test_order_of_a_dict_stays():
    assert CODEC.encode({"b": 1, "a": 2}, where="it") == '{"b":1,"a":2}'


def test_unresolved_fields_of_a_class_are_a_clear_error():
    @dataclass
    class Local:
        other: Missing  # noqa: F821

    with pytest.raises(EncodeFailed, match="it: its declared type Local cannot be used: name 'Missing'"):
        CODEC.encode(Local(1), where="it", hint=Local)
    with pytest.raises(DecodeFailed, match="Missing"):
        CODEC.decode("{}", Local, where="it")
    assert CODEC.encode(Local(1), where="it") == '{"other":1}'


def test_a_hint_that_cannot_be_a_key():
    hint = Annotated[int, []]
    assert round_trip(CODEC, 3, hint, where="it") == ("3", 3)


@dataclass
class ById:
    id: int
    share: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.id == other.id


@dataclass
class Partly:
    id: int
    share: float | None = field(default=None, compare=False)


@attrs.define
class Half:
    id: int
    share: float | None = attrs.field(default=None, eq=False)


@dataclass(eq=False)
class More(ById):
    more: int = 0


@pytest.mark.parametrize("cls", [ById, Partly, Half])
def test_equality_is_not_trusted_where_it_looks_at_less_than_all(cls):
    for value, hint in ((cls(1, float("nan")), cls), ({"all": [cls(1, float("nan"))]}, dict[str, list[cls]])):
        with pytest.raises(EncodeFailed, match=r"share: float nan"):
            CODEC.encode(value, where="it", hint=hint)
    assert round_trip(CODEC, [cls(1, 0.5)], list[cls], where="it")[1][0].share == 0.5


def test_a_subclass_that_equals_its_base_does_not_come_back_as_it():
    with pytest.raises(EncodeFailed, match="a More would come back as ById"):
        CODEC.encode(More(1, more=2), where="it", hint=ById)
