"""What a query on Postgres is: refused by its own parser's tree, resolved by the catalog, and run as it was parsed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import pytest_asyncio

from domain.errors import PlatformError, QueryRefusedError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import TableName
from infrastructure.bench.in_process import InProcessBench
from infrastructure.queries.postgres_known import Field, Known, Relation
from infrastructure.queries.postgres_names import FUNCTIONS, TYPES
from infrastructure.queries.postgres_query import analyzed, resolved
from infrastructure.queries.postgres_scopes import Scopes
from infrastructure.security.query_guard import judge_source
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import new_database, postgres
from tests.ports.backends import address_of

_once = pytest.mark.asyncio(loop_scope="module")  # The stores are opened once.

# Volatile functions that only take time, draw a number or tell the time.
_VOLATILE = {
    *(
        "array_sample",
        "array_shuffle",
        "clock_timestamp",
        "gen_random_uuid",
        "random",
        "random_normal",
        "timeofday",
        "uuidv4",
    ),
    *("uuidv7", "pg_sleep", "pg_sleep_for", "pg_sleep_until"),
}
_DDL = """
create table orders (id bigint primary key, status text, total numeric(10,2), at timestamptz, tags text[], doc jsonb, "Date" date,
  name text, date date, customer int);
insert into orders select g, case when g % 2 = 0 then 'paid' else 'open' end, g * 1.5, timestamptz '2024-01-01' + g * interval '1 hour',
  array['a', 'b' || g], jsonb_build_object('n', g, 'tags', jsonb_build_array('x', g)), date '2024-01-01' + g, 'n' || g,
  date '2024-01-01' + g, g % 3 from generate_series(1, 20) g;
