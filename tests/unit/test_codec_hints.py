"""Hints are read off functions as they stand: forward references, locals, decorated and partial functions."""

# ruff: noqa: UP045 - older ways of writing hints, and naive datetimes, are users' ways

from __future__ import annotations

import functools
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, Optional, ParamSpec, TypedDict, TypeVar

import pydantic
import pytest

from outlive.codec import CallShape, JsonCodec, hint_of_result, hints_of_parameters, round_trip
from outlive.codec.hints import bare, fields_of, parts_of, show

if TYPE_CHECKING:
    from nowhere import Ghost

P = ParamSpec("P")
T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)


async def pay(order: Order, cents: int = 0, *more: Later, note: Optional[str] = None, **rest: float) -> list[Later]: ...


def ghostly(ghost: Ghost, count: int) -> Ghost: ...


def bare_function(a, b=1): ...


def sync_awaitable(a: int) -> Awaitable[Later]: ...


def sync_coroutine(a: int) -> Coroutine[Any, Any, int]: ...


def nothing() -> None: ...


def passes_on(function: int, *args: P.args, **kwargs: P.kwargs) -> Annotated[int, "unit"]: ...


@dataclass
class Order:
    id: str


@dataclass
class Later:
    id: str


def test_parameters_and_result():
    hints = hints_of_parameters(pay)
    assert hints == {"order": Order, "cents": int, "more": Later, "note": Optional[str], "rest": float}
    assert hint_of_result(pay) == list[Later]


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (ghostly, Any),
        (bare_function, Any),
        (sync_awaitable, Later),
        (sync_coroutine, int),
        (nothing, type(None)),
        (passes_on, Annotated[int, "unit"]),
        (len, Any),
    ],
)
def test_results(function, hint):
    assert hint_of_result(function) == hint


def test_one_unresolvable_annotation_does_not_spoil_the_others():
    assert hints_of_parameters(ghostly) == {"ghost": Any, "count": int}
    assert hints_of_parameters(bare_function) == {"a": Any, "b": Any}
    assert hints_of_parameters(passes_on) == {"function": int, "args": Any, "kwargs": Any}


def test_locals_are_found_while_the_function_around_executes():
    @dataclass
    class Local:
        id: str

    captured = Local

    async def work(order: Local, same: list[captured]) -> dict[str, Local]: ...

    class Owner:
        def method(self, order: Local) -> Local: ...

    assert hints_of_parameters(work) == {"order": Local, "same": list[Local]}
    assert hint_of_result(work) == dict[str, Local]
    assert CallShape(Owner().method).result is Local
    assert hints_of_parameters(Owner().method) == {"order": Local}


def make_shape() -> tuple[CallShape, type]:
    class Local(TypedDict):
        id: str

    def work(order: Local) -> Local:
        return Local(order)

    return CallShape(work), Local


def test_shape_remembers_the_locals():
    shape, local = make_shape()
    assert shape.hints == {"order": local, "return": local}
    assert shape.name == "work"


def test_shape_waits_for_what_is_defined_later():
    def work(order: DefinedLater) -> DefinedLater: ...  # noqa: F821

    shape = CallShape(work)
    globals()["DefinedLater"] = Order
    try:
        assert shape.result is Order
        assert shape.hints["order"] is Order
    finally:
        del globals()["DefinedLater"]


def test_wrapped_partial_and_callable_objects():
    @functools.wraps(pay)
    def wrapper(*args: Any, **kwargs: Any) -> int: ...

    class Worker:
        def __call__(self, order: Order) -> Later: ...

    assert hint_of_result(wrapper) == list[Later]
    assert hints_of_parameters(functools.partial(sync_coroutine)) == {"a": int}
    assert hint_of_result(functools.partial(pay, note="x")) == list[Later]
    assert hint_of_result(Worker()) is Later
    assert hints_of_parameters(Worker()) == {"order": Order}


def test_bare():
    Id = NewType("Id", str)
    assert bare(Annotated[Id, 1]) is str
    assert bare(Bound) is int
    assert bare(T) is Any
    assert bare(None) is type(None)
    assert bare(object) is Any


def test_show():
    assert [show(hint) for hint in (int, list[int], Optional[Order], Any)] == [
        "int",
        "list[int]",
        "Optional[tests.unit.test_codec_hints.Order]",
        "Any",
    ]


def test_fields_of_generic_classes():
    @dataclass
    class Base(Generic[T]):
        one: T
        many: list[T]

    @dataclass
    class Named(Base[T]):
        name: str

    @dataclass
    class Whole(Named[int]):
        pass

    globals()["T"] = T
    assert [field.hint for field in fields_of(Named[bool])] == [bool, list[bool], str]
    assert [field.hint for field in fields_of(Whole)] == [int, list[int], str]
    assert fields_of(list[int]) is None
    assert fields_of(tuple) is None


def test_parts_of_a_recursive_class_end():
    class Node(pydantic.BaseModel):
        value: set[int]
        children: list[Node] = []

    assert set[int] in list(parts_of(dict[str, Node]))


def test_a_model_with_sets_is_written_in_one_order():
    Model = pydantic.create_model("Model", names=(set[str], ...), more=(dict[str, set[str]], {}))
    names = [f"n{number}" for number in range(40)]
    text, back = round_trip(JsonCodec(), Model(names=names, more={"a": names}), Model, where="it")
    assert text == '{"names":NAMES,"more":{"a":NAMES}}'.replace(
        "NAMES", str(sorted(names)).replace("'", '"').replace(" ", "")
    )
    assert back.names == set(names)
