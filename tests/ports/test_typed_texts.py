"""What Arrow reads of a text before DuckDB does is what the exact expression of DuckDB reads, or Arrow
leaves it alone.
"""

import random
from collections.abc import Iterator
from itertools import permutations

import duckdb
import pyarrow as pa
import pytest

from infrastructure.stores.duckdb.typed_texts import TypedTexts, read_exactly
from infrastructure.tabular.exact import exact

KINDS = {
    "int8": ("TINYINT", pa.int8()),
    "int16": ("SMALLINT", pa.int16()),
    "int32": ("INTEGER", pa.int32()),
    "int64": ("BIGINT", pa.int64()),
    "date": ("DATE", pa.date32()),
    "timestamp": ("TIMESTAMP", pa.timestamp("us")),
}
# What is read in one way only, and must be: else the quick way were of no use.
PLAIN = {
    "int64": ["0", "7", "-7", "1234567890123456789", "-9223372036854775808", "9223372036854775807", None],
    "int8": ["127", "-128", "0"],
    "date": ["2026-01-31", "0001-01-01", "9999-12-31", "2024-02-29", None],
    "timestamp": [
        "2026-01-31 23:59:59",
        "2026-01-31T23:59:59.123456",
        "0001-01-01 00:00:00.5",
        "9999-12-31 23:59",
        None,
    ],
}
ODD = [
    "007", "-0", "-05", "+5", " 5", "5 ", "5.", "5.0", "1e2", "1_000", "0x1F", "-0x1", "١٢", "", "٣", "--5", "9223372036854775808",
    "-9223372036854775809", "128", "1e18", "NaN", "5\n", "5\x0b", "00", "0b1",
    "0000-01-01", "2026-1-31", "2026-02-30", "2026-13-01", "20260131", "02026-01-31", "-2026-01-31", "2026-01-31 ", " 2026-01-31",
    "2026/01/31", "2026-01-31 (BC)", "10000-01-01", "2026-01-3a", "infinity", "epoch", "2026-W05-6", "2026-031", "2023-02-29",
    "2026-01-31 24:00:00", "2026-01-31 23:60:00", "2026-01-31 23:59:60", "2026-01-31 23:59:59.1234567", "2026-01-31 23",
    "2026-01-31 23:59:59.", "2026-01-31 23:59:59Z", "2026-01-31 23:59:59+02", "2026-01-31  23:59:59", "2026-01-31t23:59:59",
    "2026-01-31 2359", "2026-01-31 235959", "0000-01-01 00:00:00", "2026-01-31 1:02:03", "2026-01-31 01:02:3", "2026-01-31_01:02:03",
    "2026-01-31 23:59:59,5", "2026-01-31 23:59:59.12345 ", "2026-01-31 23:59 ", "2023-02-29 10:00:00",
]  # fmt: skip


@pytest.fixture(scope="module")
def reading() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def by_duckdb(reading: duckdb.DuckDBPyConnection, texts: list[str | None], kind: str) -> list[object]:
    reading.register("texts", pa.table({"t": pa.array(texts, pa.string())}))
    return [row[0] for row in reading.execute(f"SELECT {exact('t', kind)} FROM texts").fetchall()]


def drawn(count: int) -> list[str]:
    """Texts that are nearly those above, seeded."""
    draw = random.Random(2026)
    known = [text for texts in PLAIN.values() for text in texts if text] + ODD
    marks = "0123456789-+.: TtZ/_eEx,\t٣"
    found = []
    for _ in range(count):
        text = list(draw.choice(known))
        for _ in range(draw.randint(1, 3)):
            place = draw.randint(0, len(text))
            text[place : place + draw.randint(0, 1)] = draw.choice(["", draw.choice(marks)])
        found.append("".join(text))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_arrow_reads_nothing_in_another_sense(kind: str, reading: duckdb.DuckDBPyConnection) -> None:
    texts = [*ODD, *(text for plain in PLAIN.values() for text in plain if text), *drawn(1000)]
    read = [read_exactly(pa.array([text]), KINDS[kind][1]) for text in texts]
    wrong = [
        (text, found.to_pylist(), value)
        for text, found, value in zip(texts, read, by_duckdb(reading, list(texts), kind), strict=True)
        if found is not None and (value is None or found.to_pylist() != [value])
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", PLAIN)
def test_arrow_reads_what_is_plain(kind: str, reading: duckdb.DuckDBPyConnection) -> None:
    found = read_exactly(pa.array(PLAIN[kind], pa.string()), KINDS[kind][1])
    assert found is not None
    assert found.to_pylist() == by_duckdb(reading, list(PLAIN[kind]), kind)


def test_one_odd_text_leaves_its_block_to_duckdb_and_no_other(reading: duckdb.DuckDBPyConnection) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    blocks = [
        pa.record_batch([["1", "2"], ["x", None]], schema=schema),
        pa.record_batch([["3", "007"], ["y", "z"]], schema=schema),
    ]
    texts = TypedTexts(pa.RecordBatchReader.from_batches(schema, blocks), {"a": "BIGINT", "b": "VARCHAR"})
    reading.register("rows_of_texts", texts.reader())
    found = reading.execute(
        f"SELECT {texts.value('a', '-length(a)')}, {texts.value('b', 'b')} FROM rows_of_texts"
    ).fetchall()

    assert found == [(1, "x"), (2, None), (-1, "y"), (-3, "z")]


def test_columns_are_known_by_their_names_and_not_by_their_places(reading: duckdb.DuckDBPyConnection) -> None:
    kinds = {
        "n": ("BIGINT", ["1", "2"]),
        "m": ("BIGINT", ["3", "04"]),
        "d": ("DATE", ["2026-01-02", None]),
        "t": ("VARCHAR", ["5", "6"]),
    }
    natives = {name: kind for name, (kind, _) in kinds.items()}
    rows = pa.table({name: pa.array(values, pa.string()) for name, (_, values) in kinds.items()})
    found = set()
    for order in permutations(kinds):
        texts = TypedTexts(rows.select(order).to_reader(), natives)
        reading.register("rows_of_texts", texts.reader())
        values = [texts.value(name, f"CAST({name} AS {natives[name]})") for name in kinds]
        found.add(str(reading.execute(f"SELECT {', '.join(values)} FROM rows_of_texts").fetchall()))
    assert found == {"[(1, 3, datetime.date(2026, 1, 2), '5'), (2, 4, None, '6')]"}
