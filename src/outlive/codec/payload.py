"""Payloads: values and calls as stored text, read back by type hints.

The engine always delivers what `decode(encode(value))` gives, on the first
execution too, so code never sees a value that replay would not. With a hint a
value comes back as the declared type. Without one it comes back as plain JSON
data: tuples and sets as lists, dates as text, dataclasses as dicts. An aware
datetime keeps its offset, not the name of its zone. What would be lost on the
way (NaN, NUL, int keys without a hint) is refused with its path.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Protocol, TypedDict

from outlive.codec.hints import names_around, resolve_hints
from outlive.codec.jsontext import JsonCodec, refusals
from outlive.codec.plain import ENCODER, STEADY_ENCODER, check_sets, lower
from outlive.errors import DecodeFailed, EncodeFailed, PayloadTooLarge
from outlive.limits import PAYLOAD_MAX_BYTES

_FORMS_MAX = 64  # of one function: so many numbers of arguments are remembered with their hint
_ATOMS = frozenset({str, int, bool, type(None), float})


class Codec(Protocol):
    """What turns values into stored text and back; the hook for encryption."""

    @property
    def id(self) -> str: ...

    def encode(self, value: Any, *, where: str, hint: Any = Any) -> str: ...

    def decode(self, text: str, hint: Any = Any, *, where: str) -> Any: ...


def round_trip(codec: Codec, value: Any, hint: Any = Any, *, where: str) -> tuple[str, Any]:
    """Give the stored text of a value, and the value as every reader of that text will see it."""
    if isinstance(codec, JsonCodec):
        return codec.round_trip(value, where=where, hint=hint)
    text = encode(codec, value, hint, where=where)
    return text, codec.decode(text, hint, where=where)


def encode(codec: Codec, value: Any, hint: Any = Any, *, where: str) -> str:
    """Give the stored text of a value. Raises PayloadTooLarge whoever the codec is by."""
    text = codec.encode(value, where=where, hint=hint)
    if len(text) > PAYLOAD_MAX_BYTES // 4 and (size := len(text.encode(errors="surrogatepass"))) > PAYLOAD_MAX_BYTES:
        raise PayloadTooLarge(where, size, PAYLOAD_MAX_BYTES)
    return text


def codec_for(id: str, codecs: Iterable[Codec], *, what: str = "this payload") -> Codec:
    """Find the codec that wrote `what`. Raises DecodeFailed if this process does not have it."""
    known = {codec.id: codec for codec in codecs}
    if id not in known:
        raise DecodeFailed(
            f"{what} was written by codec {id!r}, this process has {', '.join(sorted(known)) or 'none'}; "
            "open the app with the codec that wrote it: Outlive(..., codec=...)"
        )
    return known[id]


def digest(text: str) -> str:
    """Give 16 hex characters that stand for a text."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


