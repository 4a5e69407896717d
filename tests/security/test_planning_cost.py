"""What it costs DuckDB to plan a query: in a child, within bounds, before the file's own connection sees it."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
import pytest_asyncio

from domain.errors import InvalidInputError, PlatformError, QueryRefusedError, StoreRefusedError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import TableName
from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.confinement import Confinement
from infrastructure.queries.duckdb_names import ALLOWED
from infrastructure.queries.duckdb_planning import Planned, Relation, plan_query
from infrastructure.queries.duckdb_queries import DuckDBQueries
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from infrastructure.stores.duckdb.rehearsal import MAX_RELATIONS
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.e2e.api import serving

CPU_SECONDS = 0.2
SHELF = (
    "CREATE TABLE t AS SELECT i::INTEGER AS a, (i % 7)::INTEGER AS b, 'n' || i AS n FROM range(100) r(i)",
    'CREATE SCHEMA "other "" one"',
    'CREATE TABLE "other "" one"."a table" AS SELECT 1::BIGINT AS "A b", \'x\' AS "select"',
    "CREATE VIEW seen AS SELECT a, b FROM t",
    "CREATE TYPE mood AS ENUM ('good', 'it''s')",
    "CREATE TYPE whole AS INTEGER",
    'CREATE TYPE "other "" one"."Pair" AS STRUCT(a mood, b whole)',
    'CREATE TABLE kinds (m mood, s STRUCT(a INTEGER, "b c" mood), l mood[], j JSON, u UNION(x INTEGER, y VARCHAR), '
    "p MAP(VARCHAR, INTEGER), d DECIMAL(10, 2), c VARCHAR COLLATE NOCASE, z TIMESTAMPTZ, r INTEGER[3], i BIGNUM, v "
    "BIT, "
    "g INTEGER GENERATED ALWAYS AS (1), q UUID, h HUGEINT, k INTERVAL, w TIMESTAMP_NS, o BLOB)",
)


def nested(make: Callable[[str], str], innermost: str, depth: int) -> str:
    for _ in range(depth):
        innermost = make(innermost)
    return innermost


def selects(expression: str, depth: int) -> str:
    return nested(lambda query: f"select {expression} as a from ({query}) q", "select a from t", depth)


def doubling_names(depth: int) -> str:
    return "select 1 as c0, " + ", ".join(f"c{n}+c{n} as c{n + 1}" for n in range(depth))


def joins(how: str, count: int) -> str:
    return "select t.a from t " + " ".join(how.format(n=n) for n in range(count))


# Each with a depth that is refused, and one that is not.
QUERIES: dict[str, tuple[Callable[[int], str], int, int]] = {
    "macro": (lambda n: f"select {nested(lambda x: f'nullif({x}, 1)', 'a', n)} as a from t", 17, 6),
    "macro of a constant": (lambda n: f"select {nested(lambda x: f'nullif({x}, 1)', '1', n)} as a", 20, 6),
    "names of the same list": (doubling_names, 25, 8),
    "joins by names": (lambda n: joins("join t t{n} using (a)", n), 300, 12),
    "natural joins": (lambda n: joins("natural join t t{n}", n), 300, 5),
    "in a join": (
        lambda n: f"select t.a from t join seen on t.a = {nested(lambda x: f'nullif({x}, 1)', 'seen.a', n)}", 20, 5
    ),
    "behind a type of the file's own": (
        lambda n: f"select 'good'::mood as m, {nested(lambda x: f'nullif({x}, 1)', 'a', n)} as a from t", 20, 5
    ),
    "between": (lambda n: f"select {nested(lambda x: f'({x} between a and b)::int', 'a', n)} as a from t", 22, 6),
    "groups": (lambda n: f"select count(*) as a from t group by cube ({', '.join(f'a + {k}' for k in range(n))})", 10, 6),
    "in a subquery that a missing table follows": (
        lambda n: f"select q.a from (select {nested(lambda x: f'nullif({x}, 1)', 'a', n)} as a from t) q, " f"{'none' if n > 9 else 't'}",
        20, 5,
    ),
}  # fmt: skip
# What a condition of the store's own makes of them.
CONDITIONS = {
    "coalesce": lambda n: selects("coalesce(a, a)", n),
    "case": lambda n: selects("case when a = 1 then a else a end", n),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench(ChildLimits(400, 20), query_too_large, modules=("infrastructure.queries.duckdb_queries",))
    bench.warm()
    yield bench
    bench.let_go(0)


@pytest_asyncio.fixture
async def store(tmp_path: Path, bench: Bench) -> AsyncIterator[DuckDBDataStore]:
    path = tmp_path / "my data.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in SHELF:
            connection.execute(statement)
    store = DuckDBDataStore(DuckDBOptions(path=path), bench.within(CPU_SECONDS))
    await store.open()
    yield store
    await store.close()


async def _code(store: DuckDBDataStore, source: SourceSpec) -> str | None:
    """The code of the refusal, and that this process has done nothing of it."""
    before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = None
    try:
        await store.plan(source, lo=None, limit=None)
    except PlatformError as error:
        code = error.code
    if code == "query.too_large":
        assert time.process_time() - before[0] < 0.3
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1] < 50_000
    return code


@pytest.mark.line("11", "29")
@pytest.mark.parametrize("name", QUERIES)
async def test_query_that_doubles_while_it_is_planned_is_refused(store: DuckDBDataStore, name: str) -> None:
    make, refused, permitted = QUERIES[name]

    assert await _code(store, SourceSpec(query=make(permitted))) is None
    assert await _code(store, SourceSpec(query=make(refused))) == "query.too_large"


@pytest.mark.line("11", "29")
@pytest.mark.parametrize("name", CONDITIONS)
async def test_query_that_the_stores_own_conditions_double_is_refused(store: DuckDBDataStore, name: str) -> None:
    make = CONDITIONS[name]
    cursor = CursorSpec(column="a")

    assert await _code(store, SourceSpec(query=make(20))) is None
    for source in (SourceSpec(query=make(20), cursor=cursor), SourceSpec(query=make(20), key=("a",))):
        assert await _code(store, source) == "query.too_large"
    assert await _code(store, SourceSpec(query=make(3), cursor=cursor, key=("a",))) is None


@pytest.mark.line("11", "29")
async def test_every_way_to_a_source_rehearses_its_query(store: DuckDBDataStore) -> None:
    bomb = SourceSpec(query=QUERIES["macro"][0](17))
    plan = await store.plan(SourceSpec(query="select a from t"), lo=None, limit=None)

    async def read() -> None:
        async for _ in store.read(bomb, batch_rows=10):
            pass

    async def batches() -> None:
        async with store.reader(bomb, plan, plan.streams[0], batch_rows=10) as reader:
            async for _ in reader.batches(None):
                pass

    for way in (
        read,
        batches,
        lambda: store.count(bomb, plan),
        lambda: store.check_place(bomb, plan, plan.streams[0], ()),
    ):
        with pytest.raises(InvalidInputError) as caught:
            await way()
        assert caught.value.code == "query.too_large"


class _Calls:
    """A bench in this process that remembers what it was asked to plan."""

    def __init__(self) -> None:
        self.asked: list[Planned] = []

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if function is plan_query:
            self.asked.append(args[0])
        return function(*args, **kwargs)

    async def acall(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.call(function, *args, **kwargs)


@pytest.mark.line("11")
@pytest.mark.parametrize("catalog", ["my data", "t", "main", None])
async def test_plan_is_that_of_the_stores_own_tables(tmp_path: Path, catalog: str | None) -> None:
    """Whatever they are called by: a plan that fails for another reason than the store's would prove nothing."""
    calls = _Calls()
    path = tmp_path / f"{catalog}.duckdb"
    with duckdb.connect(":memory:" if catalog is None else str(path)) as connection:
        for statement in SHELF:
            connection.execute(statement)
        [(named,)] = connection.execute("SELECT current_database()").fetchall()
        for query, parameters in (
            ("from t", {}),
            ("select T.A, main.t.b from T, t u", {}),
            (f'select * from "{named}".main.t', {}),
            ('select "a table"."A b", "other "" one"."a table"."select" from "other "" one"."a table"', {}),
            (f'select x."A b" from "{named}"."OTHER "" ONE"."A table" x', {}),
            ("from seen join t using (a, b)", {}),
            (
                """from kinds where m = 'it''s' and s."b c" = 'good' and u.x = 1 and r[1] = 1 and j->>'a' = 'b' and g = 1""",
                {},
            ),
            (
                "select $n + a as x, $s || n as y, :d::date as z from t where a in (:n, 3)",
                {"n": 1, "s": "x", "d": "2024-01-01"},
            ),
            ('select \'good\'::mood, null::"other "" one".Pair, null::main.MOOD, [1]::whole[] from t', {}),
            ("with t as (select 1 as other) from t, main.t u", {}),
        ):
            source = SourceSpec(query=query, parameters=parameters)
            queries = DuckDBQueries(calls)
            refuse_read(connection, source, queries)
            wanted = len(calls.asked)
            refuse_read(connection, source, queries)
            assert len(calls.asked) == wanted  # Once.
            assert plan_query(calls.asked[-1]), query
        before = len(calls.asked)
        refuse_read(connection, SourceSpec(query="select a from t"), queries)
        connection.execute("ALTER TABLE t ADD COLUMN later INTEGER")
        refuse_read(connection, SourceSpec(query="select a from t"), queries)
        assert len(calls.asked) == before + 2  # Its columns are others.


