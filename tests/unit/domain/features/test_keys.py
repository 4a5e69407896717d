"""Keys are equal exactly where the entities are."""

from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.features.keys import MOST_KEY_BYTES, key_of, short_hash, value_of_text

VALUES = st.one_of(
    st.tuples(st.just("int64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("string"), st.text(max_size=40)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("date"), st.dates()),
    st.tuples(st.just("uuid"), st.uuids()),
)
KEYS = st.lists(VALUES, min_size=1, max_size=3)


@given(KEYS, KEYS)
def test_keys_are_equal_where_types_and_values_are(
    first: list[tuple[str, object]], second: list[tuple[str, object]]
) -> None:
    keys = [key_of([value for _, value in each], [kind for kind, _ in each]) for each in (first, second)]  # type: ignore[misc]
    assert (keys[0] == keys[1]) == (first == second)
    assert (short_hash(keys[0]) == short_hash(keys[1])) == (first == second)


@pytest.mark.parametrize(
    ("values", "types", "why"),
    [
        ([1.0], ["int64"], "int64 is due"),
        ([True], ["int64"], "int64 is due"),
        ([2**63], ["int64"], "int64 is due"),
        ([-1], ["uint8"], "uint8 is due"),
        ([1.5], ["float64"], "float64 is due"),
        (["1"], ["int64"], "int64 is due"),
        ([1], ["string"], "string is due"),
        ([None], ["string"], "string is due"),
        ([1], ["bool"], "bool is due"),
        (["2024-01-01"], ["date"], "date is due"),
        (["\ud800"], ["string"], "no Unicode"),
        (["x" * MOST_KEY_BYTES], ["string"], "at most 1024 bytes"),
        (["é" * 600], ["string"], "at most 1024 bytes"),
        ([1], ["int64", "string"], "has 2 columns, and 1 values"),
    ],
)
def test_what_can_be_no_key_is_refused_without_its_value(values: list[object], types: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        key_of(values, types)  # type: ignore[arg-type]


def test_longest_key_and_bounds_of_integers_are_taken() -> None:
    assert len(key_of(["x" * (MOST_KEY_BYTES - 4)], ["string"])) == MOST_KEY_BYTES
    assert key_of([255], ["uint8"]) == key_of([255], ["int64"])  # A key whose type was widened stays what it was.
    assert key_of([2**64 - 1], ["uint64"]) != key_of([-1], ["int64"])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", "int64", 5),
        ("-5", "int32", -5),
        ("0", "uint8", 0),
        ("true", "bool", True),
        ("UA", "string", "UA"),
        ("", "string", ""),
        ("2024-02-29", "date", date(2024, 2, 29)),
        ("0F8FAD5B-D9CB-469F-A165-70867728950E", "uuid", UUID("0f8fad5b-d9cb-469f-a165-70867728950e")),
    ],
)
def test_value_of_an_address_is_read_by_its_type(text: str, kind: str, value: object) -> None:
    assert value_of_text(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, "int64") for text in ("05", "+5", " 5", "5 ", "1_0", "٣", "5.0", "1e3", "-0", "", "9" * 30)),
        *((text, "bool") for text in ("True", "1", "")),
        *((text, "date") for text in ("20240229", "2024-W01-1", "2024-02-30")),
        *((text, "uuid") for text in ("{0f8fad5b-d9cb-469f-a165-70867728950e}", "0f8fad5bd9cb469fa16570867728950e")),
    ],
)
def test_other_spellings_are_refused(text: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} is due"):
        value_of_text(text, kind)
