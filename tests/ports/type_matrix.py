"""The types of chapter 8 of the Postgres manual with their extremes, and what becomes of them on each way.

`python -m tests.ports.type_matrix URL` writes docs/reference/types.md; a test compares.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import PlatformError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode, SourceSpec
from domain.ports.data_store import IDataStore, JudgedBatch, Target, passage_of
from domain.quality.measures import Counts, Measures
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.ports.backends import address_of
from tests.ports.loading import REFUSED, token_of

DOCUMENT = Path(__file__).parents[2] / "docs/reference/types.md"
WAYS = ("Postgres, undecoded", "Postgres, through Arrow", "DuckDB")

# Ordinary values (smallest, greatest, empty) go together; each special one is tried on its own.
TYPES: dict[str, tuple[list[str], list[str]]] = {
    "smallint": (["-32768", "32767"], []),
    "integer": (["-2147483648", "2147483647"], []),
    "bigint": (["-9223372036854775808", "9223372036854775807"], []),
    "numeric": (["0", "1e-20", "-1e60"], ["NaN", "Infinity"]),
    "numeric(12,2)": (["9999999999.99", "-9999999999.99", "0"], ["NaN"]),
    "numeric(38,10)": (["9999999999999999999999999999.9999999999"], []),
    "numeric(50,10)": (["1e39"], []),
    "numeric(5,-2)": (["1200"], []),
    "real": (["3.4028235e38", "1.1754944e-38", "-0"], ["NaN", "-Infinity"]),
    "double precision": (["1.7976931348623157e308", "5e-324"], ["NaN", "-Infinity"]),
    "money": (["-92233720368547758.08", "12.34"], []),
    "text": (["", "é\"\\ \t\n'"], []),
    "character varying(10)": (["", "abc"], []),
    "character(5)": (["", "ab"], []),
    '"char"': (["a"], []),
    "name": (["x"], []),
    "bytea": (["", "\\x00ff"], []),
    "timestamp without time zone": (["4714-11-24 00:00:00 BC", "2025-01-01 00:00:00.000001"],
                                    ["294276-12-31 23:59:59.999999", "infinity", "-infinity"]),
    "timestamp with time zone": (["4714-11-24 00:00:00+00 BC", "2025-01-01 00:00:00+02"],
                                 ["294276-12-31 23:59:59.999999+00", "infinity", "-infinity"]),
    "timestamp(3) without time zone": (["2025-01-01 00:00:00.001"], []),
    "date": (["4714-11-24 BC", "2025-02-28"], ["5874897-12-31", "infinity", "-infinity"]),
    "time without time zone": (["00:00:00", "23:59:59.999999"], ["24:00:00"]),
    "time with time zone": (["00:00:00+15:59", "24:00:00-15:59"], []),
    "interval": (["1 year 2 mons 3 days 04:05:06.789", "00:00:00"], ["-178000000 years", "infinity", "2562048 hours"]),
    "boolean": (["t", "f"], []),
    "point": (["(1,2)"], []),
    "line": (["{1,2,3}"], []),
    "lseg": (["[(0,0),(1,1)]"], []),
    "box": (["(1,1),(0,0)"], []),
    "path": (["((0,0),(1,1))"], []),
    "polygon": (["((0,0),(1,1))"], []),
    "circle": (["<(0,0),1>"], []),
    "cidr": (["10.0.0.0/8"], []),
    "inet": (["::1", "10.1.2.3/16"], []),
    "macaddr": (["08:00:2b:01:02:03"], []),
    "macaddr8": (["08:00:2b:01:02:03:04:05"], []),
    "bit(3)": (["101"], []),
    "bit varying(5)": (["", "10101"], []),
    "tsvector": (["'a':1 'b'"], []),
    "tsquery": (["'a' & 'b'"], []),
    "uuid": (["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"], []),
    "json": (['{"b":1, "a": 2, "a": 3}'], []),
    "jsonb": (['{"a": [1, null]}', "null"], []),
    "integer[]": (["{}", "{1,NULL,3}", "{{1,2},{3,4}}"], []),
    "text[]": (["{}", '{a,NULL,""}'], []),
    "numeric(5,2)[]": (["{1.25,NULL}"], []),
    "timestamp with time zone[]": (["{2025-01-01 00:00:00+00}"], []),
    "int4range": (["empty", "[1,5)", "(,)"], []),
    "numrange": (["[1.5,2.5]"], []),
    "tsrange": (["[2025-01-01,2025-01-02)"], []),
    "tstzrange": (["empty"], []),
    "daterange": (["[2025-01-01,infinity)"], []),
    "int8range": (["[1,2)"], []),
    "int4multirange": (["{[1,3),[5,8)}"], []),
    "oid": (["0", "4294967295"], []),
    "pg_lsn": (["16/B374D848"], []),
    "jsonpath": (["$.a"], []),
    "an enum": (["happy"], []),
    "a domain over integer": (["5"], []),
}  # fmt: skip
_DEFINITIONS = ("CREATE TYPE mood AS ENUM ('happy', 'sad')", "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
_CREATED = {"an enum": "mood", "a domain over integer": "positive"}


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator["Matrix"]:
    """Prepare a database, and open the stores that values move between."""
    for statement in _DEFINITIONS:
        postgres(url, statement)
    async with AsyncExitStack() as stack:
        stores = PostgresDataStore(address_of(url)), DuckDBDataStore(DuckDBOptions(folder / "data.duckdb"))
        for store in stores:
            await store.open()
            stack.push_async_callback(store.close)
        yield Matrix(url, *stores)


@dataclass(frozen=True)
class Outcome:
    """What became of one set of values: the type at the destination, or the code of the refusal."""

    landed: str | None
    refused: str | None


class Matrix:
    """Moves values of one type and compares them by SQL at the destination."""

    def __init__(self, url: str, postgres: PostgresDataStore, duckdb: DuckDBDataStore) -> None:
        self._url = url
        self._postgres = postgres
        self._duckdb = duckdb
        self._names = 0

    def sql(self, text: str) -> list[tuple[object, ...]]:
        return postgres(self._url, text)

    async def moved(self, kind: str, values: list[str], way: str) -> Outcome:
        """Load the values and NULL; compare both ways as text, which Postgres writes exactly.

        Raises:
            AssertionError: a value has changed.
        """
        native = _CREATED.get(kind, kind)
        self._names += 1
        self.sql("DROP TABLE IF EXISTS given")
        self.sql(f"CREATE TABLE given (id bigint PRIMARY KEY, v {native})")
        texts = ["'" + value.replace("'", "''") + "'" for value in values]
        rows = ", ".join(f"({number}, {text})" for number, text in enumerate([*texts, "NULL"]))
        self.sql(f"INSERT INTO given VALUES {rows}")
        try:
            if way != "DuckDB":
                return await self._to_postgres(undecoded="undecoded" in way)
            return await self._to_duckdb()
        except PlatformError as error:
            return Outcome(None, error.code)

    async def _to_postgres(self, *, undecoded: bool) -> Outcome:
        table = TableName(f"got{self._names}")
        await load(self._postgres, self._postgres, table, undecoded=undecoded)
        self._compare(table.table)
        found = self.sql(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            f"WHERE attrelid = '{table.table}'::regclass AND attname = 'v'"
        )
        return Outcome(str(found[0][0]), None)

    async def _to_duckdb(self) -> Outcome:
        table = TableName(f"got{self._names}")
        await load(self._postgres, self._duckdb, table, undecoded=False)
        described = await self._duckdb.describe(table)
        assert described is not None
        column = described.column("v")
        assert column is not None
        # Back in Postgres, where the same SQL compares.
        self.sql(f"CREATE TABLE {table.table} (id bigint, v {self._native()})")
        await load(self._duckdb, self._postgres, table, undecoded=False)
        self._compare(table.table)
        return Outcome(self._duckdb.spell(column.type), None)

    def _native(self) -> str:
        found = self.sql(
            "SELECT format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, a.atttypmod) "
            "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = 'given'::regclass AND a.attname = 'v'"
        )
        return str(found[0][0])

    def _compare(self, table: str) -> None:
        for left, right in (("given", table), (table, "given")):
            different = self.sql(f"SELECT id, v::text FROM {left} EXCEPT ALL SELECT id, v::text FROM {right}")
            assert different == [], f"{left} has {different}, which {right} has not"


async def load(source: IDataStore, destination: IDataStore, table: TableName, *, undecoded: bool) -> None:
    """Load one batch by the port, as a stream does."""
    is_back = isinstance(source, DuckDBDataStore)
    spec = SourceSpec(table=table if is_back else TableName("given"), key=("id",))
    plan = await source.plan(spec, lo=None, limit=None)
    planned = ReadSet(f"r-{table}", "f", plan, 100)
    existing = await destination.describe(table)
    columns = existing.columns if existing else tuple(Column(name, kind) for name, kind in plan.columns)
    target = Target(table, Mode.APPEND, None, columns, "01890000-0000-7000-8000-000000000000", False)
    lane = Lane("default", table.table)
    async with destination.owner(lane, table, 1, token=await token_of(destination, lane, table)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
    async with (
        destination.writer(lane, target, planned.id, "0", 1, await token_of(destination, lane, table)) as writer,
        source.reader(spec, plan, plan.streams[0], batch_rows=100) as reader,
    ):
        if undecoded:
            [rows] = [rows async for rows in reader.encoded(None, passage_of(target))]
            await writer.commit_encoded(rows, CheckpointUpdate(1, rows.position, Counts(), Measures(), True))
        else:
            [batch] = [batch async for batch in reader.batches(None)]
            judged = JudgedBatch(batch.data, REFUSED.empty_table(), Counts(), Measures())
            await writer.commit(judged, CheckpointUpdate(1, batch.position, Counts(), Measures(), True))


async def row_of(matrix: Matrix, kind: str) -> str:
    """The line of the document for one type."""
    ordinary, special = TYPES[kind]
    cells = []
    for way in WAYS:
        outcome = await matrix.moved(kind, ordinary, way)
        cell = f"`{outcome.landed}`" if outcome.landed else f"refused: `{outcome.refused}`"
        if outcome.landed:
            refused = [value for value in special if (await matrix.moved(kind, [value], way)).refused]
            cell += f"; refused: {', '.join(refused)}" if refused else ""
        cells.append(cell)
    return f"| `{kind}` | {' | '.join(cells)} |" if kind not in _CREATED else f"| {kind} | {' | '.join(cells)} |"


HEADER = """# Types

What becomes of each type of a Postgres source, on each way, when the destination's table is created by the run. A cell
names the type there; every value that is not named as refused arrives unchanged, NULL included, which a test compares by SQL at the
destination for the smallest, the greatest, the empty and the special values. What is refused fails the run by name, and
nothing of its batch is written: cast the column in the source query, or leave it out. Files of Parquet have
[a table of their own](parquet.md).

| type | Postgres, undecoded | Postgres, through Arrow | DuckDB |
|---|---|---|---|
"""


async def document(url: str, folder: Path) -> str:
    """The whole of docs/reference/types.md."""
    async with opened(url, folder) as matrix:
        return HEADER + "\n".join([await row_of(matrix, kind) for kind in TYPES]) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(asyncio.run(document(sys.argv[1], Path(tempfile.mkdtemp()))))
