"""Type hints: how they are read off functions. A hint that cannot be resolved is Any."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

_SAYS_NOTHING = (typing.Self, typing.NoReturn, typing.Never)


def plain_function(function: Callable[..., Any]) -> Any:
    """Give the function that bears the annotations of a callable."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, "__code__") else type(function).__call__


def _annotations_of(function: Any) -> dict[str, Any]:
    try:
        return dict(getattr(function, "__annotations__", {}))
    except NameError:  # Python 3.14 evaluates annotations when they are read
        from annotationlib import Format, get_annotations  # type: ignore[import-not-found,unused-ignore]

        return dict(get_annotations(function, format=Format.FORWARDREF))


def names_around(function: Callable[..., Any]) -> dict[str, Any]:
    """Find what a function's annotations may mean by local names: closures, and the frame that defines it."""
    function = plain_function(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    outer = function.__qualname__.rpartition(".<locals>.")[0]
    frame = sys._getframe(1) if outer else None
    while frame and not (frame.f_code.co_qualname == outer and frame.f_globals is function.__globals__):
        frame = frame.f_back
    text = " ".join(str(annotation) for annotation in _annotations_of(function).values())
    names = {name: value for name, value in frame.f_locals.items() if name in text} if frame else {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def resolve_hints(function: Callable[..., Any], local_names: dict[str, Any]) -> dict[str, Any]:
    """Give each annotation of a function as a type; one that cannot be resolved is Any."""
    function = plain_function(function)
    found: dict[str, Any] = {}
    for name, annotation in _annotations_of(function).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            hint = typing.get_type_hints(holder, function.__globals__, local_names, include_extras=True)[name]
        except Exception:  # whatever a half-defined module raises: the value is plain JSON then
            hint = Any
        is_open = isinstance(hint, (typing.ParamSpecArgs, typing.ParamSpecKwargs)) or "ForwardRef(" in repr(hint)
        found[name] = Any if is_open or hint in _SAYS_NOTHING else hint
    return found


def show(hint: Any) -> str:
    """Write a hint the way it stands in code."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
