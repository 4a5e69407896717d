"""A value's shape tells why it does not convert and never the value."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.transforms.shapes import shape


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "NULL"),
        ("", "an empty text"),
        ("1.234,5", "text of 7 characters: digits, a point and a comma"),
        ("abc", "text of 3 characters: letters"),
        (" 12", "text of 3 characters: digits and space around it"),
        ("+41 79", "text of 6 characters: digits, space in it and a plus"),
        ("2024-01-02", "text of 10 characters: digits and a hyphen"),
        ("x", "text of 1 character: letters"),
        ("€5", "text of 2 characters: digits and other characters"),
        ("a\0b", "text of 3 characters: letters and a NUL"),
        (12345, "a number of 5 digits"),
        (Decimal("-12.340"), "a number of 2 digits and 3 behind the point"),
        (float("nan"), "a number that is none"),
        (float("inf"), "an infinite number"),
        (b"abc", "3 bytes"),
        ([1], "a list"),
    ],
)
def test_shape_of_a_value(value: Any, told: str) -> None:
    assert shape(value) == told


@given(st.text(min_size=5, max_size=40).filter(lambda text: text.strip() == text and not text.isspace()))
def test_shape_says_nothing_of_what_a_text_says(text: str) -> None:
    """Two texts of one length and one kind of characters have one shape."""
    swapped = "".join(chr(ord("z") + ord("a") - ord(c)) if "a" <= c <= "z" else c for c in text)
    assert shape(swapped) == shape(text)
    assert shape(text).startswith(f"text of {len(text)} characters: ")


@given(st.one_of(st.integers(), st.floats(), st.decimals(), st.binary(), st.dates(), st.times(), st.datetimes()))
def test_anything_has_a_shape_without_its_value(value: Any) -> None:
    told = shape(value)
    assert told
    assert len(str(value)) < 4 or str(value) not in told
