"""Values drawn for each type of Postgres land as they were on every way: decoded, undecoded, in the database, in
DuckDB.
"""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.pipelines.spec import SourceSpec
from domain.pipelines.steps import SqlStep
from domain.stores.table import TableName
from infrastructure.stores.duckdb.store import DuckDBDataStore, DuckDBOptions
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.test_values_between_stores import landed_by, load
from tests.ports.type_matrix import load as load_by_way

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
_YEAR = st.integers(1, 9000)
_DATE = st.builds(
    lambda year, month, day: f"{abs(year):04d}-{month:02d}-{day:02d}{' BC' if year < 0 else ''}",
    st.integers(-4712, 250_000).filter(lambda year: year != 0),
    st.integers(1, 12),
    st.integers(1, 28),
)
_CLOCK = st.one_of(
    st.just("24:00:00"),
    st.times().map(lambda time: time.isoformat()),
)
_STAMP = st.builds(lambda day, time: f"{day.removesuffix(' BC')} {time}{day[10:] if day.endswith(' BC') else ''}",
                   _DATE, st.times().map(lambda time: time.isoformat()))  # fmt: skip
_SIGNED = st.integers(-(10**6), 10**6)
_INTERVAL = st.builds(
    lambda m, d, s: f"{m} mons {d} days {s} microseconds", _SIGNED, _SIGNED, st.integers(-(2**53), 2**53)
)
_NUMERIC = st.builds(
    lambda sign, whole, places: f"{sign}{whole}{'.' + places if places else ''}",
    st.sampled_from(["", "-"]),
    st.text("0123456789", min_size=1, max_size=40),
    st.text("0123456789", max_size=30),
)
_FLOAT = st.floats().map(
    lambda number: {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(number), repr(number))
)


