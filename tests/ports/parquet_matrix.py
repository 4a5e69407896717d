"""Every type that a Parquet file may name, and what becomes of it in each store.

`python -m tests.ports.parquet_matrix URL` writes docs/reference/parquet.md; a test compares.
"""

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import SchemaMismatchError
from domain.pipelines.spec import SourceSpec
from infrastructure.stores.files.store import FilesSource
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.test_values_between_stores import Shelf

DOCUMENT = Path(__file__).parents[2] / "docs/reference/parquet.md"
STORES = ("duckdb", "postgres")
_TEXT = bytes([0x25, 0x00, 0x4C, 0x1C, 0x00, 0x00, 0x00])
"""How a footer says that a column is text: the converted type and the logical one, in Thrift."""
_OTHERS = {
    "ENUM": bytes([0x25, 0x08, 0x4C, 0x4C, 0x00, 0x00, 0x00]),
    "BSON": bytes([0x25, 0x28, 0x4C, 0xDC, 0x00, 0x00, 0x00]),
}


@dataclass(frozen=True)
class Case:
    """What is written, by Arrow or as an expression of DuckDB, and the texts that stores show; None where they refuse
    it.
    """

    given: pa.Array | str
    duckdb: list[str | None] | None
    postgres: list[str | None] | None
    is_legacy: bool = False


def both(given: pa.Array | str, *texts: str | None) -> Case:
    """A case that looks alike in both stores."""
    return Case(given, [*texts, None], [*texts, None])


def nested(given: pa.Array | str, text: str) -> Case:
    return Case(given, [text, None], None)


def arrow(values: list[object], kind: pa.DataType) -> pa.Array:
    return pa.array([*values, None], kind)


UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
LONG = "1111111111111111111111111111111111111111.25"
YEARS = ["0001-01-01 00:00:00", "1500-06-07 01:02:03.000005", "9999-12-31 23:59:59.999999"]
MOMENTS = [datetime.fromisoformat(text) for text in YEARS]

CASES: dict[str, Case] = {
    "`BOOLEAN`": Case(arrow([True], pa.bool_()), ["true", None], ["true", None]),
    "`INT(8, true)`": both(arrow([-128], pa.int8()), "-128"),
    "`INT(16, true)`": both(arrow([-(2**15)], pa.int16()), "-32768"),
    "`INT(32, true)`, `INT32`": both(arrow([-(2**31)], pa.int32()), "-2147483648"),
    "`INT(64, true)`, `INT64`": both(arrow([-(2**63)], pa.int64()), "-9223372036854775808"),
    "`INT(8, false)`": both(arrow([255], pa.uint8()), "255"),
    "`INT(16, false)`": both(arrow([65535], pa.uint16()), "65535"),
    "`INT(32, false)`": both(arrow([2**32 - 1], pa.uint32()), "4294967295"),
    "`INT(64, false)`": both(arrow([2**64 - 1], pa.uint64()), "18446744073709551615"),
    "`FLOAT16`": both(arrow([1.5], pa.float16()), "1.5"),
    "`FLOAT`": both(arrow([0.1], pa.float32()), "0.1"),
    "`DOUBLE`": both(arrow([0.1], pa.float64()), "0.1"),
    "`DECIMAL(5,2)` over `INT32`": both("1.50::DECIMAL(5,2)", "1.50"),
    "`DECIMAL(38,2)` over bytes": both(arrow([Decimal("-1.25")], pa.decimal128(38, 2)), "-1.25"),
    "`DECIMAL(50,2)`": Case(arrow([Decimal(LONG)], pa.decimal256(50, 2)), None, [LONG, None]),
    "`STRING`": both(arrow(["é𝄞"], pa.string()), "é𝄞"),
    "`ENUM`": both(arrow(["é𝄞"], pa.string()), "é𝄞"),
    "`JSON`": both("""'{"b":1, "a":1}'::JSON""", '{"b":1, "a":1}'),
    "`BSON`": Case(arrow(["ab"], pa.string()), ["ab", None], ["\\x6162", None]),
    "`UUID`": both(f"'{UUID}'::UUID", UUID),
    "`BYTE_ARRAY` of its own": Case(arrow([b"\0\xff"], pa.binary()), ["\\x00\\xFF", None], ["\\x00ff", None]),
    "`FIXED_LEN_BYTE_ARRAY` of its own": Case(arrow([b"\0\xff"], pa.binary(2)), ["\\x00\\xFF", None], ["\\x00ff", None]),
    "`DATE`": both("'0001-01-01'::DATE", "0001-01-01"),
    "`TIME`": both("'10:20:30.000001'::TIME", "10:20:30.000001"),
    "`TIME` in UTC": both("'10:20:30+02'::TIMETZ", "08:20:30"),
    "`TIMESTAMP`": both(arrow(list(MOMENTS), pa.timestamp("us")), *YEARS),
    "`TIMESTAMP` in UTC": both(
        arrow(list(MOMENTS), pa.timestamp("us", "UTC")), *(f"{text}+00" for text in YEARS)
    ),
    "`TIMESTAMP` of nanoseconds": both("'2020-01-01 00:00:00.123456'::TIMESTAMP_NS", "2020-01-01 00:00:00.123456"),
    "`INT96`": Case(arrow(list(MOMENTS), pa.timestamp("us")), [*YEARS, None], [*YEARS, None], is_legacy=True),
    "`INTERVAL`": Case(
        "INTERVAL '14 months 3 days 4.567 seconds'",
        ["1 year 2 months 3 days 00:00:04.567", None],
        ["1 year 2 mons 3 days 00:00:04.567", None],
    ),
    "`UNKNOWN` (nulls alone)": both(pa.nulls(1)),
    "`GEOMETRY`": Case("'POINT(1 2)'::GEOMETRY", None, None),
    "`VARIANT`": Case("{'a': 1}::VARIANT", None, None),
    "`LIST`": nested(arrow([[1, None]], pa.list_(pa.uint8())), "[1, NULL]"),
    "`LIST` of `FLOAT16`": nested(arrow([[1.5]], pa.list_(pa.float16())), "[1.5]"),
    "`LIST` of `UUID`, `JSON`, `DECIMAL(50,2)`": Case(f"['{UUID}'::UUID]", None, None),
    "`LIST` of `INTERVAL`": Case("[INTERVAL '1 day']", None, None),
    "`LIST` of `ENUM`": Case(arrow([["a"]], pa.list_(pa.string())), None, None),
    "`LIST` of `INT96`": Case(arrow([MOMENTS], pa.list_(pa.timestamp("us"))), None, None, is_legacy=True),
    "group": nested("{'a': 1, 'B c': {'d': ['x']}}", "{'a': 1, 'B c': {'d': [x]}}"),
    "`MAP`": nested("MAP {'a': 1.5::DECIMAL(5,2)}", "{a=1.50}"),
}  # fmt: skip
HEADER = """# Types of Parquet

What becomes of each type that a Parquet file names, when the destination's table is created by the run. A cell names the type there; every
value arrives unchanged, NULL included, which a test compares. What is refused fails the run by column and type before its first
row (`schema.mismatch`): write the file with another type for it, such as text, or without it.

Times land with six digits of a second; one with more that are not zero is refused. A time of day in UTC lands without its zone, which
`plan`, `preview` and the report say. `VARIANT` and `GEOMETRY` are told apart from bytes as far as DuckDB knows them. DuckDB writes `HUGEINT` as
`DOUBLE` and infinite times as numbers; what it wrote is what arrives.

| type | DuckDB | Postgres |
|---|---|---|
"""


