"""The language of queries: what it means, what it refuses and where, and that what is printed parses to the same."""

from __future__ import annotations

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import UsageError
from outlive.limits import QUERY_MAX_CHARS, QUERY_VALUES_MAX
from outlive.model.query import FIELDS, Condition, Span, compile_query, parse, parse_duration, show, show_duration
from outlive.model.reads import Match, RunQuery
from outlive.model.status import Status

NOW = 1_800_000_000.0
HOUR, DAY = 3_600.0, 86_400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", ()),
        ("  all ", ()),
        ("status:failed", (Match("status", ("failed",)),)),
        ("-status:failed,cancelled", (Match("status", ("failed", "cancelled"), negated=True),)),
        (" workflow:w \t tenant:42\n", (Match("workflow", ("w",)), Match("tenant", ("42",), is_attribute=True))),
        ("id:order-*", (Match("id", prefixes=("order-",)),)),
        ("id:a,b*,c", (Match("id", ("a", "c"), ("b",)),)),
        ('id:"a b*"*', (Match("id", prefixes=("a b*",)),)),
        ("id:a:b/c#1", (Match("id", ("a:b/c#1",)),)),
        ("-parent:*", (Match("parent", prefixes=("",), negated=True),)),
        ("tenant:*", (Match("tenant", prefixes=("",), is_attribute=True),)),
        ('city:"New York","a\\"b\\\\c"', (Match("city", ("New York", 'a"b\\c'), is_attribute=True),)),
        ('"status":failed', (Match("status", ("failed",), is_attribute=True),)),
        ("priority:0,-5,007", (Match("priority", ("0", "-5", "7")),)),
        ('"priority":x', (Match("priority", ("x",), is_attribute=True),)),
        ('"deadline":x', (Match("deadline", ("x",), is_attribute=True),)),
        ('queue:""', (Match("queue", ("",)),)),
        ("age:<1h", (Span("created", None, HOUR, ago=True),)),
        ("age:>2d", (Span("created", 2 * DAY, None, ago=True),)),
        ("age:1h..1d12h", (Span("created", HOUR, 1.5 * DAY, ago=True),)),
        ("finished:<90s", (Span("finished", None, 90.0, ago=True),)),
        ("finished:>=2026-05-01", (Span("finished", at("2026-05-01"), None),)),
        ("created:2026-05-01", (Span("created", at("2026-05-01"), at("2026-05-02")),)),
        ("created:2026-05-01..2026-05-31", (Span("created", at("2026-05-01"), at("2026-06-01")),)),
        ("created:>2026-05-01", (Span("created", at("2026-05-02"), None),)),
        ("created:<=2026-05-01", (Span("created", None, at("2026-05-02")),)),
        ("created:<2026-05-01", (Span("created", None, at("2026-05-01")),)),
        ("created:..2026-05-01T12:30", (Span("created", None, at("2026-05-01T12:30")),)),
        ("created:2026-05-01T12:00+02:00..2026-05-02", (Span("created", at("2026-05-01T10:00"), at("2026-05-03")),)),
    ],
)  # fmt: skip
def test_what_a_query_means(text: str, means: tuple[Condition, ...]) -> None:
    assert parse(text) == means
    assert parse(show(means)) == means


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("stauts:failed", "unknown field 'stauts': did you mean status", 1),
        ("tenant:42 Status:failed", "did you mean status", 11),
        ("-worflow:x", "did you mean workflow", 2),
        ("state:failed", "did you mean status", 1),
        ("keys:1", "did you mean key", 1),
        ("status:faild", "'faild' is no status; there are scheduled, queued", 8),
        ("status:failed,done", "'done' is no status", 15),
        ("failed", "'failed' is no condition; write name:value", 1),
        ("status:failed all", "'all' is no condition", 15),
        ("status:", "a value is missing", 8),
        ("status:failed,", "a value is missing", 15),
        ("status:,failed", "a value is missing", 8),
        ('tenant:"42', "a value is missing, or a quote", 8),
        ('tenant:4"2"', "a quote or comma is in a wrong place", 8),
        (":x", "is no condition", 1),
        ("age:1h", "'1h' is no time for age", 5),
        ("age:<1y", "write for example age:<1h", 5),
        ("age:<", "is no time for age", 5),
        ("age:..", "is no time for age", 5),
        ("age:2h..1h", "is no time for age", 5),
        ("age:>1h..2h", "is no time for age", 5),
        ("-age:<1h", "no minus", 6),
        ("age:<1h,<2h", "one time or range", 5),
        ("created:2026-13-01", "is no time for created", 9),
        ("created:<1h", "is no time for created", 9),
        ("created:2026-05-01T12:00", "is no time for created", 9),
        ("created:9999-12-31", "is no time for created", 9),
        ("priority:high", "'high' is no priority: a whole number", 10),
        ("priority:<5", "priority is compared as equal only", 10),
        ("priority:1*", "priority:1* means nothing", 10),
        ("deadline:*", 'runs are not found by their deadline; for an attribute of that name write "deadline":…', 1),
        ("price:>10", "price is compared as equal only", 7),
        ("status:fail*", "status:fail* means nothing", 8),
        ("tenant:4*", "tenant:4* means nothing", 8),
        ("workflow:*", "workflow:* means nothing", 10),
        ("parent:a*", "parent:a* means nothing", 8),
    ],
)
def test_a_wrong_query_says_what_and_where(text: str, message: str, place: int) -> None:
    with pytest.raises(UsageError) as failed:
        parse(text)
    assert message in str(failed.value)
    assert f"(at character {place} of the query" in str(failed.value)


