"""A column that is made under the name of one that is there is refused before anything is read: DuckDB would give it
another name without a word, and whoever asks for the name would get the old values.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.pipelines.steps import DropStep, SqlStep, Step
from domain.ports.transformer import ITransformer, TransformPlan
from domain.stores.table import DELETED, ORDINAL, Column
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.tabular.arrow import to_table
from tests.e2e.tables import postgres as ask

ORDERS = pa.table({"id": pa.array([1, 2], pa.int64()), "amount": pa.array([10, 20], pa.int64()), "total": [7, 7]})
COLUMNS = (Column("id", "int64"), Column("amount", "int64"), Column("total", "int64"))
BEFORE = COLUMNS[:2]


async def made(
    transformer: ITransformer, *steps: str | Step, columns: tuple[Column, ...] = COLUMNS, **more: Any
) -> Any:
    plan = TransformPlan(columns, tuple(SqlStep(step) if isinstance(step, str) else step for step in steps), **more)
    async with transformer.prepare(plan) as prepared:
        rows = to_table((await prepared.apply(ORDERS.select([column.name for column in columns]))).accepted)
    return [{name: value for name, value in row.items() if name != ORDINAL} for row in rows.to_pylist()]


@pytest.mark.clause("ITransformer", 8)
@pytest.mark.parametrize(
    "steps",
    [
        ["select *, amount * 2 as total from batch"],
        ["select amount * 2 as total, * from batch"],
        ["select b.*, amount * 2 as total from batch as b"],
        ["select id, total, amount * 2 as total from batch"],
        ["select id, amount * 2 as total, amount * 3 as total, 1 as total_1 from batch"],
        ["select * rename (amount as total) from batch"],
        ["select *, amount * 2 as total from batch", DropStep(("total",))],
        ["select *, amount * 2 as total from batch", "select id, total from batch"],
        ["select * from batch", "select *, amount * 2 as total from batch"],
    ],
)
async def test_step_that_makes_a_column_that_is_there_is_refused(transformer: ITransformer, steps: list[Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await made(transformer, *steps)

    assert (refused.value.code, refused.value.message) == (
        "transform.invalid",
        "Two columns are named total: write * REPLACE (… AS total) to change the one that is there, * EXCLUDE (total) "
        "to leave it out, or give one another name.",
    )


@pytest.mark.clause("ITransformer", 8)
async def test_names_that_differ_in_letter_case_are_one_name_and_are_quoted_where_they_must_be(
    transformer: ITransformer,
) -> None:
    with pytest.raises(InvalidInputError, match="named id and ID, which differ in nothing but letter case: write"):
        await made(transformer, "select *, 'x' as \"ID\" from batch")
    with pytest.raises(InvalidInputError, match=r'named a b: write \* REPLACE \(… AS "a b"\)'):
        await made(transformer, 'select 1 as "a b", 2 as "a b" from batch')


@pytest.mark.clause("ITransformer", 8)
async def test_what_the_refusal_says_to_write_gives_what_is_made(transformer: ITransformer) -> None:
    made_so = [{"id": 1, "amount": 10, "total": 20}, {"id": 2, "amount": 20, "total": 40}]

    assert await made(transformer, "select *, amount * 2 as total from batch", columns=BEFORE) == made_so
    for step in (
        "select * replace (amount * 2 as total) from batch",
        "select * exclude (total), amount * 2 as total from batch",
        "select b.* exclude (total), b.amount * 2 as total from batch b",
    ):
        assert await made(transformer, step) == made_so, step
    assert await made(transformer, "select *, 1 as total_1 from batch", "select id, total, total_1 from batch") == [
        {"id": 1, "total": 7, "total_1": 1},
        {"id": 2, "total": 7, "total_1": 1},
    ]


@pytest.mark.clause("ITransformer", 8)
async def test_rows_are_not_deleted_by_a_column_of_the_source_that_has_the_name_of_a_made_one(
    transformer: ITransformer,
) -> None:
    step = "select *, amount > 10 as total from batch"

    rows = await made(transformer, step, columns=BEFORE, key=("id",), deleted_when="total")

    assert [(row["id"], row[DELETED]) for row in rows] == [(1, False), (2, True)]
    with pytest.raises(InvalidInputError, match="Two columns are named total"):
        await made(transformer, step, key=("id",), deleted_when="total")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    path = tmp_path / "data.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table orders as select 1 as id, 10 as amount, 7 as total")
        connection.execute("create table people as select 1 as id, 'Ann' as name, 5 as total")
    store = DuckDBDataStore(DuckDBOptions(path=path))
    await store.open()
    yield store
    await store.close()


async def read(store: DuckDBDataStore, query: str, **parameters: Any) -> list[dict[str, Any]]:
    found = store.read(SourceSpec(query=query, parameters=parameters), batch_rows=10)
    return [row async for batch in found for row in to_table(batch).to_pylist()]


TOTAL = "select *, amount * 2 as total from orders"
DOUBLED = {
    TOTAL: "total",
    "select amount * 2 as total, * from orders": "total",
    "select *, amount * 2 as \"TOTAL\" from orders": "total and TOTAL",
    "select id, amount as id from orders union all select 1, 2": "id",
    "select * from orders o join people p on o.id = p.id": "id",
    "select * from orders join people using (id)": "total",
    # DuckDB gives no name of a query within another twice, so these are found where they are used.
    f"with o as ({TOTAL}) select id, total from o": "total",
    f"with o as ({TOTAL}) select id from o where total > 3": "total",
    f"with o as ({TOTAL}) select * from o": "total",
    f"with o as ({TOTAL}), p as (select * from o) select total from p": "total",
    f"with o as materialized ({TOTAL}) select sum(total) as s from o group by id": "total",
    f"select id, total from ({TOTAL})": "total",
    f"select id, (select max(total) from ({TOTAL})) as most from people": "total",
    f"select id from people where exists (select 1 from ({TOTAL}) as o where o.total = people.total)": "total",
    f"select s.total from ({TOTAL} union all select *, 1 from orders) as s": "total",
    "with j as (select * from orders o join people p on o.id = p.id) select name, total from j": "total",
    f"with p as (select l.* from orders, lateral (select *, orders.id as id from people) as l), o as ({TOTAL}) "
    "select p.name, o.total from p, o": "total",
    "with o as (select 1 as id), p as (with o as (select *, 3 as id from o) select id from o) select * from p": "id",
}  # fmt: skip


@pytest.mark.clause("IDataStore", 34)
@pytest.mark.parametrize("query", DOUBLED)
async def test_query_on_duckdb_that_makes_a_column_that_is_there_is_refused(store: DuckDBDataStore, query: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await store.plan(SourceSpec(query=query), lo=None, limit=None)

    name = DOUBLED[query]
    assert refused.value.code == "query.duplicate_column"
    assert refused.value.message.startswith(f"Two columns are named {name}"), refused.value.message
    assert f"write * REPLACE (… AS {name.split()[0]}) to change" in refused.value.message


@pytest.mark.clause("IDataStore", 34)
@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("select * replace (amount * 2 as total) from orders", {"id": 1, "amount": 10, "total": 20}),
        ("select * exclude (total), amount * $n as total from orders", {"id": 1, "amount": 10, "total": 20}),
        ("with o as (select * replace (amount * $n as total) from orders) select total from o", {"total": 20}),
        ("select *, 1 as total_1 from orders", {"id": 1, "amount": 10, "total": 7, "total_1": 1}),
        ("select * from orders join people using (id, total)", None),
        # What nobody names is no matter: both keys of a join, say.
        ("with j as (select * from orders o join people p on o.id = p.id) select amount, name from j",
         {"amount": 10, "name": "Ann"}),
        ("with p as (select l.name from orders, lateral (select *, orders.id as id from people) as l), "
         "j as (select * from orders o join people p on o.id = p.id) select p.name, j.amount from p, j",
         {"name": "Ann", "amount": 10}),
        ("select count(*) as n from (select * from orders o join people p on o.id = p.id)", {"n": 1}),
        ("select id, b from (select *, amount * 2 as total from orders) as o (id, amount, a, b)", {"id": 1, "b": 20}),
        ("with o (a, b, c, d) as (select *, amount * 2 as total from orders) select d from o", {"d": 20}),
        ("select id from orders where exists (select *, 1 as id from people where people.id = orders.id)", {"id": 1}),
        ("with recursive r as (select id, 1 as total from orders union all select id, total + 1 from r where total < 2) "
         "select max(total) as most from r", {"most": 2}),
    ],
)  # fmt: skip
async def test_query_on_duckdb_gives_what_it_says(
    store: DuckDBDataStore, query: str, row: dict[str, Any] | None
) -> None:
    parameters = {"n": 2} if "$n" in query else {}

    assert await read(store, query, **parameters) == ([row] if row is not None else [])


@pytest.mark.clause("IDataStore", 34)
async def test_one_of_hundreds_of_names_that_two_tables_share_is_told(store: DuckDBDataStore) -> None:
    async with store._file.lent() as connection:
        for table in ("a", "b"):
            connection.execute(
                f"create table {table} as select 1 as id, {', '.join(f'{n} as c{n}' for n in range(400))}"
            )
    query = "with j as (select * from a join b using (id)) select {} as n from j"

    assert await read(store, query.format("count(*)")) == [{"n": 1}]
    with pytest.raises(InvalidInputError, match="Two columns are named c321: write"):
        await read(store, query.format("c321"))


@pytest.mark.clause("IDataStore", 34)
async def test_every_way_to_a_query_on_duckdb_refuses_it_once_its_table_has_the_column(
    store: DuckDBDataStore, tmp_path: Path
) -> None:
    source = SourceSpec(query="select *, amount * 2 as more from orders", cursor=CursorSpec("id"))
    plan = await store.plan(source, lo=None, limit=None)
    assert [name for name, _ in plan.columns] == ["id", "amount", "total", "more"]
    async with store._file.lent() as connection:
        connection.execute("alter table orders add column more integer default 0")

    async def batches() -> list[Any]:
        return [batch async for batch in store.read(source, batch_rows=10)]

    async def streamed() -> list[Any]:
        async with store.reader(source, plan, plan.streams[0], batch_rows=10, batch_bytes=1_000_000) as reader:
            return [batch async for batch in reader.batches(None)]

    for way in (
        lambda: store.plan(source, lo=None, limit=None),
        lambda: store.plan(source, lo=None, limit=5),
        lambda: store.count(source, plan),
        lambda: store.check_place(source, plan, plan.streams[0], ("1",)),
        batches,
        streamed,
    ):
        with pytest.raises(InvalidInputError) as refused:
            await way()
        assert refused.value.code == "query.duplicate_column"


@pytest.mark.clause("IDataStore", 34)
async def test_query_on_postgres_that_makes_a_column_that_is_there_is_refused(
    postgres: PostgresDataStore, postgres_database: str
) -> None:
    ask(postgres_database, "create table orders as select 1 as id, 10 as amount, 7 as total")
    for query in (TOTAL, f"select * from ({TOTAL}) as o"):
        with pytest.raises(InvalidInputError, match="Two columns are named total") as refused:
            await postgres.plan(SourceSpec(query=query), lo=None, limit=None)
        assert refused.value.code == "query.duplicate_column"

    with pytest.raises(InvalidInputError):  # As Postgres says of it: which of the two is not told.
        await postgres.plan(SourceSpec(query=f"select id, total from ({TOTAL}) as o"), lo=None, limit=None)
