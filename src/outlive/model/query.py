"""The language in which people and programs say which runs they mean: parser, printer, and what a store is asked.

    query      = [ condition *( space condition ) ]       all of them hold; `all` alone means every run
    condition  = [ "-" ] name ":" value *( "," value )    one of the values; with the minus none of them
    value      = word [ "*" ] | '"' text '"' [ "*" ]       `*`: begins with
    times      = "<" time | ">" time | "<=" time | ">=" time | time ".." time | date

Names are the fields below or those of attributes; a name in quotes is always an attribute. Pure.
Invariants: what is printed parses to the same, and a name close to a field's is never an attribute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NoReturn

from outlive.errors import UsageError
from outlive.limits import QUERY_MAX_CHARS, QUERY_VALUES_MAX
from outlive.model.attributes import spellings
from outlive.model.reads import Match, RunQuery
from outlive.model.status import Status

TEXTS = ("status", "workflow", "queue", "id", "key", "version", "parent", "priority")
TIMES = ("age", "created", "finished")
FIELDS = (*TEXTS, *TIMES)
NO_FIELDS = ("deadline",)  # what people look for and an index does not find
_BEGINNINGS = ("workflow", "queue", "id", "key", "version")  # fields whose values may end with *
_PRESENT = ("key", "version", "parent")  # fields that a run may lack: * alone means that it has one

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_NAME = re.compile(rf'(-?)(?:{_QUOTED}|([^\s":,*]+)):', re.DOTALL)
_VALUE = re.compile(rf'(?:{_QUOTED}(\*?)|([^\s",]+))(?=[\s,]|\Z)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """When a run was created or has ended: from `low` on, before `high`; with `ago` these are ages in seconds."""

    field: Literal["created", "finished"]
    low: float | None
    high: float | None
    ago: bool = False


Condition = Match | Span


# -- reading --------------------------------------------------------------------
def parse(text: str) -> tuple[Condition, ...]:
    """Give the conditions of a query. UsageError says what is wrong with it and where."""
    if not isinstance(text, str):
        raise UsageError(f"a query is text, for example 'status:failed tenant:42', not {text!r}")
    if len(text) > QUERY_MAX_CHARS:
        raise UsageError(f"a query has at most {QUERY_MAX_CHARS:,} characters, not {len(text):,}")
    if text.strip() == "all":
        return ()
    return tuple(_Reader(text).conditions())


def parse_duration(text: str, what: str = "a duration") -> float:
    """Give `90s`, `1h30m`, `2d` in seconds."""
    if not _DURATION.fullmatch(text):
        raise UsageError(
            f"{what} is a number with a unit ({', '.join(UNITS_S)}), for example 90s, 1h30m or 2d, not {text!r}"
        )
    return sum(float(number) * UNITS_S[unit] for number, unit in _AMOUNT.findall(text))


class _Reader:
    """A query and the place that has been read up to."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def conditions(self) -> Iterable[Condition]:
        while self._text[self._at :].strip():
            self._at += len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
            yield self._condition()

    def _condition(self) -> Condition:
        begin = self._at
        found = _NAME.match(self._text, begin)
        if found is None:
            word = self._text[begin:].split()[0]
            self._fail(f"{word!r} is no condition; write name:value, for example status:failed", begin)
        minus, quoted, plain = found.groups()
        self._at = found.end()
        name, is_attribute = (_unquote(quoted), True) if quoted is not None else (plain, plain not in FIELDS)
        if is_attribute and plain in NO_FIELDS:
            self._fail(
                f"runs are not found by their {name}; for an attribute of that name write {_quote(name)}:…",
                begin + len(minus),
            )
        if is_attribute and quoted is None and (field := _near(name)):
            self._fail(
                f"unknown field {name!r}: did you mean {field}? For an attribute of that name write {_quote(name)}:…",
                begin + len(minus),
            )
        if not is_attribute and name in TIMES:
            return self._span(name, negated=bool(minus))
        return self._match(name, is_attribute=is_attribute, negated=bool(minus))

    def _match(self, name: str, *, is_attribute: bool, negated: bool) -> Match:
        values: list[str] = []
        prefixes: list[str] = []
        for at, word, is_quoted, star in self._values(name):
            if not is_quoted and word[:1] in ("<", ">", "="):
                self._fail(f"{name} is compared as equal only; for a value that begins so write {_quote(word)}", at)
            if star:
                self._check_star(name, word, at, is_attribute=is_attribute)
                prefixes.append(word)
                continue
            if name == "status" and not is_attribute and word not in list(Status):
                self._fail(f"{word!r} is no status; there are {', '.join(Status)}", at)
            if name == "priority" and not is_attribute:
                if not re.fullmatch(r"-?\d{1,10}", word, re.ASCII):
                    self._fail(f"{word!r} is no priority: a whole number", at)
                word = str(int(word))
            values.append(word)
        return Match(name, tuple(values), tuple(prefixes), negated, is_attribute)

    def _check_star(self, name: str, word: str, at: int, *, is_attribute: bool) -> None:
        if word == "" and (is_attribute or name in _PRESENT):
            return
        if word == "" or is_attribute or name not in _BEGINNINGS:
            able = "it stands behind the beginning of a value of " + ", ".join(_BEGINNINGS)
            alone = "alone for what a run may lack: an attribute, " + ", ".join(_PRESENT)
            self._fail(f"{name}:{word}* means nothing: {able}, or {alone}", at)

    def _values(self, name: str) -> Iterable[tuple[int, str, bool, bool]]:
        """Give place, text, whether it was quoted, and whether a star follows, of each value."""
        for count in range(1, QUERY_VALUES_MAX + 2):
            found = _VALUE.match(self._text, self._at)
            if found is None:
                self._fail(f"a value is missing, or a quote or comma is in a wrong place, in the condition on {name}")
            if count > QUERY_VALUES_MAX:
                self._fail(f"a condition has at most {QUERY_VALUES_MAX} values")
            at, self._at = self._at, found.end()
            quoted, star, plain = found.groups()
            if quoted is not None:
                yield at, _unquote(quoted), True, bool(star)
            else:
                yield at, plain.removesuffix("*"), False, plain.endswith("*")
            if self._text[self._at : self._at + 1] != ",":
                return
            self._at += 1

    def _span(self, name: str, *, negated: bool) -> Span:
        at = self._at
        ((_, word, is_quoted, star), *more) = self._values(name)
        if negated or more or is_quoted or star:
            self._fail(f"{name} takes one time or range, for example {_EXAMPLES[name]}, and no minus", at)
        span = _read_span(name, word)
        if span is None:
            self._fail(f"{word!r} is no time for {name}; write for example {_EXAMPLES[name]}", at)
        return span

    def _fail(self, problem: str, at: int | None = None) -> NoReturn:
        place = self._at if at is None else at
        raise UsageError(f"{problem} (at character {place + 1} of the query {self._text!r})")


