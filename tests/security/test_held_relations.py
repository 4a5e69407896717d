"""What a DuckDB file works out itself makes no more than a query may: whoever wrote the file may be anybody."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from domain.errors import QueryRefusedError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.bench.in_process import InProcessBench
from infrastructure.queries.duckdb_relations import judge_held
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.store import DuckDBDataStore

pytestmark = pytest.mark.line("29")
_COLUMNS = "create table v (a varchar, b varchar generated always as ({}), c varchar generated always as ({}))"
HUGE = {
    "from nothing": ["create view v as select repeat('x', 1000000000) as a"],
    "with its columns named": ["create view v(a) as select repeat('x', 1000000000) as \"as\" -- as"],
    "in another schema": ["create schema s", "create view s.w as select repeat('x', 1000000000) as a", "create view v as from s.w"],
    "near it": ["create schema s", "create view s.w as select repeat('x', 1000000000) as a", "create view s.x as from w", "create view v as from s.x"],
    "by views of views": [
        "create view w as select repeat(a, 300) as a from t",
        "create view w2 as select repeat(a, 300) as a from w",
        "create view v as select repeat(a, 300) as a from w2",
    ],
    "as a list": ["create view v as select range(1000000000) as a"],
    "from a subquery": ["create view v as select * from t where length((select repeat('x', 1000000000))) > 1"],
    "in a common table": ["create view v as with w as (select lpad('', 1000000000, 'x') as a) select * from w"],
    "by a macro": ["create macro m(x) as repeat(x, 1000000000)", "create view v as select m('x') as a"],
    "by a number that is given": ["create macro m(x, y := 1) as repeat(x, y)", "create view v as select m('x', y := 1000000000) as a"],
    "by macros of macros": ["create macro m(x) as repeat(x, 200)", "create view v as select m(m(m(m(a)))) as a from t"],
    "by a table of a macro": [
        "create macro m(x) as table select repeat(x, 1000000000) as a",
        "create view v as from m('x')",
    ],
    "beside what is not looked at": ["create view v as select repeat('x', 1000000000) as a, current_setting('threads') as b"],
    "from a text": ["create view v as select * from query('select repeat(''x'', 1000000000) as a')"],
    "in rounds": [
        "create view v as with recursive r as (select 'x' as a, 1 as n union all select r.a || r.a, r.n + 1 from r " "where n < 30) select a from r"
    ],
    "in a generated column": [_COLUMNS.format("repeat('x', 1000000000)", "a")],
    "by generated columns": [_COLUMNS.format("repeat(a, 300)", "repeat(b, 300)")],
}  # fmt: skip
HONEST = {
    "columns": ["create view v as select a, upper(a) || '!' as b from t where a > 'a'"],
    "padding": ["create view v as select lpad(a, 20, '0') as a, repeat('-', 40) as b from t"],
    "a calendar": ["create view v as select date '2020-01-01' + n::int as day from range(10000000) as r(n)"],
    "aggregates": ["create view v as select string_agg(a, ',') as a, count(*) as n from t group by all"],
    "views of views": ["create view w as select a || '.' as a from t", "create view w2 as select a || '.' as a from w", "create view v as from w2"],
    "macros": ["create macro cents(x, y := 100) as x * y", "create macro m(x) as table select x as a", "create view v as select cents(1) as a from m(2)"],
    "settings": ["create view v as select current_setting('threads') as a, count(*) as n from duckdb_settings()"],
    "generated columns": [_COLUMNS.format("upper(a)", "b || '!'"), "insert into v (a) values ('x')"],
    "pivots": ["create view v as select * from (describe t)"],
    "a huge one that is not read": ["create view w as select repeat('x', 1000000000) as a", "create view v as from t"],
}  # fmt: skip


def _file(statements: list[str]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    for statement in ("create table t as select 'x' as a", *statements):
        connection.execute(statement)
    return connection


SOURCES = (SourceSpec(table=TableName("v")), SourceSpec(query="with x as (from main.v) select * from x limit 1"))


@pytest.mark.parametrize("statements", HUGE.values(), ids=HUGE)
def test_what_a_file_works_out_is_no_larger_than_what_a_query_does(statements: list[str]) -> None:
    with _file(statements) as connection:
        for source in SOURCES:
            with pytest.raises(QueryRefusedError, match="view of the DuckDB file") as refused:
                refuse_read(connection, source)
            assert refused.value.code == "query.too_large"
        refuse_read(connection, SourceSpec(table=TableName("t")))


@pytest.mark.parametrize("statements", HONEST.values(), ids=HONEST)
def test_what_makes_no_more_than_its_rows_is_read(statements: list[str]) -> None:
    with _file(statements) as connection:
        for source in SOURCES:
            refuse_read(connection, source)
        connection.execute("from v limit 1").fetchall()


async def test_a_child_looks_at_it_once(tmp_path: Path) -> None:
    path = tmp_path / "f.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in (
            "create table t as select 'x' as a",
            *HONEST["views of views"],
            *HUGE["in another schema"][:2],
        ):
            connection.execute(statement)
    asked: list[Any] = []

    class Calls(InProcessBench):
        def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(function)
            return super().call(function, *args, **kwargs)

    store = DuckDBDataStore(DuckDBOptions(path=path), Calls())
    await store.open()
    try:
        plan = await store.plan(SOURCES[0], lo=None, limit=None)
        async with store.reader(SOURCES[0], plan, plan.streams[0], batch_rows=10) as reader:
            assert [batch.data.num_rows async for batch in reader.batches(None)] == [1]
        with pytest.raises(QueryRefusedError, match="view of the DuckDB file"):
            await store.plan(SourceSpec(table=TableName("w", "s")), lo=None, limit=None)
    finally:
        await store.close()
    assert asked.count(judge_held) == 2


@pytest.mark.parametrize("limit", [5, None])
async def test_view_that_takes_from_a_sequence_is_refused_by_name(limit: int | None, tmp_path: Path) -> None:
    """A sequence belongs to its file; as the store's trouble the run was tried again and again."""
    with duckdb.connect(str(tmp_path / "file.duckdb")) as connection:
        connection.execute("create sequence q; create view v as select nextval('q') as id")
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "file.duckdb"))
    await store.open()
    source = SourceSpec(table=TableName("v"))
    try:
        with pytest.raises(QueryRefusedError) as told:
            plan = await store.plan(source, lo=None, limit=limit)
            async with store.reader(source, plan, plan.streams[0], batch_rows=9) as reader:
                [batch async for batch in reader.batches(None, limit=limit)]
    finally:
        await store.close()

    assert told.value.code == "query.not_readonly"
    with duckdb.connect(str(tmp_path / "file.duckdb")) as connection:
        assert connection.execute("select last_value from duckdb_sequences()").fetchall() == [(None,)]