create table customers (id int primary key, name text, country char(2));
insert into customers values (0, 'Zoë', 'CH'), (1, 'Anna', 'DE'), (2, 'it''s', 'CH');
create view paid as select * from orders where status = 'paid';
create materialized view totals as select customer, sum(total) as total from orders group by 1;
create table parts (id int, note text) partition by range (id);
create table parts_low partition of parts for values from (0) to (10);
insert into parts values (1, 'one');
create schema shop;
create table shop.items (id int, sku text);
insert into shop.items values (1, 'x');
create type mood as enum ('sad', 'happy');
create table moods (id int, mood mood);
insert into moods values (1, 'sad'), (2, 'happy');
create type place as (city text, street text);
create table homes (id int, home place);
insert into homes values (1, row('Bern', 'x'));
create extension citext;
create table people (id int, email citext, note text);
insert into people values (1, 'Ann@x', 'a'), (2, 'ann@X', 'b');
create sequence numbers;
create function stolen(text) returns text language sql as 'select ''stolen '' || $1';
create function lower(character varying) returns text language sql as 'select ''stolen''';
create function plus(bigint, bigint) returns bigint language sql as 'select 0::bigint';
create table "pg_read_file" (id int, "pg_read_file" text);
insert into "pg_read_file" values (1, 'harmless')
"""


@pytest.fixture(scope="module")
def database(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        for statement in _DDL.split(";\n"):
            postgres(url, statement)
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(database: str) -> AsyncIterator[PostgresDataStore]:
    async for opened in _opened(database):
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trusting(database: str) -> AsyncIterator[PostgresDataStore]:
    async for opened in _opened(database, "public"):
        yield opened


async def _opened(url: str, *trusted: str) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(replace(address_of(url), trusted_schemas=trusted))
    await store.open()
    yield store
    await store.close()


async def read(store: PostgresDataStore, query: str, **parameters: Any) -> list[dict[str, Any]]:
    async with aclosing(store.read(SourceSpec(query=query, parameters=parameters), batch_rows=1000)) as batches:
        return [row for batch in [pa.table(batch) async for batch in batches] for row in batch.to_pylist()]


async def code_of(store: PostgresDataStore, query: str) -> str | None:
    try:
        await read(store, query)
    except PlatformError as error:
        return error.code
    return None


FUNCTION, READONLY, UNPARSABLE = "query.forbidden_function", "query.not_readonly", "query.unparsable"
RELATION, TYPE, MANY, LARGE = (
    "query.forbidden_relation",
    "query.untrusted_type",
    "query.multiple_statements",
    "query.too_large",
)
# What is refused by itself, at every door.
REFUSED: list[tuple[str, str]] = [
    # Calls that look like columns.
    ("select ('/etc/passwd'::text).pg_read_file", FUNCTION),
    ("select ('/etc/passwd'::text).\"pg_read_file\" as a", FUNCTION),
    ("select (('/etc/passwd'::text)).pg_read_file", FUNCTION),
    ("select (select '/etc/passwd'::text).pg_read_file", FUNCTION),
    ("select (array['/etc/passwd'::text])[1].pg_read_file", FUNCTION),
    ("select (o.name).pg_read_file from orders o", FUNCTION),
    ("select f.pg_read_file from unnest(array['/etc/passwd']) as f", FUNCTION),
    ("select f.pg_ls_dir from unnest(array['/']) as f", FUNCTION),
    ("select x.pg_read_file from (select '/etc/passwd'::text as a) x", FUNCTION),
    ("with x as (select '/etc/passwd'::text as a) select x.pg_read_file from x", FUNCTION),
    ("with recursive x(a) as (select '/etc'::text union select x.pg_ls_dir from x) select a from x", FUNCTION),
    ("select 1 from orders o order by o.lo_import", FUNCTION),
    ("select 1 from orders o join customers c on c.pg_terminate_backend", FUNCTION),
    ("select 1 from orders o where exists (select 1 from customers where o.pg_read_file is null)", FUNCTION),
    ("select sum(1) over (partition by o.pg_read_file) from orders o", FUNCTION),
    ("select 1 from (values ('/etc/passwd')) as v(a), lateral (select v.pg_read_file) s", FUNCTION),
    (
        "select f.pg_read_file from unnest(array['/etc/passwd']) f where exists (select 1 from (orders x join "
        "customers y on true) as f)",
        FUNCTION,
    ),
    ("select (('SELECT 1'::text).query_to_xml)", FUNCTION),
    ("select ('pg_class'::text).regclass", FUNCTION),
    # Calls by name, qualified, quoted, in every clause.
    ("select pg_read_file('/etc/passwd')", FUNCTION),
    ("select pg_catalog.pg_read_file('/etc/passwd')", FUNCTION),
    ('select "pg_catalog"."pg_read_file"(\'/etc/passwd\')', FUNCTION),
    ("select PG_READ_FILE('/etc/passwd')", FUNCTION),
    ("select * from pg_ls_dir('/') as d", FUNCTION),
    ("select * from rows from (generate_series(1, 2), pg_ls_dir('/')) as t", FUNCTION),
    ("select 1 limit (select pg_backend_memory from pg_terminate_backend(1) as t(pg_backend_memory))::int", FUNCTION),
    ("select query_to_xml('select 1', true, true, '')", FUNCTION),
    ("select xmlelement(name a, table_to_xml('orders', true, true, ''))", FUNCTION),
    ("select current_setting('data_directory')", FUNCTION),
    ("select set_config('search_path', 'public', false)", FUNCTION),
    ("select nextval('numbers')", FUNCTION),
    ("select lo_import('/etc/passwd')", FUNCTION),
    ("select ts_rewrite('a'::tsquery, 'select 1')", FUNCTION),
    ("select to_regclass('orders')", FUNCTION),
    ("select has_table_privilege('orders', 'select')", FUNCTION),
    ("select pg_get_viewdef('paid'::regclass)", FUNCTION),
    ("select current_schema", FUNCTION),
    ("select current_schema()", FUNCTION),
    ("select inet_server_addr()", FUNCTION),
    ("select pg_advisory_lock(1)", FUNCTION),
    ('select "a\u2028b"(1)', FUNCTION),
    ("select array_agg(pg_stat_get_activity(null)) from orders", FUNCTION),
    ("select 1 operator(headrace.+) 1", FUNCTION),
    # More than one SELECT, or more than a SELECT.
    ("select 1; drop table orders", MANY),
    ("select 1;;select 2", MANY),
    ("commit; drop table orders", MANY),
    ("select \u2028$a$ from orders; commit; drop table orders; --$a$", MANY),
    ("with x as (insert into customers values (9, 'x', 'x') returning *) select * from x", READONLY),
    ("with x as (delete from orders returning *), y as (select 1) select * from y", READONLY),
    ("select * from (with x as (update orders set id = 1 returning *) select * from x) y", READONLY),
    ("select 1 into stolen_table", READONLY),
    ("select * from orders for update", READONLY),
    ("select * from orders for key share of orders skip locked", READONLY),
    ("select * from (select * from orders for share) x", READONLY),
    ("/**/insert into orders values (1)", READONLY),
    ("explain analyze select 1", READONLY),
    ("copy orders to program 'id'", READONLY),
    ("do $$ begin end $$", READONLY),
    ("prepare x as select 1", READONLY),
    ("set search_path = public", READONLY),
    ("declare c cursor for select 1", READONLY),
    ("create table x as select 1", READONLY),
    ("call stolen('x')", READONLY),
    ("merge into orders using customers on true when matched then delete", READONLY),
    # Types that look something up, relations of ours and the system's.
    ("select name::regclass from orders", TYPE),
    ("select cast(id as regrole) from orders", TYPE),
    ("select regproc 'now'", TYPE),
    ("select 'a'::pg_catalog.regnamespace", TYPE),
    ("select * from jsonb_to_record('{}') as x(a regclass)", TYPE),
    ("select * from headrace.api_keys", RELATION),
    ('select * from "_HEADRACE_checkpoint"', RELATION),
    ("select * from pg_catalog.pg_authid", RELATION),
    ("select * from pg_shadow", RELATION),
    ("select (select count(*) from information_schema.tables)", RELATION),
    ("select * from other_database.public.orders", RELATION),
    # No text for a parser.
    ("select 1\0; drop table orders", UNPARSABLE),
    ("select '\ud800'", UNPARSABLE),
    ("selec 1", UNPARSABLE),
    ("", UNPARSABLE),
    ("-- nothing", UNPARSABLE),
    ("select 1) as x; drop table orders; --", UNPARSABLE),
    ("select 'open", UNPARSABLE),
    ("select $1", UNPARSABLE),
    ("select tags[1:lo] from orders where tags[:lo] is null", UNPARSABLE),
    ("select json_object('a':lo)", UNPARSABLE),
    ("select {{:}}", UNPARSABLE),
    ("select {'a': 1}", UNPARSABLE),
    ("select 1e[2]", UNPARSABLE),
    ("select 1 as n'x'", UNPARSABLE),
    ("select `a`", UNPARSABLE),
    ("select a\u00a0$a$ from orders; commit; --$a$", MANY),
    ("select " + "+".join(["1"] * 16_000), LARGE),
    ("select " + "(" * 2_000 + "1" + ")" * 2_000, LARGE),
    ("select " + "not " * 7_000 + "true", LARGE),
    ("select " + "(select " * 1_500 + "1" + ")" * 1_500, LARGE),
    ("select 1" + "::int" * 6_000, LARGE),
    (" union all ".join(["select 1, 2"] * 1_500), LARGE),
    ("select '" + "x" * 40_000 + "'", LARGE),
]


@pytest.mark.line("8", "9", "10", "10a", "14")
@pytest.mark.parametrize(("query", "code"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_refused_by_itself(query: str, code: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        analyzed(query)
    assert caught.value.code == code, caught.value
    with pytest.raises(QueryRefusedError) as at_the_door:
        judge_source(query, "postgres", ())
    assert at_the_door.value.code == code


# Every place of a statement in which an expression may stand.
PLACES = """
values (1) limit @@
values (1) offset @@
values (1) order by @@
values (1), (@@)
select * from (values (1), (2) order by @@) v
select * from (values (1), (2) limit (select @@)) v
select (values (1) limit @@)
with v as (values (1) offset @@) select * from v
values (1) union all (values (2) limit @@)
((select 1 as a union select 2) offset @@) union select 3
((select 1 as a union select 2) limit @@) union select 3
((select 1 as a union select 2) order by @@) union select 3
(with w as (select @@) select 1 as a union select 2) union select 3
select 1 union (select 2 offset @@) except select 3
select 1 as a union select 2 offset @@
select 1 as a union select 2 limit @@
select 1 limit @@ offset @@
select 1 order by 1 fetch first (@@) rows with ties
select sum(1) over (order by 1 rows between @@ preceding and @@ following)
select sum(1) over w window w as (partition by @@ order by @@)
select count(*) filter (where @@ > 0) group by grouping sets ((@@), ()) having @@ > 0
select distinct on (@@) 1
select percentile_cont(0.5) within group (order by @@)
select string_agg('a', 'b' order by @@)
select * from generate_series(1, @@) with ordinality
select * from rows from (generate_series(1, @@), generate_series(1, 2))
select * from orders tablesample system (@@) repeatable (@@)
select * from orders a join orders b on @@ = 1
select * from xmltable('/a' passing (select '<a/>'::xml where @@ = 1) columns b int path 'c' default @@)
select * from json_table('[1]'::jsonb, '$[*]' passing @@ as x columns (b int path '$' default @@ on empty))
select json_array(select @@), json_object('a' value @@), json_objectagg('a' value @@)
select json_value('1'::jsonb, '$' passing @@ as x default @@ on error)
select xmlelement(name a, xmlattributes(@@ as b), @@), xmlforest(@@ as c)
select case @@ when @@ then @@ else @@ end, coalesce(@@, @@), greatest(@@), row(@@), array[@@]
select (array[1])[@@ : @@], @@ between @@ and @@, @@ in (@@), @@ = any (array[@@]), exists (select @@)
select 1 where @@ is null or (@@ > 0) is true or @@ is distinct from @@ or (1, @@) < (2, @@)
select (@@)::text, @@ collate "C", cast(@@ as numeric(3, 1)), extract(year from now() + @@ * interval '1 day')
with recursive w(n) as (select @@ union all select n + @@ from w where n < @@) select * from w
""".strip().splitlines()


@pytest.mark.line("10")
@pytest.mark.parametrize("place", PLACES, ids=[str(n) for n in range(len(PLACES))])
def test_a_call_by_field_is_refused_wherever_it_stands(place: str) -> None:
    assert analyzed(place.replace("@@", "1")).selected == frozenset()
    for number in range(place.count("@@")):
        before, after = place.split("@@")[: number + 1], place.split("@@")[number + 1 :]
        with pytest.raises(QueryRefusedError) as caught:
            analyzed("1".join(before) + "length(('/etc/passwd'::text).pg_read_file)" + "1".join(after))
        assert caught.value.code == FUNCTION, (place, number)
        read_there = analyzed("1".join(before) + "(select max(z.id) from zoo z)" + "1".join(after))
        assert ("", "zoo") in read_there.relations, (place, number)


def test_a_part_that_was_not_gone_through_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of place that a later parser knows, and the walk does not, lets nothing by."""
    assert analyzed("select 1 from orders o where (o.id) = 1").relations == (("", "orders"),)
    monkeypatch.setattr(Scopes, "_expressions", lambda *_: None)
    for query in (
        "select o.id",
        "select (x).y",
        "select (select 1 from orders)",
        "select 1 limit (select 1 from orders)",
    ):
        with pytest.raises(QueryRefusedError) as caught:
            analyzed(query)
        assert caught.value.code == UNPARSABLE