def write(path: Path, label: str) -> None:
    """Write a file with the columns `id` and `odd`, the last value of which is NULL."""
    case, path_text = CASES[label], str(path)
    if isinstance(case.given, str):
        with duckdb.connect() as connection:
            rows = f"SELECT 0::BIGINT AS id, {case.given} AS odd UNION ALL SELECT 1, NULL"
            connection.execute(f"COPY ({rows}) TO '{path_text}' (FORMAT parquet)")
        return
    rows = pa.table({"id": pa.array(range(len(case.given)), pa.int64()), "odd": case.given})
    pq.write_table(rows, path, store_schema=False, use_deprecated_int96_timestamps=case.is_legacy)
    for name, mark in _OTHERS.items():
        if name in label:
            content = path.read_bytes()
            assert content.count(_TEXT) == 1
            path.write_bytes(content.replace(_TEXT, mark))


async def landed(shelf: Shelf, label: str) -> dict[str, tuple[str, list[str | None]] | None]:
    """The type and the texts of the column in each store."""
    write(shelf.folder / "given.parquet", label)
    found: dict[str, tuple[str, list[str | None]] | None] = {}
    for kind in STORES:
        source, spec = FilesSource(shelf.folder), SourceSpec(path="given.parquet")
        try:
            found[kind] = (await shelf.landed(source, spec, kind, ()))["odd"]
        except SchemaMismatchError as error:
            if "olumn odd" not in error.message:
                raise
            found[kind] = None
    return found


def row_of(label: str, found: dict[str, tuple[str, list[str | None]] | None]) -> str:
    """The line of the document for one type."""
    cells = [f"`{there[0]}`" if (there := found[kind]) is not None else "refused" for kind in STORES]
    return f"| {label} | {' | '.join(cells)} |"


async def document(url: str, folder: Path) -> str:
    """The whole of docs/reference/parquet.md."""
    store = PostgresDataStore(address_of(url))
    await store.open()
    try:
        shelf = Shelf(folder, url, store)
        return HEADER + "\n".join([row_of(label, await landed(shelf, label)) for label in CASES]) + "\n"
    finally:
        await store.close()


if __name__ == "__main__":
    DOCUMENT.write_text(asyncio.run(document(sys.argv[1], Path(tempfile.mkdtemp()))))
