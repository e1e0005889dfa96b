"""Hints are read off functions as they stand: forward references, locals, decorated and partial functions."""

# ruff: noqa: UP045 - older ways of writing hints, and naive datetimes, are users' ways

from __future__ import annotations

import functools
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional, ParamSpec, TypedDict, TypeVar

import pytest

from outlive.codec import CallShape
from outlive.codec.hints import show

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


def hints_of_parameters(function):
    return {name: hint for name, hint in CallShape(function).hints.items() if name != "return"}


def test_parameters_and_result():
    hints = hints_of_parameters(pay)
    assert hints == {"order": Order, "cents": int, "more": Later, "note": Optional[str], "rest": float}
    assert CallShape(pay).result == list[Later]


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
    assert CallShape(function).result == hint


def test_one_unresolvable_annotation_does_not_spoil_the_others():
    assert hints_of_parameters(ghostly) == {"ghost": Any, "count": int}
    assert hints_of_parameters(bare_function) == {}
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
    assert CallShape(work).result == dict[str, Local]
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

    assert CallShape(wrapper).result == list[Later]
    assert hints_of_parameters(functools.partial(sync_coroutine)) == {"a": int}
    assert CallShape(functools.partial(pay, note="x")).result == list[Later]
    assert CallShape(Worker()).result is Later
    assert hints_of_parameters(Worker()) == {"order": Order}


def test_show():
    assert [show(hint) for hint in (int, list[int], Optional[Order], Any)] == [
        "int",
        "list[int]",
        "Optional[tests.unit.test_codec_hints.Order]",
        "Any",
    ]
