"""What a query calls without writing it: casts that somebody made between types of Postgres' own."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import pytest_asyncio

from domain.errors import InvalidInputError, QueryRefusedError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.ports.backends import address_of
from tests.security.canaries import build

_CAST = (
    "create function text_point(a text) returns point language plpgsql as "
    "$f$ begin perform public.told(); return point(1, 2); end $f$",
    "create cast (text as point) with function text_point(text) as implicit",
)


@pytest.fixture
def told(postgres_database: str) -> Iterator[Path]:
    """The file that is there once the cast was called."""
    with tempfile.TemporaryDirectory(prefix="headrace-casts-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        build(postgres_database, folder / "told")
        yield folder / "told"


@pytest_asyncio.fixture
async def stores(postgres_database: str, told: Path) -> AsyncIterator[tuple[PostgresDataStore, PostgresDataStore]]:
    """One that trusts nothing, and one that trusts the schema public."""
    opened = [PostgresDataStore(replace(address_of(postgres_database), trusted_schemas=t)) for t in ((), ("public",))]
    for store in opened:
        await store.open()
    yield opened[0], opened[1]
    for store in opened:
        await store.close()


async def read(store: PostgresDataStore, query: str) -> int:
    async with aclosing(store.read(SourceSpec(query=query), batch_rows=10)) as batches:
        return sum([batch.num_rows async for batch in batches])


@pytest.mark.line("10")
async def test_cast_of_somebodys_between_types_of_postgres_own(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore], told: Path
) -> None:
    strict, trusting = stores
    assert await read(strict, "select name::varchar, lower(name) as l from orders") == 2
    for statement in _CAST:
        postgres(postgres_database, statement)

    for query in (
        "select name::point as p from orders",
        "select cast(name as point) as p from orders",
        "select lower(name)::point as p from orders",
        "select array_agg(name)::point[] as p from orders",
        "select point '(1,2)' ~= name as p from orders",
        "select name <-> point '(1,2)' as p from orders",
        "select circle(name, 1) as p from orders",
        "select coalesce(name, point '(1,2)') as p from orders",
    ):
        with pytest.raises(QueryRefusedError) as caught:
            await read(strict, query)
        assert caught.value.code == "query.untrusted_type"
        assert "(text AS point)" in str(caught.value)
    assert not told.exists()
    assert await read(strict, "select id, name from orders") == 2
    assert await read(trusting, "select name::point as p from orders") == 2
    assert told.exists()


@pytest.mark.line("10a")
async def test_beside_such_a_cast_nothing_runs_inside_a_statement_that_writes(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore]
) -> None:
    strict, _ = stores
    sources = (SourceSpec(query="select id, name from orders"), SourceSpec(table=TableName("orders")))
    assert [await strict.may_run_inside(source) for source in sources] == [True, True]
    for statement in _CAST:
        postgres(postgres_database, statement)
    assert [await strict.may_run_inside(source) for source in sources] == [False, False]


@pytest.mark.line("10")
async def test_text_that_another_select_makes_a_value_of_somebodys_type(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore], told: Path
) -> None:
    """Of a UNION what is written out is read as the type that another SELECT has there: its domains are checked."""
    strict, trusting = stores
    postgres(postgres_database, "create table groups (id int, members guarded[])")

    for query in (
        """select members from groups union all select '{"(7,)"}'""",
        """select '{"(7,)"}' union all select members from groups""",
        """select 1, members from groups union all select 2, '{"(7,)"}'""",
        """select * from groups union all select 2, '{"(7,)"}'""",
        """select * from groups union all (values (2, '{"(7,)"}'))""",
        """(select members from groups union all select members from groups) union all select '{"(7,)"}'""",
        """with recursive r(m) as (select members from groups union all select '{"(7,)"}' from r) select * from r""",
        """select a.m from (select members as m from groups union all select '{"(7,)"}') as a""",
    ):
        with pytest.raises(QueryRefusedError) as caught:
            await read(strict, query)
        assert caught.value.code == "query.untrusted_type", query
    assert not told.exists()
    assert await read(strict, "select * from groups union all select id, members from groups") == 0
    assert await read(strict, "select id, name from orders union all select 7, 'x'") == 3
    await read(trusting, """select members from groups union all select '{"(7,)"}'""")
    assert told.exists()


@pytest.mark.line("10")
async def test_values_of_somebodys_types_are_read_as_postgres_writes_them(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore], told: Path
) -> None:
    """They travel as text; a cast to text of their type's would be a call, which nobody wrote."""
    strict, _ = stores
    for statement in (
        "create type flag as enum ('a', 'b')",
        "create function flag_text(a flag) returns text language plpgsql as "
        "$f$ begin perform public.told(); return 'z'; end $f$",
        "create cast (flag as text) with function flag_text(flag) as implicit",
        "create table flags (id int primary key, f flag, fs flag[], r rides, m mark[], nothing flag, empty rides)",
        "insert into flags values (1, 'b', '{a,b}', row(1, 'x y'), '{b}', null, row(null, null))",
    ):
        postgres(postgres_database, statement)

    async def rows(source: SourceSpec) -> list[dict[str, object]]:
        async with aclosing(strict.read(source, batch_rows=10)) as batches:
            return [row async for batch in batches for row in batch.to_pylist()]

    expected = {"id": 1, "f": "b", "fs": "{a,b}", "r": '(1,"x y")', "m": "{b}", "nothing": None, "empty": "(,)"}
    assert await rows(SourceSpec(table=TableName("flags"))) == [expected]
    assert await rows(SourceSpec(query="select * from flags")) == [expected]
    assert not told.exists()