class CallShape:
    """How a function is called: its signature and hints, made once for each definition.

    A call has one stored form, by position wherever possible: `f(1)` and `f(a=1)` are the
    same call. Defaults are not stored, the function gives its own.
    """

    def __init__(self, function: Callable[..., Any], skip_first: bool = False) -> None:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[int(skip_first) :]
        self.name = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]
        self.signature = signature.replace(parameters=parameters)
        self._function = function
        self._names_around = names_around(function)
        self._forms: dict[tuple[int, tuple[str, ...]], Any] = {}
        places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        named = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
        self._places = [one.name for one in places]
        self._least = sum(one.default is one.empty for one in places) + (1 << 30 if named else 0)
        self._rest = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), "")
        self._others = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), "")

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """The resolved annotations; not read before the first call, when all of the module exists."""
        return resolve_hints(self._function, self._names_around)

    @functools.cached_property
    def result(self) -> Any:
        """The declared result; of a function that gives an awaitable, what awaiting it gives."""
        hint = self.hints.get("return", Any)
        return typing.get_args(hint)[-1] if typing.get_origin(hint) in (Awaitable, Coroutine) else hint

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give a call in its one form. Raises TypeError, as the call itself would."""
        if not kwargs and self._least <= len(args) <= len(self._places):
            return args, {}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as problem:
            raise TypeError(f"{self.name}(): {problem}") from None
        return bound.args, bound.kwargs

    def hint(self, count: int, names: tuple[str, ...]) -> Any:
        """Give the hint of a stored call with so many arguments by position and these by keyword."""
        form = self._forms.get((count, names))
        if form is None:
            form = self._make_hint(count, names)
            if len(self._forms) < _FORMS_MAX:
                self._forms[count, names] = form
        return form

    def _make_hint(self, count: int, names: tuple[str, ...]) -> Any:
        places = [self.hints.get(name, Any) for name in self._places[:count]]
        places += [self.hints.get(self._rest, Any)] * (count - len(places))
        own = self.signature.parameters
        named = {name: self.hints.get(name if name in own else self._others, Any) for name in names}
        args = types.GenericAlias(tuple, tuple(places))
        kwargs = TypedDict("kwargs", named)  # type: ignore[misc]
        return TypedDict(f"call of {self.name}", {"args": args, "kwargs": kwargs})  # type: ignore[operator]

    def rename(self, path: str) -> str:
        """Put the names of parameters into a path: `.order.price` for `.args[0].price`."""

        def name_of(found: re.Match[str]) -> str:
            index, count = int(found[1]), len(self._places)
            return f": .{self._places[index]}" if index < count else f": .{self._rest}[{index - count}]"

        return re.sub(r": \.args\[(\d+)\]", name_of, path, count=1).replace(": .kwargs.", ": .", 1)


def encode_arguments(
    codec: Codec, shape: CallShape | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, where: str
) -> str:
    """Give the stored form of a call; the shape is None where only the name of the workflow is known.

    Raises TypeError where the function does not take these arguments, EncodeFailed and PayloadTooLarge.
    """
    if shape is None:
        return encode(codec, {"args": list(args), "kwargs": dict(kwargs)}, where=where)
    args, kwargs = shape.bind(args, kwargs)
    try:
        hint = shape.hint(len(args), tuple(kwargs))
        return encode(codec, {"args": args, "kwargs": kwargs}, hint, where=where)
    except EncodeFailed as failed:
        raise EncodeFailed(shape.rename(failed.path), failed.problem) from failed.__cause__


def decode_arguments(
    codec: Codec, shape: CallShape, text: str, *, where: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the arguments of a stored call, each by its parameter's hint. Raises DecodeFailed."""
    stored = codec.decode(text, where=where)
    try:
        names = tuple(stored["kwargs"])
        shape.bind(tuple(stored["args"]), stored["kwargs"])
    except (TypeError, KeyError) as problem:
        raise DecodeFailed(f"{where}: what is stored does not fit the parameters: {problem}") from problem
    try:
        call = codec.decode(text, shape.hint(len(stored["args"]), names), where=where)
    except DecodeFailed as failed:
        raise DecodeFailed(shape.rename(str(failed))) from failed.__cause__
    return shape.bind(call["args"], call["kwargs"])


def digest_arguments(shape: CallShape, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, where: str) -> str:
    """Give the digest of a call. The arguments are not stored, so they need not fit their hints."""
    args, kwargs = shape.bind(args, kwargs)
    try:
        return blake2b(_encode_steadily({"args": args, "kwargs": kwargs}, where), digest_size=8).hexdigest()
    except EncodeFailed as failed:
        raise EncodeFailed(shape.rename(failed.path), failed.problem) from failed.__cause__


def _encode_steadily(call: Any, where: str) -> bytes:
    """Give the same bytes for equal values in every process."""
    try:
        if not is_atomic(call["args"], call["kwargs"]):
            check_sets(call)
        return STEADY_ENCODER.encode(call)
    except Exception:  # keys that are no text, sets that have no order of their own, or what cannot be written at all
        with refusals(where):
            raw = ENCODER.encode(lower(call, loose=True))
            return json.dumps(json.loads(raw), sort_keys=True).encode()


def is_atomic(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Say whether a call has nothing but a few plain values, which nobody can change."""
    return not kwargs and _ATOMS.issuperset(map(type, args))
