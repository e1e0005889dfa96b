"""What cannot be stored is refused at once, with the path of the offending part; nothing changes silently."""

# ruff: noqa: DTZ001, UP045 - older ways of writing hints, and naive datetimes, are users' ways

from __future__ import annotations

import datetime as dt
import enum
from collections import OrderedDict, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, Optional, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from outlive.codec import JsonCodec, codec_for, digest, jsontext, round_trip
from outlive.errors import DecodeFailed, EncodeFailed, PayloadError, PayloadTooLarge

CODEC = JsonCodec()
NAN = float("nan")
WHERE = "result of step charge"


@dataclass
class Line:
    name: str
    price: float = 0.0


@dataclass
class GiftLine(Line):
    note: str = ""


@dataclass
class Basket:
    items: list[Line]
    extra: Any = None
    total: Optional[float] = None


@dataclass
class Doubled:
    cents: int

    def __post_init__(self) -> None:
        self.cents *= 2


@dataclass
class Fussy:
    cents: int

    def __post_init__(self) -> None:
        if self.cents < 0:
            raise KeyError("below zero")


class Base(msgspec.Struct):
    a: int


class Derived(Base):
    pass


class Pair(NamedTuple):
    left: float
    right: float


class Row(TypedDict):
    price: float


class Model(pydantic.BaseModel):
    price: float | None = None
    texts: list[str] = []
    by_name: dict[str, Any] = {}
    inner: Optional[Model] = pydantic.Field(default=None, alias="in")


class Shape(enum.Enum):
    WIDE = (2, 1)


class Vault(pydantic.BaseModel):
    secret: pydantic.SecretStr


@attrs.define
class Box:
    _content: Any


ODD_MOMENT = dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1)))
OR_TAG = "or if fields do not tell the members of a union apart, make them msgspec.Structs with tag=True"
NOT_JSON = "cannot be stored as JSON"
NUL = "text with a NUL character cannot be stored"
REFUSED = [
    ({"items": [1, 2, 3, {"price": NAN}]}, Any, ".items[3].price", f"float nan {NOT_JSON}"),
    (NAN, float, "", f"float nan {NOT_JSON}"),
    (float("-inf"), Any, "", f"float -inf {NOT_JSON}"),
    (float("inf"), float | None, "", f"float inf {NOT_JSON}"),
    (Basket([Line("a", NAN)]), Basket, ".items[0].price", f"float nan {NOT_JSON}"),
    (Basket([], total=NAN), Basket, ".total", f"float nan {NOT_JSON}"),
    (Basket([], total=NAN), Any, ".total", f"float nan {NOT_JSON}"),
    (Pair(1, NAN), Pair, ".right", f"float nan {NOT_JSON}"),
    ({"price": NAN}, Row, ".price", f"float nan {NOT_JSON}"),
    ((1, NAN), tuple[int, float], "[1]", f"float nan {NOT_JSON}"),
    ({1: NAN}, dict[int, float], "[1]", f"float nan {NOT_JSON}"),
    ({NAN: 1}, dict[float, int], "", f"key nan: float nan {NOT_JSON}"),
    ([Model(price=NAN)], list[Model], "[0].price", f"float nan {NOT_JSON}"),
    (Model(**{"in": Model(by_name={"a b": [NAN]})}), Model, ".in.by_name['a b'][0]", f"float nan {NOT_JSON}"),
    (Model(texts=["a", "b\x00"]), Any, ".texts[1]", NUL),
    ("a\x00b", str, "", NUL),
    ({"a": ["\x00"]}, Any, ".a[0]", NUL),
    ({"b": {"\x00": 1}}, Any, ".b", "key '\\x00': " + NUL),
    (Line("\\\x00"), Line, ".name", NUL),
    ("\ud800", str, "", "text with the lone surrogate '\\ud800' cannot be stored"),
    ({"\udfff": 1}, dict[str, int], "", "key '\\udfff': text with the lone surrogate '\\udfff' cannot be stored"),
    (Basket([Line("a\udc00")]), Basket, ".items[0].name", "text with the lone surrogate '\\udc00' cannot be stored"),
    ({"a b": object()}, Any, "['a b']", f"object {NOT_JSON}"),
    (Box([1, 1j]), Box, "._content[1]", f"complex {NOT_JSON}"),
    (Basket([], extra=print), Basket, ".extra", f"builtin_function_or_method {NOT_JSON}"),
    (Fraction(1, 2), Fraction, "", f"fractions.Fraction {NOT_JSON}"),
    ([ValueError("x")], Any, "[0]", f"ValueError {NOT_JSON}"),
    (iter([1]), Any, "", f"list_iterator {NOT_JSON}"),
    (deque([1]), Any, "", f"collections.deque {NOT_JSON}"),
    ({1: "a"}, Any, "", "key 1 is of type int and would come back as text; declare dict[int, ...]"),
    ({"a": {1: "a", "1": "b"}}, Any, ".a", "key 1 is of type int and would come back as text; declare dict[int, ...]"),
    (Basket([], extra={dt.date(2024, 1, 1): 1}), Basket, ".extra", None),
    ({1: 1}, dict[int | str, int], "", "key 1 is of type int and would come back as text; declare dict[int, ...]"),
    ({True: 1}, Any, "", "key True is of type bool, which cannot be a key in JSON"),
    ({Shape.WIDE: 1}, dict[Shape, int], "", None),
    ({None: 1}, dict[None, int], "", "key None is of type NoneType, which cannot be a key in JSON"),
    ({(1, 2): 1}, dict[tuple[int, int], int], "", "key (1, 2) is of type tuple, which cannot be a key in JSON"),
    (
        [GiftLine("a")],
        list[Line],
        "[0]",
        f"a GiftLine would come back as Line; declare GiftLine, {OR_TAG}",
    ),
    (Derived(1), Base, "", None),
    ("abcd", bytes, "", "a str where bytes is declared"),
    ("x", int, "", "Expected `int`, got `str` (declared: int)"),
    (True, int, "", "Expected `int`, got `bool` (declared: int)"),
    (2**53 + 1, float, "", "9007199254740993 would come back as 9007199254740992.0"),
    (10**400, float, "", None),
    ([1, "a"], list[int], "[1]", "Expected `int`, got `str` (declared: list[int])"),
    (Basket([Line(3)]), Basket, ".items[0].name", "Expected `str`, got `int` (declared: Basket)"),
    (dt.datetime(2024, 1, 1), dt.date, "", None),
    (1.5, int | str, "", "Expected `int | str`, got `float` (declared: int | str)"),
    (OrderedDict(a=1), OrderedDict[str, int], "", None),
    (Doubled(2), Doubled, ".cents", "4 would come back as 8"),
    (Vault(secret="x"), Vault, ".secret", "SecretStr('**********') would come back as SecretStr('**********')"),
    ([ODD_MOMENT], list[dt.datetime], "[0]", None),
    (Decimal("NaN"), Decimal, "", "decimal.Decimal NaN cannot be stored as JSON"),
    (Decimal("sNaN"), Decimal, "", "decimal.Decimal sNaN cannot be stored as JSON"),
    (10**5000, int, "", None),
]


