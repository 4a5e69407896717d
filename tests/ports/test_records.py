"""Refused rows come back from the quarantine as they were: every type that travels, with its extremes."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.stores.table import Column
from infrastructure.tabular.arrow import arrow_type
from infrastructure.tabular.json_rows import decoded, encoded
from infrastructure.tabular.nested_types import is_text_on_the_way
from tests.ports.arrow_values import exact

_DAYS = st.integers(-2_440_588, 2_145_042_905)
_MOMENTS = st.integers(-(2**63), 2**63 - 1)
_TIMES = st.integers(0, 86_400_000_000)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
SCALARS: dict[str, tuple[pa.DataType | None, st.SearchStrategy[Any]]] = {
    "bool": (None, st.booleans()),
    "int8": (None, st.integers(-128, 127)),
    "int64": (None, st.integers(-(2**63), 2**63 - 1)),
    "uint64": (None, st.integers(0, 2**64 - 1)),
    "float32": (None, st.floats(width=32)),
    "float64": (None, st.floats()),
    "decimal(38,10)": (None, st.decimals(-(10**28) + 1, 10**28 - 1, places=10)),
    "decimal(50,2)": (None, st.decimals(-(10**48) + 1, 10**48 - 1, places=2).map(lambda number: f"{number:f}")),
    "string": (None, _TEXT),
    "binary": (None, st.binary(max_size=5)),
    "uuid": (None, st.uuids().map(str)),
    "native:json": (None, st.just('{"b":1, "a": 2, "a": 3}')),
    "native:inet": (None, st.just("10.1.2.3/16")),
    "date": (pa.int32(), _DAYS),
    "time": (pa.int64(), _TIMES),
    "timestamp": (pa.int64(), _MOMENTS),
    "timestamptz": (pa.int64(), _MOMENTS),
    "interval": (None, st.builds(pa.MonthDayNano, st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2, _MOMENTS))),
}


def scalars(name: str) -> st.SearchStrategy[pa.Array]:
    """Arrays of a simple type; the offset is not always zero."""
    drawn, values = SCALARS[name]

    def built(items: list[Any]) -> pa.Array:
        array = pa.array(items, drawn or arrow_type(name))
        return (array.view(arrow_type(name)) if drawn else array).slice(1)

    return st.lists(st.none() | values, min_size=3, max_size=6).map(built)


@pytest.mark.clause("ITransformer", 2)
@pytest.mark.parametrize("name", SCALARS)
def test_values_come_back_unchanged(name: str) -> None:
    @settings(max_examples=12, deadline=None)
    @given(scalars(name))
    def comes_back(values: pa.Array) -> None:
        rows = pa.table({"v": values})

        again = decoded(encoded(rows), [Column("v", name)], is_text=False)

        assert exact(again.column("v")) == exact(values)
        assert again.schema.field("v").type == arrow_type(name)

    comes_back()


@pytest.mark.parametrize("name", [name for name in SCALARS if not is_text_on_the_way(name)])
def test_values_within_others_come_back_unchanged(name: str) -> None:
    @settings(max_examples=12, deadline=None)
    @given(scalars(name), st.integers(0, 2))
    def comes_back(values: pa.Array, begin: int) -> None:
        keys = pa.array([f"k{number}" for number in range(len(values))])
        pair = pa.StructArray.from_arrays([keys, values], names=["k", "odd name"])
        listed = pa.ListArray.from_arrays(pa.array([0, None, begin, len(values)], pa.int32()), pair)
        mapped = pa.MapArray.from_arrays(pa.array([0, begin, None, len(values)], pa.int32()), keys, pair)
        rows = pa.table({"listed": listed, "mapped": mapped}).slice(1)
        inner = f'struct<k:string,"odd name":{name}>'
        columns = [Column("listed", f"list<{inner}>"), Column("mapped", f"map<string,{inner}>")]

        again = decoded(encoded(rows), columns, is_text=False)

        assert exact(again.column("listed")) == exact(rows.column("listed").combine_chunks())
        assert exact(again.column("mapped")) == exact(rows.column("mapped").combine_chunks())

    comes_back()


def test_times_are_written_as_people_read_them() -> None:
    times = pa.array([86_400_000_000], pa.int64()).view(pa.time64("us"))
    days = pa.array([-2_440_588], pa.int32()).view(pa.date32())
    moments = pa.array([1_700_000_000_123_456, 9_223_371_331_199_999_999], pa.int64()).view(pa.timestamp("us", "UTC"))

    assert encoded(pa.table({"t": times, "d": days})) == ['{"t": "24:00:00.000000", "d": "-4713-11-24"}']
    assert encoded(pa.table({"m": moments})) == [
        '{"m": "2023-11-14 22:13:20.123456Z"}',
        '{"m": "294247-01-01 23:59:59.999999Z"}',
    ]


def test_number_of_many_digits_keeps_them() -> None:
    rows = pa.table({"v": pa.array([Decimal("0.0000000001")], pa.decimal128(38, 10))})

    assert encoded(rows) == ['{"v": "0.0000000001"}']
