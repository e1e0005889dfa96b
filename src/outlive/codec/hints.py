"""Type hints: how they are read off functions, and what is in them.

A hint that cannot be resolved is Any. Everything here asks about types, never
about values; nothing is imported for it, pydantic and attrs classes are known by
their looks.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar, Union

import msgspec

_TRANSPARENT = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)
_UNKNOWN = (typing.Self, typing.NoReturn, typing.Never, object)
_REMEMBERED_MAX = 4096  # hints of one process; more come from code that makes types as it goes

Made = TypeVar("Made")


def remembered(make: Callable[[Any], Made]) -> Callable[[Any], Made]:
    """Make something once for each hint object; equal hints may differ: `int | str == str | int`."""
    known: dict[int, tuple[Any, Made]] = {}  # holds the hint too, so that its id stays its own

    @functools.wraps(make)
    def find(hint: Any) -> Made:
        found = known.get(id(hint))
        if found is None:
            if len(known) >= _REMEMBERED_MAX:
                known.clear()
            found = known[id(hint)] = (hint, make(hint))
        return found[1]

    return find


def plain_function(function: Any) -> Any:
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


def names_around(function: Any) -> dict[str, Any]:
    """Find what a function's annotations may mean by local names: closures, and the frame that defines it."""
    function = plain_function(function)
    code = getattr(function, "__code__", None)
    outer = function.__qualname__.rpartition(".<locals>.")[0]
    frame = sys._getframe(1) if outer and code else None
    while frame and not (frame.f_code.co_qualname == outer and frame.f_globals is function.__globals__):
        frame = frame.f_back
    text = " ".join(str(annotation) for annotation in _annotations_of(function).values())
    names = {name: value for name, value in frame.f_locals.items() if name in text} if frame else {}
    for name, cell in zip(code.co_freevars if code else (), function.__closure__ or () if code else (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def resolve_hints(function: Any, local_names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Give each annotation of a function as a type; one that cannot be resolved is Any."""
    function = plain_function(function)
    names = names_around(function) if local_names is None else local_names
    found: dict[str, Any] = {}
    for name, annotation in _annotations_of(function).items():
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            found[name] = typing.get_type_hints(holder, function.__globals__, names, include_extras=True)[name]
        except Exception:  # whatever a half-defined module raises: the value is plain JSON then
            found[name] = Any
        if isinstance(found[name], (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
            found[name] = Any
    return found


def result_among(hints: dict[str, Any]) -> Any:
    """Give the result of a call out of resolved hints; of an awaitable, what awaiting it gives."""
    hint = hints.get("return", Any)
    return typing.get_args(hint)[-1] if typing.get_origin(hint) in (Awaitable, Coroutine) else hint


def hint_of_result(function: Callable[..., Any]) -> Any:
    """Give the declared result of a function, of a coroutine function what awaiting it gives."""
    return result_among(resolve_hints(function))


def hints_of_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Give the hint of each parameter by name, Any where there is none; of `*args: T` it is T."""
    found = resolve_hints(function)
    return {name: found.get(name, Any) for name in inspect.signature(function).parameters}


def show(hint: Any) -> str:
    """Write a hint the way it stands in code."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def bare(hint: Any) -> Any:
    """Take off what does not change how a value is stored: NewType, Annotated, Required, aliases."""
    while hint is not Any and type(hint) is not type:
        if typing.get_origin(hint) in _TRANSPARENT:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif isinstance(hint, typing.TypeVar):
            hint = hint.__bound__ or Any
        else:
            break
    if hint in _UNKNOWN or isinstance(hint, (str, typing.ForwardRef)):  # a name that nobody resolved
        return Any
    return type(None) if hint is None else hint


def class_of(hint: Any) -> Any:
    """Give `list` of `list[int]`, and anything that takes no arguments itself."""
    return typing.get_origin(hint) or hint


def arms_of(hint: Any) -> tuple[Any, ...]:
    """Give the members of a union, of anything else nothing."""
    if type(hint) is type or typing.get_origin(hint) not in (Union, types.UnionType):
        return ()
    return tuple(bare(arm) for arm in typing.get_args(hint))


def is_pydantic(cls: Any) -> bool:
    """Say whether this is a model class of pydantic, which is never imported for it."""
    return isinstance(cls, type) and hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump_json")


def is_odd_enum(cls: type[enum.Enum]) -> bool:
    """Say whether JSON does not give back the values of an enum; its members are stored by name."""
    return not issubclass(cls, enum.Flag) and {type(member.value) for member in cls} not in ({str}, {int})


class Field(NamedTuple):
    """One field of a class; `parameter` is its name in `__init__`, None if it is set afterwards."""

    name: str
    hint: Any
    parameter: str | None


@remembered
def fields_of(hint: Any) -> tuple[Field, ...] | None:
    """Give the fields of a dataclass, attrs class, NamedTuple, TypedDict or Struct, of anything else None."""
    cls = class_of(hint)
    if not isinstance(cls, type):
        return None
    if dataclasses.is_dataclass(cls):
        found = [(field.name, field.name if field.init else None) for field in dataclasses.fields(cls)]
    elif hasattr(cls, "__attrs_attrs__"):
        found = [(field.name, field.alias if field.init else None) for field in cls.__attrs_attrs__]
    elif typing.is_typeddict(cls):
        found = [(name, name) for name in typing.get_type_hints(cls)]
    elif issubclass(cls, msgspec.Struct) or (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        found = [(name, name) for name in getattr(cls, "__struct_fields__", getattr(cls, "_fields", ()))]
    else:
        return None
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # msgspec reports it, if the class is a hint
        hints = {}
    known = _type_arguments(hint)
    return tuple(Field(name, _fill_in(hints.get(name, Any), known), parameter) for name, parameter in found)


def _type_arguments(hint: Any) -> dict[Any, Any]:
    """Say what the type variables of a generic class stand for, those of its base classes too."""
    cls = class_of(hint)
    known = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(hint), strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        if typing.get_origin(base) not in (None, typing.Generic):
            known = {name: _fill_in(value, known) for name, value in _type_arguments(base).items()} | known
    return known


def _fill_in(hint: Any, known: dict[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ()) if not isinstance(hint, type) else ()
    return hint[tuple(known.get(one, one) for one in parameters)] if parameters else hint


def parts_of(hint: Any) -> Iterator[Any]:
    """Walk a hint and everything in it, classes with their fields, each once."""
    seen: list[Any] = []
    waiting = [hint]
    while waiting:
        part = bare(waiting.pop())
        if part in seen:
            continue
        seen.append(part)
        yield part
        waiting.extend(typing.get_args(part) if typing.get_origin(part) is not typing.Literal else ())
        waiting.extend(field.hint for field in fields_of(part) or ())
        if is_pydantic(part):
            waiting.extend(field.annotation for field in part.model_fields.values())


def compares_whole(cls: type) -> bool:
    """Say whether equal instances of a class have equal fields: no field is left out, no `__eq__` hand-written."""
    own = {"__dataclass_fields__": "compare", "__attrs_attrs__": "eq"}
    for name, flag in own.items():
        fields = getattr(cls, name, ())
        if any(not getattr(field, flag) for field in (fields.values() if isinstance(fields, dict) else fields)):
            return False
    code = getattr(cls.__eq__, "__code__", None)
    return code is None or code.co_filename.startswith(("<string>", "<attrs generated")) or is_pydantic(cls)