# What only the catalog tells: a name that is a function's there, or a type's that is somebody's own.
RESOLVED: list[tuple[str, str]] = [
    ("select o.row_to_json from orders o", FUNCTION),
    ("select o.to_jsonb from orders o", FUNCTION),
    ("select o.pg_column_size from orders o", FUNCTION),
    ("select o.json_typeof from orders o", FUNCTION),
    ("select public.orders.row_to_json from public.orders", FUNCTION),
    ("select o.text from orders o", FUNCTION),
    ("select x.name from (select id from orders) x", FUNCTION),
    ("select (home).lower from homes", FUNCTION),
    ("select t.pg_read_file from (select '/etc/passwd'::text as a) t, pg_read_file", FUNCTION),
    ("select stolen('x')", FUNCTION),
    ("select public.stolen('x')", FUNCTION),
    ("select public.lower('x')", FUNCTION),
    ("select 1 operator(public.+) 1", FUNCTION),
    ("select 'a'::citext", TYPE),
    ("select 'a'::public.citext", TYPE),
    ("select * from people where email = 'ANN@X'", TYPE),
    ("select * from people where 'ANN@X' in (select email from people)", TYPE),
    ("select * from (select email as e from people) p where p.e like 'ANN%'", TYPE),
    ("with p(a, b) as (select id, email from people) select * from p where b = 'ANN@X'", TYPE),
    ("select p.n from people as p(i, n, o) where n = 'ANN@X'", TYPE),
    ("select max(email) from people", TYPE),
    ("select case email when 'ANN@X' then 1 end as a from people", TYPE),
    ("select 1 as a from people p join people q using (email)", TYPE),
    ("select 1 as a from people p natural join people q", TYPE),
    ("select 1 as a from people p where (p.*) = (1, 'ANN@X', 'b')", TYPE),
    ("select (select email from people limit 1) = 'ANN@X' as a", TYPE),
    (
        "with recursive p as (select email as e, 1 as n from people union select e, n + 1 from p where e = 'ANN@X' "
        "and n < 3) select n from p",
        TYPE,
    ),
    ("select * from pg_class", RELATION),
    ("select 'pg_authid'::regclass", RELATION),
    ("select * from nothing_there", "store.relation_missing"),
]