@pytest.mark.parametrize(
    ("value", "hint", "path", "problem"), REFUSED, ids=[f"{index}{row[2]}" for index, row in enumerate(REFUSED)]
)
def test_refused_with_its_path(value, hint, path, problem):
    with pytest.raises(EncodeFailed) as caught:
        CODEC.encode(value, where=WHERE, hint=hint)
    where = f"{WHERE}: {path}" if path else WHERE
    assert caught.value.path == where
    assert problem is None or str(caught.value) == f"{where}: {problem}"


def test_values_that_hold_themselves():
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    for value in (loop, {"a": loop}, deep):
        with pytest.raises(EncodeFailed, match="nested too deeply, or holds itself"):
            CODEC.encode(value, where=WHERE)
    with pytest.raises(DecodeFailed, match="nested too deeply"):
        CODEC.decode("[" * 100_000, where=WHERE)


def test_too_large(monkeypatch):
    monkeypatch.setattr(jsontext, "PAYLOAD_MAX_BYTES", 10)
    assert CODEC.encode("12345678", where=WHERE) == '"12345678"'
    for value, hint in (("123456789", str), ({"123456789"}, set[str]), (("123456789",), Any)):
        with pytest.raises(PayloadTooLarge, match=r"result of step charge is 1[13] bytes, the limit is 10"):
            CODEC.encode(value, where=WHERE, hint=hint)


def test_comparison_that_raises_does_not_matter():
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None

    @dataclass(eq=False)
    class Plain:
        a: int

    assert CODEC.encode(Plain(1), where=WHERE, hint=Plain) == '{"a":1}'
    with pytest.raises(EncodeFailed, match="Odd cannot be stored"):
        CODEC.encode(Odd(), where=WHERE)


@pytest.mark.parametrize(
    ("text", "hint", "message"),
    [
        ('"x"', int, "Expected `int`, got `str`; what is stored does not fit int"),
        (
            '{"items":[{"name":"a"},{"name":1}]}',
            Basket,
            ".items[1].name: Expected `str`, got `int`; what is stored does not fit Basket",
        ),
        ('{"price":1}', Line, "Object missing required field `name`; what is stored does not fit Line"),
        ("{", Any, "Input data was truncated; what is stored does not fit Any"),
        ("nope", Any, "JSON is malformed: invalid character (byte 4); what is stored does not fit Any"),
        ('{"cents":-1}', Fussy, "'below zero'; what is stored does not fit Fussy"),
        ('"a"', print, "Type '<built-in function print>' is not supported; what is stored does not fit"),
    ],
)
def test_unreadable_text(text, hint, message):
    with pytest.raises(DecodeFailed) as caught:
        CODEC.decode(text, hint, where=WHERE)
    assert str(caught.value).startswith(f"{WHERE}: {message}")
    assert isinstance(caught.value, PayloadError)


def test_codec_for():
    class Sealed:
        id = "sealed/1"

        def encode(self, value: Any, *, where: str, hint: Any = Any) -> str:
            return msgspec.json.encode(CODEC.encode(value, where=where, hint=hint)[::-1]).decode()

        def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
            return CODEC.decode(msgspec.json.decode(text)[::-1], hint, where=where)

    sealed = Sealed()
    assert codec_for("json/1", [sealed, CODEC]) is CODEC
    assert codec_for("sealed/1", [CODEC, sealed]) is sealed
    text, back = round_trip(sealed, Line("a"), Line, where=WHERE)
    assert back == Line("a")
    assert "name" not in text
    with pytest.raises(
        DecodeFailed, match=r"written by codec 'lost/2', this process has json/1, sealed/1; open the app"
    ):
        codec_for("lost/2", [sealed, CODEC])
    with pytest.raises(DecodeFailed, match="has none"):
        codec_for("lost/2", [])


def test_digest():
    assert digest("") == "e4a6a0577479b2b4"
    assert digest("a") != digest("b")
    assert len(digest("é")) == 16