@pytest.mark.line("11", "29")
async def test_every_macro_of_the_engine_in_itself_is_refused_or_planned(store: DuckDBDataStore, bench: Bench) -> None:
    with duckdb.connect() as connection:
        macros = connection.execute(
            "SELECT DISTINCT function_name, len(parameters) FROM duckdb_functions() WHERE function_type = 'macro'"
        ).fetchall()
    allowed = [(name, count) for name, count in macros if name in ALLOWED and count]
    assert len(allowed) > 50
    hasty = DuckDBDataStore(store._file._options, bench.within(CPU_SECONDS / 2))
    hasty._file = store._file
    codes = dict[str, set[str | None]]()
    for name, count in sorted(allowed):
        for place in range(count):
            for innermost, other in (("a", "1"), ("n", "'x'"), ("[a, b]", "[a]")):
                arguments = [other] * count

                def call(within: str, name: str = name, place: int = place, arguments: list[str] = arguments) -> str:
                    return f'"{name}"({", ".join([*arguments[:place], within, *arguments[place + 1 :]])})'

                query = f"select {nested(call, innermost, 30)} as x from t"
                codes.setdefault(name, set()).add(await _code(hasty, SourceSpec(query=query)))
                if "query.too_large" in codes[name]:
                    break
    assert "query.too_large" in codes["nullif"]
    assert sum(None in found for found in codes.values()) > 5


