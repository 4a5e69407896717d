"""Every type of Arrow, Parquet and DuckDB into every store, straight and through a step: the same value and type, or
refused.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import asyncpg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import SchemaMismatchError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode, SourceSpec
from domain.pipelines.steps import SqlStep, Step
from domain.ports.data_store import IDataStore, JudgedBatch, StreamSelection, Target, passage_of
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Judgement, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.stores.duckdb.store import DuckDBDataStore, DuckDBOptions
from infrastructure.stores.files.store import FilesSource
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.transforms.duckdb import DuckDBTransformer
from tests.ports.backends import address_of
from tests.ports.loading import REFUSED, token_of

GIVEN = TableName("given")
STEPS: dict[str, tuple[Step, ...]] = {"straight": (), "through a step": (SqlStep("select * from batch"),)}


@dataclass(frozen=True)
class Case:
    """What is given, and the type and texts that DuckDB and Postgres show afterwards; None where they refuse the
    column.
    """

    given: pa.Array | str
    duckdb: tuple[str, list[str | None]] | None
    postgres: tuple[str, list[str | None]] | None


def integers(values: list[int | None], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def json_type() -> pa.DataType:
    return pa.json_(pa.string())


LONG = "1111111111111111111111111111111111111111.25"
UUIDS = ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]
HALVES = pa.array([1.5, float("nan")], pa.float16())
STRUCT = pa.struct([("a", pa.int64()), ("b c", pa.string())])
WORDS: list[str | None] = ["é𝄞", None]
EDGES: list[str | None] = ["1970-01-01 00:00:00.000001", "1969-12-31 23:59:59.999999"]
ARROW = {
    "decimal of 50 digits": Case(pa.array([Decimal(LONG), None], pa.decimal256(50, 2)), None, ("numeric(50,2)", [LONG, None])),
    "decimal of small places": Case(
        pa.array([Decimal("1e-20"), Decimal("-1e-20")], pa.decimal256(40, 20)),
        None,
        ("numeric(40,20)", ["0.00000000000000000001", "-0.00000000000000000001"]),
    ),
    "decimal256 that is short": Case(
        pa.array([Decimal("1.25"), None], pa.decimal256(5, 2)), ("DECIMAL(5,2)", ["1.25", None]), ("numeric(5,2)", ["1.25", None])
    ),
    "decimal32": Case(
        pa.array([Decimal("-9.90"), None], pa.decimal32(5, 2)), ("DECIMAL(5,2)", ["-9.90", None]), ("numeric(5,2)", ["-9.90", None])
    ),
    "decimal64": Case(
        pa.array([Decimal("0.01"), None], pa.decimal64(15, 2)), ("DECIMAL(15,2)", ["0.01", None]), ("numeric(15,2)", ["0.01", None])
    ),
    "uuid": Case(pa.array([bytes(range(16)), None], pa.uuid()), ("UUID", UUIDS), ("uuid", UUIDS)),
    "json": Case(
        pa.array(['{"b":1, "a":1, "a":2}', "null"], json_type()),
        ("JSON", ['{"b":1, "a":1, "a":2}', "null"]),
        ("json", ['{"b":1, "a":1, "a":2}', "null"]),
    ),
    "struct": Case(
        pa.array([{"a": 1, "b c": "x"}, None], STRUCT), ('STRUCT(a BIGINT, "b c" VARCHAR)', ["{'a': 1, 'b c': x}", None]), None
    ),
    "map": Case(
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), ("MAP(VARCHAR, BIGINT)", ["{k=1}", None]), None
    ),
    "list of lists": Case(
        pa.array([[[1, None], []], None], pa.list_(pa.list_(pa.int32()))), ("INTEGER[][]", ["[[1, NULL], []]", None]), None
    ),
    "large list": Case(
        pa.array([["a", None], []], pa.large_list(pa.large_string())), ("VARCHAR[]", ["[a, NULL]", "[]"]), None
    ),
    "list of two": Case(pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), ("INTEGER[]", ["[1, 2]", None]), None),
    "list view": Case(pa.array([[1, 2], None], pa.list_view(pa.int32())), ("INTEGER[]", ["[1, 2]", None]), None),
    "list of structs": Case(
        pa.array([[{"a": 1}], [None]], pa.list_(pa.struct([("a", pa.int8())]))),
        ("STRUCT(a TINYINT)[]", ["[{'a': 1}]", "[NULL]"]),
        None,
    ),
    "half float": Case(HALVES, ("FLOAT", ["1.5", "nan"]), ("real", ["1.5", "NaN"])),
    "double": Case(
        pa.array([-0.0, 5e-324]), ("DOUBLE", ["-0.0", "5e-324"]), ("double precision", ["-0", "5e-324"])
    ),
    "dictionary": Case(pa.array(WORDS).dictionary_encode(), ("VARCHAR", WORDS), ("text", WORDS)),
    "large string": Case(pa.array(WORDS, pa.large_string()), ("VARCHAR", WORDS), ("text", WORDS)),
    "string view": Case(pa.array(WORDS, pa.string_view()), ("VARCHAR", WORDS), ("text", WORDS)),
    "nothing": Case(pa.nulls(2), ("VARCHAR", [None, None]), ("text", [None, None])),
    "two bytes": Case(pa.array([b"\0\xff", None], pa.binary(2)), ("BLOB", ["\\x00\\xFF", None]), ("bytea", ["\\x00ff", None])),
    "binary view": Case(pa.array([b"", None], pa.binary_view()), ("BLOB", ["", None]), ("bytea", ["\\x", None])),
    "date64": Case(
        integers([86_400_000, None], pa.date64()), ("DATE", ["1970-01-02", None]), ("date", ["1970-01-02", None])
    ),
    "seconds": Case(
        integers([253_402_300_799, None], pa.timestamp("s")),
        ("TIMESTAMP", ["9999-12-31 23:59:59", None]),
        ("timestamp without time zone", ["9999-12-31 23:59:59", None]),
    ),
    "nanoseconds that are whole": Case(
        integers([1000, -1000], pa.timestamp("ns")), ("TIMESTAMP", EDGES), ("timestamp without time zone", EDGES)
    ),
    "milliseconds in Tokyo": Case(
        integers([1, -1], pa.timestamp("ms", "Asia/Tokyo")),
        ("TIMESTAMP WITH TIME ZONE", ["1970-01-01 00:00:00.001+00", "1969-12-31 23:59:59.999+00"]),
        ("timestamp with time zone", ["1970-01-01 00:00:00.001+00", "1969-12-31 23:59:59.999+00"]),
    ),
    "time32": Case(
        integers([86_399, None], pa.time32("s")), ("TIME", ["23:59:59", None]), ("time without time zone", ["23:59:59", None])
    ),
    "time of the day's end": Case(
        integers([86_400_000_000, None], pa.time64("us")), ("TIME", ["24:00:00", None]), ("time without time zone", ["24:00:00", None])
    ),
    "uint64": Case(
        pa.array([2**64 - 1, None], pa.uint64()),
        ("UBIGINT", ["18446744073709551615", None]),
        ("numeric(20,0)", ["18446744073709551615", None]),
    ),
    "decimal with negative scale": Case(
        pa.array([Decimal("1200"), None], pa.decimal128(5, -2)), None, ("numeric(5,-2)", ["1200", None])
    ),
    "interval": Case(
        pa.array([pa.MonthDayNano([14, -3, 1000]), pa.MonthDayNano([-1, 1, -86_400_000_000_000])]),
        ("INTERVAL", ["1 year 2 months -3 days 00:00:00.000001", "-1 month 1 day -24:00:00"]),
        ("interval", ["1 year 2 mons -3 days +00:00:00.000001", "-1 mons +1 day -24:00:00"]),
    ),
    "run-end encoded": Case(
        pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"])),
        ("VARCHAR", ["a", "a"]),
        ("text", ["a", "a"]),
    ),
}  # fmt: skip
NOT_IN_PARQUET = ("interval", "run-end encoded", "decimal with negative scale")
REFUSED_ARROW = {
    "duration": pa.array([1, None], pa.duration("us")),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
    "struct of long decimals": pa.array([{"a": Decimal(1)}], pa.struct([("a", pa.decimal256(50, 2))])),
    "nanoseconds": integers([1], pa.timestamp("ns")),
    "nanoseconds of a time": integers([1], pa.time64("ns")),
    "seconds beyond microseconds": integers([92_233_720_368_550], pa.timestamp("s")),
    "nanoseconds of an interval": pa.array([pa.MonthDayNano([0, 0, 1])]),
}
HUGE = "170141183460469231731687303715884105727"
LARGEST = "340282366920938463463374607431768211455"
DUCKDB = {
    "hugeint": Case(f"{HUGE}::HUGEINT", ("HUGEINT", [HUGE, None]), ("numeric(39,0)", [HUGE, None])),
    "uhugeint": Case(f"{LARGEST}::UHUGEINT", ("UHUGEINT", [LARGEST, None]), None),
    "bignum": Case(f"'{LARGEST}0'::BIGNUM", ("BIGNUM", [f"{LARGEST}0", None]), None),
    "bits": Case("'101'::BIT", ("BIT", ["101", None]), None),
    "time with a zone": Case("'00:00:00+15:59'::TIMETZ", ("TIME WITH TIME ZONE", ["00:00:00+15:59", None]), None),
    "time of the day's end": Case(
        "'24:00:00'::TIME", ("TIME", ["24:00:00", None]), ("time without time zone", ["24:00:00", None])
    ),
    "seconds": Case(
        "'2020-01-01'::TIMESTAMP_S",
        ("TIMESTAMP", ["2020-01-01 00:00:00", None]),
        ("timestamp without time zone", ["2020-01-01 00:00:00", None]),
    ),
    "nanoseconds that are whole": Case(
        "'2020-01-01 00:00:00.123456'::TIMESTAMP_NS",
        ("TIMESTAMP", ["2020-01-01 00:00:00.123456", None]),
        ("timestamp without time zone", ["2020-01-01 00:00:00.123456", None]),
    ),
    "date before Christ": Case("'0044-03-15 (BC)'::DATE", ("DATE", ["0044-03-15 (BC)", None]), ("date", ["0044-03-15 BC", None])),
    "uuid": Case(f"'{UUIDS[0]}'::UUID", ("UUID", UUIDS), ("uuid", UUIDS)),
    "json": Case("""'{"a":1, "a":2}'::JSON""", ("JSON", ['{"a":1, "a":2}', None]), ("json", ['{"a":1, "a":2}', None])),
    "enum": Case("'a'::ENUM('b', 'a')", ("VARCHAR", ["a", None]), ("text", ["a", None])),
    "enums": Case("['a'::ENUM('b', 'a')]", ("VARCHAR[]", ["[a]", None]), None),
    "struct": Case(
        "{'a': 1, 'B c': {'d': ['x']}}", ('STRUCT(a INTEGER, "B c" STRUCT(d VARCHAR[]))', ["{'a': 1, 'B c': {'d': [x]}}", None]), None
    ),
    "struct of more than Arrow": Case(
        f"{{'j': '1'::JSON, 'u': '{UUIDS[0]}'::UUID, 'e': 'a'::ENUM('a')}}",
        ("STRUCT(j JSON, u UUID, e VARCHAR)", [f"{{'j': 1, 'u': {UUIDS[0]}, 'e': a}}", None]),
        None,
    ),
    "map": Case("MAP {'a': '1'::JSON}", ("MAP(VARCHAR, JSON)", ["{a=1}", None]), None),
    "array": Case("[1, 2]::INTEGER[2]", ("INTEGER[]", ["[1, 2]", None]), None),
    "times": Case("['24:00:00'::TIME]", ("TIME[]", ["['24:00:00']", None]), None),
    "infinity": Case("'infinity'::TIMESTAMP", ("TIMESTAMP", ["infinity", None]), None),
    "infinite day": Case("'-infinity'::DATE", ("DATE", ["-infinity", None]), None),
    "list of hugeints": Case("[1::HUGEINT]", None, None),
    "union": Case("union_value(n := 1)", None, None),
    "variant": Case("{'a': 1}::VARIANT", None, None),
}  # fmt: skip


@dataclass
class Shelf:
    """Stores to load into, and the engines that read them without any code of ours."""

    folder: Path
    url: str
    postgres: PostgresDataStore
    opened: int = 0

    async def landed(
        self, source: IDataStore, spec: SourceSpec, kind: str, steps: tuple[Step, ...]
    ) -> dict[str, tuple[str, list[str | None]]]:
        """Load a source and show type and texts of each column."""
        self.opened += 1
        table = TableName(f"got{self.opened}")
        path = self.folder / f"{table}.duckdb"
        if kind == "postgres":
            await load(source, spec, self.postgres, table, steps)
            return await self._of_postgres(table.table)
        store = DuckDBDataStore(DuckDBOptions(path)) if kind == "duckdb" else InMemoryDataStore()
        await store.open()
        try:
            await load(source, spec, store, table, steps)
            if isinstance(store, InMemoryDataStore):
                described = await store.describe(table)
                assert described is not None
                types = {column.name: column.type for column in described.columns}
                parts = [pa.table(part) async for part in store.read(SourceSpec(table=table), batch_rows=10)]
                with duckdb.connect() as connection:
                    connection.register(table.table, pa.concat_tables(parts))
                    return {
                        name: (types[name], texts) for name, (_, texts) in _of_duckdb(connection, table.table).items()
                    }
        finally:
            await store.close()
        with duckdb.connect(path, read_only=True) as connection:
            return _of_duckdb(connection, table.table)

    async def _of_postgres(self, table: str) -> dict[str, tuple[str, list[str | None]]]:
        connection = await asyncpg.connect(self.url, server_settings={"timezone": "UTC"})
        try:
            kinds = await connection.fetch(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
                "$1::text::regclass AND attnum > 0",
                table,
            )
            return {
                name: (
                    kind,
                    [row[0] for row in await connection.fetch(f'SELECT "{name}"::text FROM {table} ORDER BY id')],
                )
                for name, kind in kinds
            }
        finally:
            await connection.close()


def _of_duckdb(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, tuple[str, list[str | None]]]:
    connection.execute("SET TimeZone = 'UTC'")
    kinds = connection.execute(f"DESCRIBE {table}").fetchall()
    return {
        name: (
            kind,
            [r[0] for r in connection.execute(f'SELECT CAST("{name}" AS VARCHAR) FROM {table} ORDER BY id').fetchall()],
        )
        for name, kind, *_ in kinds
    }


async def load(
    source: IDataStore, spec: SourceSpec, destination: IDataStore, table: TableName, steps: tuple[Step, ...]
) -> None:
    """Load one batch by the ports, as a stream does."""
    plan = await source.plan(spec, lo=None, limit=None)
    planned = ReadSet(f"r-{table}", "f", plan, 100)
    columns = tuple(Column(name, kind) for name, kind in plan.columns)
    lane = Lane("default", table.table)
    async with DuckDBTransformer().prepare(TransformPlan(source=columns, steps=steps)) as transform:
        run_id = "01890000-0000-7000-8000-000000000000"
        target = Target(table, Mode.APPEND, None, tuple(transform.columns), run_id, False)
        async with destination.owner(lane, table, 1, token=await token_of(destination, lane, table)) as owner:
            await owner.take_over()
            await owner.open_read_set(planned, target)
        async with (
            destination.writer(lane, target, planned.id, "0", 1, await token_of(destination, lane, table)) as writer,
            source.reader(spec, plan, plan.streams[0], batch_rows=100) as reader,
        ):
            [batch] = [batch async for batch in reader.batches(None)]
            judged = await transform.apply(batch.data)
            await writer.commit(judged, CheckpointUpdate(1, batch.position, judged.counts, Measures(), True))


@pytest.fixture
async def shelf(tmp_path: Path, postgres_database: str) -> AsyncIterator[Shelf]:
    store = PostgresDataStore(address_of(postgres_database))
    await store.open()
    yield Shelf(tmp_path, postgres_database, store)
    await store.close()


async def in_memory(rows: pa.Table) -> tuple[IDataStore, SourceSpec]:
    store = InMemoryDataStore()
    await store.open()
    await store.write(GIVEN, [rows])
    return store, SourceSpec(table=GIVEN, key=("id",))


async def in_parquet(folder: Path, rows: pa.Table) -> tuple[IDataStore, SourceSpec]:
    pq.write_table(rows, folder / "given.parquet")
    return FilesSource(folder), SourceSpec(path="given.parquet", format="parquet")


async def in_duckdb(folder: Path, expressions: dict[str, str]) -> tuple[DuckDBDataStore, SourceSpec]:
    selected = ", ".join(f'{expression} AS "{name}"' for name, expression in expressions.items())
    (folder / "given.duckdb").unlink(missing_ok=True)
    with duckdb.connect(folder / "given.duckdb") as connection:
        connection.execute(f"CREATE TABLE given AS SELECT 0::BIGINT AS id, {selected}")
        connection.execute("INSERT INTO given (id) VALUES (1)")
    store = DuckDBDataStore(DuckDBOptions(folder / "given.duckdb"))
    await store.open()
    return store, SourceSpec(table=GIVEN, key=("id",))


def table_of(cases: dict[str, Case]) -> pa.Table:
    return pa.table({"id": pa.array([0, 1], pa.int64()), **{name: case.given for name, case in cases.items()}})


def taken(cases: dict[str, Case], kind: str) -> dict[str, Case]:
    """The cases that a kind of store takes; the in-memory one keeps whatever travels."""
    return {name: case for name, case in cases.items() if kind == "memory" or getattr(case, kind) is not None}


@pytest.mark.clause("IDataStore", 14)
@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("kind", ["memory", "duckdb", "postgres"])
async def test_arrow_and_parquet_land_unchanged(kind: str, way: str, shelf: Shelf) -> None:
    cases = taken(ARROW, kind)
    in_file = {name: case for name, case in cases.items() if name not in NOT_IN_PARQUET}
    for chosen, source in (
        (cases, await in_memory(table_of(cases))),
        (in_file, await in_parquet(shelf.folder, table_of(in_file))),
    ):
        landed = await shelf.landed(*source, kind, STEPS[way])

        del landed["id"]
        expected = {name: case.postgres if kind == "postgres" else case.duckdb for name, case in chosen.items()}
        if kind == "memory":  # DuckDB shows what the store holds, and so only what DuckDB knows.
            expected = {name: (landed[name][0], case[1]) if case else landed[name] for name, case in expected.items()}
            assert landed["decimal of 50 digits"] == ("decimal(50,2)", [LONG, None])
        assert landed == expected


@pytest.mark.clause("IDataStore", 14)
@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("kind", ["memory", "duckdb", "postgres"])
async def test_types_of_duckdb_land_unchanged(kind: str, way: str, shelf: Shelf) -> None:
    cases = taken(DUCKDB, kind)
    source, spec = await in_duckdb(shelf.folder, {name: str(case.given) for name, case in cases.items()})

    landed = await shelf.landed(source, spec, kind, STEPS[way])
    await source.close()

    del landed["id"]
    if kind == "memory":
        assert landed["uhugeint"] == ("native:UHUGEINT", [LARGEST, None])
        assert landed["time with a zone"] == ("native:TIME WITH TIME ZONE", ["00:00:00+15:59", None])
        assert landed["hugeint"] == ("decimal(39,0)", [HUGE, None])
        return
    assert landed == {name: case.postgres if kind == "postgres" else case.duckdb for name, case in cases.items()}


@pytest.mark.clause("IDataStore", 14)
async def test_what_a_store_has_no_type_for_is_refused_by_column_and_type(shelf: Shelf) -> None:
    embedded = DuckDBDataStore(DuckDBOptions(None))
    await embedded.open()
    given, _ = await in_duckdb(shelf.folder, {name: str(case.given) for name, case in DUCKDB.items()})
    for kind, destination in (("duckdb", embedded), ("postgres", shelf.postgres)):
        refused = [(cases, name) for cases in (ARROW, DUCKDB) for name in cases if getattr(cases[name], kind) is None]
        for number, (cases, name) in enumerate(refused):
            source: IDataStore = given
            spec = SourceSpec(query=f'SELECT id, "{name}" AS odd FROM given', key=("id",))
            if cases is ARROW:
                source, spec = await in_memory(pa.table({"id": [0, 1], "odd": ARROW[name].given}))

            with pytest.raises(SchemaMismatchError, match="column odd"):
                await load(source, spec, destination, TableName(f"got_{number}"), ())
    wire = await shelf.postgres.landing_wire(TableName("absent"), (Column("odd", "native:BIT"),))
    assert wire is not None
    assert wire.types == {"odd": None}  # The way is chosen before the column is refused by name.
    await given.close()
    await embedded.close()


@pytest.mark.parametrize("name", REFUSED_ARROW)
async def test_what_nothing_carries_is_refused_by_column_and_type(name: str, tmp_path: Path) -> None:
    rows = pa.table({"odd": REFUSED_ARROW[name]})
    store = DuckDBDataStore(DuckDBOptions(None))
    await store.open()

    with pytest.raises(SchemaMismatchError, match="Column odd"):
        await in_memory(rows)
    if name != "nanoseconds of an interval":
        source, spec = await in_parquet(tmp_path, rows)
        with pytest.raises(SchemaMismatchError, match="olumn odd"):
            await load(source, spec, store, TableName("got"), ())

    await store.close()


@pytest.mark.clause("IDataStore", 14)
@pytest.mark.parametrize("way", ["append", "merge", "replace", "inside"])
async def test_time_finer_than_its_column_is_refused_and_a_whole_one_lands(way: str, tmp_path: Path) -> None:
    cases = (
        ("'2020-01-01 00:00:00.5'::TIMESTAMP", "TIMESTAMP_S", False),
        ("'2020-01-01 00:00:01'::TIMESTAMP", "TIMESTAMP_S", True),
        ("'2020-01-01 00:00:00.123456'::TIMESTAMP", "TIMESTAMP_MS", False),
        ("'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS", "TIMESTAMP", False),
        ("'2020-01-01 00:00:00.123456'::TIMESTAMP_NS", "TIMESTAMP", True),
        ("['2020-01-01 00:00:00.5'::TIMESTAMP]", "TIMESTAMP_S[]", False),
        ("'00:00:00.123456789'::TIME_NS", "TIME", False),
    )
    for given, there, is_whole in cases if way in ("append", "inside") else cases[:2]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.duckdb"
        with duckdb.connect(path) as connection:
            connection.execute(f"CREATE TABLE given AS SELECT 1::BIGINT AS id, {given} AS odd")
            connection.execute(f"CREATE TABLE got (id BIGINT, odd {there})")
        store = DuckDBDataStore(DuckDBOptions(path))
        await store.open()

        refused = ""
        try:
            await landed_by(way, store)
        except SchemaMismatchError as error:
            refused = error.message
        await store.close()

        assert ("olumn odd" in refused) is not is_whole, given
        with duckdb.connect(path, read_only=True) as connection:
            assert connection.execute("SELECT count(*) FROM got").fetchall() == [(int(is_whole),)]
            assert connection.execute("SELECT count(*) FROM got JOIN given USING (odd)").fetchall() == [
                (int(is_whole),)
            ]


async def landed_by(way: str, store: IDataStore) -> None:
    """Land `given` in `got` of the same store, in a mode or by the store's own statement."""
    mode = {"merge": Mode.MERGE, "replace": Mode.REPLACE}.get(way, Mode.APPEND)
    spec, table = SourceSpec(table=GIVEN, key=("id",)), TableName("got")
    plan = await store.plan(spec, lo=None, limit=None)
    columns = tuple(Column(name, kind) for name, kind in plan.columns)
    shadow = "_headrace_stage_0123456789abcdef" if mode is Mode.REPLACE else None
    planned = ReadSet("r", "f", plan, 100, shadow)
    run_id, key = "01890000-0000-7000-8000-000000000000", ("id",) if mode is Mode.MERGE else ()
    target = Target(table, mode, shadow, columns, run_id, False, mode is Mode.REPLACE, key=key)
    lane = Lane("default", "got")
    async with store.owner(lane, table, 1, token=await token_of(store, lane, table)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
        async with store.writer(lane, target, planned.id, "0", 1, await token_of(store, lane, table)) as writer:
            if way == "inside":
                selection = StreamSelection(spec, plan, plan.streams[0], None, passage_of(target))
                await writer.commit_selection(
                    selection, lambda count: CheckpointUpdate(1, None, Counts(), Measures(), True)
                )
            else:
                async with store.reader(spec, plan, plan.streams[0], batch_rows=100) as reader:
                    [batch] = [batch async for batch in reader.batches(None)]
                judged = JudgedBatch(batch.data, REFUSED.empty_table(), Counts(), Measures())
                await writer.commit(judged, CheckpointUpdate(1, batch.position, Counts(), Measures(), True))
        if mode is Mode.REPLACE:
            await owner.publish(planned, target, StagedChecks(), lambda _: Judgement(()))