@pytest.mark.line("10", "10a")
@pytest.mark.parametrize(("query", "code"), RESOLVED, ids=[str(n) for n in range(len(RESOLVED))])
@_once
async def test_refused_by_what_the_catalog_says(query: str, code: str, store: PostgresDataStore) -> None:
    found = await code_of(store, query)

    assert found == code or (code.startswith("store.") and found not in (None, FUNCTION)), found


PERMITTED = """
select o.id, o.date, o.name, "Date" from orders o
select x.name, x.date from (select name, date from orders) x
with o as (select * from orders) select o.name, o.date from o
select t.name from (select c.name from customers c) t union all select t.status from (select status from orders) t
select c.name, count(*) as orders, sum(o.total) as total from orders o join customers c on c.id = o.customer group by c.name
select * from paid where id > 3
select * from totals
select * from parts
select * from only shop.items
select id, mood from moods where mood = 'sad'
select id from moods where mood > 'sad'::mood
select id from moods where mood = any (enum_range(null::mood))
select (home).city, (h.home).street from homes h
select id, email, note from people
select email::text as email from people where email::text = 'Ann@x' order by email
select distinct email from people
select id, count(*) filter (where status = 'paid') over (partition by customer order by id rows between 1 preceding and current row) as n from orders
select customer, status, sum(total) as s from orders group by grouping sets ((customer), (status), ())
select customer, sum(total) as s from orders group by rollup (customer) having sum(total) > 3
select doc ->> 'n' as n, doc -> 'tags' ->> 0 as t, doc @> '{"n": 3}' as c, doc ? 'n' as k, doc #>> '{tags,1}' as p from orders
select id, tags[1] as a, tags[1:2] as b, array_length(tags, 1) as n, 'a' = any (tags) as c, tags || array['z'] as d from orders
select o.id, l.y from orders o cross join lateral (select o.total * 2 as y) l
select g, v, n from generate_series(1, 3) as g cross join unnest(array['a', 'b']) with ordinality as u(v, n)
select case when total > 10 then 'big' when total > 5 then 'mid' else 'small' end as size, coalesce(name, '-') as name from orders
select at at time zone 'Europe/Zurich' as local, extract(year from at) as y, date_trunc('day', at) as d, at + interval '1 day' as n from orders
select name from orders where name ~ '^n1' and name !~* 'X$' and name like 'n%' and name not ilike 'z%' and name similar to 'n_%'
select name collate "C" as name from orders order by name collate "C"
select * from orders tablesample bernoulli (100)
select j.a, j.b from json_table('[{"a": 1, "b": "x"}]'::jsonb, '$[*]' columns (a int path '$.a', b text path '$.b')) as j
select e.key, e.value from orders o, jsonb_each(o.doc) as e where o.id = 1
select r.a from jsonb_to_recordset('[{"a": 1}]') as r(a int)
with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select n from r
with recursive t as (select 1 as n, '' as p union all select n + 1, p || n from t where n < 3) select t.n, t.p from t
select id from orders where (customer, status) in (select 1, 'paid') and exists (select from customers c where c.id = orders.customer)
select id from orders where total between 3 and 9 and id is distinct from 4 and status in ('paid', 'open') order by id desc nulls last
select row_number() over w as n, lag(total) over w as before, sum(total) over (w rows 2 preceding) as s from orders window w as (order by id)
select string_agg(name, ',' order by id desc) as names, array_agg(distinct status) as s, percentile_cont(0.5) within group (order by total) as m from orders
select distinct on (customer) customer, id from orders order by customer, id desc
values (1, 'a'), (2, 'b')
table customers
select id from orders intersect select id from paid except select 4 order by 1 limit 3 offset 1
select trim(both 'n' from name) as a, substring(name from 2 for 1) as b, position('1' in name) as c, overlay(name placing 'x' from 1) as d from orders
select '1'::int + 2 as a, cast('2024-01-01' as date) as b, numeric '1.5' as c, '{1,2}'::int[] as d, 'a'::varchar(3) as e, b'101' as f
select 1 as "N'x'", 2 as "select", 3 as "$a$" from customers
select E'a\\nb' as a, $$it's$$ as b, $x$;--$x$ as c, 'back\\slash' as d
select /* a comment */ 1 as a -- the end
select greatest(1, id) as g, nullif(id, 1) as n, id % 2 as m, -id as u, @ id as b, id ^ 2 as p, 1 << 2 as s from orders
select to_char(at, 'YYYY-MM-DD') as d, md5(name) as h, format('%s-%s', id, name) as f, to_tsvector('english', name) @@ to_tsquery('n1') as t from orders
select json_build_object('id', id)::text as j, row_to_json(o)::text as r from orders o
select daterange('2024-01-01', '2024-02-01') @> date as r, range_merge(int4range(1, 2), int4range(5, 6))::text as m from orders
select 'orders'::regclass is null as a, 'paid'::regclass is not null as b
select now() is null as a, current_date is null as b, current_user is null as c, pg_sleep(0) is null as d, random() < 2 as e
select json_object('a' : 1)::text as a, json_array(1, 2)::text as b, json_exists('{"a": 1}'::jsonb, '$.a') as c, '[1]' is json array as d
select a.id from orders a, orders b where a.id = b.id and a.customer = (select min(customer) from orders c where c.id > b.id - 3)
""".strip().splitlines()