@pytest.mark.line("11")
async def test_relations_of_a_query_are_bounded(store: DuckDBDataStore) -> None:
    with store._file._connection.cursor() as cursor:  # type: ignore[union-attr]
        for number in range(MAX_RELATIONS + 1):
            cursor.execute(f"CREATE TABLE r{number} (x INTEGER)")
        for number in range(3):
            cursor.execute(f"CREATE TABLE wide{number} ({', '.join(f'x{n} INTEGER' for n in range(8_000))})")

    def union(names: list[str]) -> str:
        return " union all ".join(f"select {'x0' if 'wide' in name else 'x'} as a from {name}" for name in names)

    assert await _code(store, SourceSpec(query=union([f"r{n}" for n in range(60)]))) is None
    for names in ([f"r{n}" for n in range(MAX_RELATIONS + 1)], ["r1"] * 1_001):
        assert await _code(store, SourceSpec(query=union(names))) == "query.too_large", len(names)
    with pytest.raises(QueryRefusedError, match="20,000 columns"):
        await store.plan(SourceSpec(query=union(["wide0", "wide1", "wide2"])), lo=None, limit=None)


@pytest.mark.line("11")
def test_rehearsing_costs_little() -> None:
    text = "select t.a, u.b, count(*) as n from t join u using (a) where t.b > 3 group by all"
    columns = tuple((f"c{n}", "INTEGER") for n in range(20))
    tables = tuple(Relation("main", name, (("a", "INTEGER"), ("b", "INTEGER"), *columns)) for name in ("t", "u"))
    planned = Planned("data", tables, text, {}, ("a",))
    assert plan_query(planned)
    assert min(_seconds(planned) for _ in range(15)) < 0.01


