"""Rows that come from a child take no more room than the bytes they came in."""

import struct
from typing import Any

import pyarrow as pa
import pytest

from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes

pytestmark = pytest.mark.line("29")


def _stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


_MUCH = ["x" * 1_000_000] * 20


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", ["plain", "dictionary", "second", "structs"])
def test_rows_that_a_child_compresses_are_refused_before_they_are_unpacked(kind: str, compression: str) -> None:
    values = pa.array(_MUCH)
    if kind == "dictionary":
        values = pa.DictionaryArray.from_arrays(pa.array(range(20), pa.int8()), values)
    elif kind == "structs":
        values = pa.array([{"a": value} for value in _MUCH])
    rows = pa.table({"n": range(20), "v": values})
    if kind == "second":  # A stream says of each message by itself whether it is compressed.
        plain, packed = _stream(rows.slice(0, 1)), _stream(rows, compression=compression)
        schema = len(_stream(rows.slice(0, 0)))
        content = plain[:-8] + packed[schema - 8 :]
    else:
        content = _stream(rows, compression=compression)
    assert pa.ipc.open_stream(content).read_all().num_rows >= 20

    with pytest.raises(pa.ArrowInvalid, match="compressed"):
        of_bytes(content)


def test_rows_of_a_child_that_have_the_same_bytes_many_times_are_refused() -> None:
    rows = pa.table({f"v{number}": pa.array([number] * 1_000, pa.int64()) for number in range(20)})
    content = bytearray(_stream(rows))
    first = content.index(struct.pack("<qq", 0, 8_000))
    places = [first + 32 * number for number in range(20)]  # Which values are NULL is a buffer too.
    assert of_bytes(bytes(content)).equals(rows)
    for place in places[1:]:
        content[place : place + 16] = struct.pack("<qq", 0, 8_000)
    assert pa.ipc.open_stream(bytes(content)).read_all().column("v7").to_pylist() == [0] * 1_000
    del content[-8 - 19 * 8_000 : -8]
    length = content.index(struct.pack("<q", 20 * 8_000))
    content[length : length + 8] = struct.pack("<q", 8_000)
    assert pa.ipc.open_stream(bytes(content)).read_all().nbytes == 160_000

    with pytest.raises(pa.ArrowInvalid, match="160000 bytes of values in a message of 8000"):
        of_bytes(bytes(content))


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([None, None, None]),
        pa.array([[1], None, [2, 3]]),
        pa.array(["short", "x" * 50, None], pa.string_view()),
        pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
        pa.array([1.5, None, 2.5]),
        pa.array([], pa.string()),
    ],
    ids=["dictionary", "nulls", "lists", "views", "runs", "numbers", "none"],
)
def test_what_is_sound_is_read_as_it_was_written(values: pa.Array) -> None:
    column = pa.chunked_array([values, values.slice(len(values) // 2), values])
    rows = pa.table({"v": column})
    assert of_bytes(as_bytes(rows)).equals(rows)
    assert of_bytes(as_bytes(rows.select([]))).num_columns == 0
