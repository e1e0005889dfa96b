"""Attributes as the index spells them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import UsageError
from outlive.limits import ATTRIBUTE_VALUE_MAX_CHARS, ATTRIBUTES_MAX
from outlive.model.attributes import check_attributes, index_attributes, spell, spellings


def index(attributes: Any) -> dict[str, str]:
    return dict(index_attributes(json.dumps(attributes)))


def test_scalars_are_indexed_and_the_rest_is_not() -> None:
    attributes = {"a": "x", "b": 42, "c": 1.5, "d": True, "e": None, "f": [1], "g": {"h": 1}, "i": ""}
    assert index(attributes) == {"a": "x", "b": "42", "c": "1.5", "d": "true", "i": ""}
    longest = "x" * ATTRIBUTE_VALUE_MAX_CHARS
    assert index({"a": longest, "b": longest + "x"}) == {"a": longest}
    assert index([1]) == {}
    assert list(index_attributes(None)) == []


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_equal_numbers_have_one_spelling_and_are_found_by_each_way_to_write_them(number: float) -> None:
    spelled = spell(number)
    assert spelled is not None
    if float(number) == number and abs(number) < 2**53:
        assert spell(float(number)) == spelled
    for written in {json.dumps(number), json.dumps(float(number)) if abs(number) < 2**53 else json.dumps(number)}:
        assert spelled in spellings(written)


def test_a_word_of_a_query_means_itself_and_its_number() -> None:
    assert spellings("42") == ("42",)
    assert spellings("42.0") == ("42.0", "42")
    assert spellings("007") == ("007",)
    assert spellings("true") == ("true",)
    assert spellings('"x"') == ('"x"',)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([("a", 1)], "a mapping"),
        ({1: 1}, "a name in attributes=…"),
        ({"": 1}, "a name in attributes=…"),
        ({"a" * 101: 1}, "1 to 100 printable"),
        ({"a\n": 1}, "printable"),
        ({f"a{number}": 1 for number in range(ATTRIBUTES_MAX + 1)}, "at most 50 attributes, not 51"),
    ],
)
def test_what_cannot_be_an_attribute(attributes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_attributes(attributes)
