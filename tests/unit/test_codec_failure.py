"""An error record can always be made, imports nothing, and gives the original class back where that is honest."""

from __future__ import annotations

import asyncio
import enum
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from outlive import errors
from outlive.codec import JsonCodec, error_facts, rebuild_error, record_error
from outlive.codec.failure import mark_entry
from outlive.codec.plain import name_class
from outlive.errors import DecodeFailed, StepFailed
from outlive.limits import ERROR_CAUSES_MAX, ERROR_TEXT_MAX_CHARS

CODEC = JsonCodec()


class Declined(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class Formats(Exception):
    def __init__(self, order: str) -> None:
        super().__init__(f"order {order} failed")


class NeedsKeyword(Exception):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class BadReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError


class Outer:
    class Inner(ValueError):
        pass


class NotAnError:
    made = 0

    def __init__(self, *args: Any) -> None:
        NotAnError.made += 1


class Reason(enum.Enum):
    LATE = "late"


class Stop(asyncio.CancelledError):
    pass


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


def there_and_back(error: BaseException, **options: Any) -> BaseException:
    return rebuild_error(record_error(error, CODEC), **options)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError(),
        ValueError("a", 1, None),
        KeyError("missing"),
        Declined(402, "declined"),
        Outer.Inner("deep"),
        FileNotFoundError(2, "No such file", "x.txt"),
        PermissionError(13, "Permission denied"),
        OSError("plain"),
        ConnectionResetError(104, "reset"),
        TimeoutError("late"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte") and ValueError("x"),
        ZeroDivisionError("division by zero"),
        BadReduce("x"),
        AssertionError(),
        Silent("x"),
        msgspec.ValidationError("bad"),
        json.JSONDecodeError("Expecting value", "{", 1),
        errors.Permanent("never again"),
        errors.RetryAfter(2.5),
        errors.RetryAfter(2.5, "busy"),
        errors.UsageError("write it so"),
        errors.RunNotFound("r-1"),
        errors.RunCancelled("r-1"),
        errors.RunCancelled("r-1", "because"),
        errors.RunTimedOut("r-1", 3),
        errors.RunFailed("r-1", "shop.Declined", "no money"),
        errors.EncodeFailed("result of step a: .b", "no"),
        errors.PayloadTooLarge("it", 5, 4),
        errors.StoreUnavailable("gone", outcome_unknown=True),
        errors.JournalMismatch("r", expected="a", got="b", where="1", recorded_version="v1", code_version="v2"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.args}",
)
def test_original_class_comes_back(error):
    text = record_error(caught(error), CODEC)
    back = rebuild_error(text)
    assert type(back) is type(error)
    assert error_facts(text)["type"] == name_class(type(error))
    if not isinstance(error, Silent):
        assert str(back) == str(error)
    assert back.args == error.args
    own = {name: value for name, value in vars(back).items() if not name.startswith("__outlive")}
    assert own == vars(error)
    assert type(error).__name__ in back.__outlive_traceback__
    assert record_error(back, CODEC) == text


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (Formats("7"), "order 7 failed", ("order 7 failed",)),
        (NeedsKeyword(reason="x"), "x", ("x",)),
        (ValueError(object), "<class 'object'>", ()),
        (ValueError(1, print), "(1, <built-in function print>)", ()),
        (ValueError((1, 2)), "(1, 2)", ([1, 2],)),
        (ValueError(Reason.LATE), "Reason.LATE", ("late",)),
        (KeyboardInterrupt(), "", ()),
        (SystemExit(3), "3", (3,)),
        (GeneratorExit(), "", ()),
        (asyncio.CancelledError("enough"), "enough", ("enough",)),
        (Stop("enough"), "enough", ("enough",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_otherwise_the_facts_come_back(error, text, arguments):
    record = record_error(caught(error), CODEC)
    back = rebuild_error(record)
    assert type(back) is StepFailed
    assert (back.type, back.text, back.arguments) == (name_class(type(error)), text, arguments)
    assert back.matches(type(error).__name__)
    assert "Traceback" in back.traceback
    assert back.__outlive_traceback__ == back.traceback
    assert record_error(caught(back), CODEC) == record
    assert back.retryable is error_facts(record)["retryable"] is isinstance(error, Exception)


def test_local_classes_cannot_be_found():
    class Local(Exception):
        pass

    back = there_and_back(Local("x"))
    assert type(back) is StepFailed
    assert back.matches("Local")
    assert "<locals>" in back.type


def test_cancelled_comes_back_only_where_it_may():
    for error in (asyncio.CancelledError("enough"), Stop("enough")):
        back = there_and_back(error, allow_cancelled=True)
        assert type(back) is type(error)
        assert back.args == ("enough",)
    assert type(there_and_back(KeyboardInterrupt("x"), allow_cancelled=True)) is StepFailed
    assert type(there_and_back(SystemExit(0), allow_cancelled=True)) is StepFailed


def test_shape_of_a_record():
    record = json.loads(record_error(caught(Declined(402, "declined")), CODEC))
    trace = record.pop("traceback")
    assert record == {
        "type": f"{__name__}.Declined",
        "text": "declined (402)",
        "args": [402, "declined"],
        "attrs": {"code": 402, "message": "declined"},
        "retryable": True,
        "cause": None,
        "entry": None,
    }
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("Declined: declined (402)\n")


def test_a_record_tells_the_entry_that_an_error_comes_from():
    """That of the error, else of what it was raised for, suppressed or not; a loop of causes has an end."""
    failed = caught(Declined(402, "declined"))
    mark_entry(failed, "pay#1")
    wrapped, silent, plain = ValueError("wrapped"), ValueError("silent"), ValueError("plain")
    wrapped.__cause__, silent.__context__, silent.__suppress_context__ = failed, failed, True
    plain.__cause__, plain.__context__ = KeyError("own"), plain
    unnamed = rebuild_error(record_error(StepFailed("gone.Error", "gone", ()), CODEC))
    mark_entry(unnamed, "pay#2")
    found = [error_facts(record_error(error, CODEC))["entry"] for error in (failed, wrapped, silent, plain, unnamed)]
    assert found == ["pay#1", "pay#1", "pay#1", None, "pay#2"]
    assert "entry" not in error_facts('{"type": "ValueError", "text": "older than that"}')


def test_attributes_and_notes_come_back_where_they_are_json():
    error = ValueError("x")
    error.code, error.session, error.price = 5, object(), Decimal("1.5")
    error.add_note("tried twice")
    back = there_and_back(error)
    assert back.code == 5
    assert back.price == "1.5"
    assert back.__notes__ == ["tried twice"]
    assert not hasattr(back, "session")


def test_what_is_not_to_be_retried():
    for error in (errors.Permanent("x"), errors.UsageError("x"), errors.EncodeFailed("a", "b"), KeyboardInterrupt()):
        assert error_facts(record_error(error, CODEC))["retryable"] is False
    for error in (ValueError("x"), errors.RetryAfter(1), errors.StoreUnavailable("x")):
        assert error_facts(record_error(error, CODEC))["retryable"] is True


def test_nul_and_surrogates_in_messages_are_replaced():
    text = record_error(ValueError("a\x00b\ud800c"), CODEC)
    assert "\x00" not in text
    assert "\\u0000" not in text
    back = rebuild_error(text)
    assert (type(back), str(back)) == (ValueError, "a\ufffdb?c")
    assert type(there_and_back(KeyError("\x00"))) is StepFailed
    assert type(there_and_back(ValueError("x", "\udfff"))) is StepFailed


def test_long_messages_are_cut():
    long = "x" * (ERROR_TEXT_MAX_CHARS + 1)
    text = record_error(caught(ValueError(long)), CODEC)
    back = rebuild_error(text)
    assert type(back) is ValueError
    assert str(back) == long[: ERROR_TEXT_MAX_CHARS - 1] + "…"
    facts = error_facts(text)
    assert len(facts["traceback"]) <= ERROR_TEXT_MAX_CHARS
    assert error_facts(record_error(ValueError(1, long), CODEC))["args"] is None


def test_the_end_of_a_long_traceback_is_kept():
    def dive(depth: int, other: bool) -> None:
        if depth and other:  # two places that call: the traceback does not fold into "repeated"
            dive(depth - 1, False)
        if depth:
            dive(depth - 1, True)
        raise ValueError("bottom")

    with pytest.raises(ValueError, match="bottom") as info:
        dive(500, True)
    trace = error_facts(record_error(info.value, CODEC))["traceback"]
    assert len(trace) <= ERROR_TEXT_MAX_CHARS
    assert trace.startswith(("…", "Traceback"))
    assert trace.endswith("ValueError: bottom\n")


def test_causes():
    try:
        try:
            try:
                raise KeyError("inner")
            except KeyError:
                raise Formats("7")  # noqa: B904
        except Formats as middle:
            raise ValueError("outer") from middle
    except ValueError as error:
        back = there_and_back(error)
    assert type(back) is ValueError
    assert type(back.__cause__) is StepFailed
    assert back.__cause__.matches("Formats")
    assert repr(back.__cause__.__cause__) == "KeyError('inner')"
    assert back.__cause__.__cause__.__cause__ is None


def test_suppressed_context_is_no_cause():
    with pytest.raises(ValueError, match="outer") as info:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None
    assert info.value.__context__ is not None
    assert error_facts(record_error(info.value, CODEC))["cause"] is None


def test_chains_are_cut_and_may_hold_themselves():
    first = error = ValueError(0)
    for number in range(1, 50):
        error.__cause__ = ValueError(number)
        error = error.__cause__
    back: BaseException | None = there_and_back(first)
    count = 0
    while back is not None:
        assert str(back) == str(count)
        back, count = back.__cause__, count + 1
    assert count == ERROR_CAUSES_MAX + 1
    one, other = ValueError(1), ValueError(2)
    one.__cause__, other.__cause__ = other, one
    assert there_and_back(one).__cause__.__cause__ is None


def test_exception_groups():
    inner = ExceptionGroup("inner", [KeyError("k")])
    group = ExceptionGroup("two", [ValueError("v"), Formats("7"), inner])
    group.__cause__ = ValueError("why")
    back = there_and_back(caught(group))
    assert type(back) is ExceptionGroup
    assert str(back) == str(group)
    assert [type(member) for member in back.exceptions] == [ValueError, StepFailed, ExceptionGroup]
    assert repr(back.exceptions[2].exceptions[0]) == "KeyError('k')"
    assert repr(back.__cause__) == "ValueError('why')"
    assert record_error(back, CODEC) == record_error(there_and_back(back), CODEC)


def test_groups_that_end_tasks():
    group = BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError("v")])
    assert [type(one) for one in there_and_back(group).exceptions] == [StepFailed, ValueError]
    back = there_and_back(group, allow_cancelled=True)
    assert type(back) is BaseExceptionGroup
    assert [type(one) for one in back.exceptions] == [asyncio.CancelledError, ValueError]


def test_groups_are_cut():
    wide = ExceptionGroup("wide", [ValueError(number) for number in range(1000)])
    assert 1 < len(there_and_back(wide).exceptions) <= 32
    deep: Exception = ValueError("bottom")
    for _ in range(100):
        deep = ExceptionGroup("deep", [deep])
    assert len(record_error(deep, CODEC)) < 100_000


def test_step_failed_keeps_its_facts():
    record = record_error(caught(Formats("7")), CODEC)
    first = rebuild_error(record)
    with pytest.raises(StepFailed) as info:
        try:
            raise ValueError("while handling")
        except ValueError:
            raise first  # noqa: B904
    assert record_error(info.value, CODEC) == record
    assert record_error(rebuild_error(record), CODEC) == record


class Sealed:
    """A codec of a user's own, whose records hold no values."""

    id = "sealed/1"

    def encode(self, value: Any, *, where: str, hint: Any = Any) -> str:
        raise NotImplementedError

    def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
        raise NotImplementedError


def test_step_failed_made_by_hand():
    made = StepFailed("shop.Declined", "no \x00 money", [1, object()], retryable=False)
    back = there_and_back(made)
    assert (back.type, back.text, back.arguments, back.retryable) == ("shop.Declined", "no \ufffd money", (), False)
    assert there_and_back(StepFailed("shop.Declined", "x", [1])).arguments == (1,)
    back = rebuild_error(record_error(made, Sealed()))
    assert (back.type, back.text, back.arguments, back.retryable) == ("shop.Declined", "no \ufffd money", (), False)


class Answers(Exception):
    def __getattr__(self, name: str) -> str:
        return name


class Refuses(Exception):
    def __getattr__(self, name: str) -> str:
        raise KeyError(name)


@pytest.mark.parametrize(("cls", "args"), [(Answers, "x"), (Refuses, "x"), (SyntaxError, ("x", ("file.py", 1, 2, 3)))])
def test_whatever_an_error_is_it_has_a_record(cls, args):
    error = cls(*args)
    back = there_and_back(error)
    assert (type(back), str(back)) == (cls, str(error))


def test_records_are_plain_text_whatever_the_codec_and_hold_no_values_then():
    facts = error_facts(record_error(Declined(402, "declined"), Sealed()))
    assert (facts["text"], facts["args"], facts["attrs"]) == ("declined (402)", None, {})
    assert repr(rebuild_error(record_error(ValueError("x"), Sealed()))) == "ValueError('x')"


@pytest.mark.parametrize(
    "name",
    [
        f"{__name__}.NotAnError",
        f"{__name__}.CODEC",
        f"{__name__}.Outer",
        f"{__name__}.Outer.Nothing",
        f"{__name__}.caught",
        "os.system",
        "builtins.eval",
        "eval",
        "int",
        "nowhere.at.all",
        "",
        ".",
        "..ValueError",
        "a" * 10_000,
    ],
)
def test_a_record_makes_nothing_but_errors(name):
    text = json.dumps({"type": name, "text": "x", "args": ["x"]})
    assert type(rebuild_error(text)) is StepFailed
    assert NotAnError.made == 0


def test_a_record_imports_nothing():
    code = (
        "import sys, json\n"
        "from outlive.codec import rebuild_error\n"
        "import concurrent.futures\n"
        "before = set(sys.modules)\n"
        "for name in ('tarfile.ReadError', 'xml.dom.DOMException', 'concurrent.futures.process.BrokenProcessPool'):\n"
        "    back = rebuild_error(json.dumps({'type': name, 'text': 'x', 'args': ['x']}))\n"
        "    assert type(back).__name__ == 'StepFailed', back\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
        "assert not {'pydantic', 'attrs', 'attr'} & before\n"
        "import tarfile\n"
        "back = rebuild_error(json.dumps({'type': 'tarfile.ReadError', 'text': 'x', 'args': ['x']}))\n"
        "assert type(back) is tarfile.ReadError"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', '{"type": 1}', '{"type":"X","cause":1}', '{"type":"X","args":1}']
)
def test_what_is_no_record(text):
    with pytest.raises(DecodeFailed):
        rebuild_error(text)


def test_an_empty_record_is_still_an_error():
    back = rebuild_error("{}")
    assert (type(back), str(back)) == (StepFailed, "unknown")


def test_facts_have_defaults():
    assert error_facts('{"type":"X"}') == {
        "type": "X",
        "text": "",
        "args": None,
        "retryable": True,
        "traceback": "",
        "cause": None,
    }


def test_an_error_whose_class_changed_its_message_is_not_passed_off_as_the_original():
    text = json.dumps({"type": f"{__name__}.Declined", "text": "other words", "args": [402, "declined"]})
    assert type(rebuild_error(text)) is StepFailed
    text = json.dumps({"type": "FileNotFoundError", "text": "x", "args": ["x"]})
    assert type(rebuild_error(text)) is FileNotFoundError
    text = json.dumps({"type": "OSError", "text": "[Errno 2] x", "args": [2, "x"]})
    assert type(rebuild_error(text)) is StepFailed