@pytest.mark.line("10")
@pytest.mark.parametrize("query", PERMITTED, ids=[str(n) for n in range(len(PERMITTED))])
@_once
async def test_what_analysts_write_gives_what_the_server_gives(
    query: str, store: PostgresDataStore, database: str
) -> None:
    judge_source(query, "postgres", ())
    keys = f"select json_object_keys((select row_to_json(given) from (\n{query}\n) as given limit 1))"
    columns = [f'"{name}"' for (name,) in postgres(database, keys)]
    texts = ", ".join(f"given.{column}::text as {column}" for column in columns)
    wrapped = f"select {texts} from (\n{query}\n) as given({', '.join(columns)})"

    found = [tuple(row.values()) for row in await read(store, wrapped)]

    assert found
    assert sorted(map(str, found)) == sorted(map(str, postgres(database, wrapped)))


@pytest.mark.line("10")
@_once
async def test_values_are_bound_and_write_themselves_by_name(store: PostgresDataStore) -> None:
    query = (
        "select id from orders where id > :lo and id<=:hi::int and name <> $name and status like :end escape :mark "
        "order by id"
    )
    rows = await read(store, query, lo=2, hi=6, name="'; drop table orders; --", end="p%", mark="\\")
    assert [row["id"] for row in rows] == [4, 6]
    assert await read(store, "select tags[1:$n] as t from orders where id = :n", n=1) == [{"t": "{a}"}]
    assert await code_of(store, "select :nothing") == "query.parameter_missing"
    assert await read(store, "select ':lo' as a, '::' as b, $$:lo$$ as c") == [{"a": ":lo", "b": "::", "c": ":lo"}]


