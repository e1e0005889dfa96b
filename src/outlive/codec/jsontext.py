"""The codec for JSON text: msgspec's own, as long as the text reads back equal.

msgspec writes some values as others (NaN as null, a subclass as its base), so
where the text reads back unequal the value is taken apart, and where a class of the
hint looks at less than all of it to be equal: either what differs is only that no
hint declares it, or it is refused with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import msgspec.inspect

from outlive.codec.hints import show
from outlive.codec.plain import ENCODER, Unfit, compare, compares_whole, is_pydantic, lower
from outlive.codec.unions import make_reader
from outlive.errors import DecodeFailed, EncodeFailed, PayloadError, PayloadTooLarge
from outlive.limits import PAYLOAD_MAX_BYTES

Decode = Callable[[str | bytes], Any]

_DECODERS_MAX = 4096  # more hints than that come from code that makes types as it goes
_decoders: dict[int, tuple[Any, tuple[Decode, bool]]] = {}  # holds the hint too, so that its id stays its own


class JsonCodec:
    """Readable JSON text, the default.

    `where` says in errors which payload it is: "result of step charge".
    """

    id = "json/1"

    def encode(self, value: Any, *, where: str, hint: Any = Any) -> str:
        """Give the text of a value. Raises EncodeFailed with the path of what cannot be stored, PayloadTooLarge."""
        return self.round_trip(value, where=where, hint=hint)[0]

    def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
        """Give the value of a text, as the type of the hint. Raises DecodeFailed."""
        try:
            return _decoder_of(hint)[0](text)
        except Exception as problem:  # __post_init__ and validators raise what they like
            reason, path = _explain(problem)
            raise DecodeFailed(f"{_join(where, path)}: {reason}; what is stored does not fit {show(hint)}") from problem

    def round_trip(self, value: Any, *, where: str, hint: Any = Any) -> tuple[str, Any]:
        """Give the text of a value together with `decode(text)`, at the price of `encode` alone."""
        try:
            decode, tells_all = _decoder_of(hint)
        except Exception as problem:
            raise EncodeFailed(where, f"its declared type {show(hint)} cannot be used: {problem}") from problem
        try:
            raw = ENCODER.encode(value)
            back = decode(raw)
            same = tells_all and back == value and b"\\u0000" not in raw and len(raw) <= PAYLOAD_MAX_BYTES
        except Exception:  # whatever it is, taking the value apart names it and its path
            same = False
        if same:
            return raw.decode(), back
        return _take_apart(value, hint, decode, where)


def _take_apart(value: Any, hint: Any, decode: Decode, where: str) -> tuple[str, Any]:
    with refusals(where, hint):
        raw = ENCODER.encode(lower(value))
        if len(raw) > PAYLOAD_MAX_BYTES:
            raise PayloadTooLarge(where, len(raw), PAYLOAD_MAX_BYTES)
        back = decode(raw)
        compare(value, back)
    return raw.decode(), back


def _decoder_of(hint: Any) -> tuple[Decode, bool]:
    """Give the decoder of a hint, and whether values of it that are equal have equal parts."""
    found = _decoders.get(id(hint))
    if found is None:
        if len(_decoders) >= _DECODERS_MAX:
            _decoders.clear()
        found = _decoders[id(hint)] = hint, _make_decoder(hint)
    return found[1]


def _make_decoder(hint: Any) -> tuple[Decode, bool]:
    try:
        return msgspec.json.Decoder(hint, dec_hook=_revive).decode, _tells_all(hint)
    except TypeError:
        read = make_reader(hint, _revive)
        return (lambda text: read(msgspec.json.decode(text))), False


def _tells_all(hint: Any) -> bool:
    waiting: list[Any] = [msgspec.inspect.type_info(hint)]
    seen = set()
    while waiting:
        part = waiting.pop()
        if id(part) not in seen and isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)):
            seen.add(id(part))
            if not compares_whole(getattr(part, "cls", None)):
                return False
            for inner in msgspec.structs.astuple(part):
                waiting.extend(inner if isinstance(inner, tuple) else (inner,))
    return True


def _revive(cls: Any, raw: Any) -> Any:
    """Decode what msgspec asks about: pydantic models, subclasses of plain types."""
    if is_pydantic(cls):
        return cls.model_validate_json(msgspec.json.encode(raw))
    return cls(raw) if isinstance(cls, type) and type(raw) in (str, int, float) and type(raw) in cls.__mro__ else raw


@contextmanager
def refusals(where: str, hint: Any = Any) -> Iterator[None]:
    """Turn whatever is raised while a value of this hint is written, and read again, into EncodeFailed."""
    try:
        yield
    except PayloadError:
        raise
    except Unfit as unfit:
        raise EncodeFailed(_join(where, unfit.path), unfit.problem) from None
    except RecursionError:
        raise EncodeFailed(where, "it is nested too deeply, or holds itself") from None
    except Exception as problem:
        reason, path = _explain(problem)
        declared = "" if hint is Any else f" (declared: {show(hint)})"
        raise EncodeFailed(_join(where, path), reason + declared) from problem


def _join(where: str, path: str) -> str:
    return f"{where}: {path}" if path else where


def _explain(problem: Exception) -> tuple[str, str]:
    """Split msgspec's "reason - at `$.path`"."""
    if isinstance(problem, RecursionError):
        return "it is nested too deeply", ""
    reason, _, path = (str(problem) or repr(problem)).partition(" - at `$")
    return reason, path.removesuffix("`")
