"""Error records: what is kept of an error, and the error rebuilt from it.

A record is readable JSON and can always be made. An error comes back as its own
class only where that class is imported already and its recorded arguments make
the same message again; else as StepFailed with the same facts. A record never
causes an import. Messages and tracebacks are plain text whatever the codec is;
a codec of the user's own keeps everything else of an error out of its record.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import Any

import msgspec

from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import Codec
from outlive.codec.plain import ENCODER, lower, name_class, storable_text
from outlive.errors import DecodeFailed, OutliveError, PayloadError, Permanent, StepFailed, UsageError
from outlive.limits import ERROR_CAUSES_MAX, ERROR_TEXT_MAX_CHARS

_ENDS_TASK_OR_PROCESS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
_MEMBERS_MAX = 32  # errors kept of exception groups, in all of one record
_ABSENT = object()


class _Record(msgspec.Struct):
    """What is stored of an error; what an older record lacks has a default, and `members` only groups have."""

    type: str = "unknown"
    text: str = ""
    args: list[Any] | None = None
    attrs: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    retryable: bool = True
    traceback: str = ""
    cause: _Record | None = None
    message: str | msgspec.UnsetType = msgspec.UNSET
    members: list[_Record] | msgspec.UnsetType = msgspec.UNSET
    entry: str | msgspec.UnsetType | None = msgspec.UNSET  # of its run, from which it comes; older records do not tell


_DECODER = msgspec.json.Decoder(_Record)


def record_error(error: BaseException, codec: Codec) -> str:
    """Give the record of an error as JSON text. Never fails."""
    return ENCODER.encode(_record(error, isinstance(codec, JsonCodec), 0, set())).decode()


def _record(error: BaseException, with_values: bool, depth: int, seen: set[int]) -> _Record:
    kept: _Record | None = vars(error).get("__outlive_record__")  # its class may have a __getattr__
    notes = {"__notes__": _plain(vars(error)["__notes__"])} if vars(error).get("__notes__") else {}
    if kept is not None:
        attrs = {} if kept.attrs is msgspec.UNSET else kept.attrs
        return msgspec.structs.replace(kept, attrs=attrs | notes if notes else kept.attrs, entry=_entry_of(error))
    seen.add(id(error))
    text = _text_of(error)
    record = _Record(
        type=_clean(name_class(type(error))),
        text=text,
        args=_arguments_of(error, text, with_values),
        attrs=_attributes_of(error) if with_values else notes,
        retryable=isinstance(error, Exception) and not isinstance(error, (Permanent, UsageError, PayloadError)),
        traceback=_traceback_of(error),
        entry=_entry_of(error),
    )
    if isinstance(error, StepFailed):  # made by the user's code
        arguments = _plain(list(error.arguments)) if with_values else None
        record.type, record.text, record.retryable = _clean(error.type), _clean(error.text), bool(error.retryable)
        record.args, record.attrs = arguments if isinstance(arguments, list) else None, {}
    if isinstance(error, BaseExceptionGroup):
        record.message = _clean(error.message)
        record.members = []
        for member in error.exceptions if depth < ERROR_CAUSES_MAX else ():
            if len(seen) <= _MEMBERS_MAX:
                record.members.append(_record(member, with_values, depth + 1, seen))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen and depth < ERROR_CAUSES_MAX:
        record.cause = _record(cause, with_values, depth + 1, seen)
    return record


def mark_entry(error: BaseException, key: str) -> None:
    """Note from which entry of its run an error comes, for whoever asks what the run has failed by."""
    vars(error)["__outlive_entry__"] = key


def _entry_of(error: BaseException | None, seen: frozenset[int] = frozenset()) -> str | None:
    if error is None or id(error) in seen:
        return None
    seen |= {id(error)}
    own: str | None = vars(error).get("__outlive_entry__")  # else what it was raised for, suppressed or not
    return own or _entry_of(error.__cause__, seen) or _entry_of(error.__context__, seen)


def _clean(text: str) -> str:
    text = storable_text(text)
    return text if len(text) <= ERROR_TEXT_MAX_CHARS else text[: ERROR_TEXT_MAX_CHARS - 1] + "…"


def _text_of(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except Exception as problem:
        return f"<its message cannot be read: {type(problem).__name__}>"


def _traceback_of(error: BaseException) -> str:
    kept: str | None = vars(error).get("__outlive_traceback__")
    if kept is not None:
        return kept
    try:
        text = "".join(traceback.format_exception(error, chain=False))
    except Exception as problem:
        return f"<its traceback cannot be written: {type(problem).__name__}>"
    return _clean(text if len(text) <= ERROR_TEXT_MAX_CHARS else "…" + text[1 - ERROR_TEXT_MAX_CHARS :])


def _arguments_of(error: BaseException, text: str, with_values: bool) -> list[Any] | None:
    """Give what makes the error again; OSError and its like tell that only by what they reduce to."""
    arguments = error.args
    try:
        made_by = error.__reduce__()
        if isinstance(made_by, tuple) and made_by[0] is type(error):
            arguments = tuple(made_by[1])
    except Exception:
        arguments = error.args
    if len(arguments) == 1 and isinstance(arguments[0], str) and _clean(arguments[0]) == text:
        return [text]
    plain = _plain(list(arguments)) if with_values else None
    return plain if isinstance(plain, list) else None


def _attributes_of(error: BaseException) -> dict[str, Any]:
    facts = {name: _plain(value) for name, value in vars(error).items() if not name.startswith("__outlive")}
    kept = _plain({name: value for name, value in facts.items() if value is not _ABSENT})
    return kept if isinstance(kept, dict) else {}


def _plain(value: Any) -> Any:
    """Give a value as plain JSON data, or _ABSENT where it is none or too large for a record."""
    try:
        raw = ENCODER.encode(lower(value))
        return msgspec.json.decode(raw) if len(raw) <= ERROR_TEXT_MAX_CHARS else _ABSENT
    except Exception:
        return _ABSENT


def doubted(record: str) -> str:
    """Give the record of an error that leaves open whether the step took effect, which a retry then has to find out."""
    return ENCODER.encode({**msgspec.json.decode(record), "in_doubt": True}).decode()


def error_facts(text: str) -> dict[str, Any]:
    """Give the facts of a record for display. Raises DecodeFailed if it is none."""
    facts: dict[str, Any] = msgspec.to_builtins(_decode(text))
    return facts


def _decode(text: str) -> _Record:
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise DecodeFailed(f"this error record cannot be read: {problem}") from problem


def rebuild_error(text: str, *, allow_cancelled: bool = False) -> BaseException:
    """Give the recorded error, with its causes as `__cause__` and its traceback as `__outlive_traceback__`.

    With `allow_cancelled` a CancelledError comes back as itself; nothing else that ends a
    task or the process ever does. Raises DecodeFailed if the text is no record.
    """
    return _rebuild(_decode(text), allow_cancelled)


def _rebuild(record: _Record, allow_cancelled: bool) -> BaseException:
    cls = _find_class(record.type)
    if cls and issubclass(cls, _ENDS_TASK_OR_PROCESS):
        cls = cls if allow_cancelled and issubclass(cls, asyncio.CancelledError) else None
    members = [_rebuild(member, allow_cancelled) for member in record.members or ()]
    error = None if cls is None else _make_group(cls, record, members) if members else _make(cls, record)
    if error is None:
        error = StepFailed(record.type, record.text, record.args or (), record.traceback, record.retryable)
        vars(error)["__outlive_record__"] = record
        add_notes(error, record.attrs)
    vars(error)["__outlive_traceback__"] = record.traceback
    if record.cause is not None:
        error.__cause__ = _rebuild(record.cause, allow_cancelled)
    return error


def attributes_of(failed: StepFailed) -> dict[str, Any]:
    """Give what the record of an error that was not rebuilt tells beside its message."""
    record: _Record | None = vars(failed).get("__outlive_record__")
    return {} if record is None or record.attrs is msgspec.UNSET else record.attrs


def add_notes(error: BaseException, attrs: Any) -> None:
    """Add the notes (PEP 678) of a record's attributes to an error that was made without them."""
    for note in attrs.get("__notes__", ()) if isinstance(attrs, dict) else ():
        error.add_note(str(note))


def _find_class(name: str) -> type[BaseException] | None:
    """Find an error class in the imported modules, without waking a `__getattr__` that would import more."""
    parts = name.split(".")
    for length in range(len(parts) - 1, -1, -1):
        found: Any = sys.modules.get(".".join(parts[:length]) or "builtins")
        for part in parts[length:]:
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    return None


def _make(cls: type[BaseException], record: _Record) -> BaseException | None:
    if record.args is None:
        return None
    try:
        if issubclass(cls, OutliveError) and cls.__module__ == OutliveError.__module__:
            # Ours build their message from facts, and these are their attributes.
            made: BaseException = cls.__new__(cls)
            made.args = tuple(record.args)
        else:
            made = cls(*record.args)
        vars(made).update(record.attrs or {})
        return made if type(made) is cls and _text_of(made) == record.text else None
    except Exception:
        return None


def _make_group(cls: Any, record: _Record, members: list[BaseException]) -> BaseException | None:
    try:
        made = cls(record.message, members)
    except Exception:
        return None
    return made if isinstance(made, BaseExceptionGroup) else None