@pytest.mark.line("10", "10a")
@_once
async def test_nobody_stands_before_what_postgres_has(store: PostgresDataStore, trusting: PostgresDataStore) -> None:
    query = "select lower('ABC'::varchar) as a"
    assert await read(store, query) == [{"a": "abc"}]
    assert await read(trusting, "select stolen('x') as a") == [{"a": "stolen x"}]
    assert await read(trusting, "select public.stolen('x') as a") == [{"a": "stolen x"}]
    assert await code_of(trusting, "select nothing_known('x')") == FUNCTION
    assert await code_of(trusting, "select pg_read_file('x')") == FUNCTION
    assert await code_of(trusting, "select x.stolen from (select 'a'::text as a) x") == FUNCTION
    assert [row["id"] for row in await read(trusting, "select id from people where email = 'ANN@X' order by id")] == [
        1,
        2,
    ]
    assert await read(trusting, "select 'A'::citext = 'a' as a") == [{"a": True}]


@pytest.mark.line("10a")
@_once
async def test_key_or_cursor_of_a_foreign_type_is_refused_for_a_query_alone(
    store: PostgresDataStore, trusting: PostgresDataStore
) -> None:
    query = SourceSpec(query="select email, id from people", key=("email",))
    with pytest.raises(QueryRefusedError) as caught:
        await store.plan(query, lo=None, limit=None)
    assert caught.value.code == TYPE
    planned = await store.plan(SourceSpec(table=TableName("people"), key=("email",)), lo=None, limit=None)
    assert dict(planned.columns)["email"] == "native:citext"
    assert dict((await trusting.plan(query, lo=None, limit=None)).columns)["email"] == "native:citext"
    plain = await store.plan(SourceSpec(query="select email, id from people", key=("id",)), lo=None, limit=None)
    assert dict(plain.columns)["email"] == "native:citext"
    moods = SourceSpec(query="select id, mood from moods where id > 0", key=("mood",), cursor=CursorSpec("id"))
    planned = await store.plan(moods, lo="0", limit=None)
    assert dict(planned.columns)["mood"] == "native:mood"