def _seconds(planned: Planned) -> float:
    started = time.thread_time()
    plan_query(planned)
    return time.thread_time() - started


@pytest.mark.line("11", "29")
def test_server_answers_while_it_refuses_to_plan(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    with serving(tmp_path) as server, ThreadPoolExecutor(1) as beside:
        for name, query, status in (
            ("bomb", QUERIES["macro"][0](18), 422),
            ("twin", QUERIES["macro of a constant"][0](5), 200),
        ):
            query = query.replace(" from t", " from (select 1 as a)")
            document = (
                f"version: 1\npipeline: {name}\nsource: {{query: {json.dumps(query)}}}\n"
                "destination: {connection: default, table: landed}\n"
            )
            put = server.call("PUT", f"/v1/pipelines/{name}", document, kind="application/yaml")
            assert put.status == 201, put.body
            answer = beside.submit(server.call, "POST", f"/v1/pipelines/{name}/preview", {"limit": 5})
            waits = [0.0]
            while not answer.done():
                started = time.monotonic()
                assert server.call("GET", "/health").status == 200
                waits.append(time.monotonic() - started)
            assert answer.result().status == status, answer.result().body
            assert status == 200 or answer.result().body["code"] == "query.too_large"
            assert max(waits) < 0.5


@pytest.mark.parametrize("made", ["view", "columns"])
async def test_file_whose_views_double_is_not_opened(made: str, tmp_path: Path, bench: Bench) -> None:
    """What a document's file holds is planned in a child before it is opened here."""
    for depth, is_refused in ((24, True), (4, False)):
        path = tmp_path / f"{depth}.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS a")
            if made == "view":
                for number in range(1, depth):  # Each is cheap to make while the one before is.
                    connection.execute(f"CREATE VIEW v{number} AS SELECT 1 AS a")
                connection.execute("CREATE VIEW v0 AS SELECT a FROM t")
                for number in range(depth - 1, 0, -1):
                    before = f"SELECT * FROM v{number - 1}"
                    connection.execute(f"CREATE OR REPLACE VIEW v{number} AS {before} UNION ALL {before}")
            else:
                doubled = ", ".join(f"g{n} INTEGER AS (g{n - 1} + g{n - 1})" for n in range(1, depth))
                connection.execute(f"CREATE TABLE made (g0 INTEGER, {doubled})")
        confined = DuckDBOptions(path=path, confinement=Confinement(tmp_path, (tmp_path,)))
        store = DuckDBDataStore(confined, bench.within(CPU_SECONDS))
        if not is_refused:
            await store.open()
            assert await _code(store, SourceSpec(table=TableName("v3" if made == "view" else "made"))) is None
        else:
            with pytest.raises(StoreRefusedError) as caught:
                await store.open()
            assert caught.value.code == "store.views_too_large"
            assert str(tmp_path) not in caught.value.message
        await store.close()


async def test_file_that_a_crash_has_left_with_its_log_is_looked_at_without_it(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "left.duckdb"
    crashing = (
        f"import duckdb, os; c = duckdb.connect({str(path)!r}); c.execute('CREATE TABLE t AS SELECT 1 AS a'); "
        "c.execute('CREATE VIEW v AS SELECT a FROM t'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", crashing], check=True)
    log = path.with_name("left.duckdb.wal")
    assert log.exists()
    looked: list[bool] = []
    file = DuckDBFile(
        DuckDBOptions(path=path, confinement=Confinement(tmp_path, (tmp_path,))), lambda _: looked.append(log.exists())
    )
    await file.open()
    async with file.lent() as connection:
        assert connection.execute("SELECT a FROM v").fetchall() == [(1,)]
    await file.close()
    assert looked == [False]