@pytest.mark.line("10")
async def test_domain_that_only_postgres_checks_may_be_compared(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore]
) -> None:
    strict, _ = stores
    for statement in (
        "create domain code as text check (value ~ '^[A-Z]+$' and length(value) < 9)",
        "create table coded (c code, cs code[])",
        "insert into coded values ('AB', '{CD}')",
    ):
        postgres(postgres_database, statement)
    query = "select lower(c) as l from coded where c = 'AB' and cs = '{CD}' and coalesce(c, 'X') > 'A'"
    assert await read(strict, query) == 1


@pytest.mark.line("10")
async def test_places_of_a_tables_rows_are_compared_by_nothing_of_somebodys(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore], told: Path
) -> None:
    """A place is read from text: a cast to the type of a key, an operator of it, and a domain's check would
    be calls.
    """
    strict, trusting = stores
    for statement in (
        "create type flag as enum ('a', 'b', 'UTC')",
        "create type plain as enum ('a', 'b')",
        "create function text_flag(a text) returns flag language plpgsql as "
        "$f$ begin perform public.told(); return 'a'; end $f$",
        "create cast (text as flag) with function text_flag(text)",
        "create domain flagged as flag",
        "create type signs as enum ('a', 'b')",
        "create function over(a signs, b signs) returns boolean language plpgsql as "
        "$f$ begin perform public.told(); return true; end $f$",
        "create operator public.> (function = over, leftarg = signs, rightarg = signs)",
        "create table keyed (f flag, fs flag[], d flagged, s signs, g canary_domain, gs canary_domain[], p plain)",
        "insert into keyed values ('a', '{a}', 'a', 'a', 1, '{1}', 'a'), ('b', '{b}', 'b', 'b', 2, '{2}', 'b')",
    ):
        postgres(postgres_database, statement)
    told.unlink()  # By the rows' own checks.

    async def rows(store: PostgresDataStore, *key: str) -> int:
        source = SourceSpec(table=TableName("keyed"), key=key)
        plan = await store.plan(source, lo=None, limit=None)
        async with store.reader(source, plan, plan.streams[0], batch_rows=1) as reader:
            batches = [batch async for batch in reader.batches(None)]
        async with store.reader(source, plan, plan.streams[0], batch_rows=1) as reader:
            return len(batches) + len([batch async for batch in reader.batches(batches[0].position)])

    for name in ("f", "fs", "d", "s", "gs"):
        with pytest.raises(InvalidInputError, match=rf"column {name} .*trusted_schemas") as caught:
            await rows(strict, name)
        assert caught.value.code == "query.untrusted_type"
    assert [await rows(strict, name) for name in ("p", "g")] == [3, 3]
    assert not told.exists()
    assert await rows(trusting, "s") > 0
    assert told.exists()


@pytest.mark.line("10")
async def test_text_lands_in_no_column_whose_type_is_made_of_it_by_somebodys_function(
    postgres_database: str, stores: tuple[PostgresDataStore, PostgresDataStore], told: Path
) -> None:
    strict, trusting = stores
    for statement in (
        "create type flag as enum ('a', 'b')",
        "create type plain as enum ('a', 'b')",
        "create function text_flag(a text) returns flag language plpgsql as "
        "$f$ begin perform public.told(); return 'a'; end $f$",
        "create cast (text as flag) with function text_flag(text)",
        "create table landing (f flag, p plain)",
    ):
        postgres(postgres_database, statement)
    with pytest.raises(InvalidInputError, match=r"column f .*trusted_schemas") as caught:
        await strict.write(TableName("landing"), [pa.table({"f": ["b"]})])
    assert caught.value.code == "query.untrusted_type"
    assert await strict.write(TableName("landing"), [pa.table({"p": ["b"]})]) == 1
    assert not told.exists()
    assert await trusting.write(TableName("landing"), [pa.table({"f": ["b"]})]) == 1
    assert told.exists()
