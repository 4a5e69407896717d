"""What is cached comes back as it was, or not at all."""

import math
import struct
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.features.codec import Codec, Origin, Status, UnreadableError, header_of, origin_of
from domain.features.keys import key_of, short_hash

HASH = short_hash(key_of(["UA"], ["string"]))
ORIGIN = Origin(7, -5, b"r" * 16, 3, HASH, Status.QUARANTINED)

OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int8": st.integers(-128, 127),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "uuid": st.uuids(),
    "string": st.text(max_size=20),
    "json": st.just('{"a": [1, null]}'),
    "binary": st.binary(max_size=20),
    "decimal(38,10)": st.decimals(
        allow_nan=False, allow_infinity=False, places=10, max_value=10**27, min_value=-(10**27)
    ),
    "vector(3)": st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3),
    "list<int64>": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20),
    "list<string>": st.lists(st.none() | st.text(max_size=5), max_size=20),
    "list<list<bool>>": st.lists(st.lists(st.booleans(), max_size=3), max_size=3),
}


@given(st.data(), st.lists(st.sampled_from(sorted(OF_TYPE)), max_size=20))
def test_values_come_back_as_they_were(data: st.DataObject, types: list[str]) -> None:
    values = [data.draw(st.none() | OF_TYPE[kind]) for kind in types]
    codec = Codec(types)

    content = codec.encode(ORIGIN, values)

    assert codec.decode(content, HASH) == (ORIGIN, values)
    assert [type(value) for value in codec.decode(content, HASH)[1]] == [type(value) for value in values]
    assert struct.unpack_from(">Q", content) == (7,)


def test_a_time_of_another_zone_is_the_same_time_and_not_a_number_stays_none() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    codec = Codec(["timestamptz", "float64", "float64", "decimal(5,2)", "time", "date"])
    values = [datetime(2024, 1, 1, 5, 30, tzinfo=zone), math.nan, -0.0, Decimal("1E+2"), time.max, date.min]

    _, found = codec.decode(codec.encode(ORIGIN, values), HASH)

    assert found[0] == datetime(2024, 1, 1, tzinfo=UTC)
    assert (math.isnan(found[1]), math.copysign(1, found[2])) == (True, -1.0)
    assert found[3:] == [Decimal(100), time.max, date.min]


def test_header_alone_says_that_there_are_no_values() -> None:
    nobody = Origin(0, key_hash=HASH)
    assert Codec(["int64", "string"]).decode(header_of(nobody), HASH) == (nobody, [None, None])


@given(st.binary(max_size=120))
def test_other_bytes_are_values_or_unreadable_and_nothing_else(content: bytes) -> None:
    codec = Codec(["int64", "string", "date", "list<string>", "decimal(5,2)", "vector(2)", "time"])
    for given_ in (content, header_of(ORIGIN) + content):
        with suppress(UnreadableError):
            codec.decode(given_, HASH)


@pytest.mark.parametrize("change", ["key", "layout", "cut", "longer"])
def test_value_of_another_key_or_layout_is_unreadable(change: str) -> None:
    codec = Codec(["int64", "string"])
    content = codec.encode(ORIGIN, [1, "a"])
    key_hash = bytes(8) if change == "key" else HASH
    reader = Codec(["int64", "string", "string"]) if change == "layout" else codec
    content = {"cut": content[:-1], "longer": content + b"x"}.get(change, content)

    with pytest.raises(UnreadableError):
        reader.decode(content, key_hash)
    if change == "key":
        with pytest.raises(UnreadableError):
            origin_of(content, key_hash)


@pytest.mark.parametrize("kind", ["interval", "map<string,int64>", "native:point", "list<interval>", "vector(x)"])
def test_types_that_cannot_be_served_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="cannot be served"):
        Codec([kind])
