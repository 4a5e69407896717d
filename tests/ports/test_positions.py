"""Where a resumed read goes on: positions of every type come back to the same value, and no rows of one place are
parted.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInputError, WorkFailedError
from domain.loads.read_set import SourcePlan
from domain.loads.way import Passage
from domain.pipelines.spec import CursorSpec, Partitions, SourceSpec
from domain.ports.data_store import IDataStore
from domain.stores.table import TableName
from infrastructure.stores.positions import MAX_TIES, place_after
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.e2e.tables import postgres
from tests.ports.backends import BACKENDS, Backend, address_of

# Values that have gone wrong on the way through somebody's objects: each type's in any order, some equal to others.
ON_POSTGRES = {
    "smallint": ["-32768", "0", "32767"],
    "boolean": ["false", "true"],
    "date": ["0044-03-15 BC", "4713-01-01 BC", "2024-02-29", "11111-01-01", "5874897-12-31"],
    "time": ["00:00", "23:59:59.999999", "24:00"],
    "timetz": ["12:00+00", "13:00+01", "24:00-15:59"],
    "timestamp": [
        "0044-03-15 10:11:12.000001 BC",
        "1969-12-31 23:59:59.9",
        "9999-12-31 23:59:59.999999",
        "20000-01-01",
    ],
    "timestamptz": ["0044-03-15 10:11:12.5+00 BC", "2024-03-31 02:30+02", "2024-03-31 02:30+01", "20000-01-01+00"],
    "interval": ["1 mon", "30 days", "1 year", "-5 days", "-1 mons +3 days -04:05:06.000001", "24:00:00", "1 day"],
    "numeric": ["1.0", "1.00", "-0.000000000000000000000000001", "NaN", "1e40", "2.50"],
    "numeric(12,2)": ["-0.01", "1.50", "9999999999.99"],
    "real": ["0.1", "-0", "0", "3.4028235e38", "NaN", "1e-45"],
    "double precision": ["0.1", "-0", "0", "Infinity", "NaN", "5e-324", "-Infinity"],
    "text": ["", "it's", 'a"b', "a\\b", "\n", "é", "z", "Z", "😀"],
    "varchar(5)": ["a", "a ", "B"],
    "character(5)": ["a", "ab"],
    'character(3) COLLATE "C"': ["a", "A", "b"],
    "citext": ["a", "A", "b", "B"],
    "name": ["a", "A"],
    '"char"': ["a", "b"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "bytea": ["\\x", "\\x00", "\\x5c27ff"],
    "bit(3)": ["000", "101"],
    "bit varying(5)": ["", "0", "10110"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8", "10.0.0.0/16"],
    "macaddr": ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
    "money": ["-1.50", "1000.00"],
    "oid": ["0", "4294967295"],
    "pg_lsn": ["0/0", "16/B374D848"],
    "jsonb": ['{"a": 1.0}', '{"a": 1.00}', "[]", '"x"'],
    "integer[]": ["{}", "{1,NULL}", "{1,2}"],
    "text[]": ['{"a,b","c\\"d"}', "{NULL}"],
    "int4range": ["empty", "[1,5)", "[,5)"],
    "tsvector": ["'a':1 'b c'", ""],
    "mood": ["sad", "it's", "ok"],
    "app.season": ["winter", "spring"],
    "shift": ['("a, b",1)', "(,2)"],
    "positive": ["1", "2"],
}
ON_DUCKDB = {
    "BOOLEAN": ["false", "true"],
    "HUGEINT": ["0", "-99999999999999999999999999999999999999"],
    "DATE": ["0044-03-15 (BC)", "2024-02-29", "11111-01-01", "infinity", "-infinity"],
    "TIME": ["00:00:00", "23:59:59.999999", "24:00:00"],
    "TIMESTAMP": ["0044-03-15 (BC) 10:11:12.5", "20000-01-01 00:00:00", "infinity"],
    "TIMESTAMP_S": ["2024-01-01 00:00:01", "2024-01-01 00:00:02"],
    "TIMESTAMP_MS": ["2024-01-01 00:00:00.001", "2024-01-01 00:00:00.002"],
    "TIMESTAMPTZ": ["0044-03-15 (BC) 10:11:12.5+00", "2024-03-31 02:30:00+02", "20000-01-01 00:00:00+00"],
    "INTERVAL": ["1 month", "30 days", "-5 days", "-1 month 3 days -04:05:06.000001", "1 year"],
    "DECIMAL(38,10)": ["-1.0000000001", "0"],
    "DOUBLE": ["0.1", "-0", "0", "nan", "inf", "5e-324"],
    "FLOAT": ["0.1", "nan", "3.4e38"],
    "VARCHAR": ["", "it's", "a\\b", "\n", "é", "Z"],
    "VARCHAR COLLATE NOCASE": ["a", "A", "b", "B"],
    "UUID": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "BLOB": ["", "\\x00\\xFF", "abc", "\\x5C\\x27"],
    "ENUM('b', 'it''s', 'a')": ["b", "it's", "a"],
}
PREPARED = (
    "CREATE EXTENSION citext; CREATE SCHEMA app; CREATE TYPE app.season AS ENUM ('winter', 'spring');"
    "CREATE TYPE mood AS ENUM ('sad', 'it''s', 'ok'); CREATE TYPE shift AS (name text, number int);"
    "CREATE DOMAIN positive AS integer CHECK (value > 0)"
)
TABLE = TableName("s")
SOURCE = SourceSpec(table=TABLE, key=("k",))


async def run_sql(store: IDataStore, *statements: str) -> list[list[tuple[Any, ...]]]:
    opening = store._session  # type: ignore[attr-defined]
    async with opening("test") if isinstance(store, PostgresDataStore) else opening() as (session, thread):
        return [await thread.call(session.execute, statement) for statement in statements]


async def pieces(
    store: IDataStore, source: SourceSpec, plan: SourcePlan, after: tuple[str, ...] | None = None, *, rows: int = 1
) -> AsyncIterator[tuple[list[int], tuple[str, ...] | None]]:
    for stream in plan.streams:
        async with store.reader(source, plan, stream, batch_rows=rows) as reader:
            async with aclosing(reader.batches(after)) as batches:
                async for batch in batches:
                    yield pa.table(batch.data).column("n").to_pylist(), batch.position


async def check_every_place(store: IDataStore, kind: str) -> None:
    """From the place behind each batch a read goes on with exactly the rows that are greater in the store's
    own eyes.
    """
    plan = await store.plan(SOURCE, lo=None, limit=None)
    assert (plan.ordered, plan.is_proved) == (True, False), kind
    seen: list[int] = []
    async for numbers, place in pieces(store, SOURCE, plan):
        assert place is not None
        [greater] = await run_sql(
            store, f"SELECT n FROM s WHERE k > (SELECT k FROM s WHERE n = {numbers[-1]}) ORDER BY k"
        )
        again = [n async for found, _ in pieces(store, SOURCE, plan, place, rows=100) for n in found]
        assert sorted(again) == sorted(n for (n,) in greater), (kind, place)
        seen += numbers
    [everything] = await run_sql(store, "SELECT n FROM s")
    assert sorted(seen) == sorted(n for (n,) in everything), kind


async def make(store: IDataStore, kind: str, values: list[str]) -> None:
    cast = kind.split(" COLLATE")[0]
    quoted = [value.replace("'", "''") for value in (*values, values[0])]
    rows = ", ".join(f"({number}, CAST('{value}' AS {cast}))" for number, value in enumerate(quoted))
    # The last one is there twice, as nothing forbids it.
    await run_sql(
        store, "DROP TABLE IF EXISTS s", f"CREATE TABLE s (n INTEGER, k {kind})", f"INSERT INTO s VALUES {rows}"
    )


@pytest.mark.clause("IDataStore", 10, 32)
@pytest.mark.invariant("D1")
async def test_positions_of_every_type_of_postgres_come_back(postgres_database: str) -> None:
    store = PostgresDataStore(address_of(postgres_database))
    for statement in PREPARED.split(";"):
        postgres(postgres_database, statement)
    try:
        for kind, values in ON_POSTGRES.items():
            await make(store, kind, values)
            await check_every_place(store, kind)
        for kind in ("json", "xml", "point", "box", "xid"):
            await run_sql(store, "DROP TABLE IF EXISTS s", f"CREATE TABLE s (n INTEGER, k {kind})")
            with pytest.raises(InvalidInputError) as caught:
                await store.plan(SOURCE, lo=None, limit=None)
            assert caught.value.code == "key.type", kind
    finally:
        await store.close()


@pytest.mark.clause("IDataStore", 10, 32)
@pytest.mark.invariant("D1")
async def test_positions_of_every_type_of_duckdb_come_back(tmp_path: Any) -> None:
    store = BACKENDS["duckdb"].build(tmp_path, "")
    await store.open()
    try:
        for kind, values in ON_DUCKDB.items():
            await make(store, kind, values)
            await check_every_place(store, kind)
        await run_sql(store, "DROP TABLE s", "CREATE TABLE s (n INTEGER, k INTEGER[])")
        with pytest.raises(InvalidInputError) as caught:
            await store.plan(SOURCE, lo=None, limit=None)
        assert caught.value.code == "key.type"
    finally:
        await store.close()


DAYS = st.one_of(st.integers(-2_440_000, 3_000_000), st.integers(-720_000, -718_000))
INSTANTS = st.one_of(st.integers(-210_000_000_000_000_000, 250_000_000_000_000_000), st.integers(-(10**12), 10**12))
DRAWN = {
    "date": (DAYS, pa.date32(), "{} - DATE '1970-01-01'"),
    "time": (st.integers(0, 86_400_000_000), pa.time64("us"), "extract(epoch FROM {})::numeric * 1000000"),
    "timestamp": (INSTANTS, pa.timestamp("us"), "extract(epoch FROM {})::numeric * 1000000"),
    "timestamptz": (INSTANTS, pa.timestamp("us", "UTC"), "extract(epoch FROM {})::numeric * 1000000"),
}


@pytest.mark.clause("IDataStore", 10)
@pytest.mark.parametrize("kind", DRAWN)
def test_any_day_and_instant_is_written_as_postgres_reads_it(kind: str, postgres_database: str) -> None:
    strategy, arrow, back = DRAWN[kind]
    zone = " AT TIME ZONE 'UTC'" if kind == "timestamptz" else ""

    @settings(max_examples=5, deadline=None)
    @given(st.lists(strategy, min_size=20, max_size=60))
    def check(numbers: list[int]) -> None:
        plan = SourcePlan((("k", kind),), (), True, ("k",))
        values = pa.array(numbers, pa.int32() if kind == "date" else pa.int64()).cast(arrow)
        texts = [
            place_after(pa.table({"k": values.slice(n, 1)}), plan, before_christ="BC")[0] for n in range(len(numbers))
        ]
        listed = json.dumps(texts).replace("'", "''")
        found = postgres(
            postgres_database,
            f"SELECT ({back.format(f'(t.text)::{kind}')})::bigint, ((t.text)::{kind}{zone})::text "
            f"FROM jsonb_array_elements_text('{listed}') WITH ORDINALITY AS t(text, place) ORDER BY place",
        )
        assert [number for number, _ in found] == numbers
        assert [text for _, text in found] == [text.replace("+00", "") for text in texts]

    check()


@pytest.mark.clause("IDataStore", 32)
@pytest.mark.invariant("D1")
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
async def test_rows_that_share_their_place_come_in_one_batch(store: IDataStore, rows: int) -> None:
    keys = [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]
    data = pa.table({"n": range(len(keys)), "k": pa.array(keys, pa.int64()), "c": pa.array([k // 2 for k in keys])})
    await store.write(TABLE, [data])
    for source in (SOURCE, SourceSpec(table=TABLE, key=("k",), cursor=CursorSpec("c"))):
        plan = await store.plan(source, lo=None, limit=None)
        parts = [part async for part in pieces(store, source, plan, rows=rows)]

        assert sorted(n for numbers, _ in parts for n in numbers) == list(range(len(keys)))
        held = [{keys[n] for n in numbers} for numbers, _ in parts]
        assert sum(map(len, held)) == len(set(keys)), "a key is in two batches"
        for number, (_, place) in enumerate(parts):
            rest = [n async for numbers, _ in pieces(store, source, plan, place, rows=rows) for n in numbers]
            assert sorted(rest) == sorted(n for numbers, _ in parts[number + 1 :] for n in numbers)


@pytest.mark.clause("IDataStore", 26, 32)
async def test_rows_of_one_place_that_are_larger_than_a_batch_are_refused_by_name(store: IDataStore) -> None:
    await store.write(TABLE, [pa.table({"n": range(60), "k": [0, *[1] * 59], "t": ["x" * 100] * 60})])
    plan = await store.plan(SOURCE, lo=None, limit=None)

    got = []
    with pytest.raises(WorkFailedError) as caught:
        async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=1, batch_bytes=3000) as reader:
            async for batch in reader.batches(None):
                got += pa.table(batch.data).column("n").to_pylist()

    assert (caught.value.code, got) == ("key.ties", [0])
    assert "one key (k)" in caught.value.message


@pytest.mark.clause("IDataStore", 32)
async def test_key_with_null_gives_no_order_and_one_stream(store: IDataStore) -> None:
    data = {"n": range(6), "k": pa.array([3, None, 1, None, 2, 1], pa.int64()), "c": pa.array([0, 5, 0, 0, 0, 0])}
    await store.write(TABLE, [pa.table(data)])
    split = SourceSpec(table=TABLE, key=("k",), partitions=Partitions("n", 3))

    plan = await store.plan(split, lo=None, limit=None)
    below = await store.plan(SourceSpec(table=TABLE, key=("k", "n"), cursor=CursorSpec("c")), lo="6", limit=None)

    assert (plan.ordered, len(plan.streams)) == (False, 1)
    assert "the key (k) holds NULL" in (plan.untrusted or "")
    parts = [part async for part in pieces(store, split, plan, rows=2)]
    assert [place for _, place in parts] == [None, None, None]
    assert sorted(n for numbers, _ in parts for n in numbers) == [0, 1, 2, 3, 4, 5]
    back = CursorSpec("c", lookback=2)
    again = await store.plan(SourceSpec(table=TABLE, key=("k", "n"), cursor=back), lo="6", limit=None)

    assert (again.lo, again.ordered) == ("4", False)  # It begins before a NULL that was read once.
    # The NULLs are not in what is read.
    assert (below.ordered, below.untrusted) == (True, None)


@pytest.mark.clause("IDataStore", 32)
async def test_key_that_more_rows_share_than_fit_a_batch_gives_no_order(store: IDataStore) -> None:
    keys = pa.array([0, *[1] * MAX_TIES], pa.int64())
    await store.write(TABLE, [pa.table({"n": pa.array(range(MAX_TIES + 1), pa.int64()), "k": keys})])
    many = await store.plan(SOURCE, lo=None, limit=None)
    await store.write(TABLE, [pa.table({"n": [0], "k": pa.array([1], pa.int64())})])

    more = await store.plan(SOURCE, lo=None, limit=None)
    few = await store.plan(SOURCE, lo=None, limit=5)

    assert (many.ordered, more.ordered, few.ordered) == (True, False, True)
    assert "share one key (k)" in (more.untrusted or "")


@pytest.mark.clause("IDataStore", 32)
async def test_null_that_comes_after_the_plan_is_refused_by_name(store: IDataStore, backend: Backend) -> None:
    await store.write(TABLE, [pa.table({"n": [0, 1], "k": pa.array([1, 2], pa.int64())})])
    plan = await store.plan(SOURCE, lo=None, limit=None)
    await store.write(TABLE, [pa.table({"n": [2], "k": pa.array([None], pa.int64())})])

    with pytest.raises(InvalidInputError) as caught:
        _ = [part async for part in pieces(store, SOURCE, plan, rows=2)]
    assert caught.value.code == "key.null"
    if backend.name == "postgres":
        async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=2) as reader:
            with pytest.raises(InvalidInputError) as caught:
                _ = [part async for part in reader.encoded(None, Passage(("n", "k")))]
        assert caught.value.code == "key.null"


PROOFS = {
    # Each with what the table is made of, the key that is declared, and whether the catalog proves it.
    "primary key": ("k int PRIMARY KEY, m int", ("k",), True),
    "part of the order": ("k int PRIMARY KEY, m int NOT NULL", ("m", "k"), True),
    "a part that may be null": ("k int PRIMARY KEY, m int", ("m", "k"), False),
    "unique, not null": ("k int NOT NULL UNIQUE, m int", ("k",), True),
    "unique, may be null": ("k int UNIQUE, m int", ("k",), False),
    "more columns than the key": ("k int, m int, PRIMARY KEY (k, m)", ("k",), False),
    "no constraint": ("k int NOT NULL, m int", ("k",), False),
}
PROOFS_OF_POSTGRES = {
    "INCLUDE (m)": ("k int, m int, PRIMARY KEY (k) INCLUDE (m)", ("k",), True, ""),
    "deferrable": ("k int NOT NULL UNIQUE DEFERRABLE, m int", ("k",), False, ""),
    "partial": ("k int NOT NULL, m int", ("k",), False, "CREATE UNIQUE INDEX ON s (k) WHERE m > 0"),
    "expression": ("k int NOT NULL, m int", ("k",), False, "CREATE UNIQUE INDEX ON s (k, (k + 1))"),
    "plain index": ("k int NOT NULL, m int", ("k",), True, "CREATE UNIQUE INDEX ON s (k)"),
    "other equality": ("k text NOT NULL, m int", ("k",), False, "CREATE UNIQUE INDEX ON s (k text_pattern_ops)"),
    "other collation": ('k text COLLATE "C" NOT NULL, m int', ("k",), False, 'CREATE UNIQUE INDEX ON s (k COLLATE "POSIX")'),
    "children": ("k int PRIMARY KEY, m int", ("k",), False, "CREATE TABLE child () INHERITS (s)"),
    "not validated": (
        "k int UNIQUE, m int", ("k",), False, "ALTER TABLE s ADD CONSTRAINT there NOT NULL k NOT VALID",
    ),
}  # fmt: skip


@pytest.mark.needs("knows_keys")
@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 32)
async def test_key_is_proved_by_a_plain_constraint_on_columns_that_are_never_null(
    store: IDataStore, backend: Backend
) -> None:
    cases = {name: (*case, "") for name, case in PROOFS.items()}
    cases |= PROOFS_OF_POSTGRES if backend.name == "postgres" else {}
    for name, (columns, key, expected, after) in cases.items():
        cascade = " CASCADE" if backend.name == "postgres" else ""
        statements = [f"DROP TABLE IF EXISTS s{cascade}", f"CREATE TABLE s ({columns})", *([after] if after else [])]
        await run_sql(store, *statements)
        plan = await store.plan(SourceSpec(table=TABLE, key=key), lo=None, limit=None)
        assert (plan.is_proved, plan.ordered) == (expected, True), name
    through = await store.plan(SourceSpec(query="select * from s", key=("k",)), lo=None, limit=None)
    assert through.is_proved is False


async def test_partitioned_table_is_proved_and_a_parent_has_no_default_key(postgres_database: str) -> None:
    store = PostgresDataStore(address_of(postgres_database))
    try:
        await run_sql(
            store,
            "CREATE TABLE s (k int PRIMARY KEY) PARTITION BY RANGE (k)",
            "CREATE TABLE s1 PARTITION OF s FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE parent (k int PRIMARY KEY)",
            "CREATE TABLE child () INHERITS (parent)",
        )
        plan = await store.plan(SOURCE, lo=None, limit=None)
        described = [await store.describe(TableName(name)) for name in ("s", "parent", "child")]
    finally:
        await store.close()

    assert plan.is_proved is True
    assert [schema.primary_key for schema in described if schema] == [("k",), (), ()]


@pytest.mark.clause("IDataStore", 25, 26, 32)
async def test_ranges_of_undecoded_rows_end_behind_all_that_share_a_place(postgres_database: str) -> None:
    store = PostgresDataStore(address_of(postgres_database))
    values = ", ".join(f"({n}, {n // 4 if n < 20 else 9}, repeat('x', 100))" for n in range(60))
    try:
        await run_sql(
            store,
            "CREATE TABLE s (n int, k numeric NOT NULL, t text)",
            "CREATE INDEX ON s (k)",
            f"INSERT INTO s VALUES {values}",
        )
        plan = await store.plan(SOURCE, lo=None, limit=None)
        passage = Passage(("n", "k", "t"))
        async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=3) as reader:
            found = [(rows.num_rows, rows.position) async for rows in reader.encoded(None, passage)]
        async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=3, batch_bytes=3000) as reader:
            with pytest.raises(WorkFailedError) as caught:
                small = [rows.num_rows async for rows in reader.encoded(("1",), passage)]
                assert small == []
    finally:
        await store.close()

    assert found == [(4, ("0",)), (4, ("1",)), (4, ("2",)), (4, ("3",)), (4, ("4",)), (40, ("9",))]
    assert caught.value.code == "key.ties"