@pytest.mark.line("10a")
@_once
async def test_only_what_calls_nothing_runs_inside(store: PostgresDataStore, trusting: PostgresDataStore) -> None:
    for query in (
        "select id, name from orders",
        "select o.id, o.name as n, 'x' as x, 1 as y, null::text as z from orders o where name is not null",
        "select sku from shop.items",
    ):
        assert await store.may_run_inside(SourceSpec(query=query)), query
    for query in (
        "select lower(name) as n from orders",
        "select id + 1 as n from orders",
        "select id from orders where status = 'paid'",
        "select id from paid",
        "select stolen(name) as n from orders",
        "select email from people",
        "select id from moods",
        "select home from homes",
        "select id from orders where id > :lo",
        "select nextval('numbers') as n from orders",
        "select a.id from orders a join customers b on a.id = b.id",
        "select (home).city from homes",
        "select 'x'::public.citext as n from orders",
    ):
        for opened in (store, trusting):
            source = SourceSpec(query=query, parameters={"lo": 1})
            try:
                assert not await opened.may_run_inside(source), query
            except QueryRefusedError:
                assert any(word in query for word in ("stolen", "nextval", "citext")), query


@pytest.mark.line("10")
def test_every_function_and_type_of_the_real_server_is_listed_or_refused(database: str) -> None:
    rows = postgres(
        database,
        "select proname::text, string_agg(distinct provolatile::text, ''), bool_or(prorettype::regtype::text ~ "
        "'trigger|handler|internal|cstring' or proargtypes::oid[]::regtype[]::text ~ "
        "'internal|cstring|reg(class|proc|oper|type|role|namespace)') from pg_proc where pronamespace = "
        "'pg_catalog'::regnamespace group by 1",
    )
    assert len(rows) > 2_000
    for name, volatility, is_of_the_server in rows:
        if name not in FUNCTIONS:
            with pytest.raises(QueryRefusedError):
                judge_source(f'select "{name}"(a) from t', "postgres", ())
            continue
        assert "v" not in volatility or name in _VOLATILE, name
        assert not is_of_the_server or name in ("like_escape", "timezone"), name
    types = postgres(database, "select typname::text from pg_type where typnamespace = 'pg_catalog'::regnamespace")
    for (name,) in types:
        if name not in TYPES:
            with pytest.raises(QueryRefusedError):
                resolved(f'select null::"{name}"', Known(), {})
    assert not {name for name in TYPES if name.startswith(("reg", "_reg"))} - {"regconfig", "_regconfig"}


