"""A value's shape tells why it does not convert and never the value."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.transforms.shapes import shape, shape_of_scalar


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


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (pa.timestamp("us"), "a timestamp"),
        (pa.timestamp("us", "UTC"), "a timestamp with a zone"),
        (pa.duration("us"), "a duration"),
        (pa.list_(pa.timestamp("us")), "a list"),
        (pa.struct({"at": pa.timestamp("us")}), "a struct"),
        (pa.map_(pa.string(), pa.timestamp("us")), "a list"),
    ],
)
def test_times_that_python_does_not_have_have_a_shape(kind: pa.DataType, told: str) -> None:
    far = pa.array([2**62], pa.int64())
    if pa.types.is_nested(kind):
        at = far.cast(pa.timestamp("us"))
        parts = {
            pa.types.is_list: lambda: pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), at),
            pa.types.is_struct: lambda: pa.StructArray.from_arrays([at], ["at"]),
            pa.types.is_map: lambda: pa.MapArray.from_arrays([0, 1], pa.array(["a"]), at),
        }
        values = next(make() for is_kind, make in parts.items() if is_kind(kind))
    else:
        values = far.cast(kind)

    assert shape_of_scalar(values[0]) == told
    assert shape_of_scalar(pa.scalar(None, kind)) == "NULL"
    assert shape_of_scalar(pa.scalar("a1")) == "text of 2 characters: digits and letters"
    assert shape_of_scalar(pa.array([-(10**6)], pa.int32()).cast(pa.date32())[0]) == "a date"