def _array(items: st.SearchStrategy[str], *, nested: bool = True) -> st.SearchStrategy[str]:
    """One or two dimensions, NULLs, and lower bounds other than one."""
    quoted = items.map(lambda item: '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"') | st.just("NULL")
    flat = st.lists(quoted, min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
    moved = st.builds(
        lambda begin, array: (begin, array), st.integers(-3, 3), st.lists(quoted, min_size=1, max_size=3)
    ).map(lambda drawn: f"[{drawn[0]}:{drawn[0] + len(drawn[1]) - 1}]={{{','.join(drawn[1])}}}")
    square = st.tuples(quoted, quoted, quoted, quoted).map(lambda q: f"{{{{{q[0]},{q[1]}}},{{{q[2]},{q[3]}}}}}")
    return st.one_of(st.just("{}"), flat, moved, square) if nested else st.one_of(st.just("{}"), flat)


CARRIED: dict[str, st.SearchStrategy[str]] = {
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "real": st.floats(width=32).map(
        lambda n: {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(n), repr(n))
    ),
    "double precision": _FLOAT,
    "numeric(38,10)": st.decimals(-(10**27), 10**27, places=10).map(lambda number: f"{number:f}"),
    "text": _TEXT,
    "character varying(5)": _TEXT,
    "bytea": st.binary(max_size=5).map(lambda raw: "\\x" + raw.hex()),
    "boolean": st.sampled_from(["t", "f"]),
    "date": _DATE,
    "time": _CLOCK,
    "timestamp": _STAMP,
    "timestamptz": _STAMP,
    "interval": _INTERVAL,
    "uuid": st.uuids().map(str),
    "json": st.sampled_from(['{"b":1, "a":1,  "a":2}', "1.00", "null", '"\\u00e9"']),
    "counted": st.integers(1, 2**31 - 1).map(str),
}
IN_POSTGRES = CARRIED | {
    "numeric": _NUMERIC | st.sampled_from(["1.0", "1.00", "NaN", "Infinity", "1e-400", "1e400"]),
    "numeric(60,2)": st.decimals(-(10**50), 10**50, places=2).map(lambda number: f"{number:f}"),
    "character(5)": _TEXT,
    '"char"': st.sampled_from(["", "a", "\\351"]),
    "name": _TEXT,
    "oid": st.integers(0, 2**32 - 1).map(str),
    "money": st.integers(-(2**63), 2**63 - 1).map(
        lambda cents: f"{cents // 100}.{cents % 100:02d}" if cents >= 0 else "0"
    ),
    "bit(3)": st.text("01", min_size=3, max_size=3),
    "bit varying": st.text("01", max_size=70),
    "timetz": st.builds(lambda time, hours: f"{time}{hours:+03d}:30", _CLOCK, st.integers(-14, 14)),
    "jsonb": st.sampled_from(['{"a": [1.00, null, "\\u00e9"]}', "1.0"]),
    '"Mood Of"': st.sampled_from(["sad", "ok", "it's \"\\"]),
    "shift": st.builds(lambda day, text: f"({day.replace(' ', ' ')},{_in_row(text)})", _DATE, _TEXT),
    "integer[]": _array(st.integers(-(2**31), 2**31 - 1).map(str)),
    "text[]": _array(_TEXT),
    "double precision[]": _array(_FLOAT),
    "interval[]": _array(_INTERVAL),
    "timestamptz[]": _array(_STAMP),
    "numeric[]": _array(_NUMERIC),
    '"Mood Of"[]': _array(st.sampled_from(["sad", "it's \"\\"])),
    "daterange": st.tuples(_YEAR, st.integers(1, 50)).map(
        lambda drawn: f"[{drawn[0]:04d}-01-01,{drawn[0] + drawn[1]:04d}-02-03)"
    ),
    "nummultirange": st.integers(-5, 5).map(lambda low: f"{{[{low},{low + 1}.50],({low + 3},)}}"),
    "inet": st.ip_addresses().map(str),
}


def _in_row(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def rows_of(types: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[list[tuple[str | None, ...]]]:
    row = st.tuples(*[st.none() | strategy for strategy in types.values()])
    return st.lists(row, min_size=5, max_size=5)


class Drawing:
    """A table of drawn values, and the same table wherever they have landed, read by asyncpg as text."""

    def __init__(self, url: str, types: dict[str, st.SearchStrategy[str]], connection: Any) -> None:
        self.url, self.types, self.connection = url, types, connection

    async def given(self, rows: list[tuple[str | None, ...]]) -> None:
        await self.connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await self.connection.execute(
            "CREATE TYPE \"Mood Of\" AS ENUM ('sad', 'ok', 'it''s \"\\'); CREATE TYPE shift AS (day date, note text); "
            "CREATE DOMAIN counted AS integer CHECK (VALUE > 0)"
        )
        columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(self.types))
        await self.connection.execute(f"CREATE TABLE given (id bigint PRIMARY KEY, {columns})")
        values = ", ".join(f"${number + 2}::text::{kind}" for number, kind in enumerate(self.types))
        await self.connection.executemany(f"INSERT INTO given VALUES ($1, {values})", list(enumerate_rows(rows)))

    async def texts(self, table: str) -> list[tuple[Any, ...]]:
        names = ", ".join(f"c{number}::text" for number in range(len(self.types)))
        return [tuple(row) for row in await self.connection.fetch(f"SELECT id, {names} FROM {table} ORDER BY id")]


def enumerate_rows(rows: list[tuple[str | None, ...]]) -> list[tuple[Any, ...]]:
    return [(number, *row) for number, row in enumerate(rows)]


def test_drawn_values_land_as_they_were_on_every_way_within_postgres(postgres_database: str) -> None:
    @settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(rows_of(IN_POSTGRES))
    def lands(rows: list[tuple[str | None, ...]]) -> None:
        asyncio.run(within_postgres(postgres_database, rows))

    lands()


async def within_postgres(url: str, rows: list[tuple[str | None, ...]]) -> None:
    connection = await asyncpg.connect(url)
    drawing, store = Drawing(url, IN_POSTGRES, connection), PostgresDataStore(address_of(url))
    await drawing.given(rows)
    await store.open()
    try:
        await load_by_way(store, store, TableName("undecoded"), undecoded=True)
        source = SourceSpec(table=TableName("given"), key=("id",))
        await load(store, source, store, TableName("decoded"), ())
        await load(store, source, store, TableName("stepped"), (SqlStep("select * from batch"),))
        await landed_by("inside", store)
        given_texts = await drawing.texts("given")
        for table in ("undecoded", "decoded", "stepped", "got"):
            assert await drawing.texts(table) == given_texts, table
    finally:
        await store.close()
        await connection.close()


def test_drawn_values_come_back_from_duckdb_as_they_were(postgres_database: str, tmp_path: Path) -> None:
    @settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(rows_of(CARRIED))
    def comes_back(rows: list[tuple[str | None, ...]]) -> None:
        asyncio.run(through_duckdb(postgres_database, rows))

    comes_back()


async def through_duckdb(url: str, rows: list[tuple[str | None, ...]]) -> None:
    connection = await asyncpg.connect(url)
    drawing, store = Drawing(url, CARRIED, connection), PostgresDataStore(address_of(url))
    embedded = DuckDBDataStore(DuckDBOptions(None))
    await drawing.given(rows)
    await store.open()
    await embedded.open()
    try:
        await load(store, SourceSpec(table=TableName("given"), key=("id",)), embedded, TableName("kept"), ())
        back = SourceSpec(table=TableName("kept"), key=("id",))
        await load(embedded, back, store, TableName("back"), (SqlStep("select * from batch"),))
        assert await drawing.texts("back") == await drawing.texts("given")
    finally:
        await embedded.close()
        await store.close()
        await connection.close()