def test_what_runs_is_what_was_parsed() -> None:
    """The text that is run is read by the engine's parser as the very tree that was judged."""
    import postgast

    from infrastructure.queries.postgres_parsing import parsed, same

    orders = Relation("s", "orders", (Field("id"), Field("name"), Field("date")))
    known = Known(relations={("", "orders"): orders}, callable=frozenset({"name", "date"}))
    for query in PERMITTED:
        if "citext" in query or "::mood" in query:
            continue
        text = resolved(query, Known(), {})
        assert same(parsed(text), postgast.parse(query)) or "regclass" in query, query
        assert resolved(text, Known(), {}) == text
    assert resolved("select o.name from orders o -- x", known, {}) == "SELECT o.name FROM s.orders o"
    with_own = "with orders as (select 1 as name) select orders.name from orders, (select * from orders) x"
    assert "s.orders" not in resolved(with_own, known, {})
    assert resolved("select 1_000, 1_000_000_000_000", known, {}) == "SELECT 1000, 1000000000000"


def test_what_many_write_is_not_too_deep() -> None:
    for query in (
        "select " + " || ".join(["name"] * 60) + " from orders",
        "select 1 from orders o" + "".join(f" join customers c{n} on c{n}.id = o.customer" for n in range(60)),
        " union all ".join(["select id, name from orders"] * 120),
        "select " + "+".join(["1"] * 500),
        f"select id from orders where id in ({', '.join(map(str, range(3_000)))})",
        "select " + "(" * 40 + "1" + ")" * 40,
        "select " + "case when true then " * 40 + "1" + " end" * 40,
        # As deep as may be.
        "select " + "not " * 1_990 + "true",
        "select 1" + "::int" * 990,
        "select a" + ' collate "C"' * 900 + "from t",
        "select " + "(select " * 97 + "1" + ")" * 97,
        "select * from " + "(select * from " * 97 + "orders" + ") x" * 97,
        "with a as (" * 97 + "select 1" + ") select 1" * 97,
        "select " + "exists (select " * 97 + "1" + ")" * 97,
        "with recursive a as (" * 60 + "select 1 union all select 2" + ") select 1 union all select 2" * 60,
        "select * from " + "(" * 90 + "orders o" + " cross join customers)" * 90,
    ):
        assert resolved(query, Known(), {})


@_once
async def test_a_text_is_parsed_where_it_is_said_to_be(database: str) -> None:
    class Counting(InProcessBench):
        def __init__(self) -> None:
            self.called: list[str] = []

        def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            import pickle

            self.called.append(function.__name__)
            return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(args)), **kwargs)))

    calls = Counting()
    store = PostgresDataStore(address_of(database), bench=calls)
    try:
        await asyncio.wait_for(read(store, "select id from orders where id = :n", n=1), 20)
    finally:
        await store.close()
    assert set(calls.called) == {"analyzed", "resolved"}


@pytest.mark.line("10a")
@_once
async def test_operator_made_for_just_the_types_of_a_key_is_not_taken(store: PostgresDataStore, database: str) -> None:
    """It would come before Postgres' own, which are for text, and be called by whoever reads or writes."""
    for statement in (
        "create table keyed (id character varying primary key)",
        "insert into keyed values ('a'), ('b'), ('c')",
        "create function caught(character varying, character varying) returns boolean language plpgsql as "
        "'begin raise exception ''caught''; end'",
        "create operator public.> (leftarg = character varying, rightarg = character varying, function = caught)",
        "create operator public.<= (leftarg = character varying, rightarg = character varying, function = caught)",
    ):
        postgres(database, statement)
    source = SourceSpec(table=TableName("keyed"), key=("id",))
    plan = await store.plan(source, lo=None, limit=None)

    async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
        found = [row["id"] async for batch in reader.batches(("a",)) for row in pa.table(batch.data).to_pylist()]

    assert found == ["b", "c"]
    assert await code_of(store, "select id from keyed where id > 'a'::varchar") is None
