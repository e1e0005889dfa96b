"""A call is stored once, in one form, and comes back by the hints of its parameters."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from outlive.codec import (
    CallShape,
    JsonCodec,
    decode_arguments,
    digest,
    digest_arguments,
    encode_arguments,
)
from outlive.errors import DecodeFailed, EncodeFailed

CODEC = JsonCodec()
WHERE = "input of workflow checkout"


@dataclass
class Order:
    id: str
    price: float = 1.0


async def checkout(order: Order, cents: int = 5, /, note: str | None = None, *, at: dt.date | None = None) -> None: ...


async def many(first: int, *rest: Decimal, flag: bool = False, **others: Order) -> None: ...


async def keyword_only(*, key: int) -> None: ...


async def untyped(a, b=None): ...


async def none() -> None: ...


async def book(tx, order: Order) -> None: ...


def there_and_back(function, *args, **kwargs):
    shape = CallShape(function)
    text = encode_arguments(CODEC, shape, args, kwargs, where=WHERE)
    return text, decode_arguments(CODEC, shape, text, where=WHERE)


ORDER = Order("a")
AT = dt.date(2024, 1, 2)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "stored", "stored_kwargs"),
    [
        (checkout, (ORDER,), {}, (ORDER,), {}),
        (checkout, (ORDER, 2, "x"), {}, (ORDER, 2, "x"), {}),
        (checkout, (ORDER, 2), {"note": "x"}, (ORDER, 2, "x"), {}),
        (checkout, (ORDER,), {"note": "x", "at": AT}, (ORDER,), {"note": "x", "at": AT}),
        (many, (1,), {}, (1,), {}),
        (many, (1, Decimal("1.5"), Decimal(2)), {"flag": True}, (1, Decimal("1.5"), Decimal(2)), {"flag": True}),
        (many, (1,), {"one": ORDER, "two": Order("b")}, (1,), {"one": ORDER, "two": Order("b")}),
        (keyword_only, (), {"key": 1}, (), {"key": 1}),
        (untyped, (1,), {"b": [2]}, (1, [2]), {}),
        (untyped, (), {"b": 2, "a": 1}, (1, 2), {}),
        (none, (), {}, (), {}),
    ],
)
def test_arguments_come_back_by_their_hints(function, args, kwargs, stored, stored_kwargs):
    text, call = there_and_back(function, *args, **kwargs)
    assert call == (stored, stored_kwargs)
    assert encode_arguments(CODEC, CallShape(function), *call, where=WHERE) == text


def test_stored_form():
    text, _ = there_and_back(checkout, ORDER, 2, at=AT)
    assert text == '{"args":[{"id":"a","price":1.0},2],"kwargs":{"at":"2024-01-02"}}'
    assert there_and_back(none)[0] == '{"args":[],"kwargs":{}}'


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (checkout, (), {}, "checkout(): missing a required argument: 'order'"),
        (checkout, (ORDER, 1, "", 3), {}, "checkout(): too many positional arguments"),
        (checkout, (ORDER,), {"nope": 1}, "checkout(): got an unexpected keyword argument 'nope'"),
        (none, (1,), {}, "none(): too many positional arguments"),
        (keyword_only, (), {}, "keyword_only(): missing a required argument: 'key'"),
        (untyped, (1,), {"a": 1}, "untyped(): multiple values for argument 'a'"),
    ],
)
def test_wrong_calls_are_type_errors_at_the_caller(function, args, kwargs, message):
    for call in (lambda: there_and_back(function, *args, **kwargs), lambda: CallShape(function).bind(args, kwargs)):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).replace("keyword-only ", "") == message
    with pytest.raises(TypeError):
        digest_arguments(CallShape(function), args, kwargs, where=WHERE)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (checkout, (Order("a", float("nan")),), {}, ".order.price: float nan cannot be stored as JSON"),
        (checkout, (ORDER, "2"), {}, ".cents: Expected `int`, got `str` (declared: call of checkout)"),
        (checkout, (ORDER,), {"at": 1j}, ".at: complex cannot be stored as JSON"),
        (many, (1, Decimal(1), {"a": 1}), {}, ".rest[1]: Expected `decimal`, got `object` (declared: call of many)"),
        (many, (1,), {"one": Order("\x00")}, ".one.id: text with a NUL character cannot be stored"),
        (untyped, ({"a": {1: 2}},), {}, ".a.a: key 1 is of type int"),
    ],
)
def test_errors_name_the_parameter(function, args, kwargs, message):
    with pytest.raises(EncodeFailed) as caught:
        there_and_back(function, *args, **kwargs)
    assert str(caught.value).startswith(f"{WHERE}: {message}")


def test_the_injected_first_parameter_is_no_part_of_a_call():
    shape = CallShape(book, skip_first=True)
    text = encode_arguments(CODEC, shape, (ORDER,), {}, where=WHERE)
    assert decode_arguments(CODEC, shape, text, where=WHERE) == ((ORDER,), {})
    assert list(shape.signature.parameters) == ["order"]
    with pytest.raises(TypeError, match="too many positional"):
        shape.bind((1, ORDER), {})


def test_a_client_that_knows_only_the_name():
    text = encode_arguments(CODEC, None, ({"id": "a"},), {"cents": 3}, where=WHERE)
    assert text == '{"args":[{"id":"a"}],"kwargs":{"cents":3}}'

    def takes(order: Order, cents: int, at: dt.date | None = None) -> None: ...

    assert decode_arguments(CODEC, CallShape(takes), text, where=WHERE) == ((ORDER, 3), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"args":[],"kwargs":{}}', "what is stored does not fit the parameters: checkout(): missing a required"),
        ('{"args":[{"id":"a"}],"kwargs":{"gone":1}}', "does not fit the parameters: checkout(): got an unexpected"),
        ('{"args":[{"id":1}],"kwargs":{}}', ".order.id: Expected `str`, got `int`"),
        ('{"args":[{"id":"a"}],"kwargs":{"at":"x"}}', ".at: Invalid RFC3339 encoded date"),
        ("[]", "what is stored does not fit the parameters"),
        ("{}", "what is stored does not fit the parameters"),
        ("{", "Input data was truncated"),
    ],
)
def test_stored_calls_that_the_code_no_longer_takes(text, message):
    with pytest.raises(DecodeFailed) as caught:
        decode_arguments(CODEC, CallShape(checkout), text, where=WHERE)
    assert message in str(caught.value)
    assert str(caught.value).startswith(WHERE)


def test_number_of_remembered_forms_is_limited():
    shape = CallShape(many)
    for count in range(200):
        shape.bind(tuple(range(1, count + 2)), {})
        shape.hint(count, ())
    assert len(shape._forms) <= 64
    args = (1, *map(Decimal, range(150)))
    assert decode_arguments(CODEC, shape, encode_arguments(CODEC, shape, args, {}, where=WHERE), where=WHERE) == (
        args,
        {},
    )


def test_digest_is_the_same_for_the_same_call():
    shape = CallShape(untyped)

    def of(*args: Any, **kwargs: Any) -> str:
        return digest_arguments(shape, args, kwargs, where=WHERE)

    assert of(1, 2) == of(1, b=2) == of(a=1, b=2)
    assert of((1, 2)) == of([1, 2])
    assert of({"b", "a"}) == of({"a", "b"})
    assert len({of(1), of(2), of("1"), of(1, 2), of([1]), of(None), of(ORDER), of({1: 2}), of(1.0)}) == 9
    assert len(of(1)) == len(digest("x")) == 16


def test_digest_does_not_ask_whether_arguments_fit_their_hints():
    shape = CallShape(checkout)
    assert digest_arguments(shape, ({"id": {1: "int key"}}, "2"), {}, where=WHERE)
    assert digest_arguments(shape, ({"a": {float("inf")}, "b": ["\x00"]}, float("nan")), {}, where=WHERE)
    with pytest.raises(EncodeFailed, match=r"checkout: \.order\.file: object cannot be stored as JSON"):
        digest_arguments(shape, ({"file": object()},), {}, where=WHERE)
    with pytest.raises(EncodeFailed, match=r"checkout: \.note: text with the lone surrogate"):
        digest_arguments(shape, (1, 2), {"note": "\ud800"}, where=WHERE)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeFailed, match="holds itself"):
        digest_arguments(shape, (loop,), {}, where=WHERE)


def test_digest_is_the_same_in_every_process():
    code = (
        "import enum, pydantic\n"
        "from outlive.codec import *\n"
        "def f(*values): ...\n"
        "names = {f'name {n}' for n in range(30)}\n"
        "Many = enum.Enum('Many', {name: name for name in sorted(names)})\n"
        "Model = pydantic.create_model('Model', names=(set[str], ...), secret=(pydantic.SecretStr, 'x'))\n"
        "Nested = pydantic.create_model('Nested', names=(frozenset[frozenset[str]], ...))\n"
        "sets = {frozenset({name}) for name in names}\n"
        "values = names, {'x': [frozenset(names)]}, set(Many), {1: names}, Model(names=names), Nested(names=sets)\n"
        "values += sets, {'x': [sets]}, {(1, one) for one in sets}\n"
        "for value in values:\n"
        "    print(digest_arguments(CallShape(f), (value,), {}, where=''))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    }
    assert len(made) == 1