_EXAMPLES = {
    "age": "age:<1h, age:>2d or age:1h..2d",
    "created": "created:2026-05-01, created:>=2026-05-01T12:00 or created:2026-05-01..2026-05-31",
    "finished": "finished:<1h, finished:>2d or finished:2026-05-01..2026-05-31",
}


def _read_span(name: str, word: str) -> Span | None:
    """Read a time or range, None if it is none."""
    sign = next((sign for sign in ("<=", ">=", "<", ">") if word.startswith(sign)), "")
    first, dots, last = word.removeprefix(sign).partition("..")
    ago = name == "age" or (name == "finished" and _DURATION.fullmatch(first or last) is not None)
    try:
        begin, end = (_read_time(time, ago=ago) if time else (None, None) for time in (first, last))
    except (ValueError, OverflowError):
        return None
    low, high = begin[0], end[1]
    if not dots and not sign and not ago:
        high = begin[1]
    elif not dots and sign.startswith("<"):
        low, high = None, begin[sign == "<="]
    elif not dots and sign.startswith(">"):
        low = begin[sign == ">"]
    elif not dots or sign:
        return None
    if low is high is None or (low is not None and high is not None and low >= high):
        return None
    return Span("finished" if name == "finished" else "created", low, high, ago)


def _read_time(word: str, *, ago: bool) -> tuple[float, float]:
    """Give begin and end of a day, an instant twice (UTC unless an offset is given), or an age twice."""
    if ago:
        if not _DURATION.fullmatch(word):
            raise ValueError(word)
        return (parse_duration(word),) * 2
    moment = datetime.fromisoformat(word)
    begin = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    is_day = re.fullmatch(r"\d{4}-?\d\d-?\d\d", word) is not None
    return begin.timestamp(), (begin + timedelta(days=1) if is_day else begin).timestamp()