def test_limits_of_a_query() -> None:
    values = ",".join(f"v{number}" for number in range(QUERY_VALUES_MAX))
    assert len(parse(f"tenant:{values}")[0].values) == QUERY_VALUES_MAX  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=f"at most {QUERY_VALUES_MAX} values"):
        parse(f"tenant:{values},more")
    with pytest.raises(UsageError, match="at most 4,000 characters"):
        parse("x" * (QUERY_MAX_CHARS + 1))
    with pytest.raises(UsageError, match="a query is text"):
        parse(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("2w", 14 * DAY)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h", "1h-", "inf", "1y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="older-than is a number with a unit"):
        parse_duration(text, "older-than")


def test_what_a_store_is_asked() -> None:
    query = compile_query(parse("-status:succeeded,failed -status:queued age:1h..1d tenant:42.0 finished:<1h"), NOW)
    assert query == RunQuery(
        statuses=("scheduled", "running", "suspended", "paused", "quarantined", "cancelled"),
        where=(Match("tenant", ("42.0", "42"), is_attribute=True),),
        created_after=NOW - DAY,
        created_before=NOW - HOUR,
        finished_after=NOW - HOUR,
    )
    assert compile_query(parse("status:failed status:cancelled"), NOW).statuses == ()
    two = compile_query(parse("age:<1d age:<1h age:>1m"), NOW)
    assert (two.created_after, two.created_before) == (NOW - HOUR, NOW - 60)


# -- round trip -----------------------------------------------------------------
TEXT = st.text(alphabet=st.one_of(st.sampled_from(' ,:"\\*<>=-.\t\n1a'), st.characters(codec="utf-8")), max_size=8)
NAMES = st.one_of(TEXT.filter(bool), st.sampled_from([*FIELDS, "stauts", "tenant", "-x"]))
COUNTS = st.lists(TEXT, min_size=1, max_size=3)
INSTANTS = st.datetimes(timezones=st.just(UTC)).map(datetime.timestamp)
AGES = st.integers(0, 10**9).map(lambda millis: millis / 1000)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    field = draw(st.sampled_from(["status", "workflow", "id", "parent", ""]))
    values: list[str] = draw(
        COUNTS if field != "status" else st.lists(st.sampled_from(list(Status)), min_size=1, max_size=3)
    )
    prefixes: list[str] = []
    if field in ("workflow", "id"):
        prefixes = draw(st.lists(TEXT.filter(bool), max_size=2))
    elif field != "status":
        prefixes = draw(st.sampled_from([[], [""]]))
    name = field or draw(NAMES)
    return Match(name, tuple(map(str, values)), tuple(prefixes), draw(st.booleans()), is_attribute=not field)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    ago = draw(st.booleans())
    low, high = sorted(draw(st.lists(AGES if ago else INSTANTS, min_size=2, max_size=2, unique=True)))
    which = draw(st.sampled_from(["low", "high", "both"]))
    field = draw(st.sampled_from(["created", "finished"]))
    return Span(field, None if which == "high" else low, None if which == "low" else high, ago)


@given(st.lists(st.one_of(matches(), spans()), max_size=4))
def test_what_is_printed_parses_to_the_same(conditions: list[Condition]) -> None:
    assert parse(show(conditions)) == tuple(conditions)


@given(st.text(alphabet=string.printable, max_size=30) | TEXT)
def test_any_text_is_a_query_or_is_refused_with_its_place(text: str) -> None:
    refusal = ""
    try:
        conditions = parse(text)
    except UsageError as refused:
        refusal = str(refused)
    if refusal:
        assert "at character" in refusal
    else:
        assert parse(show(conditions)) == conditions
