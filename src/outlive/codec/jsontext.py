"""The codec for JSON text: the fast way through msgspec, and when to leave it.

msgspec writes some values as others (NaN as null, a subclass as its base), so a
text is only taken as it is if it reads back equal. Else `lower` writes the value
step by step, or says what is wrong with it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Set
from typing import Any

import msgspec

from outlive.codec.hints import class_of, compares_whole, parts_of, remembered, show
from outlive.codec.lower import ENCODER, Lowering, Unfit
from outlive.codec.standins import decodable, revive
from outlive.errors import DecodeFailed, EncodeFailed, PayloadTooLarge
from outlive.limits import PAYLOAD_MAX_BYTES


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
            return _plan_of(hint).decode(text)
        except Exception as problem:  # __post_init__ and validators raise what they like
            reason, path = _explain(problem)
            raise DecodeFailed(f"{_join(where, path)}: {reason}; what is stored does not fit {show(hint)}") from problem

    def round_trip(self, value: Any, *, where: str, hint: Any = Any) -> tuple[str, Any]:
        """Give the text of a value together with `decode(text)`, at the price of `encode` alone."""
        try:
            plan = _plan_of(hint)
        except Exception as problem:
            raise EncodeFailed(where, f"its declared type {show(hint)} cannot be used: {problem}") from problem
        return plan.store(value, where)


class _Plan:
    """How values of one hint are stored, with a decoder made once."""

    def __init__(self, hint: Any) -> None:
        self._hint = hint
        readable = decodable(hint)
        self.decode = msgspec.json.Decoder(readable, dec_hook=revive).decode
        # Sets have another order in each process, stand-ins another form than msgspec writes,
        # and a time whose zone needs a date equals the one without a zone that it comes back as.
        classes = [class_of(part) for part in parts_of(hint) if isinstance(class_of(part), type)]
        unsure = any(issubclass(cls, (Set, dt.time)) or not compares_whole(cls) for cls in classes)
        self._direct = readable is hint and not unsure

    def store(self, value: Any, where: str) -> tuple[str, Any]:
        """Give the text of a value, and what that text is read back as."""
        return (self._store_directly(value) if self._direct else None) or self._store_slowly(value, where)

    def _store_directly(self, value: Any) -> tuple[str, Any] | None:
        try:
            raw = ENCODER.encode(value)
            if len(raw) > PAYLOAD_MAX_BYTES or b"\\u0000" in raw:
                return None
            back = self.decode(raw)
            # Unequal is NaN (written as null), a set (now a list), a subclass, an int key: see `lower`.
            return (raw.decode(), back) if back == value else None
        except Exception:  # whatever it is, the slow way names it and its path
            return None

    def _store_slowly(self, value: Any, where: str) -> tuple[str, Any]:
        lowering = Lowering()
        raw = encode_lowered(lowering, value, self._hint, where)
        if len(raw) > PAYLOAD_MAX_BYTES:
            raise PayloadTooLarge(where, len(raw), PAYLOAD_MAX_BYTES)
        try:
            back = self.decode(raw)
        except Exception as problem:
            reason, path = _explain(problem)
            raise EncodeFailed(_join(where, path), f"{reason} (declared: {show(self._hint)})") from problem
        exact = self._hint is not Any and not lowering.coerced
        if exact and encode_lowered(Lowering(), back, self._hint, where) != raw:
            raise EncodeFailed(where, f"{value!r:.200} would come back as {back!r:.200}")
        return raw.decode(), back


def encode_lowered(lowering: Lowering, value: Any, hint: Any, where: str, encoder: Any = ENCODER) -> bytes:
    """Encode a value the slow way, with every refusal as EncodeFailed."""
    try:
        return encoder.encode(lowering.lower(value, hint))  # type: ignore[no-any-return]
    except Unfit as unfit:
        raise EncodeFailed(_join(where, unfit.path), unfit.problem) from None
    except RecursionError:
        raise EncodeFailed(where, "it is nested too deeply, or holds itself") from None
    except Exception as problem:
        raise EncodeFailed(where, str(problem)) from problem


def _join(where: str, path: str) -> str:
    return f"{where}: {path}" if path else where


def _explain(problem: Exception) -> tuple[str, str]:
    """Split msgspec's "reason - at `$.path`"; stand-ins add the outer parts of the path behind the inner ones."""
    if isinstance(problem, RecursionError):
        return "it is nested too deeply", ""
    reason, *paths = (str(problem) or repr(problem)).split(" - at `")
    return reason, "".join(path.rstrip("`").removeprefix("$") for path in reversed(paths))


_plan_of = remembered(_Plan)