def _unquote(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _near(name: str) -> str | None:
    """Give the field that somebody who wrote this name may have meant: short ones allow for fewer wrong letters."""
    found = ((_distance(name.lower(), field), field) for field in FIELDS)
    return min(((wrong, field) for wrong, field in found if wrong <= len(field) // 3), default=(0, None))[1]


def _distance(one: str, other: str) -> int:
    """Count the letters to change, leave out, add or swap with their neighbour (optimal string alignment)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        above, row = rows[-1], [i]
        for j, wanted in enumerate(other, 1):
            cost = min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


# -- writing --------------------------------------------------------------------
def show(conditions: Sequence[Condition]) -> str:
    """Give the query that means these conditions."""
    return " ".join(map(_show, conditions)) or "all"


def _show(condition: Condition) -> str:
    if isinstance(condition, Span):
        return _show_span(condition)
    plain = not condition.is_attribute or _is_plain(condition.field)
    name = condition.field if plain else _quote(condition.field)
    values = list(map(_show_value, condition.values))
    values += [f"{_show_value(prefix) if prefix else ''}*" for prefix in condition.prefixes]
    return f"{'-' if condition.negated else ''}{name}:{','.join(values)}"


def _is_plain(attribute: str) -> bool:
    """Say whether the name of an attribute needs no quotes."""
    found = _NAME.fullmatch(attribute + ":")
    return (
        found is not None and found[3] == attribute and attribute not in (*FIELDS, *NO_FIELDS) and not _near(attribute)
    )


def _show_value(value: str) -> str:
    plain = re.fullmatch(r'[^\s",<>=\\*][^\s",\\*]*', value) is not None and value.isprintable()
    return value if plain else _quote(value)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _show_span(span: Span) -> str:
    name = "age" if span.ago and span.field == "created" else span.field
    write: Callable[[float], str] = show_duration if span.ago else _show_instant
    if span.low is None and span.high is not None:
        return f"{name}:<{write(span.high)}"
    if span.high is None and span.low is not None:
        return f"{name}:>{'' if span.ago else '='}{write(span.low)}"
    return f"{name}:{'..'.join(write(edge) for edge in (span.low, span.high) if edge is not None)}"


def show_duration(duration_s: float) -> str:
    """Give a duration as a query writes it."""
    for unit in ("w", "d", "h", "m"):
        if duration_s and duration_s % UNITS_S[unit] == 0:
            return f"{duration_s / UNITS_S[unit]:.0f}{unit}"
    return f"{duration_s:.6f}".rstrip("0").rstrip(".") + "s"


def _show_instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


# -- asking a store -------------------------------------------------------------
def compile_query(conditions: Sequence[Condition], now: float) -> RunQuery:
    """Give what a store is asked: ages as instants, statuses as one set, spans of one field as one."""
    query = RunQuery()
    where: list[Match] = []
    for condition in conditions:
        if isinstance(condition, Span):
            query = _narrow(query, condition, now)
        elif condition.field == "status" and not condition.is_attribute:
            query = narrow_statuses(query, condition.values, negated=condition.negated)
        else:
            where.append(_spell(condition))
    return replace(query, where=tuple(where))


def _spell(match: Match) -> Match:
    """Give a condition on an attribute in the words of the index."""
    if not match.is_attribute:
        return match
    return replace(match, values=tuple(dict.fromkeys(word for value in match.values for word in spellings(value))))


def narrow_statuses(query: RunQuery, statuses: Iterable[str], *, negated: bool = False) -> RunQuery:
    """Give the query for only those of its runs that have one of these statuses, or none of them."""
    allowed = set(Status) if query.statuses is None else set(query.statuses)
    wanted = allowed - set(statuses) if negated else allowed & set(statuses)
    return replace(query, statuses=tuple(status for status in Status if status in wanted))


def _narrow(query: RunQuery, span: Span, now: float) -> RunQuery:
    low, high = span.low, span.high
    if span.ago:
        low, high = (None if high is None else max(now - high, 0.0)), (None if low is None else max(now - low, 0.0))
    if span.field == "created":
        after, before = _latest(query.created_after, low), _earliest(query.created_before, high)
        return replace(query, created_after=after, created_before=before)
    after, before = _latest(query.finished_after, low), _earliest(query.finished_before, high)
    return replace(query, finished_after=after, finished_before=before)


def _latest(*instants: float | None) -> float | None:
    return max((at for at in instants if at is not None), default=None)


def _earliest(*instants: float | None) -> float | None:
    return min((at for at in instants if at is not None), default=None)
